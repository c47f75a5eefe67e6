package e2e

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// A worker hears nothing of Raft: that its coordinator was cut off it finds out
// by itself, and then who coordinates now.
func TestAWorkerFindsTheSuccessorOfACoordinatorThatWasCutOff(t *testing.T) {
	if testing.Short() {
		t.Skip("it waits for links to be missed")
	}
	l := newLAN(t, 4)
	members := l.members("10.79.4", 3, 3)
	l.address(3, "10.79.4")
	worker := l.node(3, "d").up("--join", members[0].invite("worker"))
	members[0].online(4)
	for range 2 {
		old, others := coordinator(t, members)
		at := slices.Index(members, old)
		l.ip("-n", l.machine(at), "link", "set", "eth0", "down")
		began := time.Now()
		eventually(t, 2*patience, "the worker has a session with another", func() bool {
			st, err := worker.ask()
			c := st.GetView().GetCoordinator()
			return err == nil && c != "" && c != old.status().DeviceID
		})
		t.Logf("the worker has a session with another coordinator %v after the cut", time.Since(began))
		if got, want := others[0].do(strings.NewReader("x\n"), "map", "builtin:upper"), "X\n"; got != want {
			t.Errorf("a map gives %q, want %q", got, want)
		}
		l.ip("-n", l.machine(at), "link", "set", "eth0", "up")
		members[0].voters(3)
		members[0].online(4)
	}
}
