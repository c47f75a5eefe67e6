package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/ostrich-legs/ostrich/node/session"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// dialLimit bounds one try to get a stream to the coordinator.
const dialLimit = 10 * time.Second

// LinkConfig says how a Link reaches the coordinator. Dial, Trust and Hello are
// needed.
type LinkConfig struct {
	Identity session.Identity
	// Dial returns a new stream to the coordinator as far as it is known. It is
	// given at most 10 s.
	Dial func(context.Context) (io.ReadWriteCloser, error)
	// Trust reports why the device that answered must not be believed to
	// coordinate.
	Trust func(wire.DeviceID) error
	// Hello returns what to say of this device: swarm, generation, profile. The
	// link owns what it returns.
	Hello func() *wire.Hello
	// Generation, if not nil, is called at the start of each session, before
	// Welcome, with the swarm's generation as the coordinator has signed it.
	Generation func(uint64)
	// Welcome, if not nil, is called at the start of each session, before its
	// first frame, and when the members have changed.
	Welcome func(*wire.Welcome)
	// Refused, if not nil, is called when a coordinator, or a member that is
	// none, refuses.
	Refused func(*wire.Refusal)
	// Log takes the comings and goings of sessions; nil means nowhere.
	Log *slog.Logger
}

// Handler is what the owner of a Link does with its sessions. Each function may
// be nil; they are called one at a time.
type Handler struct {
	// Opened is called at the start of each session, before its first frame.
	Opened func(*session.Conn, *wire.Welcome)
	// Frame takes what the coordinator sends; see session.Handler.
	Frame func(*wire.Frame) error
	// Closed is called at the end of each session.
	Closed func()
}

// Link keeps one session with the coordinator alive. Its methods may be called
// from several goroutines.
type Link struct {
	config  LinkConfig
	handler Handler
	redial  chan struct{} // capacity 1

	mu      sync.Mutex
	conn    *session.Conn // nil without a session
	changed chan struct{} // closed, and replaced, when conn changes
	last    error         // why there is no session
}

// NewLink returns a link that does nothing until Run.
func NewLink(config LinkConfig, handler Handler) *Link {
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	return &Link{
		config: config, handler: handler,
		redial:  make(chan struct{}, 1),
		changed: make(chan struct{}),
		last:    errors.New("none was dialled yet"),
	}
}

// Run dials, keeps the session, and dials again when it ends, until ctx ends; it
// then says goodbye and returns ctx's error.
func (l *Link) Run(ctx context.Context) error {
	var pace pace
	for ctx.Err() == nil {
		begun := time.Now()
		opened, err := l.attempt(ctx)
		l.wait(ctx, pace.next(opened, err, time.Since(begun)), &pace)
	}
	return ctx.Err()
}

// wait waits so long, but no longer than shortestWait once Redial is called.
func (l *Link) wait(ctx context.Context, wait time.Duration, p *pace) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return
	case <-timer.C:
		return
	case <-l.redial:
		*p = pace{}
	}
	select {
	case <-ctx.Done():
	case <-time.After(min(wait, shortestWait)):
	}
}

// attempt dials once and, if that gives a session, keeps it until it ends.
func (l *Link) attempt(ctx context.Context) (opened bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	var watch sync.WaitGroup
	watch.Go(func() {
		select {
		case <-l.redial:
			cancel(errRedial)
		case <-ctx.Done():
		}
	})
	defer watch.Wait()
	defer cancel(nil)
	conn, welcome, err := l.dial(ctx)
	if err != nil {
		if errors.Is(context.Cause(ctx), errRedial) {
			err = errRedial
		}
		l.set(nil, err)
		return false, err
	}
	err = l.keep(ctx, conn, welcome)
	if errors.Is(context.Cause(ctx), errRedial) {
		err = errRedial
	}
	return true, err
}

// errRedial ends an attempt because Redial was called.
var errRedial = errors.New("another coordinator is known")

// dial gets a stream and does the handshake.
func (l *Link) dial(ctx context.Context) (*session.Conn, *wire.Welcome, error) {
	dctx, cancel := context.WithTimeout(ctx, dialLimit)
	rw, err := l.config.Dial(dctx)
	cancel()
	if err != nil {
		l.config.Log.Debug("no way to the coordinator", "error", err)
		return nil, nil, err
	}
	conn, welcome, err := session.Dial(ctx, rw, l.config.Identity, l.config.Hello(), l.config.Trust)
	if err != nil {
		l.config.Log.Debug("no session", "error", err)
		var refused *session.Refused
		if errors.As(err, &refused) && l.config.Refused != nil {
			l.config.Refused(refused.Refusal)
		}
	}
	return conn, welcome, err
}

// keep runs the session until it or ctx ends.
func (l *Link) keep(ctx context.Context, conn *session.Conn, welcome *wire.Welcome) error {
	stop := context.AfterFunc(ctx, func() { conn.Close(context.Cause(ctx).Error(), false) })
	defer stop()
	if l.config.Generation != nil {
		l.config.Generation(conn.Generation())
	}
	if l.config.Welcome != nil {
		l.config.Welcome(welcome)
	}
	l.set(conn, nil)
	if l.handler.Opened != nil {
		l.handler.Opened(conn, welcome)
	}
	l.config.Log.Info("session with the coordinator", "coordinator", conn.Remote(), "term", conn.Term())
	err := conn.Run(context.WithoutCancel(ctx), session.Handler{Frame: l.frame})
	l.set(nil, err)
	if l.handler.Closed != nil {
		l.handler.Closed()
	}
	if ctx.Err() == nil {
		l.config.Log.Info("the session with the coordinator ended", "coordinator", conn.Remote(), "reason", err)
	}
	return err
}

// frame takes what the coordinator sends: news of the members here, the rest
// where the link's work is done.
func (l *Link) frame(f *wire.Frame) error {
	if news := f.GetWelcome(); news != nil {
		if l.config.Welcome != nil {
			l.config.Welcome(news)
		}
		return nil
	}
	if l.handler.Frame == nil {
		return nil
	}
	return l.handler.Frame(f)
}

// set notes the session, or why there is none.
func (l *Link) set(conn *session.Conn, why error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if conn != l.conn {
		close(l.changed)
		l.changed = make(chan struct{})
	}
	l.conn = conn
	l.last = why
}

// current returns the session, nil if there is none, and a channel that is
// closed when that is no longer so.
func (l *Link) current() (conn *session.Conn, changed <-chan struct{}, why error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conn, l.changed, l.last
}

// Connected reports whether there is a session.
func (l *Link) Connected() bool {
	conn, _, _ := l.current()
	return conn != nil
}

// Coordinator returns the coordinator of the session, "" if there is none.
func (l *Link) Coordinator() wire.DeviceID {
	conn, _, _ := l.current()
	if conn == nil {
		return ""
	}
	return conn.Remote()
}

// Term returns the coordinator's term in the session, 0 if there is none.
func (l *Link) Term() uint64 {
	conn, _, _ := l.current()
	if conn == nil {
		return 0
	}
	return conn.Term()
}

// Redial drops the session and dials at once: call it when a new coordinator is
// known. Calls in quick succession count as one.
func (l *Link) Redial() {
	select {
	case l.redial <- struct{}{}:
	default:
	}
}

// Call asks the coordinator. It waits for a session, and asks again when the
// session is lost, there is no quorum, or the outcome is not known, until ctx
// ends: then the error has CODE_UNAVAILABLE and matches ctx's. Other errors of
// the coordinator are returned as they are. The request may be sent several
// times, so it must be one that may; it may not be used otherwise meanwhile.
func (l *Link) Call(ctx context.Context, request *wire.Request) (*wire.Response, error) {
	for tries := 0; ; tries++ {
		conn, changed, why := l.current()
		var pause <-chan time.Time
		if conn != nil {
			var response *wire.Response
			response, why = conn.Call(ctx, request)
			cut := ctx.Err() != nil && errors.Is(why, ctx.Err())
			if why == nil || !cut && !worthRetrying(why) {
				return response, why
			}
			if cut {
				why = errUnanswered
			}
			pause = time.After(jitter(min(50*time.Millisecond<<min(tries, 6), 2*time.Second)))
		}
		select {
		case <-changed:
		case <-pause:
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", wire.Errorf(wire.Code_CODE_UNAVAILABLE, "no answer from a coordinator: %v", why), ctx.Err())
		}
	}
}

// errUnanswered is why there is no answer when the asker could wait no longer.
var errUnanswered = errors.New("it did not come in time, and whether it was done is not known")

func worthRetrying(err error) bool {
	switch wire.CodeOf(err) {
	case wire.Code_CODE_UNAVAILABLE, wire.Code_CODE_NOT_COORDINATOR, wire.Code_CODE_UNKNOWN_OUTCOME:
		return true
	}
	return false
}

// jitter returns a random time between d/2 and d.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }
