package worker

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/ostrich-legs/ostrich/node/sandbox"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

func TestLeasedTasksRunAndAreReportedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCoordinator(t)
		w := start(t, c, 2, newFakeSandbox(2, echo))
		s := <-c.sessions
		if s.hello.GetSlots() != 2 {
			t.Errorf("the hello: got %d slots, want 2", s.hello.GetSlots())
		}
		s.lease(newLeaseFrame("job", 1, c.spec("p"), inputs(0, 1000)))
		got := s.collect(1000)
		for i, input := range inputs(0, 1000) {
			if r := got[i]; r.GetStatus() != wire.TaskStatus_TASK_STATUS_OK || !bytes.Equal(r.GetOutput(), input) || r.GetDevice() != string(w.self) {
				t.Fatalf("task %d: got %v", i, r)
			}
		}
		synctest.Wait()
		if st := w.Status(); st.Leases != 0 || st.Running != 0 || st.Queued != 0 || st.Unacknowledged != 0 {
			t.Errorf("after the last acknowledgement: %+v", st)
		}
	})
}

func TestATaskSeesItsIndexArgumentsAndBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCoordinator(t)
		seen := make(chan sandbox.Task, 2)
		start(t, c, 1, newFakeSandbox(1, func(ctx context.Context, task sandbox.Task) sandbox.Result {
			seen <- task
			return echo(ctx, task)
		}))
		s := <-c.sessions
		s.lease(newLeaseFrame("job", 1, c.spec("p"), inputs(41, 2)))
		s.collect(2)
		got := <-seen
		if got.Stdin[0] != 42 {
			got = <-seen
		}
		if want := []string{"K=V", "OSTRICH_INDEX=42"}; !slices.Equal(got.Env, want) {
			t.Errorf("environment: got %q, want %q", got.Env, want)
		}
		if want := []string{"prog.wasm", "-x"}; !slices.Equal(got.Args, want) {
			t.Errorf("arguments: got %q, want %q", got.Args, want)
		}
		if got.Timeout != 10*time.Minute || got.MemoryMiB != 256 || got.MaxOutput != 16<<20 || got.Seed != sandbox.Seed("job", 42) {
			t.Errorf("bounds: got %+v", got)
		}
	})
}

func TestASingleResultIsSentAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCoordinator(t)
		start(t, c, 2, newFakeSandbox(2, echo))
		s := <-c.sessions
		begun := time.Now()
		s.lease(newLeaseFrame("job", 1, c.spec("p"), inputs(0, 1)))
		s.collect(1)
		if took := time.Since(begun); took != 0 {
			t.Errorf("it took %v beyond the work itself", took)
		}
	})
}

func TestResultsThatEndTogetherShareFrames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCoordinator(t)
		start(t, c, 2, newFakeSandbox(2, func(ctx context.Context, task sandbox.Task) sandbox.Result {
			time.Sleep(100 * time.Microsecond)
			return echo(ctx, task)
		}))
		s := <-c.sessions
		s.lease(newLeaseFrame("job", 1, c.spec("p"), inputs(0, 1000)))
		frames := 0
		for n := 0; n < 1000; frames++ {
			r := <-s.results
			n += len(r.GetResults())
			s.ack(r)
		}
		// 1,000 tasks take 50 ms on two slots: a frame each 5 ms and one at the end.
		if frames < 8 || frames > 14 {
			t.Errorf("got %d frames, want about 10", frames)
		}
	})
}

func TestLongTasksGoOutOneByOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCoordinator(t)
		box := newFakeSandbox(2, func(_ context.Context, task sandbox.Task) sandbox.Result {
			time.Sleep(50 * time.Millisecond)
			return sandbox.Result{Duration: 50 * time.Millisecond}
		})
		start(t, c, 2, box)
		s := <-c.sessions
		s.lease(newLeaseFrame("job", 1, c.spec("p"), inputs(0, 4)))
		s.collect(4)
		begun := time.Now()
		s.lease(newLeaseFrame("job", 2, nil, inputs(4, 40)))
		s.collect(40)
		if took := time.Since(begun); took > 1010*time.Millisecond {
			t.Errorf("40 tasks of 50 ms on two slots took %v, want 1 s", took)
		}
		if largest := slices.Max(box.batches); largest != 1 {
			t.Errorf("the largest batch had %d tasks, want 1", largest)
		}
	})
}

func TestFailuresAreToldInWords(t *testing.T) {
	fail := func(kind wire.FailureKind) sandbox.Result { return sandbox.Result{Failure: kind} }
	tests := map[uint32]struct {
		result sandbox.Result
		want   string
	}{
		0: {sandbox.Result{ExitCode: 3}, "exit status 3"},
		1: {fail(wire.FailureKind_FAILURE_KIND_TIMEOUT), "time limit of 10m0s exceeded"},
		2: {fail(wire.FailureKind_FAILURE_KIND_MEMORY), "memory limit of 256 MiB exceeded"},
		3: {fail(wire.FailureKind_FAILURE_KIND_OUTPUT), "output limit of 16 MiB exceeded"},
		4: {sandbox.Result{Failure: wire.FailureKind_FAILURE_KIND_TRAP, Error: "trap: unreachable"}, "trap: unreachable"},
		5: {sandbox.Result{Failure: wire.FailureKind_FAILURE_KIND_TRAP, Error: strings.Repeat("é", 600)}, strings.Repeat("é", 500)},
		6: {sandbox.Result{Failure: wire.FailureKind_FAILURE_KIND_TRAP, Error: "a\xffb"}, "a\uFFFDb"},
	}
	synctest.Test(t, func(t *testing.T) {
		c := newCoordinator(t)
		start(t, c, 1, newFakeSandbox(1, func(_ context.Context, task sandbox.Task) sandbox.Result {
			result := tests[uint32(task.Stdin[0])].result
			result.Stderr = make([]byte, 5000)
			return result
		}))
		s := <-c.sessions
		s.lease(newLeaseFrame("job", 1, c.spec("p"), inputs(0, uint32(len(tests)))))
		for i, r := range s.collect(len(tests)) {
			if r.GetStatus() != wire.TaskStatus_TASK_STATUS_FAILED || r.GetError() != tests[i].want || len(r.GetStderr()) != wire.MaxStderr {
				t.Errorf("task %d: got %v %q with %d bytes of stderr, want %q", i, r.GetStatus(), r.GetError(), len(r.GetStderr()), tests[i].want)
			}
		}
	})
}

// hang runs until its context ends if stdin begins with a 1 or a 9.
func hang(ctx context.Context, task sandbox.Task) sandbox.Result {
	if task.Stdin[0] == 1 || task.Stdin[0] == 9 {
		<-ctx.Done()
	}
	return echo(ctx, task)
}

func TestACancelledTaskEndsAndTheOthersOfItsBatchRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCoordinator(t)
		w := start(t, c, 1, newFakeSandbox(1, hang))
		s := <-c.sessions
		s.lease(newLeaseFrame("job", 1, c.spec("p"), inputs(0, 10)))
		synctest.Wait() // one of tasks 1 and 9 hangs, the other waits
		s.cancel(1, 9)
		s.cancel(1, 1)
		got := s.collect(8)
		if got[1] != nil || got[9] != nil {
			t.Error("a cancelled task was reported")
		}
		synctest.Wait()
		if st := w.Status(); st.Leases != 0 || st.Running != 0 || st.Queued != 0 {
			t.Errorf("afterwards: %+v", st)
		}
	})
}

func TestACancellationWithoutIndexesEndsTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCoordinator(t)
		w := start(t, c, 2, newFakeSandbox(2, hang))
		s := <-c.sessions
		s.lease(newLeaseFrame("job", 1, c.spec("p"), map[uint32][]byte{0: {1}, 1: {1}, 2: {1}, 5: {0}}))
		synctest.Wait()
		s.cancel(1)
		synctest.Wait()
		if st := w.Status(); st.Leases != 0 || st.Running != 0 || st.Queued != 0 {
			t.Errorf("afterwards: %+v", st)
		}
		s.lease(newLeaseFrame("job", 2, nil, inputs(2, 1)))
		s.collect(1)
	})
}

func TestACancellationThatOvertakesItsLeaseHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCoordinator(t)
		w := start(t, c, 1, newFakeSandbox(1, echo))
		s := <-c.sessions
		s.cancel(1, 0, 2)
		s.cancel(2)
		synctest.Wait()
		s.lease(newLeaseFrame("job", 2, c.spec("p"), inputs(10, 5)))
		s.lease(newLeaseFrame("job", 1, nil, inputs(0, 3)))
		if got := s.collect(1); got[1] == nil {
			t.Errorf("got %v, want task 1 alone", got)
		}
		synctest.Wait()
		if st := w.Status(); st.Leases != 0 || len(s.results) != 0 {
			t.Errorf("afterwards: %+v", st)
		}
	})
}

func TestLostSessionsCostNoWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCoordinator(t)
		release := make(chan struct{})
		w := start(t, c, 2, newFakeSandbox(2, func(ctx context.Context, task sandbox.Task) sandbox.Result {
			if task.Stdin[0] >= 2 {
				<-release
			}
			return echo(ctx, task)
		}))
		s := <-c.sessions
		s.lease(newLeaseFrame("job", 1, c.spec("p"), inputs(0, 4)))
		<-s.results // tasks 0 and 1, not acknowledged
		s.link.Close()
		close(release)
		begun := time.Now()
		s = <-c.sessions
		if took := time.Since(begun); took > 300*time.Millisecond {
			t.Errorf("dialled again after %v", took)
		}
		if claims := s.hello.GetLeases(); len(claims) != 1 || string(claims[0].GetToken()) != "token" || len(claims[0].GetIndexes()) != 4 {
			t.Errorf("the hello claims %v, want the lease", claims)
		}
		if len(s.hello.GetPrograms()) != 1 {
			t.Errorf("the hello names %d programs, want 1", len(s.hello.GetPrograms()))
		}
		s.collect(4)
		s.lease(newLeaseFrame("job", 2, c.spec("p"), inputs(0, 1)))
		s.collect(1)
		if c.reads != 1 {
			t.Errorf("the program was read %d times, want once", c.reads)
		}
		synctest.Wait()
		if st := w.Status(); st.Leases != 0 {
			t.Errorf("afterwards: %+v", st)
		}
	})
}

func TestAProgramIsFetchedOnceForAllLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCoordinator(t)
		start(t, c, 2, newFakeSandbox(2, echo))
		s := <-c.sessions
		program := strings.Repeat("x", 3*wire.PageSize+5)
		for i := range uint64(5) {
			s.lease(newLeaseFrame(fmt.Sprint("job", i), i, c.spec(program), inputs(uint32(i), 1)))
		}
		s.collect(5)
		if want := 3*4 + 1; c.reads != want {
			t.Errorf("the coordinator answered %d reads, want %d", c.reads, want)
		}
	})
}

func TestAProgramThatCannotBeHadFailsItsTasksOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCoordinator(t)
		start(t, c, 1, newFakeSandbox(1, echo))
		s := <-c.sessions
		bad := c.spec("bad")
		c.pages[wire.Hash(bad.GetProgram().GetBlob().GetPages()[0])] = []byte("dab")
		s.lease(newLeaseFrame("bad", 1, bad, inputs(0, 2)))
		s.lease(newLeaseFrame("good", 2, c.spec("good"), inputs(7, 1)))
		if got := s.collect(1)[7]; got.GetStatus() != wire.TaskStatus_TASK_STATUS_OK {
			t.Errorf("the good job: got %v", got)
		}
		for i, r := range s.collect(2) {
			if r.GetFailure() != wire.FailureKind_FAILURE_KIND_INTERNAL || !strings.Contains(r.GetError(), "damaged") {
				t.Errorf("task %d: got %v %q", i, r.GetFailure(), r.GetError())
			}
		}
	})
}

func workFiles(t *testing.T, w *Worker) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(w.workDir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestALargeInputComesAsAFileThatIsRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCoordinator(t)
		input := bytes.Repeat([]byte("0123456789abcdef"), 5*wire.PageSize/32)
		w := start(t, c, 2, newFakeSandbox(2, func(_ context.Context, task sandbox.Task) sandbox.Result {
			got, err := os.ReadFile(task.StdinPath)
			if err != nil || !bytes.Equal(got, input) {
				t.Errorf("the input file: %d bytes, %v", len(got), err)
			}
			return sandbox.Result{}
		}))
		s := <-c.sessions
		lease := newLeaseFrame("job", 1, c.spec("p"), inputs(0, 3))
		for _, in := range lease.Inputs {
			*in = wire.LeasedInput{Blob: c.store(input)}
		}
		s.lease(lease)
		s.collect(3)
		synctest.Wait()
		if files := workFiles(t, w); len(files) != 0 {
			t.Errorf("left over: %v", files)
		}
	})
}

func TestALargeOutputGoesIntoPagesAndStaysUntilItIsAcknowledged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCoordinator(t)
		output := bytes.Repeat([]byte("0123456789abcde\n"), 5*wire.PageSize/32)
		w := start(t, c, 2, newFakeSandbox(2, func(_ context.Context, task sandbox.Task) sandbox.Result {
			if err := os.WriteFile(task.OutputPath, output, 0o600); err != nil {
				t.Error(err)
			}
			return sandbox.Result{StdoutPath: task.OutputPath, StdoutSize: uint64(len(output))}
		}))
		s := <-c.sessions
		refusals := 3
		c.answer = func(r *wire.Request) error {
			if refusals--; r.GetWritePage().GetOffset() > 0 && refusals > 0 {
				return wire.Errorf(wire.Code_CODE_PRECONDITION, "another coordinator")
			}
			return nil
		}
		s.lease(newLeaseFrame("job", 1, c.spec("p"), inputs(0, 1)))
		r := <-s.results
		var got []byte
		for _, name := range r.GetResults()[0].GetOutputBlob().GetPages() {
			got = append(got, c.pages[wire.Hash(name)]...)
		}
		if !bytes.Equal(got, output) || r.GetResults()[0].GetOutputBlob().GetSize() != uint64(len(output)) {
			t.Errorf("the pages hold %d bytes that differ from the %d of the output", len(got), len(output))
		}
		if files := workFiles(t, w); len(files) != 1 {
			t.Errorf("before the acknowledgement: %v, want the output", files)
		}
		s.ack(r)
		synctest.Wait()
		if files := workFiles(t, w); len(files) != 0 {
			t.Errorf("left over: %v", files)
		}
	})
}

// writesOutput runs a task whose output is large.
func writesOutput(output []byte) func(context.Context, sandbox.Task) sandbox.Result {
	return func(_ context.Context, task sandbox.Task) sandbox.Result {
		if err := os.WriteFile(task.OutputPath, output, 0o600); err != nil {
			return sandbox.Result{Failure: wire.FailureKind_FAILURE_KIND_INTERNAL, Error: err.Error()}
		}
		return sandbox.Result{StdoutPath: task.OutputPath, StdoutSize: uint64(len(output))}
	}
}

func TestAnOutputThatTheSwarmLostIsWrittenAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCoordinator(t)
		output := bytes.Repeat([]byte("output "), 300_000)
		w := start(t, c, 1, newFakeSandbox(1, writesOutput(output)))
		s := <-c.sessions
		s.lease(newLeaseFrame("job", 1, c.spec("p"), inputs(0, 1)))
		first := <-s.results
		for range 2 { // it may be lost again
			c.mu.Lock()
			for _, name := range first.GetResults()[0].GetOutputBlob().GetPages() {
				delete(c.pages, wire.Hash(name))
			}
			c.mu.Unlock()
			lost := &wire.ResultsAck{Attempt: first.GetAttempt(), Lost: []uint32{0, 0, 7}}
			s.send(&wire.Frame{Kind: &wire.Frame_ResultsAck{ResultsAck: lost}})
			again := <-s.results
			if !proto.Equal(again.GetResults()[0], first.GetResults()[0]) || len(again.GetResults()) != 1 {
				t.Errorf("sent again: %v, want %v", again, first)
			}
			for i, name := range again.GetResults()[0].GetOutputBlob().GetPages() {
				if c.pages[wire.Hash(name)] == nil {
					t.Errorf("page %d was not written again", i)
				}
			}
		}
		s.ack(first)
		synctest.Wait()
		if files := workFiles(t, w); len(files) != 0 {
			t.Errorf("left over: %v", files)
		}
	})
}

// A cancelled task's output is written no further: its link is for other work.
func TestTheOutputOfACancelledTaskIsWrittenNoFurther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCoordinator(t)
		w := start(t, c, 1, newFakeSandbox(1, writesOutput(make([]byte, 16<<20))))
		s := <-c.sessions
		var written atomic.Int32
		c.answer = func(r *wire.Request) error {
			if r.GetWritePage() != nil {
				written.Add(1)
				return wire.Errorf(wire.Code_CODE_EXHAUSTED, "no room") // it would wait for ever
			}
			return nil
		}
		s.lease(newLeaseFrame("job", 1, c.spec("p"), inputs(0, 1)))
		time.Sleep(10 * time.Second)
		s.cancel(1)
		time.Sleep(time.Second)
		before := written.Load()
		time.Sleep(time.Minute)
		if after := written.Load(); before == 0 || after != before {
			t.Errorf("%d ranges were written before the cancellation, %d after it", before, after-before)
		}
		if files := workFiles(t, w); len(files) != 0 {
			t.Errorf("left over: %v", files)
		}
	})
}

func TestNoTaskBeginsWhileManyResultsWaitToBeAcknowledged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCoordinator(t)
		w := start(t, c, 1, newFakeSandbox(1, func(context.Context, sandbox.Task) sandbox.Result {
			return sandbox.Result{Stdout: make([]byte, sandbox.InlineOutput), StdoutSize: sandbox.InlineOutput}
		}))
		s := <-c.sessions
		s.lease(newLeaseFrame("job", 1, c.spec("p"), inputs(0, 2000)))
		synctest.Wait()
		const most = maxKept + 3*maxBatch*(sandbox.InlineOutput+1000)
		if st := w.Status(); st.Unacknowledged < maxKept || st.Unacknowledged > most || st.Queued == 0 {
			t.Errorf("got %+v, want %d to %d bytes and a queue", st, maxKept, most)
		}
		s.collect(2000)
	})
}

func TestLeasesThatMakeNoSenseEndTheSession(t *testing.T) {
	tests := map[string]func(*wire.Lease){
		"no tasks":              func(l *wire.Lease) { l.Claim.Indexes, l.Inputs = nil, nil },
		"more tasks than input": func(l *wire.Lease) { l.Claim.Indexes = append(l.Claim.Indexes, 9) },
		"a task twice":          func(l *wire.Lease) { l.Claim.Indexes[1] = 0 },
		"no attempt":            func(l *wire.Lease) { l.Claim.Attempt = nil },
		"no job":                func(l *wire.Lease) { l.Claim.JobId = "" },
		"a path as job":         func(l *wire.Lease) { l.Claim.JobId = "../x" },
		"an unknown job":        func(l *wire.Lease) { l.Spec = nil },
		"no program":            func(l *wire.Lease) { l.Spec.Program = nil },
		"a program too large":   func(l *wire.Lease) { l.Spec.Program.Blob.Size = 1 << 40 },
		"an input of no pages":  func(l *wire.Lease) { l.Inputs[0].Blob = &wire.Blob{Size: 5} },
		"a page without name":   func(l *wire.Lease) { l.Inputs[0].Blob = &wire.Blob{Size: 5, Pages: [][]byte{{1}}} },
	}
	for name, spoil := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCoordinator(t)
				w := start(t, c, 1, newFakeSandbox(1, echo))
				s := <-c.sessions
				lease := newLeaseFrame("job", 1, c.spec("p"), inputs(0, 3))
				spoil(lease)
				s.lease(lease)
				next := <-c.sessions // it dialled again
				if st := w.Status(); st.Leases != 0 || len(next.hello.GetLeases()) != 0 {
					t.Errorf("afterwards: %+v", st)
				}
			})
		})
	}
}

func TestHeartbeatsTellWhatTheDeviceDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCoordinator(t)
		start(t, c, 1, newFakeSandbox(1, hang))
		s := <-c.sessions
		begun := time.Now()
		<-s.beats // at the start
		s.lease(newLeaseFrame("job", 1, c.spec("p"), map[uint32][]byte{0: {1}, 1: {1}, 2: {1}, 3: {1}}))
		beat := <-s.beats
		if took := time.Since(begun); took != 10*time.Second {
			t.Errorf("a heartbeat after %v, want 10 s", took)
		}
		if beat.GetRunning()+beat.GetQueued() != 4 || beat.GetRunning() < 1 {
			t.Errorf("got %v, want 4 tasks", beat)
		}
	})
}

func TestAMemberReportsInItsHeartbeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCoordinator(t)
		var asked atomic.Uint64
		startMember(t, c, 0, nil, func() *wire.MemberReport { return &wire.MemberReport{Applied: asked.Add(1)} })
		s := <-c.sessions
		for want := range uint64(3) {
			if got := (<-s.beats).GetMember().GetApplied(); got != want+1 {
				t.Errorf("heartbeat %d reports %d", want, got)
			}
		}
	})
}
