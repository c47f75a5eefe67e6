package node_test

import (
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/ostrich-legs/ostrich/node"
	"github.com/ostrich-legs/ostrich/node/control"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

func (n *testNode) status(t *testing.T) *wire.Status {
	t.Helper()
	out, err := control.Call(t.Context(), n.client.GetStatus, &wire.GetStatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return out.GetStatus()
}

func (n *testNode) devices(t *testing.T) (names []string) {
	t.Helper()
	out, err := control.Call(t.Context(), n.client.ListDevices, &wire.ListDevicesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range out.GetDevices() {
		names = append(names, d.GetProfile().GetName())
	}
	slices.Sort(names)
	return names
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it never came to be that %s", what)
		}
	}
}

func TestANodeComesBackAsWhatItWas(t *testing.T) {
	dir := t.TempDir()
	a := start(t, filepath.Join(dir, "a"), "")
	w := start(t, filepath.Join(dir, "w"), a.invite(t, wire.Role_ROLE_WORKER))
	before := a.status(t)
	a.mapLines(t, "cat", []string{"one", "two"})
	w.stop()
	w = startWith(t, config(w.dir, ""))
	if s := w.status(t); s.GetRole() != wire.Role_ROLE_WORKER || s.GetName() != "w" || !s.GetQuorum() {
		t.Errorf("the worker came back as %v", s)
	}
	a.mapLines(t, "cat", []string{"three"})
	a.stop()
	a = start(t, a.dir, "")
	after := a.status(t)
	if after.GetSwarmId() != before.GetSwarmId() || after.GetDeviceId() != before.GetDeviceId() || after.GetRole() != wire.Role_ROLE_ADMIN {
		t.Errorf("it came back as %v, was %v", after, before)
	}
	if got := after.GetView().GetStats(); got.GetTotalJobs() != 2 || got.GetCompletedTasks() != 3 {
		t.Errorf("it remembers %v", got)
	}
	if got := a.devices(t); !slices.Equal(got, []string{"a", "w"}) {
		t.Errorf("the devices are %v, want a and w", got)
	}
}

func TestADeviceKeepsItsName(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "kitchen")
	start(t, dir, "").stop()
	n := startWith(t, config(dir, ""))
	if got := n.status(t).GetName(); got != "kitchen" {
		t.Errorf("started again without a name it is called %q, want %q", got, "kitchen")
	}
}

func TestAnInviteOfAnotherSwarmIsRefusedAndOfThisOneIgnored(t *testing.T) {
	dir := t.TempDir()
	a, b := start(t, filepath.Join(dir, "a"), ""), start(t, filepath.Join(dir, "b"), "")
	ours, theirs := a.invite(t, wire.Role_ROLE_MEMBER), b.invite(t, wire.Role_ROLE_MEMBER)
	a.stop()
	err := node.Run(t.Context(), config(a.dir, theirs), func() { t.Error("it is ready") })
	if wire.CodeOf(err) != wire.Code_CODE_WRONG_SWARM || !strings.Contains(err.Error(), "--data") {
		t.Errorf("an invite of another swarm gives %v, want CODE_WRONG_SWARM and the way out", err)
	}
	start(t, a.dir, ours).stop()
	// Who made a short code may be away: that must not keep a node down.
	start(t, a.dir, "ABCDEFGHJK@127.0.0.1:1").stop()
}

func TestAStopThatWasAskedForIsNoError(t *testing.T) {
	n := start(t, filepath.Join(t.TempDir(), "n"), "")
	if _, err := control.Call(t.Context(), n.client.Stop, &wire.StopRequest{}); err != nil {
		t.Fatal(err)
	}
	if err := n.wait(); err != nil {
		t.Errorf("the node ended with %v", err)
	}
}

// Without mDNS members know each other's last addresses only.
func TestAllMembersRestartOnAnyPortAndFindEachOther(t *testing.T) {
	dir := t.TempDir()
	folder := func(name string) string { return filepath.Join(dir, name) }
	a := start(t, folder("a"), "")
	b := start(t, folder("b"), a.invite(t, wire.Role_ROLE_MEMBER))
	c := start(t, folder("c"), a.invite(t, wire.Role_ROLE_MEMBER))
	eventually(t, "three vote", func() bool { return len(c.status(t).GetView().GetVoters()) == 3 })
	before := a.status(t).GetPublicAddress()
	for _, n := range []*testNode{a, b, c} {
		n.stop()
	}
	var again [3]*testNode
	var starting sync.WaitGroup
	for i, name := range []string{"a", "b", "c"} { // none is ready alone
		starting.Go(func() { again[i] = start(t, folder(name), "") })
	}
	starting.Wait()
	if t.Failed() {
		return
	}
	if got := again[1].mapLines(t, "cat", []string{"still here"}); len(got) != 1 || got[0] != "still here\n" {
		t.Errorf("the swarm computes %q", got)
	}
	if after := again[0].status(t).GetPublicAddress(); after != before {
		t.Errorf("the page was at %s, and after a restart it is at %s", before, after)
	}
}

func TestMembersLeaveAndTheSwarmGoesOn(t *testing.T) {
	dir := t.TempDir()
	a := start(t, filepath.Join(dir, "a"), "")
	b := start(t, filepath.Join(dir, "b"), a.invite(t, wire.Role_ROLE_MEMBER))
	c := start(t, filepath.Join(dir, "c"), a.invite(t, wire.Role_ROLE_MEMBER))
	w := start(t, filepath.Join(dir, "w"), a.invite(t, wire.Role_ROLE_WORKER))
	eventually(t, "three vote", func() bool { return len(b.status(t).GetView().GetVoters()) == 3 })
	// A worker, a member that follows, and the coordinator itself.
	for _, n := range []*testNode{w, c, a} {
		if err := os.MkdirAll(filepath.Join(n.dir, "raft.damaged.20260102T030405Z"), 0o700); err != nil {
			t.Fatal(err)
		}
		if _, err := control.Call(t.Context(), n.client.Leave, &wire.LeaveRequest{}); err != nil {
			t.Fatalf("%s leaves: %v", filepath.Base(n.dir), err)
		}
		if err := n.wait(); err != nil {
			t.Errorf("%s ended with %v", filepath.Base(n.dir), err)
		}
		left, err := os.ReadDir(n.dir)
		left = slices.DeleteFunc(left, func(e os.DirEntry) bool { return e.Name() == "lock" || e.Name() == "cache" })
		if err != nil || len(left) != 0 {
			t.Errorf("%s has left, and still remembers the swarm: %v, %v", filepath.Base(n.dir), left, err)
		}
	}
	eventually(t, "the last member coordinates alone", func() bool {
		s := b.status(t)
		return s.GetQuorum() && s.GetView().GetCoordinator() == s.GetDeviceId() && len(s.GetView().GetMembers()) == 1
	})
	if got := b.mapLines(t, "cat", []string{"still here"}); len(got) != 1 || got[0] != "still here\n" {
		t.Errorf("the swarm computes %q", got)
	}
}

func TestAnAdminTakesTheCoordinatorOut(t *testing.T) {
	for members, voters := range map[int]int{2: 1, 3: 3} {
		dir := t.TempDir()
		a := start(t, filepath.Join(dir, "a"), "")
		b := start(t, filepath.Join(dir, "b"), a.invite(t, wire.Role_ROLE_ADMIN))
		if members == 3 {
			start(t, filepath.Join(dir, "c"), a.invite(t, wire.Role_ROLE_MEMBER))
		}
		eventually(t, "all are known, and who is to votes", func() bool {
			v := b.status(t).GetView()
			return len(v.GetMembers()) == members && len(v.GetVoters()) == voters && len(v.GetVoters())+len(v.GetStandbys()) == members
		})
		if got := b.status(t).GetView().GetCoordinator(); got != a.status(t).GetDeviceId() {
			t.Skipf("a busy machine: %s coordinates", got)
		}
		if _, err := control.Call(t.Context(), b.client.RemoveDevice, &wire.RemoveDeviceRequest{DeviceId: a.status(t).GetDeviceId()}); err != nil {
			t.Errorf("of %d members the coordinator is not removed: %v", members, err)
			continue
		}
		if err := a.wait(); wire.CodeOf(err) != wire.Code_CODE_REMOVED {
			t.Errorf("the removed node ended with %v", err)
		}
		if got := b.mapLines(t, "cat", []string{"still here"}); len(got) != 1 || got[0] != "still here\n" {
			t.Errorf("the swarm computes %q", got)
		}
	}
}

func TestTheLastMemberStaysWhileThereAreOthers(t *testing.T) {
	dir := t.TempDir()
	a := start(t, filepath.Join(dir, "a"), "")
	w := start(t, filepath.Join(dir, "w"), a.invite(t, wire.Role_ROLE_WORKER))
	if _, err := control.Call(t.Context(), a.client.Leave, &wire.LeaveRequest{}); wire.CodeOf(err) != wire.Code_CODE_PRECONDITION {
		t.Errorf("the last member leaves with %v, want CODE_PRECONDITION", err)
	}
	if s := w.status(t); !s.GetQuorum() || s.GetRole() != wire.Role_ROLE_WORKER {
		t.Errorf("the worker says %v", s)
	}
}

func TestStatusAnswersWithinASecondWithoutQuorum(t *testing.T) {
	dir := t.TempDir()
	a := start(t, filepath.Join(dir, "a"), "")
	b := start(t, filepath.Join(dir, "b"), a.invite(t, wire.Role_ROLE_MEMBER))
	c := start(t, filepath.Join(dir, "c"), a.invite(t, wire.Role_ROLE_MEMBER))
	eventually(t, "three vote", func() bool { return len(c.status(t).GetView().GetVoters()) == 3 })
	a.stop()
	b.stop()
	var s *wire.Status
	eventually(t, "the quorum is gone", func() bool { s = c.status(t); return !s.GetQuorum() })
	begun := time.Now()
	s = c.status(t)
	if took := time.Since(begun); took > time.Second {
		t.Errorf("status took %v", took)
	}
	v := s.GetView()
	if v.GetCoordinator() != "" || len(v.GetMembers()) != 3 || len(v.GetVoters()) != 3 || len(s.GetWarnings()) == 0 {
		t.Errorf("without quorum it says %v", s)
	}
}

func TestRefusalsAreShownInTheAuditLog(t *testing.T) {
	n := start(t, filepath.Join(t.TempDir(), "n"), "")
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, n.status(t).GetPublicAddress()+"/health", nil)
	if err != nil {
		t.Fatal(err)
	}
	for header, want := range map[string]int{"": 200, "Sec-Fetch-Site": 403, "Origin": 403, "Host": 421} {
		r := request.Clone(t.Context())
		switch header {
		case "Host":
			r.Host = "evil.example"
		case "Origin":
			r.Header.Set(header, "http://evil.example")
		case "Sec-Fetch-Site":
			r.Header.Set(header, "cross-site")
		}
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode != want {
			t.Errorf("with a foreign %q the answer is %d, want %d", header, answer.StatusCode, want)
		}
	}
	// A stranger whose invite was revoked.
	made, err := control.Call(t.Context(), n.client.CreateInvite, &wire.CreateInviteRequest{Role: wire.Role_ROLE_WORKER})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := control.Call(t.Context(), n.client.RevokeInvite, &wire.RevokeInviteRequest{InviteId: made.GetInvite().GetId()}); err != nil {
		t.Fatal(err)
	}
	err = node.Run(t.Context(), config(filepath.Join(t.TempDir(), "late"), made.GetInvite().GetText()), func() { t.Error("it joined") })
	if wire.CodeOf(err) != wire.Code_CODE_DENIED {
		t.Errorf("a revoked invite gives %v, want CODE_DENIED", err)
	}
	stream, err := n.client.StreamLogs(t.Context(), connect.NewRequest(&wire.StreamLogsRequest{Audit: true}))
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]int)
	for stream.Receive() {
		for _, text := range []string{"refused a request", "refused to join", "was not let in", "was revoked"} {
			if strings.Contains(stream.Msg().GetLine().GetMessage(), text) {
				got[text]++
			}
		}
	}
	if got["refused a request"] != 3 || got["refused to join"] != 1 || got["was not let in"] != 1 || got["was revoked"] == 0 {
		t.Errorf("the audit log has %v", got)
	}
}
