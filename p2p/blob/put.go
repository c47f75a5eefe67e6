package blob

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// Put stores data, at most wire.PageSize bytes, and returns its hash once a
// majority of the voters has it on disk and keeps it for the command that id is
// of (see holds); those that are slower get it in the background, or by their own
// repair. The exchange keeps data: the caller does not change it afterwards. A
// node that keeps pages has it in its own store too. Errors: CODE_NO_SPACE when this node keeps pages and has less than
// 512 MiB free, or when voters have no room; CODE_UNAVAILABLE when too few
// voters answered, with how many of how many.
func (x *Exchange) Put(ctx context.Context, id wire.HoldID, data []byte) (wire.Hash, error) {
	return x.put(ctx, id, data, clientReserve)
}

// PutReserved is Put down to 256 MiB of free space: for results, whose
// recording is what gives the space of inputs back.
func (x *Exchange) PutReserved(ctx context.Context, id wire.HoldID, data []byte) (wire.Hash, error) {
	return x.put(ctx, id, data, hardReserve)
}

// answer is what became of a put on one voter.
type answer struct {
	voter wire.DeviceID
	err   error
}

func (x *Exchange) put(ctx context.Context, id wire.HoldID, data []byte, reserve uint64) (wire.Hash, error) {
	if len(data) > wire.PageSize {
		return wire.Hash{}, wire.Errorf(wire.Code_CODE_INVALID,
			"a page of %d bytes: at most %d are allowed", len(data), wire.PageSize)
	}
	voters := x.cfg.Voters()
	if len(voters) == 0 {
		return wire.Hash{}, wire.Errorf(wire.Code_CODE_UNAVAILABLE, "no voter is known to put a page on")
	}
	votes := slices.Contains(voters, x.cfg.Self)
	local := votes || x.cfg.Keep()
	if local {
		if err := x.space(reserve); err != nil {
			return wire.Hash{}, err
		}
	}
	h := wire.HashOf(data)
	undecided, decide := context.WithCancel(ctx)
	defer decide()
	answers := make(chan answer, 2*len(voters))
	for _, voter := range voters {
		if voter != x.cfg.Self {
			x.send(undecided, voter, page{id, h, data}, answers)
		}
	}
	if local {
		// Where this node has no vote, its copy is for its own sake: repair
		// fetches it if the disk refused.
		if err := x.keep(id, h, data); votes {
			answers <- answer{x.cfg.Self, err}
		}
	}
	if err := await(ctx, answers, len(voters)); err != nil {
		return wire.Hash{}, fmt.Errorf("put page %s: %w", h, err)
	}
	x.cache.add(h, data)
	return h, nil
}

type page struct {
	hold wire.HoldID
	hash wire.Hash
	data []byte
}

// send puts the page on a voter, in the background. It waits for a place among
// those on their way there only while the put is undecided; a voter that is too
// slow for that is left to its own repair. One that does not answer is asked
// again while the put is undecided: it may have just come back, and be the one
// that is needed. Then answers gets a second one of it, of a success or refusal.
func (x *Exchange) send(undecided context.Context, voter wire.DeviceID, pg page, answers chan<- answer) {
	p := x.peer(voter)
	started := x.start(func() {
		if !p.enter(undecided) {
			answers <- answer{voter, undecided.Err()}
			return
		}
		defer p.leave()
		refusal, err := x.putOn(p, pg, p.call)
		answers <- answer{voter, cmp.Or(err, refusal)}
		for err != nil && pause(undecided, firstPause) {
			if refusal, err = x.putOn(p, pg, p.insist); err == nil {
				answers <- answer{voter, refusal}
			}
		}
	})
	if !started {
		answers <- answer{voter, errClosed()}
	}
}

// putOn puts the page on a voter once: refusal is its answer, err says that there
// was none.
func (x *Exchange) putOn(p *peer, pg page, call callFunc) (refusal, err error) {
	err = call(x.ctx, p.puts, func(conn net.Conn) (err error) {
		refusal, err = putOver(conn, pg)
		return err
	})
	return refusal, err
}

// pause waits so long; false: ctx ended before.
func pause(ctx context.Context, wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// await returns once most of n voters have answered well, or so many have not
// that they cannot any more.
func await(ctx context.Context, answers <-chan answer, n int) error {
	need, have := n/2+1, 0
	refused := make(map[wire.DeviceID]error)
	for have < need && (len(refused) <= n-need || len(answers) > 0) {
		select {
		case a := <-answers:
			if a.err == nil {
				have++
				delete(refused, a.voter)
			} else {
				refused[a.voter] = a.err
			}
		case <-ctx.Done():
			return fmt.Errorf("%d of %d voters had it and %d are needed: %w", have, n, need, ctx.Err())
		}
	}
	if have >= need {
		return nil
	}
	code := wire.Code_CODE_UNAVAILABLE
	var words []string
	for _, voter := range slices.Sorted(maps.Keys(refused)) {
		words = append(words, fmt.Sprintf("%s: %v", voter.Short(), refused[voter]))
		if wire.CodeOf(refused[voter]) == wire.Code_CODE_NO_SPACE {
			code = wire.Code_CODE_NO_SPACE
		}
	}
	return wire.Errorf(code, "%d of %d voters have it and %d are needed (%s)", have, n, need, strings.Join(words, "; "))
}
