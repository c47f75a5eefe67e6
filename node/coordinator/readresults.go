package coordinator

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/ostrich-legs/ostrich/consensus/state"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const (
	// maxReadBytes bounds the results of one answer.
	maxReadBytes = 512 << 10
	// maxReadResults bounds their number, and maxReadScan how many tasks that
	// never ended one answer passes over.
	maxReadResults = 4096
	maxReadScan    = 1 << 20
	// maxReadWait bounds how long an answer waits for the first result.
	maxReadWait = 30 * time.Second
)

// readResults answers with recorded results, and waits for the first if asked.
// Leadership is verified after the reading: then what was read was current.
func (a asker) readResults(ctx context.Context, r *wire.ReadResultsRequest) (*wire.ReadResultsResponse, error) {
	if err := a.need(wire.Role_ROLE_MEMBER, "reading results"); err != nil {
		return nil, err
	}
	id := wire.JobID(r.GetJobId())
	wait := time.NewTimer(min(maxReadWait, time.Duration(r.GetWaitMs())*time.Millisecond))
	defer wait.Stop()
	for {
		changed := a.c.changes(id)
		out, err := a.c.resultsFrom(ctx, id, r)
		if err != nil {
			return nil, err
		}
		if len(out.Results) > 0 || out.End || out.Next != r.GetFrom() || changed == nil {
			return out, a.c.cfg.Group.Verify(ctx)
		}
		select {
		case <-ctx.Done():
			return out, nil
		case <-wait.C:
			return out, a.c.cfg.Group.Verify(ctx)
		case <-changed:
		}
	}
}

// resultsFrom reads the results that there are from a place on.
func (c *Coordinator) resultsFrom(ctx context.Context, id wire.JobID, r *wire.ReadResultsRequest) (*wire.ReadResultsResponse, error) {
	out := &wire.ReadResultsResponse{}
	var found []numberedRef
	// One reading for the job and its results: an answer that says "the end"
	// must not describe the job as it stood before.
	c.cfg.Group.Read(func(s *state.State) {
		j := s.Job(id)
		if j == nil {
			return
		}
		out.Job = describe(j)
		if r.GetUnordered() {
			found, out.Next = byNumber(j, r.GetFrom())
			out.End = j.Ended() && out.Next >= j.Results()
		} else {
			found, out.Next = byIndex(j, r.GetFrom())
			out.End = j.Ended() && out.Next >= j.Total()
		}
	})
	if err := c.addSoft(id, out.Job); err != nil {
		return nil, err
	}
	size := 0
	for _, f := range found {
		result, err := c.readResult(ctx, f)
		if err != nil {
			return nil, err
		}
		size += proto.Size(result) + 16
		if size > maxReadBytes && len(out.Results) > 0 {
			out.Next, out.End = f.place, false
			break
		}
		out.Results = append(out.Results, result)
	}
	return out, nil
}

// numberedRef is a result, its number, and its place in the order asked for.
type numberedRef struct {
	ref    state.ResultRef
	number uint32
	place  uint32
}

// byNumber finds results in their order of completion. Those whose task runs
// again are passed over.
func byNumber(j *state.Job, from uint32) (found []numberedRef, next uint32) {
	for next = from; next < j.Results() && len(found) < maxReadResults; next++ {
		if ref, ok := j.Result(next); ok && !ref.Superseded {
			found = append(found, numberedRef{ref, next, next})
		}
	}
	return found, next
}

// byIndex finds results in the order of the inputs, up to the first task that
// is still open.
func byIndex(j *state.Job, from uint32) (found []numberedRef, next uint32) {
	stop := min(uint64(j.Total()), uint64(from)+maxReadScan)
	for next = from; uint64(next) < stop && len(found) < maxReadResults; next++ {
		number, ok := j.NumberOf(next)
		if !ok {
			if j.Ended() {
				continue
			}
			break
		}
		if ref, ok := j.Result(number); ok {
			found = append(found, numberedRef{ref, number, next})
		}
	}
	return found, next
}

// readResult returns a recorded result.
func (c *Coordinator) readResult(ctx context.Context, f numberedRef) (*wire.TaskResult, error) {
	item, err := c.packs.item(ctx, f.ref.Inline, f.ref.Page, f.ref.Item)
	if err != nil {
		return nil, err
	}
	result := &wire.TaskResult{}
	if err := proto.Unmarshal(item, result); err != nil {
		return nil, wire.Errorf(wire.Code_CODE_INTERNAL, "the record of task %d is damaged", f.ref.Index)
	}
	result.Number = f.number
	return result, nil
}
