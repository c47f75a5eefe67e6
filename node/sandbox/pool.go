package sandbox

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"sync"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// maxChecks bounds the checks at one time.
const maxChecks = 2

// Pool runs tasks in child processes, as many at one time as it has slots. All
// methods may be called at any time by any goroutine.
type Pool struct {
	opts   Options
	spawn  chan func()
	checks chan struct{}

	users    sync.WaitGroup // calls of Run and Check
	children sync.WaitGroup // processes
	spawning sync.WaitGroup // the spawner
	ended    chan struct{}  // closed when Close has ended

	life context.Context // ends when Close begins
	end  context.CancelFunc

	mu      sync.Mutex
	closed  bool
	unwell  string        // see Unwell
	changed chan struct{} // closed, and replaced, when unwell changes
	slots   int
	running int             // slots taken
	waiting []chan struct{} // who wants a slot, oldest first; closed when given
	idle    []*child        // most recently used last
	alive   map[*child]struct{}
}

// New returns a pool. Children are started when there is work for them.
func New(o Options) *Pool {
	if o.Executable == "" {
		// Without a path the first start says what is wrong.
		o.Executable, _ = os.Executable()
	}
	if o.Idle <= 0 {
		o.Idle = time.Minute
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.probeEvery <= 0 {
		o.probeEvery = time.Minute
	}
	if o.compileTimeout <= 0 {
		o.compileTimeout = CompileTimeout
	}
	p := &Pool{opts: o, slots: max(0, o.Slots), spawn: make(chan func()), ended: make(chan struct{}),
		checks: make(chan struct{}, maxChecks), alive: map[*child]struct{}{}, changed: make(chan struct{})}
	p.life, p.end = context.WithCancel(context.Background())
	p.spawning.Go(func() { spawner(p.spawn) })
	return p
}

// Close ends all children, at work or not, and waits for them and for all calls
// of Run and Check, which return an error. It may be called twice, but not from
// within Run's callback.
func (p *Pool) Close() error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		<-p.ended
		return nil
	}
	p.closed = true
	p.end()
	for c := range p.alive {
		c.kill()
	}
	idle := p.idle
	p.idle = nil
	for _, c := range idle {
		c.idle.Stop()
	}
	for _, w := range p.waiting {
		close(w)
	}
	p.waiting = nil
	p.mu.Unlock()
	for _, c := range idle {
		c.end()
	}
	p.users.Wait()
	p.children.Wait()
	close(p.spawn)
	p.spawning.Wait()
	close(p.ended)
	return nil
}

// errClosed is the answer of a closed pool.
func errClosed() error {
	return wire.Errorf(wire.Code_CODE_UNAVAILABLE, "the sandbox is closed")
}

// enter counts a call that Close waits for; the caller calls p.users.Done.
func (p *Pool) enter() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return errClosed()
	}
	p.users.Add(1)
	return nil
}

// SetSlots changes the number of tasks run at one time. Tasks that run go on.
func (p *Pool) SetSlots(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.slots = max(0, n)
	p.grantLocked()
}

// Status says what the pool is doing.
func (p *Pool) Status() Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	return Status{Slots: p.slots, Children: len(p.alive), Running: p.running, Unwell: p.unwell}
}

// acquire waits for a slot.
func (p *Pool) acquire(ctx context.Context) error {
	p.mu.Lock()
	if p.running < p.slots && len(p.waiting) == 0 && !p.closed {
		p.running++
		p.mu.Unlock()
		return nil
	}
	given := make(chan struct{})
	if p.closed {
		p.mu.Unlock()
		return errClosed()
	}
	p.waiting = append(p.waiting, given)
	p.mu.Unlock()
	select {
	case <-given:
	case <-ctx.Done():
		if p.withdraw(given) {
			return ctx.Err()
		}
		<-given
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return errClosed()
	}
	return nil
}

// withdraw takes a request for a slot back; false if it was granted.
func (p *Pool) withdraw(given chan struct{}) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.Index(p.waiting, given)
	if i < 0 {
		return false
	}
	p.waiting = slices.Delete(p.waiting, i, i+1)
	return true
}

// release gives a slot back.
func (p *Pool) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running--
	p.grantLocked()
}

// grantLocked gives free slots to those who wait.
func (p *Pool) grantLocked() {
	for p.running < p.slots && len(p.waiting) > 0 {
		p.running++
		close(p.waiting[0])
		p.waiting = p.waiting[1:]
	}
}

// take returns a child for a program: a warm one, if there is one that ran it
// last or at least one that is idle, or a new one; only a new one if fresh.
func (p *Pool) take(hash wire.Hash, fresh bool) (c *child, warm bool, err error) {
	p.mu.Lock()
	if n := len(p.idle); n > 0 && !p.closed && !fresh {
		i := slices.IndexFunc(p.idle, func(c *child) bool { return c.last == hash })
		if i < 0 {
			i = n - 1
		}
		c = p.idle[i]
		p.idle = slices.Delete(p.idle, i, i+1)
		c.idle.Stop()
		p.mu.Unlock()
		return c, true, nil
	}
	p.mu.Unlock()
	c, err = p.startChild()
	return c, false, err
}

// startChild starts a child and keeps count of it.
func (p *Pool) startChild() (*child, error) {
	c, err := startChild(p.opts, func(cmd *exec.Cmd) error {
		result := make(chan error)
		p.spawn <- func() { result <- cmd.Start() }
		return <-result
	})
	if err != nil {
		return nil, wire.Errorf(wire.Code_CODE_INTERNAL, "%v", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.alive[c] = struct{}{}
	p.children.Go(func() { p.forget(c) })
	if p.closed {
		c.kill()
	}
	return c, nil
}

// forget waits for the end of c, whatever caused it.
func (p *Pool) forget(c *child) {
	<-c.exited
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.alive, c)
}

// put gives back a child that is fit for more work. It is kept while there are
// no more idle ones than slots, or one for checks.
func (p *Pool) put(c *child) {
	p.mu.Lock()
	if p.closed || len(p.idle) >= max(1, p.slots) || c.dead() {
		p.mu.Unlock()
		c.end()
		return
	}
	defer p.mu.Unlock()
	p.idle = append(p.idle, c)
	if c.idle == nil {
		c.idle = time.AfterFunc(p.opts.Idle, func() { p.expire(c) })
		return
	}
	c.idle.Reset(p.opts.Idle)
}

// expire ends a child that has been idle for long.
func (p *Pool) expire(c *child) {
	p.mu.Lock()
	i := slices.Index(p.idle, c)
	if i < 0 || p.closed {
		p.mu.Unlock()
		return
	}
	p.idle = slices.Delete(p.idle, i, i+1)
	p.users.Add(1)
	p.mu.Unlock()
	defer p.users.Done()
	c.end()
}
