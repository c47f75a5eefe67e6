package blob

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const (
	// fetchTime bounds the search for one page.
	fetchTime = 30 * time.Second
	// hedgeAfter is how long one member may take to give a page before the next
	// is asked as well; maxAsked bounds those who are asked at one time.
	hedgeAfter = 500 * time.Millisecond
	maxAsked   = 3
)

// Get returns the page's bytes, which the caller only reads: from memory, from
// this node's store, or from any member who has it; a node that keeps pages
// then stores it. Concurrent gets of a page become one. Errors: ErrMissing in
// the chain (CODE_NOT_FOUND) when everybody has answered and nobody has it;
// CODE_UNAVAILABLE when somebody who may have it did not answer.
func (x *Exchange) Get(ctx context.Context, h wire.Hash) ([]byte, error) {
	if data := x.cache.get(h); data != nil {
		return data, nil
	}
	data, err := x.obtain(ctx, h)
	if err == nil {
		x.cache.add(h, data)
	}
	return data, err
}

// flight is one search for a page, which all who want it wait for.
type flight struct {
	done chan struct{}
	data []byte
	err  error
}

// obtain returns the page from the store or from a member. The search goes on
// when the caller's context ends: others may wait for it too.
func (x *Exchange) obtain(ctx context.Context, h wire.Hash) ([]byte, error) {
	x.mu.Lock()
	f, ok := x.flights[h]
	if !ok && x.closed {
		x.mu.Unlock()
		return nil, errClosed()
	}
	if !ok {
		f = &flight{done: make(chan struct{})}
		x.flights[h] = f
		x.wg.Go(func() { x.fly(h, f) })
	}
	x.mu.Unlock()
	select {
	case <-f.done:
		return f.data, f.err
	case <-ctx.Done():
		return nil, fmt.Errorf("get page %s: %w", h, ctx.Err())
	}
}

func (x *Exchange) fly(h wire.Hash, f *flight) {
	f.data, f.err = x.search(h)
	x.mu.Lock()
	delete(x.flights, h)
	x.mu.Unlock()
	close(f.done)
}

func (x *Exchange) search(h wire.Hash) ([]byte, error) {
	data, err := x.cfg.Store.Get(h)
	if err == nil {
		return data, nil
	}
	if !errors.Is(err, ErrMissing) || errors.Is(err, errDamaged) {
		x.cfg.Log.Warn("a page cannot be read here and is fetched from another member", "page", h, "error", err)
	}
	ctx, stop := context.WithTimeout(x.ctx, fetchTime)
	defer stop()
	data, err = x.fetch(ctx, h)
	if err != nil || !x.cfg.Keep() {
		return data, err
	}
	if err := x.space(hardReserve); err != nil {
		return data, nil
	}
	if err := x.cfg.Store.put(h, data, nil); err != nil {
		x.cfg.Log.Warn("a page that was fetched cannot be stored", "page", h, "error", err)
	}
	if !x.cfg.Names(h) {
		x.notices.free(h) // it was released meanwhile
	}
	return data, nil
}

// fetched is what a member gave.
type fetched struct {
	data []byte
	err  error
}

// fetch asks one member after another for the page, and a further one each time
// that those asked have let hedgeAfter pass.
func (x *Exchange) fetch(ctx context.Context, h wire.Hash) ([]byte, error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	waiting := x.candidates()
	all, asked, lacking := len(waiting), 0, 0
	answers := make(chan fetched, all)
	var last error
	hedge := time.NewTimer(hedgeAfter)
	defer hedge.Stop()
	for next := true; len(waiting) > 0 || asked > 0; {
		if next && len(waiting) > 0 {
			waiting = x.ask(ctx, waiting, h, answers)
			asked++
		}
		select {
		case a := <-answers:
			asked--
			if a.err == nil {
				return a.data, nil
			}
			if errors.Is(a.err, ErrMissing) {
				lacking++
			} else {
				last = a.err
			}
			next = true
		case <-hedge.C:
			next = asked < maxAsked
			hedge.Reset(hedgeAfter)
		}
	}
	if last == nil {
		return nil, fmt.Errorf("page %s: none of the %d other members asked has it: %w", h, all, ErrMissing)
	}
	return nil, wire.Errorf(wire.Code_CODE_UNAVAILABLE, "page %s: %d of %d other members do not have it, the rest did not answer (%v)", h, lacking, all, last)
}

// ask asks the first of those who wait, in the background, and returns the
// rest.
func (x *Exchange) ask(ctx context.Context, waiting []*peer, h wire.Hash, answers chan<- fetched) []*peer {
	p := waiting[0]
	started := x.start(func() {
		var got fetched
		err := p.call(ctx, p.gets, func(conn net.Conn) (err error) {
			got.data, got.err, err = getOver(conn, h)
			return err
		})
		if err != nil {
			got = fetched{err: err}
		}
		if wire.CodeOf(got.err) == wire.Code_CODE_NOT_FOUND {
			got.err = ErrMissing
		}
		if got.err != nil {
			got.err = fmt.Errorf("%s: %w", p.id.Short(), got.err)
		}
		answers <- got
	})
	if !started {
		answers <- fetched{err: errClosed()}
	}
	return waiting[1:]
}

// candidates returns the other members in the order in which to ask them: the
// voters, who should have every page, before the rest, each in random order to
// spread the load; those who failed when last asked at the end.
func (x *Exchange) candidates() []*peer {
	voters, members := slices.Clone(x.cfg.Voters()), slices.Clone(x.cfg.Members())
	for _, ids := range [][]wire.DeviceID{voters, members} {
		rand.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	}
	var good, failing []*peer
	seen := map[wire.DeviceID]bool{x.cfg.Self: true}
	for _, id := range append(voters, members...) {
		if seen[id] {
			continue
		}
		seen[id] = true
		if p := x.peer(id); p.failing() {
			failing = append(failing, p)
		} else {
			good = append(good, p)
		}
	}
	return append(good, failing...)
}
