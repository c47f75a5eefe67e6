package browserbridge

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/libp2p/go-yamux/v5"
	"golang.org/x/time/rate"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const (
	// stackIdle is how long the stack's process stays without a browser.
	stackIdle = time.Minute
	// readyLimit bounds its start.
	readyLimit = 10 * time.Second
	// channelLimit bounds how long a new channel takes to say whose it is.
	channelLimit = 10 * time.Second
)

// stackHost has the process of the WebRTC stack while there are browsers. A panic
// in the stack ends that process, and with it the connections, never the node;
// pages connect anew, and the next offer starts another.
type stackHost struct {
	ctx      context.Context // ends when the bridge closes
	start    func() (*stackProcess, error)
	settings func() *wire.StackSettings
	log      *slog.Logger
	starts   *rate.Limiter
	stays    time.Duration // without a browser

	turn   chan struct{} // cap 1: a token of who uses the fields below
	closed bool
	link   *stackLink // nil without a process
	users  int        // of the link
	idle   *time.Timer
}

func newStackHost(ctx context.Context, log *slog.Logger, settings func() *wire.StackSettings, start func() (*stackProcess, error)) *stackHost {
	return &stackHost{
		ctx: ctx, start: start, settings: settings, log: log,
		starts: rate.NewLimiter(rate.Every(2*time.Second), 3), stays: stackIdle,
		turn: make(chan struct{}, 1),
	}
}

// enter returns the way to the process, which is started if there is none. The
// caller owes leave.
func (h *stackHost) enter(ctx context.Context) (*stackLink, error) {
	select {
	case h.turn <- struct{}{}:
		defer func() { <-h.turn }()
	case <-ctx.Done():
		return nil, stackGone()
	}
	if h.closed {
		return nil, wire.Errorf(wire.Code_CODE_UNAVAILABLE, "this node is stopping: try another")
	}
	if h.link == nil || h.link.session.IsClosed() {
		if err := h.restart(); err != nil {
			return nil, err
		}
	}
	h.users++
	if h.idle != nil {
		h.idle.Stop()
	}
	return h.link, nil
}

// restart starts a process in the place of one that has ended. The caller has the
// turn.
func (h *stackHost) restart() error {
	if h.link != nil {
		h.link.close()
		h.link, h.users = nil, 0
	}
	if !h.starts.Allow() {
		return wire.Errorf(wire.Code_CODE_UNAVAILABLE, "the part of this node that holds browsers' connections has ended several times: try another node, or again in a moment")
	}
	link, err := h.newLink()
	if err != nil {
		h.log.Error("browsers cannot connect to this node", "err", err)
		return stackGone()
	}
	h.link = link
	return nil
}

func (h *stackHost) newLink() (*stackLink, error) {
	ctx, cancel := context.WithTimeout(h.ctx, readyLimit)
	defer cancel()
	p, err := h.start()
	if err != nil {
		return nil, err
	}
	session, err := yamux.Client(p.conn, yamuxConfig(), nil)
	if err != nil {
		p.end()
		return nil, err
	}
	l := &stackLink{process: p, session: session, log: h.log, browsers: make(map[uint64]*browser)}
	if err := l.greet(ctx, h.settings()); err != nil {
		session.Close()
		return nil, fmt.Errorf("the process of the WebRTC stack does not start: %w; %s", err, p.end())
	}
	l.running.Go(l.serve)
	return l, nil
}

// leave gives a place back, after which a process that nobody uses ends in a
// while.
func (h *stackHost) leave(l *stackLink) {
	h.turn <- struct{}{}
	defer func() { <-h.turn }()
	if l != h.link {
		return
	}
	if h.users--; h.users > 0 {
		return
	}
	if h.idle != nil {
		h.idle.Stop()
	}
	h.idle = time.AfterFunc(h.stays, func() { h.retire(l) })
}

// retire ends a process that nobody uses.
func (h *stackHost) retire(l *stackLink) {
	h.turn <- struct{}{}
	defer func() { <-h.turn }()
	if l == h.link && h.users == 0 {
		h.link = nil
		l.retire()
	}
}

// running reports whether there is a process.
func (h *stackHost) running() bool {
	select {
	case h.turn <- struct{}{}:
		defer func() { <-h.turn }()
		return h.closed || h.link != nil && !h.link.session.IsClosed()
	default:
		return true // it starts, or ends
	}
}

// close ends the process. There is no further one.
func (h *stackHost) close() {
	h.turn <- struct{}{}
	defer func() { <-h.turn }()
	h.closed = true
	if h.idle != nil {
		h.idle.Stop()
	}
	if h.link != nil {
		h.link.retire()
		h.link = nil
	}
}

// stackLink is the node's side of the way between it and the stack's process.
type stackLink struct {
	process *stackProcess
	session *yamux.Session
	notices *yamux.Stream
	log     *slog.Logger
	running sync.WaitGroup

	mu       sync.Mutex
	retired  bool // it ends because this side wants it to
	browsers map[uint64]*browser
}

// greet tells the process its settings and waits until it is ready.
func (l *stackLink) greet(ctx context.Context, settings *wire.StackSettings) (err error) {
	defer context.AfterFunc(ctx, func() { l.session.Close() })()
	if l.notices, err = l.session.OpenStream(ctx); err != nil {
		return err
	}
	if err := wire.WriteMessage(l.notices, maxStackMessage, settings); err != nil {
		return err
	}
	n := &wire.StackNotice{}
	if err := wire.ReadMessage(l.notices, maxStackMessage, n); err != nil {
		return err
	}
	if n.GetReady() != settings.GetVersion() {
		return fmt.Errorf("it says: %s", n.GetFailed())
	}
	return nil
}

// serve takes channels and notices until the process ends.
func (l *stackLink) serve() {
	l.running.Go(l.hear)
	for {
		channel, err := l.session.AcceptStream()
		if err != nil {
			break
		}
		l.running.Go(func() { l.take(channel) })
	}
	how := l.process.end()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.retired {
		l.log.Error("the process of the WebRTC stack has ended, and with it the connections of browsers, which connect anew", "connections", len(l.browsers), "how", how)
	}
}

// hear tells people of what the process warns of.
func (l *stackLink) hear() {
	for {
		n := &wire.StackNotice{}
		if err := wire.ReadMessage(l.notices, maxStackMessage, n); err != nil {
			return
		}
		l.log.Warn(n.GetWarning())
	}
}

// take has the browser whose channel it is serve it.
func (l *stackLink) take(channel *yamux.Stream) {
	head := &wire.StackChannel{}
	err := channel.SetReadDeadline(time.Now().Add(channelLimit))
	if err == nil {
		err = wire.ReadMessage(channel, maxStackMessage, head)
	}
	if err == nil {
		err = channel.SetReadDeadline(time.Time{})
	}
	l.mu.Lock()
	x := l.browsers[head.GetConnection()]
	l.mu.Unlock()
	if err != nil || x == nil {
		channel.Reset()
		return
	}
	x.session(channel)
}

func (l *stackLink) add(x *browser) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.browsers[x.number] = x
}

func (l *stackLink) remove(x *browser) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.browsers, x.number)
}

// retire ends a process that is well.
func (l *stackLink) retire() {
	l.mu.Lock()
	l.retired = true
	l.mu.Unlock()
	l.close()
}

// close ends the process, unless it has ended, and waits for all that served it.
func (l *stackLink) close() {
	l.session.Close()
	l.process.end()
	l.running.Wait()
}
