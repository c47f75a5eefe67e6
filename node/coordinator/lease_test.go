package coordinator_test

import (
	"bytes"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// send sends one result of a task.
func (p *peer) send(l *wire.Lease, result *wire.TaskResult) {
	p.h.t.Helper()
	r := &wire.Results{JobId: l.GetClaim().GetJobId(), Attempt: l.GetClaim().GetAttempt(), Results: []*wire.TaskResult{result}}
	if err := p.conn.Send(p.h.t.Context(), &wire.Frame{Kind: &wire.Frame_Results{Results: r}}); err != nil {
		p.h.t.Error(err)
	}
}

// device returns what the coordinator says of a device.
func (p *peer) device(id wire.DeviceID) *wire.Device {
	p.h.t.Helper()
	out := p.call(&wire.Request{Kind: &wire.Request_ListDevices{ListDevices: &wire.ListDevicesRequest{}}})
	for _, d := range out.GetListDevices().GetDevices() {
		if d.GetId() == string(id) {
			return d
		}
	}
	p.h.t.Fatalf("device %s is not listed", id)
	return nil
}

// inFlight returns what the coordinator counts for a device.
func (h *harness) inFlight(asker *peer, id wire.DeviceID) uint32 {
	h.t.Helper()
	return asker.device(id).GetInFlight()
}

func TestASecondSessionTakesTheLeasesOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		client := h.dial(h.founder, 0)
		first := h.worker(2, 2)
		id := client.submit(4, nil)
		lease := <-first.leases
		second := h.dial(first.id, 2, lease.GetClaim())
		synctest.Wait()
		if got := h.inFlight(client, first.id.ID); got != 4 {
			t.Errorf("%d tasks are in flight after the change of sessions, want 4", got)
		}
		second.do(lease, nil)
		results, _ := client.results(id, false)
		for _, r := range results {
			if r.GetAttempts() != 1 {
				t.Errorf("task %d shows %d runs, want 1", r.GetIndex(), r.GetAttempts())
			}
		}
		if got := h.inFlight(client, first.id.ID); got != 0 {
			t.Errorf("%d tasks are in flight when all is done, want 0", got)
		}
		if err := <-first.ended; err == nil {
			t.Error("the first session lives on")
		}
	})
}

func TestAdoptedTasksBeyondTheHighWaterMarkAreLeasedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		client := h.dial(h.founder, 0)
		first := h.worker(2, 4)
		id := client.submit(100, nil) // nothing is recorded: the mark is 0
		lease := <-first.leases
		h.lead()
		again := h.dial(first.id, 4, lease.GetClaim())
		again.do(lease, nil)
		again.serve(nil)
		results, job := h.dial(h.founder, 0).results(id, false)
		if len(results) != 100 || job.GetState() != wire.JobState_JOB_STATE_DONE {
			t.Fatalf("%d results, job %v", len(results), job.GetState())
		}
		for _, r := range results {
			if r.GetAttempts() != 1 {
				t.Errorf("task %d shows %d runs, want 1", r.GetIndex(), r.GetAttempts())
			}
		}
	})
}

func TestAClaimOfAJobThatHasEndedIsCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		client := h.dial(h.founder, 0)
		first := h.worker(2, 2)
		client.submit(2, nil)
		lease := <-first.leases
		first.link.cut()
		<-first.ended
		client.call(cancelOf(wire.JobID(lease.GetClaim().GetJobId())))
		again := h.dial(first.id, 2, lease.GetClaim())
		if got := <-again.cancel; got.GetAttempt().GetCounter() != lease.GetClaim().GetAttempt().GetCounter() || len(got.GetIndexes()) != 0 {
			t.Errorf("the device is told %v, want that all of its lease is over", got)
		}
	})
}

func TestOfAClaimOnlyWhatIsOpenIsAdopted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		client := h.dial(h.founder, 0)
		first := h.worker(2, 2)
		id := client.submit(4, nil)
		lease := <-first.leases
		first.send(lease, &wire.TaskResult{Index: 1, Status: wire.TaskStatus_TASK_STATUS_OK, Output: []byte("one")})
		<-first.acks
		first.link.cut()
		<-first.ended
		again := h.dial(first.id, 2, lease.GetClaim())
		if got := <-again.cancel; !slices.Equal(got.GetIndexes(), []uint32{1}) {
			t.Errorf("tasks %v are cancelled, want the one that has ended", got.GetIndexes())
		}
		if got := h.inFlight(client, first.id.ID); got != 3 {
			t.Errorf("%d tasks are in flight, want 3", got)
		}
		again.do(lease, nil)
		if results, _ := client.results(id, false); string(results[1].GetOutput()) != "one" {
			t.Errorf("the first result was %q, now %q", "one", results[1].GetOutput())
		}
	})
}

func TestALateResultOfAProvenLeaseIsWelcome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		client := h.dial(h.founder, 0)
		slow := h.worker(2, 2)
		id := client.submit(1, nil)
		lease := <-slow.leases
		slow.link.cut()
		<-slow.ended
		time.Sleep(7 * time.Second) // the grace is over
		other := h.worker(3, 2)
		second := <-other.leases
		back := h.dial(slow.id, 0, lease.GetClaim())
		back.send(lease, &wire.TaskResult{Status: wire.TaskStatus_TASK_STATUS_OK, Output: []byte("late")})
		results, _ := client.results(id, false)
		if got := string(results[0].GetOutput()); got != "late" {
			t.Errorf("the result is %q, want that of the device that had it ready", got)
		}
		got := <-other.cancel
		if got.GetAttempt().GetCounter() != second.GetClaim().GetAttempt().GetCounter() {
			t.Errorf("the other is told %v, want to stop its attempt %v", got, second.GetClaim().GetAttempt())
		}
	})
}

func TestADeviceThatCannotRunCostsNoRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		client := h.dial(h.founder, 0)
		broken, good := h.worker(2, 2), h.worker(3, 2)
		good.serve(nil)
		go func() {
			for l := range broken.leases {
				for _, index := range l.GetClaim().GetIndexes() {
					broken.send(l, &wire.TaskResult{Index: index, Status: wire.TaskStatus_TASK_STATUS_FAILED, Failure: wire.FailureKind_FAILURE_KIND_INTERNAL})
				}
			}
		}()
		t.Cleanup(func() { close(broken.leases) })
		results, job := client.results(client.submit(50, func(s *wire.JobSpec) { s.Retries = 0 }), false)
		if len(results) != 50 || job.GetState() != wire.JobState_JOB_STATE_DONE {
			t.Fatalf("%d results of a job that is %v: %s", len(results), job.GetState(), job.GetError())
		}
	})
}

func TestResultsOutOfBoundsEndTheSession(t *testing.T) {
	ok := wire.TaskStatus_TASK_STATUS_OK
	for name, r := range map[string]*wire.TaskResult{
		"a large inline output": {Status: ok, Output: make([]byte, 300<<10)},
		"no status":             {},
		"an endless time":       {Status: ok, DurationUs: 1 << 63},
		"too few pages":         {Status: ok, OutputBlob: &wire.Blob{Size: 3 << 20}},
		"a long device name":    {Status: ok, Device: string(make([]byte, 290<<10))},
		"a long error":          {Status: wire.TaskStatus_TASK_STATUS_FAILED, Error: string(make([]byte, 501))},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHarness(t)
				client := h.dial(h.founder, 0)
				worker := h.worker(2, 1)
				client.submit(1, nil)
				worker.send(<-worker.leases, r)
				<-worker.ended
			})
		})
	}
}

func TestALargeOutputComesInPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		client := h.dial(h.founder, 0)
		worker := h.worker(2, 1)
		id := client.submit(1, nil)
		lease := <-worker.leases
		// Four equal pages, written side by side as a worker does.
		page := bytes.Repeat([]byte{7}, wire.PageSize)
		hash := wire.HashOf(page)
		var writers sync.WaitGroup
		for range 4 {
			writers.Go(func() {
				for at := 0; at < len(page); at += wire.MaxChunk {
					_, err := worker.conn.Call(t.Context(), &wire.Request{Kind: &wire.Request_WritePage{WritePage: &wire.WritePageRequest{
						Hash: hash[:], Size: wire.PageSize, Offset: uint32(at), Data: page[at : at+wire.MaxChunk],
					}}})
					if err != nil {
						t.Errorf("writing a range from %d: %v", at, err)
					}
				}
			})
		}
		writers.Wait()
		worker.send(lease, &wire.TaskResult{Status: wire.TaskStatus_TASK_STATUS_OK, OutputBlob: &wire.Blob{
			Size: 4 * wire.PageSize, Pages: [][]byte{hash[:], hash[:], hash[:], hash[:]},
		}})
		results, _ := client.results(id, false)
		if got := results[0].GetOutputBlob().GetSize(); got != 4*wire.PageSize {
			t.Fatalf("the output has %d bytes: %v", got, results[0])
		}
		out := client.call(&wire.Request{Kind: &wire.Request_ReadPage{ReadPage: &wire.ReadPageRequest{Hash: hash[:], Offset: 9, Length: 100}}}).GetReadPage()
		if !bytes.Equal(out.GetData(), page[9:109]) || out.GetSize() != wire.PageSize {
			t.Errorf("the page reads back as %d bytes of %d", len(out.GetData()), out.GetSize())
		}
	})
}

func TestAnOutputWhosePagesNobodyHasIsAFailedAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		client := h.dial(h.founder, 0)
		worker := h.worker(2, 1)
		id := client.submit(1, func(s *wire.JobSpec) { s.Retries, s.KeepGoing = 0, true })
		worker.send(<-worker.leases, &wire.TaskResult{Status: wire.TaskStatus_TASK_STATUS_OK, OutputBlob: &wire.Blob{Size: 5, Pages: [][]byte{hashOf("nowhere")}}})
		results, _ := client.results(id, false)
		if results[0].GetStatus() != wire.TaskStatus_TASK_STATUS_FAILED {
			t.Errorf("a result was recorded whose output is nowhere: %v", results[0])
		}
	})
}

func TestPagesAreRefusedFromWhoHasNoLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		worker := h.worker(2, 1)
		_, err := worker.conn.Call(t.Context(), &wire.Request{Kind: &wire.Request_WritePage{WritePage: &wire.WritePageRequest{
			Hash: hashOf("x"), Size: 1, Data: []byte("x"),
		}}})
		if wire.CodeOf(err) != wire.Code_CODE_PRECONDITION {
			t.Errorf("a page without a lease gives %v, want CODE_PRECONDITION", err)
		}
	})
}

func TestTheInputsThatADeviceHoldsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		client := h.dial(h.founder, 0)
		worker := h.worker(2, 500)
		input := bytes.Repeat([]byte("i"), 250<<10)
		id := client.submitInputs(slices.Repeat([][]byte{input}, 900), nil)
		synctest.Wait()
		held := 0
		for held = 0; len(worker.leases) > 0; held += len((<-worker.leases).GetInputs()) {
		}
		if held == 0 || held*len(input) > 200<<20 {
			t.Errorf("a device was sent %d MiB of inputs at one time; it takes 256 at most", held*len(input)>>20)
		}
		if job := client.job(id); job.GetState() != wire.JobState_JOB_STATE_RUNNING {
			t.Errorf("the job is %v", job.GetState())
		}
	})
}

// A claim names all tasks of its lease, for the token covers them: one that has
// been settled since, as a failed attempt, is not the device's any more. It was
// adopted once, and its job never ended.
func TestASettledTaskOfAClaimRunsElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		client := h.dial(h.founder, 0)
		flaky := identity(2)
		h.register(flaky, wire.Role_ROLE_WORKER)
		p := h.dial(flaky, 2)
		id := client.submit(2, nil)
		lease := <-p.leases
		if len(lease.GetClaim().GetIndexes()) != 2 {
			t.Fatalf("a lease of %v, want both tasks", lease.GetClaim().GetIndexes())
		}
		failed := &wire.Results{JobId: string(id), Attempt: lease.GetClaim().GetAttempt(), Results: []*wire.TaskResult{{
			Index: 0, Status: wire.TaskStatus_TASK_STATUS_FAILED, Failure: wire.FailureKind_FAILURE_KIND_EXIT, ExitCode: 1, Error: "exit status 1",
		}}}
		if err := p.conn.Send(t.Context(), &wire.Frame{Kind: &wire.Frame_Results{Results: failed}}); err != nil {
			t.Fatal(err)
		}
		<-p.acks
		claim := lease.GetClaim()
		claim.Settled = []uint32{0}
		h.lead()
		again := h.dial(flaky, 2, claim)
		done := &wire.Results{JobId: string(id), Attempt: claim.GetAttempt(), Results: []*wire.TaskResult{{
			Index: 1, Status: wire.TaskStatus_TASK_STATUS_OK, Output: []byte("1\n"),
		}}}
		if err := again.conn.Send(t.Context(), &wire.Frame{Kind: &wire.Frame_Results{Results: done}}); err != nil {
			t.Fatal(err)
		}
		again.serve(nil)
		results, job := h.dial(h.founder, 0).results(id, false)
		if len(results) != 2 || job.GetState() != wire.JobState_JOB_STATE_DONE {
			t.Errorf("%d results and a job that is %v, want 2 and DONE", len(results), job.GetState())
		}
	})
}
