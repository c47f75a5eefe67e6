package simulation

import (
	"fmt"
	"testing"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// A job's ID may be used again once the job is removed, and nothing of the old
// job may get into the new one: not its program, nor the results of a device
// that was away meanwhile.
func TestAnIDThatIsUsedAgainMakesAnotherJob(t *testing.T) {
	o := options{seed: 1, members: 3, devices: 4, length: 30 * time.Second, reuses: true}
	o.faults = []fault{{"a device is isolated", func(s *swarm) func() { return s.isolate(pick(s, s.devices)) }}}
	simulate(t, o).mustBeGreen(t)
}

// slowJob submits a job of slow tasks under an ID, and returns it.
func (c *client) slowJob(id wire.JobID, name string, n int) *jobPlan {
	j := &jobPlan{
		id: id, name: name, order: true, results: make(map[uint32]*wire.TaskResult),
		spec: &wire.JobSpec{
			Program: c.program, Env: []string{"JOB=" + name}, TimeoutMs: 60_000, MemoryMib: 64, MaxOutputBytes: 1 << 20, Detached: true,
		},
	}
	for i := range n {
		j.inputs = append(j.inputs, fmt.Appendf(nil, "%c%s/%d", slow, name, i))
	}
	if err := c.submit(c.swarm.t.Context(), nil, j); err != nil {
		c.swarm.t.Fatal(err)
	}
	c.jobs = append(c.jobs, j)
	return j
}

// comeBackWithOldResults lets devices that work on a job be away while it is
// cancelled, removed, and its ID used again.
func comeBackWithOldResults(s *swarm, c *client) {
	old := c.slowJob("again", "again.1", 30)
	time.Sleep(time.Second)
	heal := s.isolate(s.devices[0])
	for _, r := range []*wire.Request{
		{Kind: &wire.Request_CancelJob{CancelJob: &wire.CancelJobRequest{JobId: "again"}}},
		{Kind: &wire.Request_RemoveJob{RemoveJob: &wire.RemoveJobRequest{JobId: "again"}}},
	} {
		if _, err := s.ask(s.t.Context(), nil, r); err != nil {
			s.t.Fatal(err)
		}
	}
	old.removed = true
	j := c.slowJob("again", "again.2", 60)
	time.Sleep(6 * time.Second)
	heal()
	if err := c.read(s.t.Context(), nil, j); err != nil {
		s.ledger.red("job %s: %v", j.name, err)
	}
	s.mustAgree()
}

func TestADeviceThatWasAwayBringsNothingOfAnOldJobIntoANewOne(t *testing.T) {
	for _, red := range scenario(t, options{seed: 1, devices: 2}, comeBackWithOldResults).failed() {
		t.Error(red)
	}
}

// The swarm's time stands still after a clock that was ahead has been set right,
// and still a job is told from the one that had its ID before.
func TestAnIDThatIsUsedAgainWhileTimeStandsStillMakesAnotherJob(t *testing.T) {
	l := scenario(t, options{seed: 1, devices: 2}, func(s *swarm, c *client) {
		for i, ahead := range []time.Duration{longestJump, 0} {
			for _, m := range s.members {
				m.skew.Store(int64(ahead))
			}
			name := fmt.Sprintf("clock-%d", i)
			c.slowJob(wire.JobID(name), name, 1)
		}
		comeBackWithOldResults(s, c)
	})
	for _, red := range l.failed() {
		t.Error(red)
	}
}
