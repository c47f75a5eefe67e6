package worker

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ostrich-legs/ostrich/node/sandbox"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// sickSandbox runs what it is given, or refuses all with a reason.
type sickSandbox struct {
	*fakeSandbox

	mu      sync.Mutex
	why     string
	changed chan struct{}
}

func newSickSandbox(why string) *sickSandbox {
	return &sickSandbox{fakeSandbox: newFakeSandbox(2, echo), why: why, changed: make(chan struct{})}
}

func (s *sickSandbox) Unwell() (string, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.why, s.changed
}

func (s *sickSandbox) set(why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.why = why
	close(s.changed)
	s.changed = make(chan struct{})
}

// Run breaks, and makes the sandbox unwell, where the input is a break.
func (s *sickSandbox) Run(ctx context.Context, p sandbox.Program, tasks []sandbox.Task, done func(int, sandbox.Result)) error {
	if string(tasks[0].Stdin) == "break" {
		s.set("no memory")
	}
	if why, _ := s.Unwell(); why != "" {
		return errors.New("unwell: " + why)
	}
	return s.fakeSandbox.Run(ctx, p, tasks, done)
}

// startSick runs a worker with that sandbox until the test ends.
func startSick(t *testing.T, c *coordinator, box *sickSandbox) {
	t.Helper()
	startConfig(t, c, Config{Slots: 2, Sandbox: box, Unwell: box.Unwell})
}

// waitForBeat returns how long it took until a heartbeat said that.
func waitForBeat(s *served, why string) time.Duration {
	begun := time.Now()
	for beat := range s.beats {
		if beat.GetUnwell() == why {
			break
		}
	}
	return time.Since(begun)
}

func TestAnUnwellDeviceSaysSoAtOnceAndKeepsItsTasksForOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCoordinator(t)
		box := newSickSandbox("")
		startSick(t, c, box)
		s := <-c.sessions
		spec := c.spec("p")
		s.lease(newLeaseFrame("job", 1, spec, map[uint32][]byte{0: []byte("break"), 1: []byte("break"), 2: []byte("break")}))
		if took := waitForBeat(s, "no memory"); took > time.Second {
			t.Errorf("the coordinator heard of it after %v", took)
		}
		s.cancel(1) // as a coordinator does then
		time.Sleep(time.Minute)
		if len(s.results) > 0 {
			t.Errorf("it sent results: %v", <-s.results)
		}
		box.set("")
		if took := waitForBeat(s, ""); took > time.Second {
			t.Errorf("the coordinator heard after %v that it is well", took)
		}
		s.lease(newLeaseFrame("job", 2, nil, inputs(3, 10)))
		for index, r := range s.collect(10) {
			if r.GetStatus() != wire.TaskStatus_TASK_STATUS_OK {
				t.Errorf("task %d: %v", index, r)
			}
		}
	})
}

func TestTasksOfAnUnwellDeviceFailForACoordinatorThatDoesNotTakeThemBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCoordinator(t)
		startSick(t, c, newSickSandbox("no memory"))
		s := <-c.sessions
		s.lease(newLeaseFrame("job", 1, c.spec("p"), inputs(0, 5)))
		begun := time.Now()
		for index, r := range s.collect(5) {
			if r.GetFailure() != wire.FailureKind_FAILURE_KIND_INTERNAL || !strings.Contains(r.GetError(), "no memory") {
				t.Errorf("task %d: %v", index, r)
			}
		}
		if took := time.Since(begun); took > unwellPatience+time.Second {
			t.Errorf("they failed after %v", took)
		}
	})
}
