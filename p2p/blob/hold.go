package blob

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// stragglers is how long a hold waits for further voters once most have answered
// and too few of them have some page: then it is put on those that lack it.
const stragglers = 250 * time.Millisecond

// Hold has most of the voters keep pages that were put before, for the command
// that id is of, which is about to name them. Where too few have a page that
// another has, it is put on them. It returns nil when most of the voters keep
// each of the pages. Errors: ErrMissing in the chain (CODE_NOT_FOUND) when most
// of the voters have answered and none of them has some page; CODE_UNAVAILABLE
// when too few answered before ctx ended; otherwise those of PutReserved.
func (x *Exchange) Hold(ctx context.Context, id wire.HoldID, pages []wire.Hash) error {
	pages = slices.Clone(pages)
	slices.SortFunc(pages, func(a, b wire.Hash) int { return slices.Compare(a[:], b[:]) })
	pages = slices.Compact(pages)
	for chunk := range slices.Chunk(pages, maxHeldPages) {
		if err := x.holdChunk(ctx, id, chunk); err != nil {
			return err
		}
	}
	return nil
}

func (x *Exchange) holdChunk(ctx context.Context, id wire.HoldID, pages []wire.Hash) error {
	count := x.countHolders(ctx, id, pages)
	if count.answered < count.need {
		return wire.Errorf(wire.Code_CODE_UNAVAILABLE, "%d of %d voters said whether they have what is to be recorded, and %d are needed",
			count.answered, count.voters, count.need)
	}
	if count.lost() {
		return fmt.Errorf("pages, of %d, are on none of the %d voters that answered: %w", len(pages), count.answered, ErrMissing)
	}
	for i, n := range count.have {
		if n < count.need {
			if err := x.spread(ctx, id, pages[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// spread puts a page, which somebody has, on most of the voters.
func (x *Exchange) spread(ctx context.Context, id wire.HoldID, h wire.Hash) error {
	data, err := x.Get(ctx, h)
	if err != nil {
		return err
	}
	_, err = x.put(ctx, id, data, hardReserve)
	return err
}

// holders counts the voters that keep each of some pages.
type holders struct {
	have                   []int
	voters, need, answered int
}

func (c *holders) add(lacking []uint32) {
	c.answered++
	for i := range c.have {
		c.have[i]++
	}
	for _, place := range lacking {
		c.have[place]--
	}
}

// enough reports whether most of the voters keep all of the pages.
func (c *holders) enough() bool {
	return !slices.ContainsFunc(c.have, func(n int) bool { return n < c.need })
}

// lost reports whether some page is on none of the voters that answered.
func (c *holders) lost() bool { return slices.Contains(c.have, 0) }

// kept is what a voter says of a hold.
type kept struct {
	lacking []uint32
	err     error
}

// countHolders asks the voters, until enough have said yes, all have answered, or
// most have, some of them for each page, and the others take long.
func (x *Exchange) countHolders(ctx context.Context, id wire.HoldID, pages []wire.Hash) holders {
	voters := x.cfg.Voters()
	count := holders{have: make([]int, len(pages)), voters: len(voters), need: len(voters)/2 + 1}
	undecided, decide := context.WithCancel(ctx)
	defer decide()
	answers := make(chan kept, len(voters))
	for _, voter := range voters {
		if voter != x.cfg.Self {
			x.askToHold(undecided, voter, holdCall{id, pages}, answers)
		}
	}
	if slices.Contains(voters, x.cfg.Self) {
		answers <- kept{lacking: x.keepHeld(id, pages)}
	}
	var late <-chan time.Time
	for open := len(voters); open > 0 && !(count.answered >= count.need && count.enough()); open-- {
		select {
		case a := <-answers:
			if a.err == nil {
				count.add(a.lacking)
			}
			if count.answered == count.need {
				timer := time.NewTimer(stragglers)
				defer timer.Stop()
				late = timer.C
			}
		case <-late:
			if !count.lost() {
				return count
			}
			late = nil
			open++ // nobody has answered
		case <-ctx.Done():
			return count
		}
	}
	return count
}

type holdCall struct {
	id    wire.HoldID
	pages []wire.Hash
}

// askToHold asks a voter, in the background, and again while it does not answer
// and the outcome is open.
func (x *Exchange) askToHold(undecided context.Context, voter wire.DeviceID, call holdCall, answers chan<- kept) {
	p := x.peer(voter)
	started := x.start(func() {
		lacking, err := x.holdOn(x.ctx, p, call, p.call)
		for err != nil && pause(undecided, firstPause) {
			lacking, err = x.holdOn(undecided, p, call, p.insist)
		}
		answers <- kept{lacking, err}
	})
	if !started {
		answers <- kept{err: errClosed()}
	}
}

// oldPages is how many pages fit in a call that a version without holds reads; of
// a larger one it closes the stream without a word.
const oldPages = 6

// holdOn asks a voter once. One of a version without holds, which refuses the call,
// is given the pages: it keeps what is put on it for a day. Whether one that has
// not answered a large call is of such a version, it is asked with one page.
func (x *Exchange) holdOn(ctx context.Context, p *peer, c holdCall, call callFunc) (lacking []uint32, err error) {
	lacking, refusal, err := holdOnce(ctx, p, c, call)
	if err != nil && len(c.pages) > oldPages {
		var still error
		if _, refusal, still = holdOnce(ctx, p, holdCall{c.id, c.pages[:1]}, call); still != nil || refusal == nil {
			return nil, err
		}
	} else if err != nil || refusal == nil {
		return lacking, err
	}
	if wire.CodeOf(refusal) != wire.Code_CODE_INVALID {
		return nil, refusal
	}
	return x.giveAll(ctx, p, c, call)
}

// holdOnce is one call: refusal is its answer, err says that there was none.
func holdOnce(ctx context.Context, p *peer, c holdCall, call callFunc) (lacking []uint32, refusal, err error) {
	err = call(ctx, p.gets, func(conn net.Conn) (err error) {
		lacking, refusal, err = holdOver(conn, c.id, c.pages)
		return err
	})
	return lacking, refusal, err
}

// giveAll puts the pages on a voter.
func (x *Exchange) giveAll(ctx context.Context, p *peer, c holdCall, call callFunc) (lacking []uint32, err error) {
	for i, h := range c.pages {
		data, err := x.Get(ctx, h)
		if err != nil {
			lacking = append(lacking, uint32(i))
			continue
		}
		refusal, err := x.putOn(p, page{c.id, h, data}, call)
		if err = cmp.Or(err, refusal); err != nil {
			return nil, err
		}
	}
	return lacking, nil
}
