package sessiontest

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"

	"github.com/ostrich-legs/ostrich/node/session"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// Stream makes a new stream and returns its two ends.
type Stream func(t *testing.T) (a, b io.ReadWriteCloser)

// Run checks that sessions work over streams of a kind.
func Run(t *testing.T, stream Stream) {
	for _, c := range []struct {
		name  string
		check func(*testing.T, Stream)
	}{
		{"both sides learn who the other is", identities},
		{"a refusal carries its code and who coordinates", refusal},
		{"every call gets its own answer", calls},
		{"frames arrive whole and in order, both ways at once", order},
		{"a frame of the largest size passes", largest},
		{"a goodbye carries its reason", goodbye},
		{"frames sent before a goodbye arrive", lastWords},
		{"the end of the stream ends the session and its calls", cut},
		{"garbage ends the session", garbage},
	} {
		t.Run(c.name, func(t *testing.T) { c.check(t, stream) })
	}
}

func identities(t *testing.T, stream Stream) {
	a, b := stream(t)
	pair := Connect(t, a, b)
	if got, want := pair.Device.Remote(), NewIdentity("coordinator").ID; got != want {
		t.Errorf("the device's remote: got %s, want %s", got, want)
	}
	if got, want := pair.Coordinator.Remote(), NewIdentity("device").ID; got != want {
		t.Errorf("the coordinator's remote: got %s, want %s", got, want)
	}
	if pair.Device.Term() != 7 || pair.Device.Generation() != 1 {
		t.Errorf("the device sees term %d, generation %d; want 7, 1", pair.Device.Term(), pair.Device.Generation())
	}
}

func refusal(t *testing.T, stream Stream) {
	a, b := stream(t)
	want := &wire.Refusal{
		Error:       wire.EncodeError(wire.Errorf(wire.Code_CODE_NOT_COORDINATOR, "not me")),
		Coordinator: &wire.Peer{Id: "someone"},
	}
	refused := make(chan error)
	go func() { refused <- session.Refuse(t.Context(), b, want) }()
	_, _, err := session.Dial(t.Context(), a, NewIdentity("device"), NewHello(1), TrustAll)
	if err := <-refused; err != nil {
		t.Errorf("Refuse: %v", err)
	}
	var got *session.Refused
	if !errors.As(err, &got) || wire.CodeOf(err) != wire.Code_CODE_NOT_COORDINATOR || got.Coordinator().GetId() != "someone" {
		t.Errorf("Dial: got %v, want the refusal", err)
	}
}

// Echo is a request handler that answers each ReadPage with its offset as size.
func Echo(_ context.Context, r *wire.Request) *wire.Response {
	return &wire.Response{Kind: &wire.Response_ReadPage{ReadPage: &wire.ReadPageResponse{Size: r.GetReadPage().GetOffset()}}}
}

func readPage(offset uint32) *wire.Request {
	return &wire.Request{Kind: &wire.Request_ReadPage{ReadPage: &wire.ReadPageRequest{Offset: offset}}}
}

func calls(t *testing.T, stream Stream) {
	a, b := stream(t)
	pair := Connect(t, a, b)
	Start(pair.Device, session.Handler{})
	Start(pair.Coordinator, session.Handler{Request: Echo})
	var wg sync.WaitGroup
	for i := range uint32(500) {
		wg.Go(func() {
			response, err := pair.Device.Call(t.Context(), readPage(i))
			if err != nil || response.GetReadPage().GetSize() != i {
				t.Errorf("call %d: got %v, %v", i, response, err)
			}
		})
	}
	wg.Wait()
}

// expect returns a frame handler that checks that numbers come in order, and a
// channel that is closed after the last.
func expect(t *testing.T, n uint32, number func(*wire.Frame) uint32) (func(*wire.Frame) error, <-chan struct{}) {
	var next uint32
	done := make(chan struct{})
	return func(frame *wire.Frame) error {
		if got := number(frame); got != next {
			t.Errorf("frame %d arrived where %d was due", got, next)
		}
		if next++; next == n {
			close(done)
		}
		return nil
	}, done
}

func order(t *testing.T, stream Stream) {
	const n = 400
	a, b := stream(t)
	pair := Connect(t, a, b)
	down, downDone := expect(t, n, func(f *wire.Frame) uint32 { return f.GetLease().GetClaim().GetIndexes()[0] })
	up, upDone := expect(t, n, func(f *wire.Frame) uint32 { return f.GetResults().GetResults()[0].GetIndex() })
	Start(pair.Device, session.Handler{Frame: down})
	Start(pair.Coordinator, session.Handler{Frame: up})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range uint32(n) {
			lease := &wire.Lease{Claim: &wire.LeaseClaim{Indexes: []uint32{i}}, Inputs: []*wire.LeasedInput{{Inline: make([]byte, i%7*20_000)}}}
			if err := pair.Coordinator.Send(t.Context(), &wire.Frame{Kind: &wire.Frame_Lease{Lease: lease}}); err != nil {
				t.Errorf("sending a lease: %v", err)
			}
		}
	})
	wg.Go(func() {
		for i := range uint32(n) {
			results := &wire.Results{Results: []*wire.TaskResult{{Index: i, Output: make([]byte, i%5*30_000)}}}
			if err := pair.Device.Send(t.Context(), &wire.Frame{Kind: &wire.Frame_Results{Results: results}}); err != nil {
				t.Errorf("sending results: %v", err)
			}
		}
	})
	wg.Wait()
	<-downDone
	<-upDone
}

func largest(t *testing.T, stream Stream) {
	a, b := stream(t)
	pair := Connect(t, a, b)
	got := make(chan int, 1)
	Start(pair.Device, session.Handler{})
	Start(pair.Coordinator, session.Handler{Frame: func(f *wire.Frame) error {
		got <- len(f.GetLogLine().GetMessage())
		return nil
	}})
	line := func(n int) *wire.Frame {
		return &wire.Frame{Kind: &wire.Frame_LogLine{LogLine: &wire.LogLine{Message: string(make([]byte, n))}}}
	}
	const overhead = 1 + 3 + 1 + 3 // two tags and two lengths
	err := pair.Device.Send(t.Context(), line(wire.MaxFrame-overhead+1))
	if wire.CodeOf(err) != wire.Code_CODE_INVALID {
		t.Errorf("a frame that is a byte too large: got %v, want CODE_INVALID", err)
	}
	if err := pair.Device.Send(t.Context(), line(wire.MaxFrame-overhead)); err != nil {
		t.Fatalf("the largest frame: %v", err)
	}
	if n := <-got; n != wire.MaxFrame-overhead {
		t.Errorf("got %d bytes, want %d", n, wire.MaxFrame-overhead)
	}
}

func goodbye(t *testing.T, stream Stream) {
	a, b := stream(t)
	pair := Connect(t, a, b)
	device := Start(pair.Device, session.Handler{})
	coordinator := Start(pair.Coordinator, session.Handler{})
	if err := pair.Coordinator.Close("moved", true); err != nil {
		t.Errorf("Close: %v", err)
	}
	var bye *session.GoodbyeError
	if err := <-device; !errors.As(err, &bye) || bye.Reason != "moved" || !bye.Redial || !errors.Is(err, session.ErrGoodbye) {
		t.Errorf("the device's end: got %v, want the goodbye", err)
	}
	if err := <-coordinator; !errors.Is(err, session.ErrClosed) {
		t.Errorf("the coordinator's end: got %v, want %v", err, session.ErrClosed)
	}
}

func lastWords(t *testing.T, stream Stream) {
	const n = 100
	a, b := stream(t)
	pair := Connect(t, a, b)
	got := 0
	coordinator := Start(pair.Coordinator, session.Handler{Frame: func(*wire.Frame) error { got++; return nil }})
	for range n {
		if err := pair.Device.Send(t.Context(), &wire.Frame{Kind: &wire.Frame_Results{Results: &wire.Results{JobId: "j"}}}); err != nil {
			t.Fatalf("Send: %v", err)
		}
	}
	pair.Device.Close("done", false)
	if err := <-coordinator; !errors.Is(err, session.ErrGoodbye) || got != n {
		t.Errorf("got %d frames and %v, want %d and a goodbye", got, err, n)
	}
	if err := pair.Device.Send(t.Context(), &wire.Frame{}); wire.CodeOf(err) != wire.Code_CODE_UNAVAILABLE {
		t.Errorf("Send after Close: got %v, want CODE_UNAVAILABLE", err)
	}
}

func cut(t *testing.T, stream Stream) {
	a, b := stream(t)
	pair := Connect(t, a, b)
	asked := make(chan struct{})
	device := Start(pair.Device, session.Handler{})
	coordinator := Start(pair.Coordinator, session.Handler{Request: func(ctx context.Context, r *wire.Request) *wire.Response {
		close(asked)
		<-ctx.Done()
		return &wire.Response{}
	}})
	called := make(chan error)
	go func() {
		_, err := pair.Device.Call(t.Context(), readPage(0))
		called <- err
	}()
	<-asked
	b.Close()
	if err := <-called; wire.CodeOf(err) != wire.Code_CODE_UNAVAILABLE {
		t.Errorf("the call: got %v, want CODE_UNAVAILABLE", err)
	}
	for side, outcome := range map[string]<-chan error{"device": device, "coordinator": coordinator} {
		if err := <-outcome; !errors.Is(err, session.ErrGoodbye) && !errors.Is(err, session.ErrBroken) {
			t.Errorf("the %s's end: got %v, want a goodbye or a broken link", side, err)
		}
	}
}

func garbage(t *testing.T, stream Stream) {
	a, b := stream(t)
	pair := Connect(t, a, b)
	coordinator := Start(pair.Coordinator, session.Handler{Request: Echo})
	go io.Copy(io.Discard, a)
	if _, err := a.Write([]byte("GET / HTTP/1.1\r\n\r\n")); err != nil {
		t.Fatalf("writing: %v", err)
	}
	if err := <-coordinator; !errors.Is(err, session.ErrProtocol) {
		t.Errorf("got %v, want %v", err, session.ErrProtocol)
	}
}
