package browserbridge

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// maxOfDevice bounds the connections of one device: a page that reloads has two
// for a moment.
const maxOfDevice = 2

// Config is what a bridge needs of its node. The functions may be called from
// any goroutine.
type Config struct {
	// ID and Key are the node's own.
	ID  wire.DeviceID
	Key ed25519.PrivateKey
	// Swarm is the swarm that it bridges to, and SwarmName its name.
	Swarm     wire.SwarmID
	SwarmName func() string
	// Address is where the public listener listens. Browsers use UDP of the same
	// port, on the same host, or on all addresses when it is unspecified.
	Address netip.AddrPort
	// Dial opens a stream to the coordinator. A stream with a method Reset is
	// ended by it when the browser is lost.
	Dial func(context.Context) (io.ReadWriteCloser, error)
	// Role returns a device's role, unspecified for one that does not belong to
	// the swarm, and whether it was removed.
	Role func(wire.DeviceID) (role wire.Role, removed bool)
	// Admit passes a joiner's proof to the coordinator.
	Admit func(context.Context, *wire.JoinRequest) (*wire.AdmitResponse, error)
	// Bridges lists public listeners of members, as http(s)://HOST:PORT.
	Bridges func() []string
	// Audit takes what was refused, for people.
	Audit func(string)
	Log   *slog.Logger
	// Limits are DefaultLimits where they are zero.
	Limits Limits
}

// Status is what a bridge does now.
type Status struct {
	// Browsers are connected, Handshakes are about to be.
	Browsers, Handshakes int
	// Refused counts requests and connections that were refused for what they
	// did.
	Refused uint64
}

// Bridge answers offers and keeps the connections. All methods may be called
// from several goroutines.
type Bridge struct {
	cfg    Config
	nonces *nonces
	gate   *gate
	stack  *stackHost
	timing timing
	// maxRecords is how many records are sent under one key.
	maxRecords uint64
	ctx        context.Context
	cancel     context.CancelFunc
	audits     *rate.Limiter

	refused    atomic.Uint64
	lastNumber atomic.Uint64 // of a browser

	mu       sync.Mutex
	closed   bool
	shaking  map[*browser]bool            // without a channel yet
	browsers map[*browser]bool            // all, those in handshakes too
	devices  map[wire.DeviceID][]*browser // oldest first
	running  sync.WaitGroup
}

// timing are limits that tests shorten.
type timing struct{ handshake, idle, dial, drain, age time.Duration }

// New returns a bridge. It opens no socket and starts nothing until a browser
// comes; then it starts this program again, whose main must call ChildMain where
// IsChild. It must be closed.
func New(c Config) *Bridge {
	if c.Limits == (Limits{}) {
		c.Limits = DefaultLimits()
	}
	b := &Bridge{
		cfg: c, nonces: newNonces(), gate: newGate(c.Limits),
		timing:   timing{handshake: handshakeLimit, idle: idleLimit, dial: dialLimit, drain: drainLimit, age: maxAge},
		audits:   rate.NewLimiter(1, 10),
		shaking:  make(map[*browser]bool),
		browsers: make(map[*browser]bool),
		devices:  make(map[wire.DeviceID][]*browser),

		maxRecords: maxRecords,
	}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	b.stack = newStackHost(b.ctx, c.Log, b.settings, startStack)
	return b
}

// settings are what the stack's process is told.
func (b *Bridge) settings() *wire.StackSettings {
	return &wire.StackSettings{
		Version: stackVersion, Address: b.cfg.Address.String(), MaxRecords: b.maxRecords,
		HandshakeMs: b.timing.handshake.Milliseconds(), IdleMs: b.timing.idle.Milliseconds(),
		DrainMs: b.timing.drain.Milliseconds(), AgeMs: b.timing.age.Milliseconds(),
	}
}

// prepare starts the stack's process, since a browser is about to come.
func (b *Bridge) prepare() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || b.stack.running() {
		return
	}
	b.running.Go(func() {
		if l, err := b.stack.enter(b.ctx); err == nil {
			b.stack.leave(l)
		}
	})
}

// Status returns what the bridge does now.
func (b *Bridge) Status() Status {
	b.mu.Lock()
	defer b.mu.Unlock()
	return Status{Browsers: len(b.browsers) - len(b.shaking), Handshakes: len(b.shaking), Refused: b.refused.Load()}
}

// Close ends all connections and waits for what serves them. Sessions are broken
// off, so that the coordinator keeps the leases until the pages have found
// another bridge. It may be called more than once.
func (b *Bridge) Close() {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.cancel()
	b.running.Wait()
	b.stack.close()
}

// enter gives a browser a place, or says why there is none. A device that has
// too many connections loses its oldest.
func (b *Bridge) enter(x *browser) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.closed:
		return wire.Errorf(wire.Code_CODE_UNAVAILABLE, "this node is stopping: try another")
	case len(b.browsers) >= b.cfg.Limits.Browsers:
		return wire.Errorf(wire.Code_CODE_EXHAUSTED, "this node has %d browsers, as many as it takes: try another", len(b.browsers))
	case len(b.shaking) >= b.cfg.Limits.Handshakes:
		return wire.Errorf(wire.Code_CODE_EXHAUSTED, "too many browsers connect to this node at one time: try another, or again in a moment")
	case !b.gate.connect(x.from, time.Now()):
		return wire.Errorf(wire.Code_CODE_EXHAUSTED, "too many browsers of one address are connected to this node: try another node")
	}
	b.browsers[x], b.shaking[x] = true, true
	b.devices[x.device] = append(b.devices[x.device], x)
	if own := b.devices[x.device]; len(own) > maxOfDevice {
		own[0].end(fmt.Errorf("device %s has connected %d times since", x.device.Short(), maxOfDevice))
	}
	b.running.Add(1)
	return nil
}

// established ends a browser's handshake.
func (b *Bridge) established(x *browser) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.shaking, x)
}

// leave gives a browser's place back.
func (b *Bridge) leave(x *browser) {
	x.end(errClosed)
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.browsers, x)
	delete(b.shaking, x)
	own := b.devices[x.device]
	for i, other := range own {
		if other == x {
			own = append(own[:i:i], own[i+1:]...)
			break
		}
	}
	if b.devices[x.device] = own; len(own) == 0 {
		delete(b.devices, x.device)
	}
	b.gate.disconnect(x.from)
	b.running.Done()
}

// refuse counts what was refused, and has people told of it.
func (b *Bridge) refuse(format string, args ...any) {
	b.refused.Add(1)
	if b.audits.Allow() {
		b.cfg.Audit("refused " + fmt.Sprintf(format, args...))
	}
}
