package sandbox

import (
	"context"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// inARow is how many children have to break one after the other, for reasons
// that are not a task's, before the pool is unwell.
const inARow = 3

// Unwell says why this pool cannot run anything now; "" if it can. changed is
// closed when that changes. An unwell pool refuses what it is asked, tries a tiny
// program once a minute, and is well again when that runs.
func (p *Pool) Unwell() (why string, changed <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.unwell, p.changed
}

// Probe runs a tiny program in a child of its own, and says what is wrong with
// the sandbox if that fails. It takes no slot.
func (p *Pool) Probe(ctx context.Context) error {
	if err := p.enter(); err != nil {
		return err
	}
	defer p.users.Done()
	return p.probe(ctx)
}

func (p *Pool) probe(ctx context.Context) error {
	c, err := p.startChild()
	if err != nil {
		return err
	}
	_, err = p.ask(ctx, c, "") // which ends it
	return err
}

// errUnwell is the answer of a pool whose children break.
func errUnwell(why string) error {
	return wire.Errorf(wire.Code_CODE_UNAVAILABLE, "this device runs nothing now: its sandbox breaks, whatever the program: %s", why)
}

// well returns an error while the pool is unwell.
func (p *Pool) well() error {
	if why, _ := p.Unwell(); why != "" {
		return errUnwell(why)
	}
	return nil
}

// prove finds out who is to blame when a new child has broken: nil if other new
// ones work, so that it was not the pool. Otherwise so many have broken in a row
// that the pool is unwell, as the error says.
func (p *Pool) prove(ctx context.Context, why string) error {
	for range inARow - 1 {
		err := p.probe(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		why = err.Error()
	}
	if p.isClosed() {
		return errClosed()
	}
	p.fall(why)
	return errUnwell(why)
}

// fall makes the pool unwell, until a probe works.
func (p *Pool) fall(why string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.unwell != "" {
		return
	}
	p.opts.Log.Error("the sandbox breaks, whatever the program: this device takes no work", "reason", why)
	p.setUnwellLocked(cut(why, 300))
	p.users.Go(p.heal)
}

func (p *Pool) setUnwellLocked(why string) {
	p.unwell = why
	close(p.changed)
	p.changed = make(chan struct{})
}

// heal probes until that works, or the pool is closed.
func (p *Pool) heal() {
	timer := time.NewTicker(p.opts.probeEvery)
	defer timer.Stop()
	for {
		select {
		case <-p.life.Done():
			return
		case <-timer.C:
		}
		if p.probe(p.life) != nil {
			continue
		}
		p.mu.Lock()
		p.setUnwellLocked("")
		p.mu.Unlock()
		p.opts.Log.Info("the sandbox works again")
		return
	}
}
