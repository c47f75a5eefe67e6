package coordinator_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ostrich-legs/ostrich/consensus/state"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// worker registers a device and opens a session of it.
func (h *harness) worker(n byte, slots uint32) *peer {
	h.t.Helper()
	id := identity(n)
	h.register(id, wire.Role_ROLE_WORKER)
	return h.dial(id, slots)
}

// call asks the coordinator, and fails the test on an error.
func (p *peer) call(r *wire.Request) *wire.Response {
	p.h.t.Helper()
	out, err := p.conn.Call(p.h.t.Context(), r)
	if err != nil {
		p.h.t.Fatal(err)
	}
	return out
}

func (p *peer) job(id wire.JobID) *wire.Job {
	p.h.t.Helper()
	return p.call(&wire.Request{Kind: &wire.Request_GetJob{GetJob: &wire.GetJobRequest{JobId: string(id)}}}).GetGetJob().GetJob()
}

func cancelOf(id wire.JobID) *wire.Request {
	return &wire.Request{Kind: &wire.Request_CancelJob{CancelJob: &wire.CancelJobRequest{JobId: string(id)}}}
}

func removeOf(id wire.JobID) *wire.Request {
	return &wire.Request{Kind: &wire.Request_RemoveJob{RemoveJob: &wire.RemoveJobRequest{JobId: string(id)}}}
}

func readOf(id wire.JobID, from uint32) *wire.Request {
	return &wire.Request{Kind: &wire.Request_ReadResults{ReadResults: &wire.ReadResultsRequest{JobId: string(id), From: from, WaitMs: 30_000}}}
}

func TestACancelReachesTheLeasesOfTheJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		client := h.dial(h.founder, 0)
		worker := h.worker(2, 2)
		id := client.submit(2, nil)
		lease := <-worker.leases
		client.call(cancelOf(id))
		got := <-worker.cancel
		if got.GetJobId() != string(id) || got.GetAttempt().GetCounter() != lease.GetClaim().GetAttempt().GetCounter() {
			t.Errorf("the cancellation is of %v, want of the lease %v: a device knows leases only", got, lease.GetClaim().GetAttempt())
		}
		if view := h.c.View(); view.GetStats().GetActiveTasks() != 0 || view.GetRunState() != "IDLE" {
			t.Errorf("after the cancel %d tasks are active, the swarm is %s", view.GetStats().GetActiveTasks(), view.GetRunState())
		}
		worker.do(lease, nil) // too late
		<-worker.acks
		if job := client.job(id); job.GetState() != wire.JobState_JOB_STATE_CANCELLED || job.GetTasks().GetCompleted() != 0 {
			t.Errorf("the job is %v with %v", job.GetState(), job.GetTasks())
		}
	})
}

func TestAHigherPriorityGoesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		client := h.dial(h.founder, 0)
		low := client.submit(50, func(s *wire.JobSpec) { s.Priority = -1 })
		high := client.submit(50, func(s *wire.JobSpec) { s.Priority = 5 })
		worker := h.worker(2, 1)
		var order []string
		for done := 0; done < 100; {
			l := <-worker.leases
			order = append(order, l.GetClaim().GetJobId())
			done += len(l.GetClaim().GetIndexes())
			worker.do(l, nil)
		}
		seenLow := false
		for i, id := range order {
			seenLow = seenLow || id == string(low)
			if seenLow && id == string(high) {
				t.Fatalf("lease %d is of the job with the higher priority, after one of the lower: %v", i, order)
			}
		}
	})
}

func TestMaxInFlightBoundsTheTasksLeased(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		client := h.dial(h.founder, 0)
		id := client.submit(40, func(s *wire.JobSpec) { s.MaxInFlight = 3 })
		a, b := h.worker(2, 8), h.worker(3, 8)
		for range 100 {
			synctest.Wait()
			if job := client.job(id); job.GetTasks().GetActive() > 3 {
				t.Fatalf("%d tasks are in flight, want at most 3", job.GetTasks().GetActive())
			}
			select {
			case l := <-a.leases:
				a.do(l, nil)
			case l := <-b.leases:
				b.do(l, nil)
			default:
			}
			time.Sleep(10 * time.Millisecond)
		}
		if job := client.job(id); job.GetState() != wire.JobState_JOB_STATE_DONE {
			t.Errorf("the job is %v with %v, want DONE", job.GetState(), job.GetTasks())
		}
	})
}

func TestARetryRunsTheFailedTasksAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		client := h.dial(h.founder, 0)
		broken := true
		h.worker(2, 2).serve(func(i uint32) error {
			if broken && i%10 == 3 {
				return errors.New("exit status 1")
			}
			return nil
		})
		id := client.submit(100, func(s *wire.JobSpec) { s.KeepGoing, s.Retries = true, 0 })
		if _, job := client.results(id, true); job.GetTasks().GetFailed() != 10 {
			t.Fatalf("%v, want 10 failed", job.GetTasks())
		}
		broken = false
		out := client.call(&wire.Request{Kind: &wire.Request_RetryJob{RetryJob: &wire.RetryJobRequest{JobId: string(id)}}})
		if got := out.GetRetryJob().GetTasks(); got != 10 {
			t.Errorf("%d tasks run again, want 10", got)
		}
		results, job := client.results(id, true)
		if len(results) != 100 || job.GetState() != wire.JobState_JOB_STATE_DONE {
			t.Fatalf("%d results of a job that is %v, want 100 and DONE", len(results), job.GetState())
		}
		last := -1
		for _, r := range results {
			if int(r.GetNumber()) <= last {
				t.Fatalf("number %d comes after %d", r.GetNumber(), last)
			}
			last = int(r.GetNumber())
		}
		if last < 100 {
			t.Errorf("the last number is %d: the retried tasks should have new ones", last)
		}
	})
}

func TestADetachedJobIsKeptAsLongAsItSaysAndNotLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		client := h.dial(h.founder, 0)
		h.worker(2, 1).serve(func(uint32) error { return nil })
		id := client.submit(1, func(s *wire.JobSpec) { s.Detached, s.KeepMs = true, 20_000 })
		client.results(id, true)
		time.Sleep(19 * time.Second)
		client.job(id)
		time.Sleep(3 * time.Second)
		_, err := client.conn.Call(t.Context(), &wire.Request{Kind: &wire.Request_GetJob{GetJob: &wire.GetJobRequest{JobId: string(id)}}})
		if wire.CodeOf(err) != wire.Code_CODE_NOT_FOUND {
			t.Errorf("after its time the job is there: %v", err)
		}
	})
}

func TestAReaderLearnsThatItsJobWasRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		client := h.dial(h.founder, 0)
		id := client.submit(3, nil)
		read := make(chan error, 1)
		begun := time.Now()
		go func() {
			_, err := client.conn.Call(t.Context(), readOf(id, 0))
			read <- err
		}()
		time.Sleep(time.Second)
		client.call(removeOf(id))
		if err := <-read; wire.CodeOf(err) != wire.Code_CODE_NOT_FOUND {
			t.Errorf("the reader got %v, want CODE_NOT_FOUND", err)
		}
		if took := time.Since(begun); took > 2*time.Second {
			t.Errorf("it learned that after %v", took)
		}
		client.call(removeOf(id)) // an outcome that was lost: said again, it is done
	})
}

func TestAReaderWakesWithTheFirstResult(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		client := h.dial(h.founder, 0)
		id := client.submit(1, nil)
		worker := h.worker(2, 1)
		lease := <-worker.leases
		go func() {
			time.Sleep(5 * time.Second)
			worker.do(lease, nil)
		}()
		begun := time.Now()
		out := client.call(readOf(id, 0)).GetReadResults()
		if took := time.Since(begun); len(out.GetResults()) != 1 || took > 6*time.Second {
			t.Errorf("%d results after %v, want 1 after 5 s", len(out.GetResults()), took)
		}
	})
}

func TestManySmallCommitsAreMovedIntoPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		client := h.dial(h.founder, 0)
		worker := h.worker(2, 1)
		big := bytes.Repeat([]byte("x"), 3000)
		id := client.submit(60, func(s *wire.JobSpec) { s.MaxInFlight = 1 })
		for range 60 {
			l := <-worker.leases
			l.Inputs[0].Inline = big // what the output will be
			worker.do(l, nil)
			<-worker.acks
		}
		inline := 0
		h.group.Read(func(s *state.State) { inline = s.Job(id).InlineBytes() })
		if inline > 80<<10 {
			t.Errorf("%d bytes of results lie in the state, want them in pages", inline)
		}
		results, _ := client.results(id, false)
		for i, r := range results {
			if !bytes.Equal(r.GetOutput(), big) || r.GetIndex() != uint32(i) {
				t.Fatalf("result %d came back as %d bytes of task %d", i, len(r.GetOutput()), r.GetIndex())
			}
		}
	})
}

func TestSingleBatchesBetweenPagesAreMovedToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		client := h.dial(h.founder, 0)
		worker := h.worker(2, 1)
		id := client.submit(120, func(s *wire.JobSpec) { s.MaxInFlight = 1 })
		for i := range 120 {
			l := <-worker.leases
			l.Inputs[0].Inline = bytes.Repeat([]byte("x"), 3000+i%2*3000) // inline, page, inline, page
			worker.do(l, nil)
			<-worker.acks
		}
		inline := 0
		h.group.Read(func(s *state.State) { inline = s.Job(id).InlineBytes() })
		if inline > 80<<10 {
			t.Errorf("%d bytes of results lie in the state, want them in pages", inline)
		}
	})
}

func TestALostInputFailsItsTask(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		client := h.dial(h.founder, 0)
		id := client.submit(1000, func(s *wire.JobSpec) { s.KeepGoing, s.Retries = true, 1 })
		h.pages.mu.Lock()
		clear(h.pages.pages)
		h.pages.mu.Unlock()
		h.worker(2, 2).serve(nil)
		_, job := client.results(id, true)
		if job.GetState() != wire.JobState_JOB_STATE_FAILED || job.GetTasks().GetFailed() != 1000 {
			t.Errorf("the job is %v with %v, want it to fail instead of waiting for ever", job.GetState(), job.GetTasks())
		}
	})
}

func TestAListOfManyJobsFitsInAFrame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		client := h.dial(h.founder, 0)
		for i := range 6000 {
			h.group.do(t, &wire.Op{Actor: string(h.founder.ID), Kind: &wire.Op_SubmitJob{SubmitJob: &wire.SubmitJob{
				JobId: fmt.Sprintf("job-%060d", i), Close: true,
				Spec: &wire.JobSpec{Program: &wire.Program{Name: "p", Blob: &wire.Blob{Size: 8, Hash: hashOf("p"), Pages: [][]byte{hashOf("program")}}}},
			}}})
		}
		open := client.submit(1, nil)
		jobs := client.call(&wire.Request{Kind: &wire.Request_ListJobs{ListJobs: &wire.ListJobsRequest{}}}).GetListJobs().GetJobs()
		if len(jobs) < 1000 || jobs[len(jobs)-1].GetId() != string(open) {
			t.Errorf("%d jobs are listed, and the newest is missing or not the last", len(jobs))
		}
	})
}

func TestAnAcknowledgedJobIsListedAndItsResultsAreGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		client := h.dial(h.founder, 0)
		h.worker(2, 2).serve(nil)
		first, second := client.submit(3, nil), client.submit(2, nil)
		client.results(first, false)
		client.results(second, false)
		acknowledge := &wire.RemoveJobRequest{JobId: string(first), Acknowledge: true}
		for range 2 { // the second time nobody learned of the first
			client.call(&wire.Request{Kind: &wire.Request_RemoveJob{RemoveJob: acknowledge}})
		}
		jobs := client.call(&wire.Request{Kind: &wire.Request_ListJobs{ListJobs: &wire.ListJobsRequest{}}}).GetListJobs().GetJobs()
		if len(jobs) != 2 || jobs[0].GetId() != string(first) || jobs[1].GetId() != string(second) {
			t.Fatalf("the jobs are %v, want both, the older first", jobs)
		}
		if j := client.job(first); j.GetState() != wire.JobState_JOB_STATE_DONE || j.GetTasks().GetCompleted() != 3 || j.GetSpec().GetProgram().GetName() == "" {
			t.Errorf("the job is described as %v", j)
		}
		if _, err := client.conn.Call(t.Context(), readOf(first, 0)); wire.CodeOf(err) != wire.Code_CODE_PRECONDITION {
			t.Errorf("reading its results gives %v, want that they are gone", err)
		}
		client.call(removeOf(first))
		if _, err := client.conn.Call(t.Context(), readOf(first, 0)); wire.CodeOf(err) != wire.Code_CODE_NOT_FOUND {
			t.Errorf("after its removal reading gives %v, want that there is no such job", err)
		}
	})
}
