package session_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ostrich-legs/ostrich/node/session"
	"github.com/ostrich-legs/ostrich/node/session/sessiontest"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// raw is a session whose other end is the test.
type raw struct {
	t    *testing.T
	link net.Conn // the test's end
	pair sessiontest.Pair
}

// newRaw connects; the device's Conn is not run, so that the test may speak for
// it.
func newRaw(t *testing.T) raw {
	a, b := net.Pipe()
	return raw{t: t, link: a, pair: sessiontest.Connect(t, a, b)}
}

func (r raw) write(frame *wire.Frame) {
	r.t.Helper()
	if err := wire.WriteMessage(r.link, wire.MaxFrame, frame); err != nil {
		r.t.Errorf("writing: %v", err)
	}
}

func (r raw) read() *wire.Frame {
	frame := new(wire.Frame)
	if err := wire.ReadMessage(r.link, wire.MaxFrame, frame); err != nil {
		r.t.Errorf("reading: %v", err)
	}
	return frame
}

func request(id uint64) *wire.Frame {
	return &wire.Frame{Kind: &wire.Frame_Request{Request: &wire.Request{Id: id}}}
}

func TestAHostilePeerEndsItsSessionWithAReason(t *testing.T) {
	t.Parallel()
	parts := &wire.Results{}
	for range 70_000 {
		parts.Results = append(parts.Results, &wire.TaskResult{})
	}
	tests := []struct {
		name string
		send func(raw)
		want string
	}{
		{"an oversize frame", func(r raw) { r.link.Write([]byte{0, 0x10, 0, 1}) }, "1048577 bytes"},
		{"an empty frame", func(r raw) { r.link.Write([]byte{0, 0, 0, 0}) }, "empty"},
		{"a kind for the other direction", func(r raw) {
			r.write(&wire.Frame{Kind: &wire.Frame_Lease{Lease: &wire.Lease{}}})
		}, "not sent this way"},
		{"a second hello", func(r raw) {
			r.write(&wire.Frame{Kind: &wire.Frame_Hello{Hello: &wire.Hello{}}})
		}, "not sent this way"},
		{"a frame of very many parts", func(r raw) { r.write(&wire.Frame{Kind: &wire.Frame_Results{Results: parts}}) }, "parts"},
		{"an answer to nothing", func(r raw) {
			r.write(&wire.Frame{Kind: &wire.Frame_Response{Response: &wire.Response{Id: 1}}})
		}, "no open request"},
		{"too many open requests", func(r raw) {
			for i := range uint64(65) {
				r.write(request(i))
			}
		}, "64 open requests"},
		{"damaged inside", func(r raw) { r.link.Write([]byte{0, 0, 0, 4, 12<<3 | 2, 2, 0x0a, 0x7f}) }, "a frame that is none"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := newRaw(t)
			outcome := sessiontest.Start(r.pair.Coordinator, session.Handler{Request: func(ctx context.Context, _ *wire.Request) *wire.Response {
				<-ctx.Done()
				return nil
			}})
			test.send(r)
			if reason := r.read().GetGoodbye().GetReason(); !strings.Contains(reason, test.want) {
				t.Errorf("the goodbye: got %q, want %q in it", reason, test.want)
			}
			if err := <-outcome; !errors.Is(err, session.ErrProtocol) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("Run: got %v, want %v with %q", err, session.ErrProtocol, test.want)
			}
		})
	}
}

func TestAHandlersErrorEndsTheSession(t *testing.T) {
	t.Parallel()
	r := newRaw(t)
	nonsense := errors.New("nonsense")
	outcome := sessiontest.Start(r.pair.Coordinator, session.Handler{Frame: func(*wire.Frame) error { return nonsense }})
	r.write(&wire.Frame{Kind: &wire.Frame_Heartbeat{Heartbeat: &wire.Heartbeat{}}})
	if got := r.read().GetGoodbye().GetReason(); got != "nonsense" {
		t.Errorf("the goodbye: got %q", got)
	}
	if err := <-outcome; !errors.Is(err, nonsense) {
		t.Errorf("Run: got %v, want %v", err, nonsense)
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	t.Parallel()
	r := newRaw(t)
	ctx, cancel := context.WithCancel(t.Context())
	outcome := make(chan error)
	go func() { outcome <- r.pair.Coordinator.Run(ctx, session.Handler{}) }()
	cancel()
	if err := <-outcome; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
	if _, err := r.link.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the other end: got %v, want %v", err, io.EOF)
	}
}

func TestASilentPeerIsPingedThenDropped(t *testing.T) {
	for _, test := range []struct {
		busy       bool
		ping, drop time.Duration
	}{
		{false, 10 * time.Second, 13 * time.Second},
		{true, time.Second, 4 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := newRaw(t)
			begun := time.Now()
			r.pair.Coordinator.SetBusy(test.busy)
			outcome := sessiontest.Start(r.pair.Coordinator, session.Handler{})
			if r.read().GetPing() == nil || time.Since(begun) != test.ping {
				t.Errorf("busy %v: no ping after %v", test.busy, time.Since(begun))
			}
			if err := <-outcome; !errors.Is(err, session.ErrSilent) || time.Since(begun) != test.drop {
				t.Errorf("busy %v: got %v after %v, want %v after %v", test.busy, err, time.Since(begun), session.ErrSilent, test.drop)
			}
		})
	}
}

func TestAPeerThatBecomesBusyIsPingedAtOnceIfItWasSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRaw(t)
		sessiontest.Start(r.pair.Coordinator, session.Handler{})
		time.Sleep(5 * time.Second)
		begun := time.Now()
		r.pair.Coordinator.SetBusy(true)
		if r.read().GetPing() == nil || time.Since(begun) != 0 {
			t.Errorf("pinged after %v, want at once", time.Since(begun))
		}
	})
}

func TestSessionsThatSayNothingStayAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		pair := sessiontest.Connect(t, a, b)
		pair.Device.SetBusy(true)
		device := sessiontest.Start(pair.Device, session.Handler{})
		coordinator := sessiontest.Start(pair.Coordinator, session.Handler{})
		select {
		case err := <-device:
			t.Errorf("the device's end: %v", err)
		case err := <-coordinator:
			t.Errorf("the coordinator's end: %v", err)
		case <-time.After(time.Hour):
		}
	})
}

func TestAHandlerThatTakesLongIsNotTheOthersSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		pair := sessiontest.Connect(t, a, b)
		handled := make(chan struct{})
		sessiontest.Start(pair.Device, session.Handler{})
		outcome := sessiontest.Start(pair.Coordinator, session.Handler{Frame: func(*wire.Frame) error {
			time.Sleep(8 * time.Second)
			close(handled)
			return nil
		}})
		pair.Coordinator.SetBusy(true)
		pair.Device.Send(t.Context(), &wire.Frame{Kind: &wire.Frame_Heartbeat{Heartbeat: &wire.Heartbeat{}}})
		<-handled
		select {
		case err := <-outcome:
			t.Errorf("the session ended: %v", err)
		case <-time.After(time.Minute):
		}
	})
}

func TestAPeerThatNeverReadsIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRaw(t)
		outcome := sessiontest.Start(r.pair.Coordinator, session.Handler{Frame: func(*wire.Frame) error { return nil }})
		done := make(chan struct{})
		go func() {
			defer close(done)
			for wire.WriteMessage(r.link, wire.MaxFrame, &wire.Frame{Kind: &wire.Frame_Heartbeat{Heartbeat: &wire.Heartbeat{}}}) == nil {
				time.Sleep(500 * time.Millisecond)
			}
		}()
		// Send blocks once the queue is full, and ends with the session.
		var err error
		for err == nil {
			lease := &wire.Lease{Inputs: []*wire.LeasedInput{{Inline: make([]byte, 500_000)}}}
			err = r.pair.Coordinator.Send(t.Context(), &wire.Frame{Kind: &wire.Frame_Lease{Lease: lease}})
		}
		if wire.CodeOf(err) != wire.Code_CODE_UNAVAILABLE {
			t.Errorf("Send: got %v, want CODE_UNAVAILABLE", err)
		}
		if err := <-outcome; !errors.Is(err, session.ErrStalled) {
			t.Errorf("Run: got %v, want %v", err, session.ErrStalled)
		}
		<-done
	})
}

func TestRequestsOfAPeerThatNeverReadsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRaw(t)
		outcome := sessiontest.Start(r.pair.Coordinator, session.Handler{Request: func(context.Context, *wire.Request) *wire.Response {
			return &wire.Response{Kind: &wire.Response_ReadPage{ReadPage: &wire.ReadPageResponse{Data: make([]byte, wire.MaxChunk)}}}
		}})
		sent := 0
		for ; wire.WriteMessage(r.link, wire.MaxFrame, request(uint64(sent))) == nil; sent++ {
			time.Sleep(time.Millisecond)
		}
		if err := <-outcome; !errors.Is(err, session.ErrProtocol) || sent > 80 {
			t.Errorf("got %v after %d requests, want %v after 64 and those whose answers are queued", err, sent, session.ErrProtocol)
		}
	})
}

func TestControlFramesOvertakeBulk(t *testing.T) {
	t.Parallel()
	r := newRaw(t)
	for range 3 {
		lease := &wire.Lease{Inputs: []*wire.LeasedInput{{Inline: make([]byte, 100_000)}}}
		if err := r.pair.Coordinator.Send(t.Context(), &wire.Frame{Kind: &wire.Frame_Lease{Lease: lease}}); err != nil {
			t.Fatal(err)
		}
	}
	r.pair.Coordinator.Send(t.Context(), &wire.Frame{Kind: &wire.Frame_CancelTasks{CancelTasks: &wire.CancelTasks{}}})
	place := -1
	for i := range 4 {
		if r.read().GetCancelTasks() != nil {
			place = i
		}
	}
	// The writer may have had a lease in hand, or two.
	if place < 0 || place == 3 {
		t.Errorf("the cancellation came at place %d, behind all leases", place)
	}
}

func TestSendEndsWithItsContextWhileTheQueueIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRaw(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var err error
		for err == nil {
			err = r.pair.Coordinator.Send(ctx, &wire.Frame{Kind: &wire.Frame_LogLine{LogLine: &wire.LogLine{Message: strings.Repeat("x", 100_000)}}})
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want %v", err, context.DeadlineExceeded)
		}
	})
}

func TestACallThatIsGivenUpKeepsItsPlaceUntilItsAnswerComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		pair := sessiontest.Connect(t, a, b)
		answer := make(chan struct{})
		sessiontest.Start(pair.Device, session.Handler{})
		outcome := sessiontest.Start(pair.Coordinator, session.Handler{Request: func(context.Context, *wire.Request) *wire.Response {
			<-answer
			return &wire.Response{}
		}})
		ctx, cancel := context.WithCancel(t.Context())
		for range 64 {
			go pair.Device.Call(ctx, &wire.Request{})
		}
		synctest.Wait()
		cancel()
		synctest.Wait()
		called := make(chan error, 1)
		go func() {
			_, err := pair.Device.Call(t.Context(), &wire.Request{})
			called <- err
		}()
		synctest.Wait()
		select {
		case err := <-called:
			t.Fatalf("call 65 did not wait: %v", err)
		case err := <-outcome:
			t.Fatalf("the coordinator's end: %v", err)
		default:
		}
		close(answer)
		if err := <-called; err != nil {
			t.Errorf("call 65: %v", err)
		}
	})
}

func TestAnAnswerThatComesBeforeItsRequestIsSentHoldsNothingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRaw(t)
		sessiontest.Start(r.pair.Coordinator, session.Handler{})
		fill, full := context.WithTimeout(t.Context(), time.Second)
		defer full()
		for r.pair.Coordinator.Send(fill, &wire.Frame{Kind: &wire.Frame_LogLine{LogLine: &wire.LogLine{Message: strings.Repeat("x", 100_000)}}}) == nil {
		}
		ctx, cancel := context.WithCancel(t.Context())
		called := make(chan error, 1)
		go func() {
			_, err := r.pair.Coordinator.Call(ctx, &wire.Request{})
			called <- err
		}()
		synctest.Wait()
		r.write(&wire.Frame{Kind: &wire.Frame_Response{Response: &wire.Response{Id: 1}}})
		synctest.Wait()
		cancel()
		if err := <-called; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want %v", err, context.Canceled)
		}
	})
}

func TestAnAnswerThatIsTooLargeIsAnError(t *testing.T) {
	t.Parallel()
	a, b := net.Pipe()
	pair := sessiontest.Connect(t, a, b)
	sessiontest.Start(pair.Device, session.Handler{})
	sessiontest.Start(pair.Coordinator, session.Handler{Request: func(context.Context, *wire.Request) *wire.Response {
		return &wire.Response{Kind: &wire.Response_ReadPage{ReadPage: &wire.ReadPageResponse{Data: make([]byte, wire.MaxFrame)}}}
	}})
	_, err := pair.Device.Call(t.Context(), &wire.Request{})
	if wire.CodeOf(err) != wire.Code_CODE_INTERNAL {
		t.Errorf("got %v, want CODE_INTERNAL", err)
	}
}

func TestCloseReturnsThoughThePeerReadsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRaw(t)
		begun := time.Now()
		r.pair.Coordinator.Close("bye", false)
		r.pair.Coordinator.Close("bye", false)
		if took := time.Since(begun); took != time.Second {
			t.Errorf("took %v, want 1 s", took)
		}
	})
}
