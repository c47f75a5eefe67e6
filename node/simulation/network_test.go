package simulation

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// window is how many bytes a direction of a stream holds before its writer has
// to wait, as a kernel's buffers would.
const window = 1 << 20

// network joins machines by byte streams that are slow, late, cut and reset.
type network struct {
	mu     sync.Mutex
	random *rand.Rand
	cuts   map[direction]int // faults that cut it now
	slow   int               // faults that make everything late now
	doors  map[door]func(from wire.DeviceID, c net.Conn)
	down   map[wire.DeviceID]bool // switched off: silent
	ends   map[*end]struct{}
}

type direction struct{ from, to wire.DeviceID }

type door struct {
	at      wire.DeviceID
	service string
}

func newNetwork(seed uint64) *network {
	return &network{
		random: rand.New(rand.NewPCG(seed, 1)),
		cuts:   make(map[direction]int),
		doors:  make(map[door]func(wire.DeviceID, net.Conn)),
		down:   make(map[wire.DeviceID]bool),
		ends:   make(map[*end]struct{}),
	}
}

// open lets others dial a service of a machine. take must not block, and owns
// the stream.
func (n *network) open(at wire.DeviceID, service string, take func(from wire.DeviceID, c net.Conn)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.doors[door{at, service}] = take
}

// cut stops what flows one way, or lets it flow again. What is on its way
// meanwhile waits; when it flows again some streams turn out to be broken.
func (n *network) cut(from, to wire.DeviceID, on bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	d := direction{from, to}
	if on {
		n.cuts[d]++
		return
	}
	if n.cuts[d]--; n.cuts[d] > 0 {
		return
	}
	delete(n.cuts, d)
	for e := range n.ends {
		if e.in.way != d {
			continue
		}
		if n.random.IntN(2) == 0 {
			e.breakBoth()
		}
		e.in.poke()
	}
}

// delay makes everything late, or no longer.
func (n *network) delay(on bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if on {
		n.slow++
	} else {
		n.slow--
	}
}

// stop takes a machine off the network: its process is dead. Silent means that
// nobody is told, as when the power fails; otherwise others see their streams
// reset.
func (n *network) stop(id wire.DeviceID, silent bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.down[id] = silent
	for d := range n.doors {
		if d.at == id {
			delete(n.doors, d)
		}
	}
	for e := range n.ends {
		switch {
		case e.local == id:
			e.kill()
			delete(n.ends, e)
		case e.remote == id && !silent:
			e.breakBoth()
		}
	}
}

// start brings a machine back: streams that wait for its earlier process are
// reset.
func (n *network) start(id wire.DeviceID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.down, id)
	for e := range n.ends {
		if e.remote == id {
			e.breakBoth()
		}
	}
}

// flows reports whether bytes arrive that way now.
func (n *network) flows(d direction) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cuts[d] == 0
}

// latency draws how long the next bytes take: about a millisecond, now and then
// as long as a lost packet takes to be sent again.
func (n *network) latency() time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	late := time.Duration(200+n.random.IntN(1500)) * time.Microsecond
	if n.random.IntN(2000) == 0 {
		late += time.Duration(200+n.random.IntN(600)) * time.Millisecond
	}
	if n.slow > 0 {
		late += time.Duration(20+n.random.IntN(150)) * time.Millisecond
	}
	return late
}

// dial opens a stream to a service. While the way is cut it waits in vain until
// ctx ends, or is told at once that there is no route.
func (n *network) dial(ctx context.Context, from, to wire.DeviceID, service string) (net.Conn, error) {
	if err := sleep(ctx, n.latency()); err != nil {
		return nil, err
	}
	n.mu.Lock()
	_, gone := n.down[from]
	silent := n.down[to] || n.cuts[direction{from, to}] > 0 || n.cuts[direction{to, from}] > 0
	patient := n.random.IntN(3) > 0
	take := n.doors[door{to, service}]
	if gone || silent || take == nil {
		n.mu.Unlock()
		if silent && patient {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("no way from %s to %s", from.Short(), to.Short())
	}
	there, back := &half{net: n, way: direction{from, to}}, &half{net: n, way: direction{to, from}}
	ours := newEnd(n, from, to, back, there)
	theirs := newEnd(n, to, from, there, back)
	n.ends[ours], n.ends[theirs] = struct{}{}, struct{}{}
	n.mu.Unlock()
	take(from, theirs)
	return ours, nil
}

// end is one end of a stream.
type end struct {
	net           *network
	local, remote wire.DeviceID
	in, out       *half
	read, write   deadline
	dead          atomic.Bool
}

func newEnd(n *network, local, remote wire.DeviceID, in, out *half) *end {
	return &end{net: n, local: local, remote: remote, in: in, out: out, read: newDeadline(), write: newDeadline()}
}

func (e *end) breakBoth() {
	e.in.fail()
	e.out.fail()
}

func (e *end) Read(p []byte) (int, error) { return e.in.take(p, &e.read) }

func (e *end) Write(p []byte) (int, error) {
	if e.dead.Load() {
		return 0, os.ErrDeadlineExceeded
	}
	return e.out.put(p, &e.write)
}

// Close ends the stream: the other side reads what was written, then the end.
// That of a dead process tells the other side nothing.
func (e *end) Close() error {
	e.net.mu.Lock()
	delete(e.net.ends, e)
	e.net.mu.Unlock()
	if !e.dead.Load() {
		e.out.finish()
		e.in.leave()
	}
	return nil
}

// Reset breaks the stream.
func (e *end) Reset() error {
	e.net.mu.Lock()
	delete(e.net.ends, e)
	e.net.mu.Unlock()
	if !e.dead.Load() {
		e.breakBoth()
	}
	return nil
}

func (e *end) LocalAddr() net.Addr  { return address(e.local) }
func (e *end) RemoteAddr() net.Addr { return address(e.remote) }

// kill makes this end useless to its own process, which is dead. The other side
// is not told.
func (e *end) kill() {
	e.dead.Store(true)
	e.read.set(time.Unix(1, 0))
	e.write.set(time.Unix(1, 0))
}

func (e *end) SetDeadline(t time.Time) error {
	e.SetReadDeadline(t)
	return e.SetWriteDeadline(t)
}

func (e *end) SetReadDeadline(t time.Time) error {
	if !e.dead.Load() {
		e.read.set(t)
	}
	return nil
}

func (e *end) SetWriteDeadline(t time.Time) error {
	if !e.dead.Load() {
		e.write.set(t)
	}
	return nil
}

type address wire.DeviceID

func (address) Network() string  { return "simulated" }
func (a address) String() string { return string(a) }

// half is one direction of a stream.
type half struct {
	net *network
	way direction

	mu      sync.Mutex
	chunks  []chunk
	size    int
	arrives time.Time // of the newest chunk
	ended   bool      // the writer has closed
	broken  bool
	left    bool          // the reader has closed
	changed chan struct{} // closed, and replaced, at each change; nil if nobody waits
}

type chunk struct {
	data    []byte
	arrives time.Time
}

// wait returns a channel that closes at the next change. The caller holds mu.
func (h *half) wait() <-chan struct{} {
	if h.changed == nil {
		h.changed = make(chan struct{})
	}
	return h.changed
}

// wake wakes who waits. The caller holds mu.
func (h *half) wake() {
	if h.changed != nil {
		close(h.changed)
		h.changed = nil
	}
}

func (h *half) change(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
	h.wake()
}

func (h *half) poke()   { h.change(func() {}) }
func (h *half) fail()   { h.change(func() { h.broken = true; h.chunks = nil }) }
func (h *half) finish() { h.change(func() { h.ended = true }) }
func (h *half) leave()  { h.change(func() { h.left = true }) }

var errReset = fmt.Errorf("connection reset by peer: %w", net.ErrClosed)

func (h *half) put(p []byte, limit *deadline) (int, error) {
	late := h.net.latency()
	for {
		h.mu.Lock()
		switch {
		case h.ended:
			h.mu.Unlock()
			return 0, io.ErrClosedPipe
		case h.broken || h.left:
			h.mu.Unlock()
			return 0, errReset
		case h.size < window:
			at := time.Now().Add(late)
			if at.Before(h.arrives) {
				at = h.arrives
			}
			h.arrives = at
			h.chunks = append(h.chunks, chunk{append([]byte(nil), p...), at})
			h.size += len(p)
			h.wake()
			h.mu.Unlock()
			return len(p), nil
		}
		changed := h.wait()
		h.mu.Unlock()
		select {
		case <-changed:
		case <-limit.passed():
			return 0, os.ErrDeadlineExceeded
		}
	}
}

func (h *half) take(p []byte, limit *deadline) (int, error) {
	for {
		select {
		case <-limit.passed():
			return 0, os.ErrDeadlineExceeded
		default:
		}
		flows := h.net.flows(h.way)
		h.mu.Lock()
		switch {
		case h.left:
			h.mu.Unlock()
			return 0, io.ErrClosedPipe
		case h.broken:
			h.mu.Unlock()
			return 0, errReset
		}
		n, in := h.ready(p, flows)
		if n > 0 {
			h.wake()
			h.mu.Unlock()
			return n, nil
		}
		if h.ended && len(h.chunks) == 0 && flows {
			h.mu.Unlock()
			return 0, io.EOF
		}
		changed := h.wait()
		h.mu.Unlock()
		if err := h.pause(changed, in, limit); err != nil {
			return 0, err
		}
	}
}

// ready takes what has arrived, or says in how long something will; 0 if that
// is not known. The caller holds mu.
func (h *half) ready(p []byte, flows bool) (n int, in time.Duration) {
	if len(h.chunks) == 0 || !flows {
		return 0, 0
	}
	first := &h.chunks[0]
	if in := time.Until(first.arrives); in > 0 {
		return 0, in
	}
	n = copy(p, first.data)
	first.data = first.data[n:]
	h.size -= n
	if len(first.data) == 0 {
		h.chunks = h.chunks[1:]
	}
	return n, 0
}

// pause waits for a change, so long if that is not 0, or until the deadline.
func (h *half) pause(changed <-chan struct{}, in time.Duration, limit *deadline) error {
	var arrived <-chan time.Time
	if in > 0 {
		timer := time.NewTimer(in)
		defer timer.Stop()
		arrived = timer.C
	}
	select {
	case <-changed:
	case <-arrived:
	case <-limit.passed():
		return os.ErrDeadlineExceeded
	}
	return nil
}

// deadline is a point in time that can be moved while someone waits for it.
type deadline struct {
	mu     *sync.Mutex
	timer  *time.Timer
	cancel chan struct{}
}

func newDeadline() deadline { return deadline{mu: new(sync.Mutex), cancel: make(chan struct{})} }

func (d *deadline) passed() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.cancel
}

func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil && !d.timer.Stop() {
		<-d.cancel // it fires now: wait for it
	}
	d.timer = nil
	over := false
	select {
	case <-d.cancel:
		over = true
	default:
	}
	in := time.Until(t)
	switch {
	case t.IsZero() || in > 0:
		if over {
			d.cancel = make(chan struct{})
		}
		if !t.IsZero() {
			cancel := d.cancel
			d.timer = time.AfterFunc(in, func() { close(cancel) })
		}
	case !over:
		close(d.cancel)
	}
}

// sleep waits so long, or until ctx ends, whose error it returns then.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
