package simulation

import (
	"flag"
	"sync"
	"testing"
	"time"
)

var failuresFlag = flag.Int("failures", 0, "failures of the power in all; 0 means what CI makes")

const (
	// failuresInCI is how many failures of the power there are at the least.
	failuresInCI = 5
	// perFailure is the time with faults for each: they come faster than that.
	perFailure = 30 * time.Second
)

// The power fails for one to all members, in the middle of a write of at least
// one of them, and what their disks have not synced is lost.
func TestPowerFailuresLoseNothingThatWasAcknowledged(t *testing.T) {
	want := failuresInCI
	switch {
	case *failuresFlag > 0:
		want = *failuresFlag
	case testing.Short():
		want = 2
	}
	var lives []life
	for left := time.Duration(want) * perFailure; left > 0; left -= runLength {
		lives = append(lives, life{3, min(left, runLength)})
	}
	all := liveAll(t, lives, options{devices: 4, reuses: true, faults: []fault{{"the power fails", (*swarm).powerFails}}})
	if all.dark < int64(want) || all.unsynced == 0 {
		t.Errorf("the power failed %d times and %d writes were lost; want %d and some", all.dark, all.unsynced, want)
	}
}

// powerFails switches one to all members off, and half of the time the devices
// too, all at one moment.
func (s *swarm) powerFails() func() {
	s.ledger.count.powerFailures.Add(1)
	var dark []*machine
	for i, k := range s.random.Perm(len(s.members)) {
		if i == 0 || s.random.IntN(len(s.members)) > 0 {
			dark = append(dark, s.members[k])
		}
	}
	awaitWrite(dark[0])
	if s.random.IntN(2) == 0 {
		dark = append(dark, s.devices...)
	}
	var all sync.WaitGroup
	for _, m := range dark {
		all.Go(m.losePower)
	}
	all.Wait()
	return func() {
		for _, m := range dark {
			m.up()
		}
	}
}

// awaitWrite waits a moment for a write that is not synced.
func awaitWrite(m *machine) {
	for range 2000 {
		m.disk.mu.Lock()
		n := len(m.disk.unsynced)
		m.disk.mu.Unlock()
		if n > 0 {
			return
		}
		time.Sleep(100 * time.Microsecond)
	}
}

// allLosePower lets a client submit a job, and then the power fails everywhere.
func allLosePower(s *swarm, c *client) {
	time.Sleep(2 * writeback) // what is older than that is safe, on any disk
	c.begin(s.t.Context(), s.coordinator())
	var all sync.WaitGroup
	for _, m := range s.members {
		all.Go(m.losePower)
	}
	all.Wait()
	for _, m := range s.members {
		m.up()
	}
	s.mustAgree()
}

func TestDisksThatDoNotSyncAreSeen(t *testing.T) {
	scenario(t, options{seed: 1, lies: true}, allLosePower).mustBeRed(t, "has lost job watched")
	scenario(t, options{seed: 1}, allLosePower).mustBeRight(t)
}
