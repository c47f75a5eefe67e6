package consensus

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/ostrich-legs/ostrich/consensus/state"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const (
	// retryPause is the pause before a leader asks raft again.
	retryPause = 50 * time.Millisecond
	// slowEnd is how long lead may take to return before that is worth a line: the
	// next term of this node waits for it.
	slowEnd = time.Second
)

// Run takes part until ctx ends, and returns nil then: a node that leads hands
// leadership over first, for at most 3 s, and a sole voter makes its standby the
// voter, if that answers. Run also returns nil when the group is closed, and an
// error when the log holds what this program cannot apply (CODE_VERSION if a
// newer one is needed) or lead ended on its own.
//
// Each time this node leads, and all that was committed before is applied (the
// swarm's founding at least), Run calls lead with the term; one call at a time. The call's context ends with the
// leadership, not with ctx, and Run waits for the call to return. Leadership
// lost and regained, however quickly, is two calls.
//
// One Run at a time.
func (g *Group) Run(ctx context.Context, lead func(ctx context.Context, term uint64) error) error {
	if !g.running.CompareAndSwap(false, true) {
		return errors.New("the group is being run already")
	}
	defer g.running.Store(false)
	for {
		changed := g.changes.next()
		if err := g.fault(); err != nil {
			return err
		}
		if term, ok := g.leading(); ok && ctx.Err() == nil {
			if err := g.runTerm(ctx, term, lead); err != nil || ctx.Err() != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			if term, ok := g.leading(); ok {
				g.handOver(term)
			}
			return nil
		case <-g.closing:
			return nil
		case <-changed:
		}
	}
}

// leading returns the term in which this node leads now. A node that was cut off
// does not, whatever its raft instance believes.
func (g *Group) leading() (term uint64, ok bool) {
	before := g.raft.CurrentTerm()
	leads := g.raft.State() == raft.Leader && !g.fence.isCut()
	return before, leads && g.raft.CurrentTerm() == before
}

// leads reports whether this node still leads in term.
func (g *Group) leads(term uint64) bool {
	now, ok := g.leading()
	return ok && now == term
}

// awaitLead waits until this node leads.
func (g *Group) awaitLead(ctx context.Context) (term uint64, err error) {
	for {
		changed := g.changes.next()
		if term, ok := g.leading(); ok {
			return term, nil
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("waiting to lead the group: %w", ctx.Err())
		case <-g.closing:
			return 0, errClosed
		case <-changed:
		}
	}
}

// runTerm runs the leader's role in one term, and returns when it is over.
func (g *Group) runTerm(ctx context.Context, term uint64, lead func(context.Context, uint64) error) error {
	if !g.catchUp(ctx, term) {
		if ctx.Err() != nil && g.leads(term) {
			g.handOver(term)
		}
		return nil
	}
	g.log.Info("this node coordinates the swarm now", "term", term)
	defer g.log.Info("this node coordinates the swarm no more", "term", term)

	leadCtx, endLead := context.WithCancel(context.WithoutCancel(ctx))
	defer endLead()
	voters, endVoters := context.WithCancel(leadCtx)
	defer endVoters()
	var roles, reconciler sync.WaitGroup
	ended := make(chan error, 1)
	roles.Go(func() { ended <- lead(leadCtx, term) })
	reconciler.Go(func() { g.reconcile(voters, term) })

	err := g.watchTerm(ctx, term, ended)

	endVoters() // handing over changes voters itself
	reconciler.Wait()
	if g.leads(term) {
		g.handOver(term)
	}
	endLead()
	if errors.Is(err, ErrStalled) {
		waitFor(&roles, settleTimeout) // it may wait for the same disk
		return err
	}
	start := time.Now()
	roles.Wait()
	if took := time.Since(start); took >= slowEnd {
		g.log.Warn("the coordinator's role took long to end; had this node led again, it would have coordinated nothing meanwhile", "term", term, "took", took)
	}
	return err
}

// catchUp waits until what earlier leaders committed is applied, a swarm is
// founded, and the state is of the log's generation. False means that the term,
// or ctx, ended before.
func (g *Group) catchUp(ctx context.Context, term uint64) bool {
	for g.leads(term) && ctx.Err() == nil {
		changed := g.changes.next()
		if g.Barrier(ctx) == nil && g.founded() && g.raiseGeneration(ctx, term) {
			return g.leads(term)
		}
		timer := time.NewTimer(retryPause)
		select {
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
		case <-g.closing:
			timer.Stop()
			return false
		}
		timer.Stop()
	}
	return false
}

func (g *Group) founded() (founded bool) {
	g.Read(func(s *state.State) { founded = s.Founded() })
	return founded
}

// raiseGeneration commits that the swarm is of the generation that Recover gave
// this log, if the state does not say so yet.
func (g *Group) raiseGeneration(ctx context.Context, term uint64) bool {
	known := uint64(0)
	g.Read(func(s *state.State) { known = s.Generation() })
	if known >= g.generation {
		return true
	}
	_, err := g.Propose(ctx, term, &wire.Op{
		Actor: string(g.me.ID),
		Kind:  &wire.Op_RaiseGeneration{RaiseGeneration: &wire.RaiseGeneration{Generation: g.generation}},
	})
	if err != nil {
		g.log.Debug("the swarm's generation could not be raised; trying again", "generation", g.generation, "error", err)
	}
	return err == nil
}

// watchTerm returns when the term is over or should be: nil when leadership was
// lost, ctx ended or the group is closed; otherwise why this node cannot lead.
func (g *Group) watchTerm(ctx context.Context, term uint64, ended <-chan error) error {
	for {
		changed := g.changes.next()
		if err := g.fault(); err != nil {
			return err
		}
		if !g.leads(term) {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-g.closing:
			return nil
		case err := <-ended:
			if err == nil {
				err = errors.New("it returned")
			}
			return fmt.Errorf("the coordinator's role ended while this node leads: %w", err)
		case <-changed:
		}
	}
}

// handOver makes another member the leader of the group, if one can be. It is
// called right before this node stops: a raft instance that handed over and goes
// on may refuse writes in a later term (measured.md, #696).
func (g *Group) handOver(term uint64) {
	ctx, cancel := context.WithTimeout(context.Background(), handOverTimeout)
	defer cancel()
	for ctx.Err() == nil && g.leads(term) {
		to, found, hope := g.successor(term)
		if !hope {
			return
		}
		if found {
			err := g.handTo(ctx, to)
			if err == nil {
				g.log.Info("leadership handed over", "to", to.ID, "term", term)
				return
			}
			g.log.Debug("leadership not handed over", "to", to.ID, "error", err)
		}
		select {
		case <-time.After(retryPause):
		case <-ctx.Done():
		case <-g.closing:
			return
		}
	}
}

// successor picks the server with the longest log of those that answer: among
// the voters, or where this node is the only one, among the standbys that have
// caught up. Hope means that there may be one later, if there is none now.
func (g *Group) successor(term uint64) (to Server, found, hope bool) {
	sole := g.soleVoter()
	best := uint64(0)
	last := g.raft.LastIndex()
	for _, s := range g.Servers() {
		if s.id() == g.me.id() || s.Voter == sole {
			continue
		}
		f := g.transport.follower(s, term)
		answers := time.Since(f.contact) < aliveWithin
		hope = hope || s.Voter || answers
		if answers && f.matched >= best && (s.Voter || f.matched >= last) {
			to, found, best = s, true, f.matched
		}
	}
	return to, found, hope
}

// handTo makes one server the leader.
func (g *Group) handTo(ctx context.Context, to Server) error {
	s := to.raft()
	if to.Voter {
		return g.await(ctx, func() raft.Future { return g.raft.LeadershipTransferToServer(s.ID, s.Address) })
	}
	// Two voters can do nothing without each other. So this node does not only
	// give the standby a vote: it also gives its own away, which the standby
	// alone can commit, and only then stops leading.
	err := g.await(ctx, func() raft.Future { return g.raft.AddVoter(s.ID, s.Address, 0, handOverTimeout) })
	if err != nil {
		return err
	}
	err = g.await(ctx, func() raft.Future {
		return g.raft.DemoteVoter(g.me.id(), 0, handOverTimeout)
	})
	if err != nil {
		g.log.Warn("the standby was made a voter, but this node could not give up its own vote: both are needed until they meet again",
			"standby", to.ID, "error", err)
		return err
	}
	// The standby would notice by its time-out; this spares the gap.
	self := g.me.raft()
	args := raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{
		ProtocolVersion: raft.ProtocolVersionMax,
		ID:              []byte(self.ID),
		Addr:            []byte(self.Address),
	}}
	if err := g.transport.TimeoutNow(s.ID, s.Address, &args, new(raft.TimeoutNowResponse)); err != nil {
		g.log.Debug("the new voter was not told to lead at once", "error", err)
	}
	return nil
}
