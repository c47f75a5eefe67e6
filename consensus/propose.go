package consensus

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/ostrich-legs/ostrich/consensus/state"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const (
	// entriesInFlight is how many entries may wait for their commit: one is
	// written here while another is written by the followers.
	entriesInFlight = 4
	// maxQueue is how many operations wait for a place in an entry; more wait in
	// their callers.
	maxQueue = 1024
)

// proposal is an operation on its way into the log.
type proposal struct {
	op   *wire.Op
	term uint64
	size int
	// fate is decided once, by the committer or by the caller.
	fate atomic.Int32
	done chan answer // cap 1
}

// Fates of a proposal.
const (
	waiting   int32 = iota
	handed          // to raft: its outcome is raft's
	withdrawn       // by its caller: it never happens
)

type answer struct {
	result state.OpResult
	err    error
}

// committer packs what arrives while entries are in flight into the next entry,
// and splits the outcomes. One goroutine runs it, another settle.
type committer struct {
	group   *Group
	queue   chan *proposal
	held    *proposal     // did not fit in, or not belong to, the last entry
	places  chan struct{} // taken while an entry is in flight
	flights chan flight   // in the order of their entries
	lastMS  int64         // time of the last entry
}

// flight is an entry in raft's hands.
type flight struct {
	future    raft.ApplyFuture
	proposals []*proposal
}

func newCommitter(g *Group) *committer {
	return &committer{
		group:   g,
		queue:   make(chan *proposal, maxQueue),
		places:  make(chan struct{}, entriesInFlight),
		flights: make(chan flight, entriesInFlight),
	}
}

// Propose commits op in the term in which this node leads, and returns what it
// did. It shares an entry with what others propose meanwhile; op must not change
// until it returns, nor afterwards.
//
// The error is the operation's own (also in OpResult.Err), or CODE_UNAVAILABLE:
// this node does not lead in that term, or ctx ended while op still waited; it
// has not happened and will not. CODE_UNKNOWN_OUTCOME: leadership was lost, or
// ctx ended, while op was being written; it may happen. CODE_INVALID: op is
// larger than 1 MiB. CODE_PRECONDITION, naming it: a voter runs a version that
// does not understand op (see Format).
func (g *Group) Propose(ctx context.Context, term uint64, op *wire.Op) (state.OpResult, error) {
	p := &proposal{op: op, term: term, size: proto.Size(op), done: make(chan answer, 1)}
	if p.size > maxOp {
		return state.OpResult{}, wire.Errorf(wire.Code_CODE_INVALID, "an operation of %d bytes: at most %d are allowed", p.size, maxOp)
	}
	if leads, ok := g.leading(); !ok || leads != term {
		return state.OpResult{}, errNotLeading
	}
	if err := g.checkFormat(op); err != nil {
		return state.OpResult{}, err
	}
	select {
	case g.committer.queue <- p:
	case <-ctx.Done():
		return state.OpResult{}, fmt.Errorf("%w (%w)", errTooBusy, ctx.Err())
	case <-g.closing:
		return state.OpResult{}, errClosed
	}
	return p.wait(ctx, g.closed)
}

// checkFormat refuses what a voter would not understand.
func (g *Group) checkFormat(op *wire.Op) error {
	need := state.FormatOf(op)
	format, holder := g.format()
	if need <= format {
		return nil
	}
	if holder == "" {
		return wire.Errorf(wire.Code_CODE_PRECONDITION, "this needs command format %d, and this version of ostrich understands up to %d", need, format)
	}
	version := ""
	g.Read(func(s *state.State) {
		if d := s.Device(holder); d != nil {
			version = d.Profile.GetVersion()
		}
	})
	return wire.Errorf(wire.Code_CODE_PRECONDITION,
		"this needs command format %d, and the voter %s runs version %q of ostrich, which understands up to %d: upgrade it first",
		need, g.nameOf(holder), version, format)
}

// Why an operation has not happened, or may have.
var (
	errNotLeading = &wire.CodedError{Code: wire.Code_CODE_UNAVAILABLE, Text: "this node does not coordinate now"}
	errTooBusy    = &wire.CodedError{Code: wire.Code_CODE_UNAVAILABLE, Text: "the operation still waited to be written"}
	errUnknown    = &wire.CodedError{Code: wire.Code_CODE_UNKNOWN_OUTCOME, Text: "it cannot be known whether the operation was committed"}
)

// wait returns the answer. A caller that gives up takes its operation back, if
// that is still possible.
func (p *proposal) wait(ctx context.Context, closed <-chan struct{}) (state.OpResult, error) {
	var why error
	select {
	case a := <-p.done:
		return a.result, a.err
	case <-ctx.Done():
		why = ctx.Err()
	case <-closed:
		why = errClosed
	}
	select {
	case a := <-p.done: // both were ready
		return a.result, a.err
	default:
	}
	if p.fate.CompareAndSwap(waiting, withdrawn) {
		return state.OpResult{}, fmt.Errorf("%w (%w)", errTooBusy, why)
	}
	return state.OpResult{}, fmt.Errorf("%w (%w)", errUnknown, why)
}

// run hands entry after entry to raft until the group closes. What it has not
// taken by then, the callers take back.
func (c *committer) run() {
	defer close(c.flights)
	for {
		first, ok := c.next()
		if !ok {
			return
		}
		select {
		case c.places <- struct{}{}:
		case <-c.group.closing:
			return
		}
		// Packed only now: what came while all places were taken comes along.
		batch := c.pack(first)
		if len(batch) == 0 {
			<-c.places
			continue
		}
		c.commit(batch)
	}
}

// next waits for an operation.
func (c *committer) next() (*proposal, bool) {
	if p := c.held; p != nil {
		c.held = nil
		return p, true
	}
	select {
	case p := <-c.queue:
		return p, true
	case <-c.group.closing:
		return nil, false
	}
}

// pack takes what fits into first's entry.
func (c *committer) pack(first *proposal) []*proposal {
	var batch []*proposal
	size := 0
	for p := first; p != nil; p = c.poll() {
		if len(batch) > 0 && (size+p.size > wire.MaxEntry || p.term != batch[0].term) {
			c.held = p
			break
		}
		if p.fate.CompareAndSwap(waiting, handed) {
			batch = append(batch, p)
			size += protowire.SizeTag(1) + protowire.SizeBytes(p.size)
		}
	}
	return batch
}

func (c *committer) poll() *proposal {
	select {
	case p := <-c.queue:
		return p
	default:
		return nil
	}
}

// commit hands an entry to raft. Its time is later than that of the entries
// before it, also while the clock stands still or has gone back: when a job was
// made tells it from one that had its ID before.
func (c *committer) commit(batch []*proposal) {
	cmd := &wire.Command{Format: 1, Term: batch[0].term, Ops: make([]*wire.Op, len(batch))}
	for i, p := range batch {
		cmd.Ops[i] = p.op
		cmd.Format = max(cmd.Format, state.FormatOf(p.op))
	}
	c.group.Read(func(s *state.State) {
		c.lastMS = max(c.lastMS+1, s.TimeMS()+1, c.group.clock().UnixMilli())
	})
	cmd.TimeMs = c.lastMS
	data, err := encodeEntry(cmd)
	if err != nil {
		<-c.places
		for _, p := range batch {
			p.done <- answer{err: wire.Errorf(wire.Code_CODE_INVALID, "an operation that cannot be encoded: %v", err)}
		}
		return
	}
	c.flights <- flight{future: c.group.raft.Apply(data, rpcTimeout), proposals: batch}
}

// settle waits for entries in their order and answers their proposals, until run
// has ended and nothing is in flight.
func (c *committer) settle() {
	for f := range c.flights {
		err := f.future.Error()
		<-c.places
		if err != nil {
			f.fail(applyError(err))
			continue
		}
		switch response := f.future.Response().(type) {
		case state.Outcome:
			f.answer(response)
		default: // the error that broke the fsm: committed, not applied here
			f.fail(fmt.Errorf("%w (%v)", errUnknown, response))
		}
	}
}

func (f flight) answer(outcome state.Outcome) {
	if len(outcome.Results) != len(f.proposals) {
		f.fail(fmt.Errorf("%w (%d results of %d operations)", errUnknown, len(outcome.Results), len(f.proposals)))
		return
	}
	for i, p := range f.proposals {
		p.done <- answer{result: outcome.Results[i], err: outcome.Results[i].Err}
	}
}

func (f flight) fail(err error) {
	for _, p := range f.proposals {
		p.done <- answer{err: err}
	}
}

// applyError tells what certainly did not happen from what may have.
func applyError(err error) error {
	switch {
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrEnqueueTimeout),
		errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return errNotLeading
	}
	return fmt.Errorf("%w (%v)", errUnknown, err)
}
