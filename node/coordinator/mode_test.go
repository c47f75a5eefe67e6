package coordinator_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const (
	enabled  = wire.DeviceMode_DEVICE_MODE_ENABLED
	draining = wire.DeviceMode_DEVICE_MODE_DRAINING
	disabled = wire.DeviceMode_DEVICE_MODE_DISABLED
)

func modeOf(id wire.DeviceID, mode wire.DeviceMode) *wire.Request {
	return &wire.Request{Kind: &wire.Request_SetDeviceMode{SetDeviceMode: &wire.SetDeviceModeRequest{DeviceId: string(id), Mode: mode}}}
}

func TestADrainingDeviceFinishesWhatItRunsAndGetsNothingMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		client := h.dial(h.founder, 0)
		worker := h.worker(2, 2)
		first := client.submit(4, nil)
		lease := <-worker.leases
		client.call(modeOf(worker.id.ID, draining))
		second := client.submit(4, nil)
		time.Sleep(time.Minute)
		if got := client.device(worker.id.ID).GetStatus(); got != wire.DeviceStatus_DEVICE_STATUS_DRAINING {
			t.Errorf("its status is %v", got)
		}
		if got := h.inFlight(client, worker.id.ID); got != 4 {
			t.Errorf("it holds %d tasks, want the 4 that it had", got)
		}
		worker.do(lease, nil)
		if results, _ := client.results(first, false); len(results) != 4 || results[0].GetAttempts() != 1 {
			t.Errorf("what it ran gave %d results", len(results))
		}
		if got := client.job(second).GetWaitingFor(); got != "a device that is neither draining nor disabled" {
			t.Errorf("the other job waits for %q", got)
		}

		h.lead() // the next coordinator knows
		client = h.dial(h.founder, 0)
		again := h.dial(worker.id, 2)
		time.Sleep(time.Minute)
		if len(worker.leases)+len(again.leases) != 0 {
			t.Error("a draining device was given tasks")
		}
		client.call(modeOf(worker.id.ID, enabled))
		again.serve(nil)
		if results, _ := client.results(second, false); len(results) != 4 {
			t.Errorf("enabled again it gave %d results", len(results))
		}
		if got := client.device(worker.id.ID).GetStatus(); got != wire.DeviceStatus_DEVICE_STATUS_ONLINE {
			t.Errorf("enabled again its status is %v", got)
		}
	})
}

func TestADrainingDeviceLosesWhatItWasNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		h.pages.slow = make(chan struct{})
		client := h.dial(h.founder, 0)
		worker := h.worker(2, 2)
		input := make([]byte, wire.MaxInline) // it lies in a page
		id := client.submitInputs([][]byte{input, input}, nil)
		synctest.Wait()
		if got := h.inFlight(client, worker.id.ID); got != 2 {
			t.Errorf("%d tasks are leased, want 2 whose inputs are being read", got)
		}
		client.call(modeOf(worker.id.ID, draining))
		if got := h.inFlight(client, worker.id.ID); got != 0 {
			t.Errorf("%d tasks are leased that were never sent", got)
		}
		close(h.pages.slow)
		other := h.worker(3, 2)
		other.serve(nil)
		if results, _ := client.results(id, false); len(results) != 2 || len(worker.leases) != 0 {
			t.Errorf("%d results, and %d leases were sent all the same", len(results), len(worker.leases))
		}
	})
}

func TestTheTasksOfADisabledDeviceGoToOthersAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		client := h.dial(h.founder, 0)
		worker := h.worker(2, 2)
		id := client.submit(4, func(s *wire.JobSpec) { s.Retries = 0 })
		lease := <-worker.leases
		other := h.worker(3, 2)
		begun := time.Now()
		client.call(modeOf(worker.id.ID, disabled))
		if got := <-worker.cancel; len(got.GetIndexes()) != 0 || got.GetAttempt().GetCounter() != lease.GetClaim().GetAttempt().GetCounter() {
			t.Errorf("it is told %v, want that its lease is over", got)
		}
		taken := <-other.leases
		if took := time.Since(begun); took > time.Second {
			t.Errorf("others have them after %v", took)
		}
		worker.send(lease, &wire.TaskResult{Index: 0, Status: wire.TaskStatus_TASK_STATUS_OK, Output: []byte("late")})
		<-worker.acks // and forgets it
		other.do(taken, nil)
		other.serve(nil)
		results, job := client.results(id, false)
		if job.GetState() != wire.JobState_JOB_STATE_DONE || string(results[0].GetOutput()) != "0\n" || results[0].GetDevice() != string(other.id.ID) {
			t.Errorf("the job is %v, its first result %v", job.GetState(), results[0])
		}
		if got := h.status(worker.id.ID); got != wire.DeviceStatus_DEVICE_STATUS_DISABLED {
			t.Errorf("its status is %v", got)
		}
		worker.conn.Close("good night", false)
		<-worker.ended
		if got := h.status(worker.id.ID); got != wire.DeviceStatus_DEVICE_STATUS_DISABLED {
			t.Errorf("offline its status is %v, want DISABLED still", got)
		}
	})
}

func TestADisabledDeviceKeepsNoLeaseAcrossSessionsNorTerms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		client := h.dial(h.founder, 0)
		worker := h.worker(2, 2)
		id := client.submit(4, nil)
		lease := <-worker.leases
		worker.link.cut()
		<-worker.ended
		client.call(modeOf(worker.id.ID, disabled))
		other := h.worker(3, 2)
		other.serve(nil)
		begun := time.Now()
		if results, _ := client.results(id, false); len(results) != 4 || time.Since(begun) > time.Second {
			t.Errorf("%d results after %v: the grace of a broken link is not for the disabled", len(results), time.Since(begun))
		}

		h.lead()
		claim := lease.GetClaim()
		again := h.dial(worker.id, 2, claim)
		if got := <-again.cancel; got.GetJobId() != claim.GetJobId() {
			t.Errorf("it is told %v", got)
		}
		if got := h.inFlight(h.dial(h.founder, 0), worker.id.ID); got != 0 {
			t.Errorf("it holds %d tasks", got)
		}
	})
}

func TestANewCoordinatorAdoptsNoLeaseOfADisabledDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		client := h.dial(h.founder, 0)
		worker := h.worker(2, 2)
		id := client.submit(4, nil)
		lease := <-worker.leases
		h.lead()
		client = h.dial(h.founder, 0)
		client.call(modeOf(worker.id.ID, disabled))
		other := h.worker(3, 2)
		again := h.dial(worker.id, 2, lease.GetClaim())
		<-again.cancel
		other.serve(nil)
		begun := time.Now()
		if results, _ := client.results(id, false); len(results) != 4 || time.Since(begun) > time.Second {
			t.Errorf("%d results after %v: nobody need wait for what was declined", len(results), time.Since(begun))
		}
	})
}

func TestWhoMaySetTheModeOfADevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		member := identity(4)
		h.register(member, wire.Role_ROLE_MEMBER)
		worker := h.worker(2, 1)
		admin, m := h.dial(h.founder, 0), h.dial(member, 0)
		for _, tt := range []struct {
			name string
			who  *peer
			of   wire.DeviceID
			mode wire.DeviceMode
			want wire.Code
		}{
			{"an admin of another", admin, worker.id.ID, draining, 0},
			{"an admin of itself", admin, h.founder.ID, draining, 0},
			{"a member of itself", m, member.ID, draining, 0},
			{"a member of another", m, worker.id.ID, enabled, wire.Code_CODE_DENIED},
			{"a worker of itself", worker, worker.id.ID, enabled, wire.Code_CODE_DENIED},
			{"of nobody", admin, "nobody", enabled, wire.Code_CODE_NOT_FOUND},
			{"no mode", admin, worker.id.ID, 0, wire.Code_CODE_INVALID},
			{"an unknown mode", admin, worker.id.ID, 9, wire.Code_CODE_INVALID},
		} {
			if _, err := tt.who.conn.Call(t.Context(), modeOf(tt.of, tt.mode)); wire.CodeOf(err) != tt.want {
				t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
			}
		}
		admin.call(modeOf(worker.id.ID, draining)) // asked again: an outcome that was lost
		lines := h.said("is draining")
		if len(lines) != 3 || !lines[0].GetAudit() || lines[0].GetDevice() != string(worker.id.ID) {
			t.Errorf("%d lines tell of 3 devices that drain: %v", len(lines), lines)
		}
		h.group.set(func() { h.group.format = 1 })
		if _, err := admin.conn.Call(t.Context(), modeOf(worker.id.ID, disabled)); wire.CodeOf(err) != wire.Code_CODE_PRECONDITION {
			t.Errorf("where a voter is of yesterday: %v", err)
		}
	})
}

func TestDisabledDevicesAreNoResource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		client := h.dial(h.founder, 0)
		worker := h.worker(2, 1)
		synctest.Wait()
		client.call(modeOf(worker.id.ID, disabled))
		r := client.call(&wire.Request{Kind: &wire.Request_GetView{GetView: &wire.GetViewRequest{}}}).GetGetView().GetView().GetResources()
		if r.GetOnlineCount() != 2 || r.GetTotalCores() != 4 {
			t.Errorf("got %v, want 2 devices online and the cores of one", r)
		}
	})
}
