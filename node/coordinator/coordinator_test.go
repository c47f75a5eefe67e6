package coordinator_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

func TestResultsComeBackInTheOrderOfTheInputs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		client := h.dial(h.founder, 0)
		a, b := identity(2), identity(3)
		h.register(a, wire.Role_ROLE_WORKER)
		h.register(b, wire.Role_ROLE_WORKER)
		h.dial(a, 2).serve(nil)
		h.dial(b, 4).serve(nil)
		const n = 5000
		results, job := client.results(client.submit(n, nil), false)
		if len(results) != n || job.GetState() != wire.JobState_JOB_STATE_DONE {
			t.Fatalf("%d results and a job that is %v, want %d and DONE", len(results), job.GetState(), n)
		}
		numbers := make(map[uint32]bool)
		for i, r := range results {
			if want := fmt.Sprintf("%d\n", i); string(r.GetOutput()) != want || r.GetIndex() != uint32(i) {
				t.Fatalf("result %d is %q of task %d, want %q", i, r.GetOutput(), r.GetIndex(), want)
			}
			numbers[r.GetNumber()] = true
		}
		if len(numbers) != n {
			t.Errorf("%d different numbers of completion, want %d", len(numbers), n)
		}
	})
}

func TestABrokenLinkGivesItsTasksToOthersAfterTheGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		client := h.dial(h.founder, 0)
		slow, good := identity(2), identity(3)
		h.register(slow, wire.Role_ROLE_WORKER)
		h.register(good, wire.Role_ROLE_WORKER)
		stuck := h.dial(slow, 2)
		id := client.submit(4, nil)
		lease := <-stuck.leases
		begun := time.Now()
		stuck.link.cut()
		<-stuck.ended
		h.dial(good, 2).serve(nil)
		results, _ := client.results(id, false)
		if len(results) != 4 {
			t.Fatalf("%d results, want 4", len(results))
		}
		if took := time.Since(begun); took < 4*time.Second || took > 8*time.Second {
			t.Errorf("the tasks of a broken link ran elsewhere after %v, want about 5 s", took)
		}
		for _, index := range lease.GetClaim().GetIndexes() {
			if got := results[index].GetAttempts(); got != 2 {
				t.Errorf("task %d shows %d runs, want 2", index, got)
			}
		}
	})
}

func TestAGoodbyeFreesLeasesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		client := h.dial(h.founder, 0)
		one, two := identity(2), identity(3)
		h.register(one, wire.Role_ROLE_WORKER)
		h.register(two, wire.Role_ROLE_WORKER)
		leaving := h.dial(one, 2)
		id := client.submit(2, nil)
		<-leaving.leases
		begun := time.Now()
		leaving.conn.Close("going", false)
		h.dial(two, 2).serve(nil)
		client.results(id, false)
		if took := time.Since(begun); took > time.Second {
			t.Errorf("the tasks ran elsewhere after %v, want at once", took)
		}
	})
}

func TestAFailedTaskRunsOnAnotherDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		client := h.dial(h.founder, 0)
		bad, good := identity(2), identity(3)
		h.register(bad, wire.Role_ROLE_WORKER)
		h.register(good, wire.Role_ROLE_WORKER)
		h.dial(bad, 4).serve(func(uint32) error { return errors.New("exit status 1") })
		h.dial(good, 4).serve(nil)
		results, job := client.results(client.submit(200, nil), false)
		if len(results) != 200 || job.GetState() != wire.JobState_JOB_STATE_DONE {
			t.Fatalf("%d results, job %v (%s); want 200 and DONE", len(results), job.GetState(), job.GetError())
		}
		for _, r := range results {
			if r.GetDevice() != string(good.ID) {
				t.Fatalf("task %d was recorded from the device that fails", r.GetIndex())
			}
		}
	})
}

func TestATaskThatFailsEverywhereFailsTheJobAfterItsRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		client := h.dial(h.founder, 0)
		worker := identity(2)
		h.register(worker, wire.Role_ROLE_WORKER)
		h.dial(worker, 4).serve(func(i uint32) error {
			if i == 3 {
				return errors.New("exit status 9")
			}
			return nil
		})
		results, job := client.results(client.submit(10, func(s *wire.JobSpec) { s.KeepGoing = true }), false)
		if len(results) != 10 || job.GetTasks().GetFailed() != 1 || job.GetTasks().GetCompleted() != 9 {
			t.Fatalf("%d results, %v; want 10 with 1 failed", len(results), job.GetTasks())
		}
		failed := results[3]
		if failed.GetStatus() != wire.TaskStatus_TASK_STATUS_FAILED || failed.GetAttempts() != 3 || failed.GetError() != "exit status 9" {
			t.Errorf("the failed task shows %v, want failed after 3 attempts with its error", failed)
		}
		_, job = client.results(client.submit(10, nil), false)
		if job.GetState() != wire.JobState_JOB_STATE_FAILED {
			t.Errorf("without keep-going the job is %v, want FAILED", job.GetState())
		}
	})
}

func TestResultsThatNobodyLeasedAreNotRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		client := h.dial(h.founder, 0)
		honest, liar := identity(2), identity(3)
		h.register(honest, wire.Role_ROLE_WORKER)
		h.register(liar, wire.Role_ROLE_WORKER)
		worker := h.dial(honest, 2)
		id := client.submit(2, nil)
		lease := <-worker.leases
		// The liar offers no slots and was leased nothing.
		forger := h.dial(liar, 0)
		forged := &wire.Results{JobId: string(id), Attempt: lease.GetClaim().GetAttempt()}
		for _, index := range lease.GetClaim().GetIndexes() {
			forged.Results = append(forged.Results, &wire.TaskResult{Index: index, Status: wire.TaskStatus_TASK_STATUS_OK, Output: []byte("lie")})
		}
		if err := forger.conn.Send(t.Context(), &wire.Frame{Kind: &wire.Frame_Results{Results: forged}}); err != nil {
			t.Fatal(err)
		}
		<-forger.acks // told at once that nobody wants them
		worker.do(lease, nil)
		worker.serve(nil)
		results, _ := client.results(id, false)
		for _, r := range results {
			if string(r.GetOutput()) == "lie" {
				t.Fatal("a result was recorded from a device that had no lease")
			}
		}
	})
}

func TestANewCoordinatorAdoptsProvenLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		client := h.dial(h.founder, 0)
		worker := identity(2)
		h.register(worker, wire.Role_ROLE_WORKER)
		first := h.dial(worker, 2)
		id := client.submit(1, nil)
		lease := <-first.leases
		h.lead()
		again := h.dial(worker, 2, lease.GetClaim())
		again.do(lease, nil)
		results, _ := h.dial(h.founder, 0).results(id, false)
		for _, r := range results {
			if r.GetAttempts() != 1 {
				t.Errorf("task %d shows %d runs, want 1: its lease was proven", r.GetIndex(), r.GetAttempts())
			}
		}
		select {
		case l := <-again.leases:
			t.Errorf("tasks %v were leased again though the device proved that it has them", l.GetClaim().GetIndexes())
		default:
		}
	})
}

func TestAForgedClaimIsNotAdopted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		client := h.dial(h.founder, 0)
		worker, forger := identity(2), identity(3)
		h.register(worker, wire.Role_ROLE_WORKER)
		h.register(forger, wire.Role_ROLE_WORKER)
		id := client.submit(1, nil)
		claim := &wire.LeaseClaim{JobId: string(id), Attempt: &wire.Attempt{Term: 1, Counter: 1}, Indexes: []uint32{0}, Token: make([]byte, 32)}
		liar := h.dial(forger, 0, claim)
		if err := liar.conn.Send(t.Context(), &wire.Frame{Kind: &wire.Frame_Results{Results: &wire.Results{
			JobId: string(id), Attempt: claim.Attempt,
			Results: []*wire.TaskResult{{Status: wire.TaskStatus_TASK_STATUS_OK, Output: []byte("lie")}},
		}}}); err != nil {
			t.Fatal(err)
		}
		<-liar.acks
		h.dial(worker, 2).serve(nil)
		results, _ := client.results(id, false)
		if got := string(results[0].GetOutput()); got != "0\n" {
			t.Errorf("the output is %q, want %q", got, "0\n")
		}
	})
}

func TestAWorkerIsToldWhichRoleItNeeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		worker := identity(2)
		h.register(worker, wire.Role_ROLE_WORKER)
		p := h.dial(worker, 0)
		for name, r := range map[string]*wire.Request{
			"submit":  {Kind: &wire.Request_SubmitJob{SubmitJob: &wire.SubmitJobRequest{JobId: "x"}}},
			"results": {Kind: &wire.Request_ReadResults{ReadResults: &wire.ReadResultsRequest{JobId: "x"}}},
			"invite":  {Kind: &wire.Request_CreateInvite{CreateInvite: &wire.CreateInviteRequest{Role: wire.Role_ROLE_WORKER}}},
			"rename":  {Kind: &wire.Request_RenameDevice{RenameDevice: &wire.RenameDeviceRequest{DeviceId: string(h.founder.ID), Name: "n"}}},
		} {
			_, err := p.conn.Call(t.Context(), r)
			if wire.CodeOf(err) != wire.Code_CODE_DENIED {
				t.Errorf("%s by a worker gives %v, want CODE_DENIED", name, err)
			}
			if !strings.Contains(fmt.Sprint(err), "ostrich invite --role") {
				t.Errorf("%s: the refusal %q does not say how to get the role", name, err)
			}
		}
	})
}

func TestAStrangerGetsNoSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		if _, err := h.tryDial(identity(9), 1); wire.CodeOf(err) != wire.Code_CODE_DENIED {
			t.Errorf("a stranger's session gives %v, want CODE_DENIED", err)
		}
	})
}

func TestResultsSurviveALogThatCannotBeWrittenForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		client := h.dial(h.founder, 0)
		worker := identity(2)
		h.register(worker, wire.Role_ROLE_WORKER)
		p := h.dial(worker, 2)
		id := client.submit(1, nil)
		lease := <-p.leases
		h.group.setFail(wire.Errorf(wire.Code_CODE_UNKNOWN_OUTCOME, "lost"))
		p.do(lease, nil)
		time.Sleep(time.Second)
		select {
		case <-p.acks:
			t.Fatal("a result was acknowledged that is not recorded")
		default:
		}
		h.group.setFail(nil)
		if results, _ := client.results(id, false); len(results) != 1 {
			t.Fatalf("%d results, want 1", len(results))
		}
		<-p.acks
	})
}
