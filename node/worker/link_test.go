package worker

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ostrich-legs/ostrich/node/session"
	"github.com/ostrich-legs/ostrich/node/session/sessiontest"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// startLink runs a link until the test ends.
func startLink(t *testing.T, dial func(context.Context) (io.ReadWriteCloser, error), change func(*LinkConfig)) *Link {
	config := LinkConfig{
		Identity: sessiontest.NewIdentity("device"), Dial: dial, Trust: sessiontest.TrustAll,
		Hello: func() *wire.Hello { return sessiontest.NewHello(0) },
	}
	if change != nil {
		change(&config)
	}
	l := NewLink(config, Handler{})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: got %v, want %v", err, context.Canceled)
		}
	})
	return l
}

func TestALinkBacksOffOnlyAfterFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var dials []time.Duration
		begun := time.Now()
		startLink(t, func(context.Context) (io.ReadWriteCloser, error) {
			dials = append(dials, time.Since(begun))
			return nil, errors.New("no way")
		}, nil)
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(dials) < 9 || len(dials) > 20 {
			t.Errorf("%d dials in a minute: %v", len(dials), dials)
		}
		if dials[0] != 0 || dials[1] > 300*time.Millisecond {
			t.Errorf("the first dials came at %v", dials[:2])
		}
		for i := 1; i < len(dials); i++ {
			if gap := dials[i] - dials[i-1]; gap > 10*time.Second {
				t.Errorf("a gap of %v", gap)
			}
		}
	})
}

func TestALinkDialsAgainWithin300Milliseconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCoordinator(t)
		startLink(t, c.dial, nil)
		for range 5 {
			s := <-c.sessions
			time.Sleep(2 * time.Second)
			begun := time.Now()
			s.link.Close()
			next := <-c.sessions
			if took := time.Since(begun); took > 300*time.Millisecond {
				t.Errorf("dialled again after %v", took)
			}
			c.sessions <- next
		}
		(<-c.sessions).link.Close()
	})
}

func TestAGoodbyeThatSaysSoIsFollowedByADialAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCoordinator(t)
		startLink(t, c.dial, nil)
		s := <-c.sessions
		time.Sleep(2 * time.Second)
		begun := time.Now()
		s.conn.Close("moving", true)
		<-c.sessions
		if took := time.Since(begun); took != shortestWait {
			t.Errorf("dialled again after %v, want %v", took, shortestWait)
		}
	})
}

func TestAHintIsFollowedAtOnceButNotForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCoordinator(t)
		var dials, hints atomic.Int32
		c.refuse = func() *wire.Refusal {
			dials.Add(1)
			return &wire.Refusal{Error: &wire.Error{Code: wire.Code_CODE_NOT_COORDINATOR}, Coordinator: &wire.Peer{Id: "other"}}
		}
		startLink(t, c.dial, func(config *LinkConfig) {
			config.Refused = func(r *wire.Refusal) {
				if r.GetCoordinator().GetId() == "other" {
					hints.Add(1)
				}
			}
		})
		time.Sleep(shortestWait)
		synctest.Wait()
		if n := dials.Load(); n != 2 {
			t.Errorf("%d dials after %v, want 2", n, shortestWait)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if d, h := dials.Load(), hints.Load(); d > 25 || h != d {
			t.Errorf("%d dials and %d hints in a minute", d, h)
		}
	})
}

func TestRedialDropsTheSessionAndDialsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCoordinator(t)
		l := startLink(t, c.dial, nil)
		first := <-c.sessions
		begun := time.Now()
		l.Redial()
		<-c.sessions
		if took := time.Since(begun); took != shortestWait {
			t.Errorf("dialled again after %v, want %v", took, shortestWait)
		}
		if err := first.conn.Send(t.Context(), &wire.Frame{}); err == nil {
			t.Error("the first session is still open")
		}
	})
}

func TestRedialEndsTheWaitAfterFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var dials atomic.Int32
		l := startLink(t, func(context.Context) (io.ReadWriteCloser, error) {
			dials.Add(1)
			return nil, errors.New("no way")
		}, nil)
		time.Sleep(time.Minute)
		synctest.Wait()
		before := dials.Load()
		l.Redial()
		time.Sleep(shortestWait)
		synctest.Wait()
		if n := dials.Load() - before; n != 1 {
			t.Errorf("%d dials after Redial, want 1", n)
		}
	})
}

func TestRedialEndsADialThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dials := make(chan struct{}, 10)
		l := startLink(t, func(ctx context.Context) (io.ReadWriteCloser, error) {
			dials <- struct{}{}
			<-ctx.Done()
			return nil, ctx.Err()
		}, nil)
		<-dials
		l.Redial()
		begun := time.Now()
		<-dials
		if took := time.Since(begun); took != shortestWait {
			t.Errorf("dialled again after %v, want %v", took, shortestWait)
		}
	})
}

func TestCallOutlivesSessionsAndTemporaryErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCoordinator(t)
		blob := c.store([]byte("page"))
		asked := 0
		c.answer = func(*wire.Request) error {
			if asked++; asked <= 3 {
				return wire.Errorf(wire.Code_CODE_UNAVAILABLE, "no quorum")
			}
			return nil
		}
		l := startLink(t, c.dial, nil)
		go func() {
			s := <-c.sessions
			time.Sleep(60 * time.Millisecond)
			s.link.Close()
		}()
		page, err := call(l.Call).readPage(t.Context(), wire.Hash(blob.GetPages()[0]), 4)
		if err != nil || string(page) != "page" {
			t.Errorf("got %q, %v", page, err)
		}
		_, err = l.Call(t.Context(), &wire.Request{})
		if wire.CodeOf(err) != wire.Code_CODE_INVALID {
			t.Errorf("an error that is final: got %v, want CODE_INVALID", err)
		}
	})
}

func TestCallSaysWhyThereIsNoCoordinator(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := startLink(t, func(context.Context) (io.ReadWriteCloser, error) { return nil, errors.New("no way") }, nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := l.Call(ctx, &wire.Request{})
		if wire.CodeOf(err) != wire.Code_CODE_UNAVAILABLE || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want CODE_UNAVAILABLE for want of time", err)
		}
	})
}

func TestCallSaysInWordsThatTheAnswerDidNotCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCoordinator(t)
		asked := make(chan struct{})
		c.answer = func(*wire.Request) error {
			<-asked
			return nil
		}
		l := startLink(t, c.dial, nil)
		defer close(asked)
		<-c.sessions
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := l.Call(ctx, &wire.Request{})
		if wire.CodeOf(err) != wire.Code_CODE_UNAVAILABLE || !errors.Is(err, context.DeadlineExceeded) || !errors.Is(ctx.Err(), context.DeadlineExceeded) {
			t.Errorf("got %v, want CODE_UNAVAILABLE for want of time", err)
		}
		if want := "whether it was done is not known"; !strings.Contains(err.Error(), want) {
			t.Errorf("got %q, want it to say %q", err, want)
		}
	})
}

func TestALinkTellsTheGenerationBeforeTheWelcome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCoordinator(t)
		told := make(chan uint64, 1)
		startLink(t, c.dial, func(config *LinkConfig) {
			config.Generation = func(g uint64) { told <- g }
			config.Welcome = func(*wire.Welcome) {
				if len(told) != 1 {
					t.Error("the welcome came first")
				}
			}
		})
		<-c.sessions
		if got := <-told; got != 1 {
			t.Errorf("got generation %d, want 1", got)
		}
	})
}

func TestALinkSaysGoodbyeWhenItsContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		l := NewLink(LinkConfig{
			Identity: sessiontest.NewIdentity("device"), Trust: sessiontest.TrustAll,
			Dial:  func(context.Context) (io.ReadWriteCloser, error) { return a, nil },
			Hello: func() *wire.Hello { return sessiontest.NewHello(0) },
		}, Handler{})
		ctx, cancel := context.WithCancel(t.Context())
		go l.Run(ctx)
		conn, _, err := session.AcceptConn(t.Context(), b, sessiontest.NewAccept(sessiontest.NewIdentity("coordinator")))
		if err != nil {
			t.Fatal(err)
		}
		outcome := sessiontest.Start(conn, session.Handler{})
		synctest.Wait()
		if !l.Connected() || l.Coordinator() != sessiontest.NewIdentity("coordinator").ID {
			t.Error("the link does not know its session")
		}
		cancel()
		var bye *session.GoodbyeError
		if err := <-outcome; !errors.As(err, &bye) || bye.Redial {
			t.Errorf("got %v, want a goodbye", err)
		}
	})
}
