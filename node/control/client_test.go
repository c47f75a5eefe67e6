package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ostrich-legs/ostrich/node/control/controltest"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve serves the fake on a fresh data folder and returns a client of it.
func serve(t *testing.T, s *controltest.Service) *Client {
	t.Helper()
	dir := t.TempDir()
	srv := NewServer(ServerConfig{Service: s, DataDir: dir, Listen: "127.0.0.1:0"})
	if err := srv.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { srv.Close() })
	c, err := Dial(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// numbers yields n inputs of size bytes, each another.
func numbers(n, size int) iter.Seq2[Input, error] {
	return func(yield func(Input, error) bool) {
		for i := range n {
			data := []byte(fmt.Sprintf("%0*d", size, i))
			if !yield(Input{Data: data}, nil) {
				return
			}
		}
	}
}

// gather returns a Result function that keeps outputs by index, and the
// indexes in the order in which they came.
func gather(outputs map[uint32]string, order *[]uint32) func(*wire.TaskResult, io.Reader) error {
	return func(r *wire.TaskResult, out io.Reader) error {
		data, err := io.ReadAll(out)
		outputs[r.GetIndex()] = string(data)
		*order = append(*order, r.GetIndex())
		return err
	}
}

func TestMapDeliversEveryInputOnceInOrder(t *testing.T) {
	unavailable := func(name string, every int) func(string, int) error {
		return func(got string, n int) error {
			if (name == "" || got == name) && n%every == 0 && got != "GetJob" && got != "CancelJob" {
				return wire.Errorf(wire.Code_CODE_UNKNOWN_OUTCOME, "the leader was lost")
			}
			return nil
		}
	}
	tests := map[string]struct {
		service    *controltest.Service
		n, size    int
		unordered  bool
		resubmit   bool
		cut, every int
	}{
		"no input":            {service: controltest.New(), n: 0, size: 1},
		"one":                 {service: controltest.New(), n: 1, size: 5},
		"many small":          {service: controltest.New(), n: 30_000, size: 6},
		"larger than a batch": {service: controltest.New(), n: 40, size: 200 << 10},
		"blobs":               {service: controltest.New(), n: 20, size: 300 << 10},
		"large inputs":        {service: controltest.New(), n: 3, size: 5 << 20},
		"unordered":           {service: controltest.New(), n: 5000, size: 4, unordered: true},
		"failures before":     {service: controltest.New(), n: 20_000, size: 100, every: 3},
		"streams cut":         {service: controltest.New(), n: 2000, size: 4, cut: 3},
		"streams cut, large":  {service: controltest.New(), n: 3, size: 150 << 10, cut: 5},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := tt.service
			s.Reverse = tt.unordered
			if tt.every > 0 {
				s.After = unavailable("", tt.every)
			}
			if tt.cut > 0 {
				s.Cut = func(n int) int { return tt.cut + n%3 }
			}
			c := serve(t, s)
			outputs, order := map[uint32]string{}, []uint32{}
			job, err := c.Map(t.Context(), MapOptions{
				Spec: &wire.JobSpec{}, Inputs: numbers(tt.n, tt.size), Unordered: tt.unordered, Result: gather(outputs, &order),
			})
			if err != nil {
				t.Fatal(err)
			}
			if job.GetState() != wire.JobState_JOB_STATE_DONE || len(order) != tt.n {
				t.Fatalf("the job is %v with %d results, want %d", job.GetState(), len(order), tt.n)
			}
			if sorted := slices.IsSorted(order); sorted == tt.unordered && tt.n > 1 {
				t.Errorf("results sorted: %v, want %v", sorted, !tt.unordered)
			}
			for i := range tt.n {
				if want := fmt.Sprintf("%0*d", tt.size, i); outputs[uint32(i)] != want {
					t.Fatalf("output %d differs", i)
				}
			}
		})
	}
}

func TestMapStartsBeforeItsInputEnds(t *testing.T) {
	c := serve(t, controltest.New())
	got := make(chan string, 1)
	inputs := func(yield func(Input, error) bool) {
		for i := range 5 {
			if !yield(Input{Data: []byte(fmt.Sprint(i))}, nil) {
				return
			}
			if out := <-got; out != fmt.Sprint(i) {
				t.Errorf("got %q while input %d was the last", out, i)
			}
		}
	}
	_, err := c.Map(t.Context(), MapOptions{Spec: &wire.JobSpec{}, Inputs: inputs, Result: func(_ *wire.TaskResult, r io.Reader) error {
		data, err := io.ReadAll(r)
		got <- string(data)
		return err
	}})
	if err != nil {
		t.Fatal(err)
	}
}

func TestMapResumesAfterTheInputsThatAreThere(t *testing.T) {
	s := controltest.New()
	c := serve(t, s)
	broken := errors.New("the disk went away")
	half := func(yield func(Input, error) bool) {
		for in := range numbers(5000, 8) {
			if !yield(in, nil) {
				return
			}
		}
		for s.Job("again").GetTasks().GetTotal() < 5000 {
			time.Sleep(time.Millisecond)
		}
		// Like kill -9: the client says no more.
		yield(Input{}, wire.Errorf(wire.Code_CODE_UNAVAILABLE, "%v", broken))
	}
	if _, err := c.Map(t.Context(), MapOptions{JobID: "again", Spec: &wire.JobSpec{}, Inputs: half}); err == nil {
		t.Fatal("the first half succeeded")
	}
	tests := []struct {
		name   string
		inputs iter.Seq2[Input, error]
		want   wire.Code
	}{
		{"other inputs", numbers(6000, 9), wire.Code_CODE_CONFLICT},
		{"fewer inputs", numbers(4999, 8), wire.Code_CODE_CONFLICT},
		{"the same and more", numbers(6000, 8), wire.Code_CODE_UNSPECIFIED},
		{"all of them again", numbers(6000, 8), wire.Code_CODE_UNSPECIFIED},
		{"one too many", numbers(6001, 8), wire.Code_CODE_CONFLICT},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			outputs, order := map[uint32]string{}, []uint32{}
			_, err := c.Map(t.Context(), MapOptions{JobID: "again", Resume: true, Spec: &wire.JobSpec{}, Inputs: tt.inputs, Result: gather(outputs, &order)})
			if got := wire.CodeOf(err); got != tt.want {
				t.Fatalf("got %v (%v), want %v", got, err, tt.want)
			}
			if err == nil && (len(order) != 6000 || outputs[5999] != "00005999") {
				t.Errorf("%d results, the last %q", len(order), outputs[5999])
			}
			if s.Job("again").GetState() == wire.JobState_JOB_STATE_CANCELLED {
				t.Error("a refused map cancelled the job of somebody else")
			}
		})
	}
}

func TestMapStopsReadingWhenItsJobFails(t *testing.T) {
	s := controltest.New()
	s.Compute = func(_ *wire.JobSpec, i uint32, in []byte) *wire.TaskResult {
		if i == 3 {
			return controltest.Fail(7, "no")
		}
		return controltest.Echo(nil, i, in)
	}
	c := serve(t, s)
	endless := numbers(1<<30, 8)
	outputs, order := map[uint32]string{}, []uint32{}
	job, err := c.Map(t.Context(), MapOptions{Spec: &wire.JobSpec{}, Inputs: endless, Result: gather(outputs, &order)})
	if err != nil || job.GetState() != wire.JobState_JOB_STATE_FAILED {
		t.Fatalf("got %v, %v; want a job that failed", job.GetState(), err)
	}
}

func TestMapCancelsItsJobWhenItCannotGoOn(t *testing.T) {
	gone := errors.New("nobody reads the output")
	waiting := func(ctx context.Context) iter.Seq2[Input, error] {
		return func(yield func(Input, error) bool) {
			if yield(Input{Data: []byte("a")}, nil) {
				<-ctx.Done()
			}
		}
	}
	tests := map[string]struct {
		result func(context.CancelCauseFunc) error
		inputs func(context.Context) iter.Seq2[Input, error]
		want   error
	}{
		"output closed": {func(context.CancelCauseFunc) error { return gone }, waiting, gone},
		"interrupted":   {func(stop context.CancelCauseFunc) error { stop(gone); return nil }, waiting, gone},
		"input unreadable": {func(context.CancelCauseFunc) error { return nil }, func(context.Context) iter.Seq2[Input, error] {
			return func(yield func(Input, error) bool) {
				_ = yield(Input{Data: []byte("a")}, nil) && yield(Input{}, gone)
			}
		}, gone},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := controltest.New()
			c := serve(t, s)
			ctx, stop := context.WithCancelCause(t.Context())
			defer stop(nil)
			reading, stopReading := context.WithCancel(t.Context())
			_, err := c.Map(ctx, MapOptions{
				JobID: "j", Spec: &wire.JobSpec{}, Inputs: tt.inputs(reading), StopInputs: stopReading,
				Result: func(*wire.TaskResult, io.Reader) error { return tt.result(stop) },
			})
			if !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if job := s.Job("j"); job != nil && job.GetState() != wire.JobState_JOB_STATE_CANCELLED {
				t.Errorf("the job is %v, want cancelled", job.GetState())
			}
		})
	}
}

func TestMapHoldsTheReaderBackWhileNothingIsAcknowledged(t *testing.T) {
	s := controltest.New()
	release := make(chan struct{})
	s.Before = func(name string, _ int) error {
		if name == "AppendInputs" {
			<-release
		}
		return nil
	}
	c := serve(t, s)
	const size, n = 100 << 10, 400
	var read atomic.Int64
	inputs := func(yield func(Input, error) bool) {
		for in := range numbers(n, size) {
			if read.Add(1); !yield(in, nil) {
				return
			}
		}
	}
	go func() {
		// The reader comes to a stop: nothing is read for a while.
		for last := int64(-1); s.Calls("AppendInputs") < window || last != read.Load(); time.Sleep(50 * time.Millisecond) {
			last = read.Load()
		}
		if got, limit := read.Load()*size, int64((window+3)*maxBatchBytes); got > limit {
			t.Errorf("%d bytes were read ahead, want at most %d", got, limit)
		}
		close(release)
	}()
	job, err := c.Map(t.Context(), MapOptions{Spec: &wire.JobSpec{}, Inputs: inputs})
	if err != nil || job.GetTasks().GetTotal() != n {
		t.Fatalf("got %d inputs, %v", job.GetTasks().GetTotal(), err)
	}
}

func TestLargeInputsAreNotHeldInMemory(t *testing.T) {
	const size, limit = 256 << 20, 128 << 20
	s := controltest.New()
	s.Discard = true
	c := serve(t, s)
	runtime.GC()
	source := &watched{}
	input, hash, err := c.PutBlob(t.Context(), io.LimitReader(source, size))
	if err != nil || input.GetBlob().GetSize() != size {
		t.Fatal(input.GetBlob().GetSize(), err)
	}
	if want, _ := hashReader(io.LimitReader(&watched{}, size)); hash != want {
		t.Error("the hash differs")
	}
	if source.peak > limit {
		t.Errorf("the heap grew to %d MiB, want at most %d", source.peak>>20, limit>>20)
	}
}

// watched yields zeros and notes the heap's peak now and then.
type watched struct {
	reads int
	peak  uint64
}

func (w *watched) Read(p []byte) (int, error) {
	if w.reads++; w.reads%64 == 0 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		w.peak = max(w.peak, m.HeapInuse)
	}
	clear(p)
	return len(p), nil
}

func TestErrorsCrossWithTheirCode(t *testing.T) {
	for code := range wire.Code_name {
		if code == 0 {
			continue
		}
		s := controltest.New()
		s.Before = func(string, int) error { return fmt.Errorf("asked: %w", wire.Errorf(wire.Code(code), "no. %d", code)) }
		c := serve(t, s)
		_, err := Call(t.Context(), c.GetJob, &wire.GetJobRequest{})
		if got := wire.CodeOf(err); got != wire.Code(code) || err.Error() != fmt.Sprintf("asked: no. %d", code) {
			t.Errorf("unary: got %v %q, want %v", got, err, wire.Code(code))
		}
		_, err = c.Results(t.Context(), ResultsOptions{Patience: Patience{Limit: time.Nanosecond}}, nil)
		if got := wire.CodeOf(err); got != wire.Code(code) {
			t.Errorf("stream: got %v %q, want %v", got, err, wire.Code(code))
		}
		_, _, err = c.PutBlob(t.Context(), strings.NewReader("x"))
		if got := wire.CodeOf(err); got != wire.Code(code) {
			t.Errorf("upload: got %v %q, want %v", got, err, wire.Code(code))
		}
	}
}

func TestDialSaysHowToStartANode(t *testing.T) {
	dir := t.TempDir()
	_, err := Dial(dir)
	if wire.CodeOf(err) != wire.Code_CODE_UNAVAILABLE || !errors.Is(err, ErrNoNode) || !strings.Contains(err.Error(), "ostrich up") {
		t.Errorf("got %v", err)
	}
	// A node that goes away later is the same.
	c := newClient(dir, SocketPath(dir))
	defer c.Close()
	_, err = Call(t.Context(), c.GetJob, &wire.GetJobRequest{})
	if wire.CodeOf(err) != wire.Code_CODE_UNAVAILABLE || !errors.Is(err, ErrNoNode) {
		t.Errorf("got %v", err)
	}
}

func TestProgramsArriveWhole(t *testing.T) {
	c := serve(t, controltest.New())
	module := append([]byte("\x00asm"), bytes.Repeat([]byte("x"), 3<<20)...)
	p, err := c.PutProgram(t.Context(), "x.wasm", bytes.NewReader(module))
	if err != nil {
		t.Fatal(err)
	}
	h := wire.HashOf(module)
	if !bytes.Equal(p.GetBlob().GetHash(), h[:]) || p.GetName() != "x.wasm" {
		t.Errorf("got %v", p)
	}
	if _, err := c.PutProgram(t.Context(), "y", strings.NewReader("no module")); wire.CodeOf(err) != wire.Code_CODE_INVALID {
		t.Errorf("got %v, want CODE_INVALID", err)
	}
}

func TestRetryEndsWithItsPatience(t *testing.T) {
	told := 0
	p := Patience{Limit: 120 * time.Millisecond, Waiting: func(error) { told++ }}
	err := p.Retry(t.Context(), func(context.Context) error { return wire.Errorf(wire.Code_CODE_UNAVAILABLE, "no quorum") })
	if wire.CodeOf(err) != wire.Code_CODE_UNAVAILABLE || told == 0 {
		t.Errorf("got %v after %d notices", err, told)
	}
	calls := 0
	if err := p.Retry(t.Context(), func(context.Context) error { calls++; return wire.Errorf(wire.Code_CODE_DENIED, "no") }); calls != 1 || err == nil {
		t.Errorf("a refusal was asked %d times: %v", calls, err)
	}
}
