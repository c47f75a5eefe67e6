package coordinator_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// feels has the device say in a heartbeat why it can run nothing.
func (p *peer) feels(why string) {
	p.h.t.Helper()
	beat := &wire.Frame{Kind: &wire.Frame_Heartbeat{Heartbeat: &wire.Heartbeat{Unwell: why}}}
	if err := p.conn.Send(p.h.t.Context(), beat); err != nil {
		p.h.t.Fatal(err)
	}
	synctest.Wait()
}

func TestASickDeviceIsGivenNoWorkAndWhatItHasGoesToOthersUncounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		client := h.dial(h.founder, 0)
		sick := h.worker(2, 2)
		job := client.submit(4, func(s *wire.JobSpec) { s.Retries = 0 })
		lease := <-sick.leases
		sick.feels("no\tmemory")
		if got := <-sick.cancel; got.GetAttempt().GetCounter() != lease.GetClaim().GetAttempt().GetCounter() {
			t.Errorf("it was told to stop %v", got)
		}
		d := client.device(sick.id.ID)
		if d.GetStatus() != wire.DeviceStatus_DEVICE_STATUS_SICK || d.GetUnwell() != "no memory" {
			t.Errorf("its status is %v, %q", d.GetStatus(), d.GetUnwell())
		}
		time.Sleep(time.Minute)
		sick.feels("no\tmemory")
		if len(sick.leases) > 0 {
			t.Error("it was given tasks")
		}
		if got := client.job(job).GetWaitingFor(); got != "a device that is not sick" {
			t.Errorf("the job waits for %q", got)
		}
		other := h.worker(3, 2)
		other.serve(nil)
		results, _ := client.results(job, false)
		for _, r := range results {
			if r.GetStatus() != wire.TaskStatus_TASK_STATUS_OK {
				t.Errorf("a result: %v", r)
			}
		}
		if len(results) != 4 {
			t.Errorf("%d results, want 4", len(results))
		}
	})
}

func TestADeviceThatIsWellAgainIsGivenWorkAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		client := h.dial(h.founder, 0)
		worker := h.worker(2, 2)
		worker.feels("no memory")
		job := client.submit(4, nil)
		time.Sleep(time.Second)
		worker.serve(nil)
		worker.feels("")
		if results, _ := client.results(job, false); len(results) != 4 {
			t.Errorf("%d results", len(results))
		}
		if got := client.device(worker.id.ID); got.GetStatus() != wire.DeviceStatus_DEVICE_STATUS_ONLINE || got.GetUnwell() != "" {
			t.Errorf("its status is %v, %q", got.GetStatus(), got.GetUnwell())
		}
	})
}
