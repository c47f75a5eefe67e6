package node_test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ostrich-legs/ostrich/node/control"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// trio starts three members, of which the first is the admin, and returns when
// all three vote.
func trio(t *testing.T) (a, b, c *testNode) {
	t.Helper()
	dir := t.TempDir()
	a = start(t, filepath.Join(dir, "a"), "")
	b = start(t, filepath.Join(dir, "b"), a.invite(t, wire.Role_ROLE_MEMBER))
	c = start(t, filepath.Join(dir, "c"), a.invite(t, wire.Role_ROLE_MEMBER))
	eventually(t, "three vote, and all know", func() bool {
		return !slices.ContainsFunc([]*testNode{a, b, c}, func(n *testNode) bool {
			s := n.status(t)
			return !s.GetQuorum() || len(s.GetView().GetVoters()) != 3
		})
	})
	return a, b, c
}

func (n *testNode) setMode(t *testing.T, id string, mode wire.DeviceMode) {
	t.Helper()
	if _, err := control.Call(t.Context(), n.client.SetDeviceMode, &wire.SetDeviceModeRequest{DeviceId: id, Mode: mode}); err != nil {
		t.Fatalf("%s for device %s: %v", mode, id, err)
	}
}

// coordinator returns who coordinates as this node sees it; "" for nobody.
func (n *testNode) coordinator(t *testing.T) string {
	t.Helper()
	return n.status(t).GetView().GetCoordinator()
}

func TestADrainedCoordinatorHandsItsRoleOverUnderARunningMap(t *testing.T) {
	a, b, c := trio(t)
	var lines []string
	for i := range 20_000 {
		lines = append(lines, strings.Repeat("x", i%40))
	}
	mapped := make(chan []string, 1)
	go func() { mapped <- c.mapLines(t, "upper", lines) }()
	for range 3 {
		first := ""
		eventually(t, "somebody coordinates", func() bool { first = a.coordinator(t); return first != "" })
		a.setMode(t, first, wire.DeviceMode_DEVICE_MODE_DRAINING)
		eventually(t, "another coordinates", func() bool { now := a.coordinator(t); return now != "" && now != first })
		a.setMode(t, first, wire.DeviceMode_DEVICE_MODE_ENABLED)
	}
	got := <-mapped
	if len(got) != len(lines) {
		t.Fatalf("%d outputs, want %d", len(got), len(lines))
	}
	for i, line := range lines {
		if want := strings.ToUpper(line) + "\n"; got[i] != want {
			t.Fatalf("output %d is %q, want %q", i, got[i], want)
		}
	}
	if got := b.mapLines(t, "cat", []string{"on"}); len(got) != 1 || got[0] != "on\n" {
		t.Errorf("afterwards the swarm computes %q", got)
	}
}

func TestWhereAllAreDrainedSomebodyCoordinatesStill(t *testing.T) {
	a, b, c := trio(t)
	for _, n := range []*testNode{c, b, a} {
		a.setMode(t, n.status(t).GetDeviceId(), wire.DeviceMode_DEVICE_MODE_DRAINING)
	}
	eventually(t, "all are shown as draining, with a coordinator", func() bool {
		out, err := control.Call(t.Context(), a.client.ListDevices, &wire.ListDevicesRequest{})
		return err == nil && !slices.ContainsFunc(out.GetDevices(), func(d *wire.Device) bool {
			return d.GetStatus() != wire.DeviceStatus_DEVICE_STATUS_DRAINING
		})
	})
	eventually(t, "a warning says how to let it work again", func() bool {
		return slices.ContainsFunc(b.status(t).GetWarnings(), func(w string) bool { return strings.Contains(w, "device enable") })
	})
	for _, n := range []*testNode{a, b, c} {
		a.setMode(t, n.status(t).GetDeviceId(), wire.DeviceMode_DEVICE_MODE_ENABLED)
	}
	a.mapLines(t, "cat", []string{"work again"})
}

func TestDevicesAreRemovedAndTold(t *testing.T) {
	dir := t.TempDir()
	a := start(t, filepath.Join(dir, "a"), "")
	w := start(t, filepath.Join(dir, "w"), a.invite(t, wire.Role_ROLE_WORKER))
	self, worker := a.status(t).GetDeviceId(), w.status(t).GetDeviceId()
	remove := func(id string) (*wire.RemoveDeviceResponse, error) {
		return control.Call(t.Context(), a.client.RemoveDevice, &wire.RemoveDeviceRequest{DeviceId: id})
	}
	if _, err := remove(self); wire.CodeOf(err) != wire.Code_CODE_PRECONDITION || !strings.Contains(err.Error(), "ostrich leave") {
		t.Errorf("removing oneself gives %v, want CODE_PRECONDITION and the way", err)
	}
	out, err := remove(worker)
	if err != nil {
		t.Fatal(err)
	}
	if out.GetOpenInvite() == "" {
		t.Error("the invite that it joined by lets others in still, and nobody says so")
	}
	if err := w.wait(); wire.CodeOf(err) != wire.Code_CODE_REMOVED {
		t.Errorf("the removed worker ended with %v, want CODE_REMOVED", err)
	}
	if got := a.devices(t); !slices.Equal(got, []string{"a"}) {
		t.Errorf("the devices are %v, want a alone", got)
	}
}

func TestLeavingIsRefusedWhereTheOthersCouldNotGoOn(t *testing.T) {
	a, b, c := trio(t)
	c.stop()
	eventually(t, "two go on", func() bool { return a.status(t).GetQuorum() && b.status(t).GetQuorum() })
	for _, n := range []*testNode{a, b} {
		_, err := control.Call(t.Context(), n.client.Leave, &wire.LeaveRequest{})
		if wire.CodeOf(err) != wire.Code_CODE_PRECONDITION {
			t.Fatalf("with one of three away, %s leaves with %v, want CODE_PRECONDITION", filepath.Base(n.dir), err)
		}
	}
	if got := b.mapLines(t, "cat", []string{"still here"}); len(got) != 1 || got[0] != "still here\n" {
		t.Errorf("the swarm computes %q", got)
	}
}

// A device that was away knows of no member that has joined since: it takes the
// word of those it knows for who coordinates.
func TestADeviceComesBackToACoordinatorThatJoinedMeanwhile(t *testing.T) {
	dir := t.TempDir()
	a := start(t, filepath.Join(dir, "a"), "")
	w := start(t, filepath.Join(dir, "w"), a.invite(t, wire.Role_ROLE_WORKER))
	eventually(t, "the worker knows the way back", func() bool { return remembers(t, w, a) })
	w.stop()
	b := start(t, filepath.Join(dir, "b"), a.invite(t, wire.Role_ROLE_MEMBER))
	c := start(t, filepath.Join(dir, "c"), a.invite(t, wire.Role_ROLE_MEMBER))
	newcomer := c.status(t).GetDeviceId()
	eventually(t, "three vote", func() bool { return len(c.status(t).GetView().GetVoters()) == 3 })
	for _, n := range []*testNode{a, b} {
		a.setMode(t, n.status(t).GetDeviceId(), wire.DeviceMode_DEVICE_MODE_DRAINING)
	}
	eventually(t, "the newcomer coordinates", func() bool { return a.coordinator(t) == newcomer })
	w = start(t, w.dir, "")
	eventually(t, "the worker has found it", func() bool { return w.coordinator(t) == newcomer })
}
