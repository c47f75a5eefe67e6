package coordinator

import (
	"context"
	"time"

	"github.com/ostrich-legs/ostrich/consensus/state"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// smallSpec is the size of a spec that goes with every lease: a device may have
// forgotten the job meanwhile.
const smallSpec = 2 << 10

// sendGrant sends the tasks of a grant in as many leases as the bound of a
// lease asks for.
func (c *Coordinator) sendGrant(ctx context.Context, g *lease) error {
	inputs, spec := c.inputsOf(g)
	out := leaseWriter{c: c, grant: g, spec: spec}
	for i, in := range inputs {
		input, err := c.readInput(ctx, in.ref)
		switch {
		case ctx.Err() != nil:
			return nil
		case wire.CodeOf(err) == wire.Code_CODE_UNAVAILABLE:
			// The others would ask the same members.
			c.cfg.Log.Warn("inputs cannot be read now", "job", g.queue.id, "tasks", len(inputs)-i, "err", err)
			c.giveBack(g, inputs[i:], time.Now().Add(inputRetry))
			return out.flush(ctx)
		case err != nil:
			c.failInput(g, in.index, err)
			continue
		}
		if err := out.add(ctx, in.index, input); err != nil {
			return err
		}
	}
	return out.flush(ctx)
}

type indexedInput struct {
	index uint32
	ref   state.InputRef
}

// inputsOf finds where the inputs of a grant lie. Tasks that have ended since
// are dropped.
func (c *Coordinator) inputsOf(g *lease) (inputs []indexedInput, spec *wire.JobSpec) {
	var ended []uint32
	c.cfg.Group.Read(func(s *state.State) {
		j := s.Job(g.queue.id)
		if j == nil || j.Ended() {
			ended = g.indexes
			return
		}
		spec = j.Spec()
		inputs = make([]indexedInput, 0, len(g.indexes))
		for _, index := range g.indexes {
			ref, ok := j.Input(index)
			if !ok || j.TaskDone(index) {
				ended = append(ended, index)
				continue
			}
			inputs = append(inputs, indexedInput{index, ref})
		}
	})
	if len(ended) == 0 {
		return inputs, spec
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, index := range ended {
		if g.queue.leased[index] == g {
			g.queue.forget(index)
		}
	}
	c.wake()
	return inputs, spec
}

// readInput returns an input as a lease carries it.
func (c *Coordinator) readInput(ctx context.Context, ref state.InputRef) (*wire.LeasedInput, error) {
	if blob := ref.Segment.GetBlob(); blob != nil {
		return &wire.LeasedInput{Blob: blob}, nil
	}
	var page wire.Hash
	copy(page[:], ref.Segment.GetPage())
	data, err := c.packs.item(ctx, ref.Segment.GetInline(), page, ref.Item)
	if err != nil {
		return nil, err
	}
	if len(data) > wire.MaxFrame/2 {
		return nil, wire.Errorf(wire.Code_CODE_INVALID, "%d bytes do not fit in a lease: an input of more than %d has to be a blob", len(data), wire.MaxFrame/2)
	}
	return &wire.LeasedInput{Inline: data}, nil
}

// giveBack takes tasks back from a device that were not sent.
func (c *Coordinator) giveBack(g *lease, inputs []indexedInput, notBefore time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, in := range inputs {
		if g.queue.leased[in.index] == g {
			g.queue.release(in.index, notBefore)
		}
	}
	c.wake()
}

// failInput records a failed attempt of a task whose input is not there or
// makes no sense: asking again would not help, and the job should not wait for
// ever.
func (c *Coordinator) failInput(g *lease, index uint32, why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if g.queue.leased[index] != g {
		return
	}
	text := []rune("the input cannot be read: " + why.Error())
	c.enqueue(g.queue, received{
		device: c.cfg.Identity.ID,
		result: &wire.TaskResult{
			Index: index, Status: wire.TaskStatus_TASK_STATUS_FAILED, Failure: wire.FailureKind_FAILURE_KIND_INTERNAL,
			Error: string(text[:min(len(text), wire.MaxErrorText)]),
		},
	})
	c.startRecorder(g.queue)
}

// leaseWriter gathers tasks of one job into leases of bounded size.
type leaseWriter struct {
	c       *Coordinator
	grant   *lease
	spec    *wire.JobSpec
	indexes []uint32
	inputs  []*wire.LeasedInput
	bytes   int
}

func (w *leaseWriter) add(ctx context.Context, index uint32, input *wire.LeasedInput) error {
	size := len(input.GetInline()) + 34*len(input.GetBlob().GetPages()) + 16
	if w.bytes+size > maxLeaseBytes {
		if err := w.flush(ctx); err != nil {
			return err
		}
	}
	w.indexes = append(w.indexes, index)
	w.inputs = append(w.inputs, input)
	w.bytes += size
	return nil
}

// flush sends what is gathered, once the device has room for it. What it holds
// no more by then is left out.
func (w *leaseWriter) flush(ctx context.Context) error {
	if len(w.indexes) == 0 {
		return nil
	}
	d := w.grant.device
	if !w.c.awaitRoomOn(ctx, d) {
		return nil
	}
	sent, places := w.c.split(w.grant, w.indexes, w.bytes)
	inputs := w.inputs
	w.indexes, w.inputs, w.bytes = nil, nil, 0
	if sent == nil {
		return nil
	}
	claim := &wire.LeaseClaim{JobId: string(sent.queue.id), Attempt: sent.attempt, Indexes: sent.indexes}
	claim.Token = w.c.token(sent.queue, d.id, claim)
	frame := &wire.Lease{Claim: claim}
	for _, at := range places {
		frame.Inputs = append(frame.Inputs, inputs[at])
	}
	if d.needsSpec(incarnation{sent.queue.id, sent.queue.createdMS}, w.spec) {
		frame.Spec = w.spec
	}
	return d.conn.Send(ctx, &wire.Frame{Kind: &wire.Frame_Lease{Lease: frame}})
}

// awaitRoomOn waits until a device holds fewer bytes of inputs than it should
// at most. It reports false when its session has ended.
func (c *Coordinator) awaitRoomOn(ctx context.Context, d *device) bool {
	for {
		c.mu.Lock()
		full := d.inputBytes >= maxHeldBytes
		c.mu.Unlock()
		if !full {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-d.room:
		}
	}
}
