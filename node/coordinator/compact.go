package coordinator

import (
	"context"

	"github.com/ostrich-legs/ostrich/consensus/state"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// maxInlineResults is how many bytes of a job's results may lie in the state
// itself; above it they move to a page, so that a voter's memory does not grow
// with the bytes of results.
const maxInlineResults = 64 << 10

// packResults moves the oldest run of inline results of a job into a page.
func (c *Coordinator) packResults(ctx context.Context, id wire.JobID) error {
	var first, n int
	var page []byte
	var err error
	c.cfg.Group.Read(func(s *state.State) {
		if j := s.Job(id); j != nil {
			if first, n = j.InlineRun(); n > 0 {
				page, err = j.PackRun(first, n)
			}
		}
	})
	if err != nil || page == nil {
		return err
	}
	hold := wire.NewTermHoldID(c.term)
	hash, err := c.cfg.Pages.PutReserved(ctx, hold, page)
	if err != nil {
		c.useless.add(hold)
		return err
	}
	_, err = c.propose(ctx, c.cfg.Identity.ID, &wire.Op{Kind: &wire.Op_PackResults{PackResults: &wire.PackResults{
		JobId: string(id), FirstBatch: uint32(first), Batches: uint32(n), Page: hash[:],
	}}}, hold)
	return err
}
