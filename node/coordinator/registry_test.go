package coordinator_test

import (
	"crypto/ed25519"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ostrich-legs/ostrich/consensus/state"
	"github.com/ostrich-legs/ostrich/node/session"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

func removalOf(id wire.DeviceID) *wire.Request {
	return &wire.Request{Kind: &wire.Request_RemoveDevice{RemoveDevice: &wire.RemoveDeviceRequest{DeviceId: string(id)}}}
}

func inviteOf(r *wire.CreateInviteRequest, secret byte) *wire.Request {
	r.LinkKey = seededKey(secret).Public().(ed25519.PublicKey)
	return &wire.Request{Kind: &wire.Request_CreateInvite{CreateInvite: r}}
}

// said returns the lines so far that contain a text.
func (h *harness) said(text string) (found []*wire.LogLine) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, l := range h.lines {
		if strings.Contains(l.GetMessage(), text) {
			found = append(found, l)
		}
	}
	return found
}

func (h *harness) status(id wire.DeviceID) wire.DeviceStatus {
	h.t.Helper()
	client := h.dial(h.founder, 0)
	out := client.call(&wire.Request{Kind: &wire.Request_ListDevices{ListDevices: &wire.ListDevicesRequest{}}})
	for _, d := range out.GetListDevices().GetDevices() {
		if d.GetId() == string(id) {
			return d.GetStatus()
		}
	}
	return wire.DeviceStatus_DEVICE_STATUS_UNSPECIFIED
}

func TestARemovedDeviceLosesItsSessionAndItsLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		client := h.dial(h.founder, 0)
		bad := h.worker(2, 2)
		id := client.submit(4, nil)
		lease := <-bad.leases
		client.call(removalOf(bad.id.ID))
		if err := <-bad.ended; !errors.Is(err, session.ErrGoodbye) {
			t.Errorf("its session ended with %v, want a goodbye", err)
		}
		if _, err := h.tryDial(bad.id, 2, lease.GetClaim()); wire.CodeOf(err) != wire.Code_CODE_REMOVED {
			t.Errorf("it dials again: %v, want CODE_REMOVED", err)
		}
		h.worker(3, 2).serve(nil)
		if results, _ := client.results(id, false); len(results) != 4 {
			t.Errorf("%d results, want 4", len(results))
		}
		for _, text := range []string{"was removed from the swarm by", "a session was refused"} {
			if lines := h.said(text); len(lines) == 0 || !lines[0].GetAudit() {
				t.Errorf("no audit line says %q", text)
			}
		}
	})
}

func TestADeviceThatLeavesGetsItsAnswerAndLosesItsSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		worker := h.worker(2, 2)
		worker.call(removalOf(worker.id.ID))
		select {
		case <-worker.ended:
		case <-time.After(5 * time.Second):
			t.Error("the session of a device that has left lives on")
		}
	})
}

func TestTheLastMemberMayNotLeaveTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		client := h.dial(h.founder, 0)
		h.worker(2, 1)
		if _, err := client.conn.Call(t.Context(), removalOf(h.founder.ID)); wire.CodeOf(err) != wire.Code_CODE_PRECONDITION {
			t.Errorf("the last member leaves with %v, want CODE_PRECONDITION", err)
		}
		other := identity(3)
		h.register(other, wire.Role_ROLE_MEMBER)
		if _, err := client.conn.Call(t.Context(), removalOf(h.founder.ID)); wire.CodeOf(err) != wire.Code_CODE_UNAVAILABLE {
			t.Errorf("the coordinator leaves with %v, want CODE_UNAVAILABLE: it has to hand over first", err)
		}
	})
}

func TestInvitesHaveTheTermsOfTheirRole(t *testing.T) {
	for name, c := range map[string]struct {
		request *wire.CreateInviteRequest
		ttl     time.Duration
		uses    uint32
		code    wire.Code
	}{
		"worker":         {&wire.CreateInviteRequest{Role: wire.Role_ROLE_WORKER}, 24 * time.Hour, 0, 0},
		"member":         {&wire.CreateInviteRequest{Role: wire.Role_ROLE_MEMBER}, time.Hour, 1, 0},
		"member, many":   {&wire.CreateInviteRequest{Role: wire.Role_ROLE_MEMBER, UsesSet: true, MaxUses: 3}, time.Hour, 3, 0},
		"member, any":    {&wire.CreateInviteRequest{Role: wire.Role_ROLE_MEMBER, UsesSet: true}, time.Hour, 0, 0},
		"worker, a week": {&wire.CreateInviteRequest{Role: wire.Role_ROLE_WORKER, TtlMs: 7 * 24 * 3600 * 1000}, 168 * time.Hour, 0, 0},
		"no time":        {&wire.CreateInviteRequest{Role: wire.Role_ROLE_WORKER, TtlMs: 1}, 0, 0, wire.Code_CODE_INVALID},
		"for ever":       {&wire.CreateInviteRequest{Role: wire.Role_ROLE_WORKER, TtlMs: 1 << 62}, 0, 0, wire.Code_CODE_INVALID},
		"no role":        {&wire.CreateInviteRequest{}, 0, 0, wire.Code_CODE_INVALID},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client := newHarness(t).founderClient()
				out, err := client.conn.Call(t.Context(), inviteOf(c.request, 77))
				if wire.CodeOf(err) != c.code {
					t.Fatalf("the error is %v, want %v", err, c.code)
				}
				if err != nil {
					return
				}
				i := out.GetCreateInvite().GetInvite()
				if got := time.Duration(i.GetExpiresAtMs()-i.GetCreatedAtMs()) * time.Millisecond; got != c.ttl || i.GetMaxUses() != c.uses {
					t.Errorf("it lives for %v and %d uses, want %v and %d", got, i.GetMaxUses(), c.ttl, c.uses)
				}
			})
		})
	}
}

func (h *harness) founderClient() *peer { return h.dial(h.founder, 0) }

func TestAtMostFiveInvitesAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		client := h.founderClient()
		for i := range byte(5) {
			client.call(inviteOf(&wire.CreateInviteRequest{Role: wire.Role_ROLE_WORKER}, 100+i))
		}
		if _, err := client.conn.Call(t.Context(), inviteOf(&wire.CreateInviteRequest{Role: wire.Role_ROLE_WORKER}, 120)); wire.CodeOf(err) != wire.Code_CODE_EXHAUSTED {
			t.Errorf("the sixth gives %v, want CODE_EXHAUSTED", err)
		}
		time.Sleep(20 * time.Second)
		client.call(inviteOf(&wire.CreateInviteRequest{Role: wire.Role_ROLE_WORKER}, 120))
	})
}

func TestAnInviteAskedForTwiceIsMadeOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		client := h.founderClient()
		first := client.call(inviteOf(&wire.CreateInviteRequest{Role: wire.Role_ROLE_MEMBER}, 77)).GetCreateInvite().GetInvite()
		time.Sleep(3 * time.Second) // the first answer was lost on the way
		second := client.call(inviteOf(&wire.CreateInviteRequest{Role: wire.Role_ROLE_MEMBER}, 77)).GetCreateInvite().GetInvite()
		if first.GetId() != second.GetId() || first.GetExpiresAtMs() != second.GetExpiresAtMs() {
			t.Errorf("asked again, it is %v, was %v", second, first)
		}
	})
}

func TestOnlyAdminsInviteMembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		member := identity(2)
		h.register(member, wire.Role_ROLE_MEMBER)
		client := h.dial(member, 0)
		client.call(inviteOf(&wire.CreateInviteRequest{Role: wire.Role_ROLE_WORKER}, 77))
		made := h.founderClient().call(inviteOf(&wire.CreateInviteRequest{Role: wire.Role_ROLE_MEMBER}, 78)).GetCreateInvite().GetInvite()
		for what, r := range map[string]*wire.Request{
			"inviting a member":          inviteOf(&wire.CreateInviteRequest{Role: wire.Role_ROLE_MEMBER}, 79),
			"inviting an admin":          inviteOf(&wire.CreateInviteRequest{Role: wire.Role_ROLE_ADMIN}, 80),
			"revoking a member's invite": {Kind: &wire.Request_RevokeInvite{RevokeInvite: &wire.RevokeInviteRequest{InviteId: made.GetId()}}},
			"removing another":           removalOf(h.founder.ID),
		} {
			if _, err := client.conn.Call(t.Context(), r); wire.CodeOf(err) != wire.Code_CODE_DENIED {
				t.Errorf("%s by a member gives %v, want CODE_DENIED", what, err)
			}
		}
		if lines := h.said("refused: "); len(lines) != 4 || !lines[0].GetAudit() || lines[0].GetDevice() != string(member.ID) {
			t.Errorf("%d lines tell of 4 refusals: %v", len(lines), lines)
		}
	})
}

func TestAMemberLetsAJoinerIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		client := h.founderClient()
		client.call(inviteOf(&wire.CreateInviteRequest{Role: wire.Role_ROLE_MEMBER}, 77))
		joiner := func(n byte) *wire.Request {
			id := identity(n)
			var swarm wire.SwarmID
			h.group.Read(func(s *state.State) { swarm = s.SwarmID() })
			join := &wire.JoinRequest{
				SwarmId: swarm.Bytes(), InviteKey: seededKey(77).Public().(ed25519.PublicKey), DeviceId: string(id.ID),
				Nonce: make([]byte, 16), Profile: profile("joiner"),
			}
			join.InviteSignature = ed25519.Sign(seededKey(77), wire.JoinStatement(join))
			join.DeviceSignature = ed25519.Sign(id.Key, wire.JoinStatement(join))
			return &wire.Request{Kind: &wire.Request_Admit{Admit: &wire.AdmitRequest{Join: join}}}
		}
		out := client.call(joiner(5)).GetAdmit()
		if out.GetRole() != wire.Role_ROLE_MEMBER || out.GetSwarmName() != "test" || out.GetGeneration() != 1 {
			t.Errorf("the joiner is told %v", out)
		}
		client.call(joiner(5)) // the answer was lost: no second use
		if _, err := client.conn.Call(t.Context(), joiner(6)); wire.CodeOf(err) != wire.Code_CODE_DENIED {
			t.Errorf("a second joiner of an invite for one gets %v, want CODE_DENIED", err)
		}
		if len(h.said("was not let in")) != 1 {
			t.Error("no line tells of the joiner that was not let in")
		}
	})
}

func TestADeviceIsOfflineAfterAMinuteOfSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		h.founderClient()
		worker := h.worker(2, 1)
		time.Sleep(10 * time.Minute)
		if got := h.status(worker.id.ID); got != wire.DeviceStatus_DEVICE_STATUS_ONLINE {
			t.Errorf("a device with a session is %v", got)
		}
		worker.link.cut()
		<-worker.ended
		time.Sleep(30 * time.Second)
		if got := h.status(worker.id.ID); got != wire.DeviceStatus_DEVICE_STATUS_ONLINE {
			t.Errorf("30 s after its link broke a device is %v, want ONLINE still", got)
		}
		time.Sleep(45 * time.Second)
		if got := h.status(worker.id.ID); got != wire.DeviceStatus_DEVICE_STATUS_OFFLINE {
			t.Errorf("75 s after its link broke a device is %v, want OFFLINE", got)
		}
		back := h.dial(worker.id, 1)
		if got := h.status(worker.id.ID); got != wire.DeviceStatus_DEVICE_STATUS_ONLINE {
			t.Errorf("a device that is back is %v", got)
		}
		back.conn.Close("good night", false)
		<-back.ended
		if got := h.status(worker.id.ID); got != wire.DeviceStatus_DEVICE_STATUS_OFFLINE {
			t.Errorf("a device that said goodbye is %v, want OFFLINE", got)
		}
	})
}

func TestTheViewCountsDevicesAndWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		client := h.founderClient()
		worker := h.worker(2, 2)
		running := client.submit(4, nil)
		<-worker.leases
		waits := client.submit(5, func(s *wire.JobSpec) { s.Require = &wire.Requirements{Gpu: true} })
		v := client.call(&wire.Request{Kind: &wire.Request_GetView{GetView: &wire.GetViewRequest{}}}).GetGetView().GetView()
		st, r := v.GetStats(), v.GetResources()
		if v.GetRunState() != "RUNNING" || v.GetCoordinator() != string(h.founder.ID) || !slices.Equal(v.GetMembers(), []string{string(h.founder.ID)}) {
			t.Errorf("the view is %v", v)
		}
		if st.GetTotalJobs() != 2 || st.GetActiveJobs() != 1 || st.GetPendingJobs() != 1 || st.GetTotalTasks() != 9 || st.GetActiveTasks() != 4 || st.GetPendingTasks() != 5 {
			t.Errorf("the stats are %v", st)
		}
		if r.GetOnlineCount() != 2 || r.GetTotalCores() != 8 || r.GetTotalMemoryGb() != 16 {
			t.Errorf("the resources are %v", r)
		}
		if job := client.job(waits); job.GetState() != wire.JobState_JOB_STATE_PENDING || job.GetWaitingFor() != "a device with a GPU" {
			t.Errorf("a job that no device can run is %v and waits for %q", job.GetState(), job.GetWaitingFor())
		}
		if job := client.job(running); job.GetState() != wire.JobState_JOB_STATE_RUNNING || job.GetWaitingFor() != "" {
			t.Errorf("a job that runs is %v and waits for %q", job.GetState(), job.GetWaitingFor())
		}
	})
}

func TestADevicesLinesCannotPaintTerminalsNorFloodTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		worker := h.worker(2, 1)
		for range 500 {
			line := &wire.LogLine{Level: "\x1b[2J", Source: "coordinator", Device: string(h.founder.ID), Message: "hello \x1b[31m there", Audit: true}
			if err := worker.conn.Send(t.Context(), &wire.Frame{Kind: &wire.Frame_LogLine{LogLine: line}}); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		lines := h.said("hello")
		if len(lines) == 0 || len(lines) > 60 {
			t.Fatalf("%d of 500 lines were taken", len(lines))
		}
		if l := lines[0]; !wire.CheckText(l.GetMessage(), l.GetLevel()) || l.GetSource() != "device" || l.GetDevice() != string(worker.id.ID) || l.GetAudit() {
			t.Errorf("the line became %v", l)
		}
	})
}

// A worker outlives the members that it knew when its session began: it is told of
// each that comes, and of each that is taken out.
func TestAWorkerIsToldWhoTheMembersAre(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		client := h.dial(h.founder, 0)
		worker := h.worker(2, 1)
		time.Sleep(5 * time.Second)
		for len(worker.news) > 0 { // of the founder
			<-worker.news
		}
		member := identity(4)
		h.register(member, wire.Role_ROLE_MEMBER)
		h.dial(member, 0)
		told := func() (ids []string) {
			select {
			case w := <-worker.news:
				if w.GetRole() != wire.Role_ROLE_WORKER || w.GetHeartbeatMs() == 0 {
					t.Errorf("news of another kind: %v", w)
				}
				for _, m := range w.GetMembers() {
					ids = append(ids, m.GetId())
				}
				slices.Sort(ids)
			case <-time.After(5 * time.Second):
				t.Error("the worker is told nothing")
			}
			return ids
		}
		both := []string{string(h.founder.ID), string(member.ID)}
		slices.Sort(both)
		if got := told(); !slices.Equal(got, both) {
			t.Errorf("when a member has come: %v, want %v", got, both)
		}
		if _, err := client.remove(member.ID, false); err != nil {
			t.Fatal(err)
		}
		if got := told(); !slices.Equal(got, []string{string(h.founder.ID)}) {
			t.Errorf("when it was removed: %v, want the founder", got)
		}
		time.Sleep(time.Minute)
		if len(worker.news)+len(client.news) > 0 {
			t.Error("there is news when nothing has changed, or for a member")
		}
	})
}
