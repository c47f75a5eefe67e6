package coordinator_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/ostrich-legs/ostrich/consensus/state"
	"github.com/ostrich-legs/ostrich/node/coordinator"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const someReplica = "0123456789abcdef"

func (p *peer) beat(r *wire.MemberReport) {
	p.h.t.Helper()
	beat := &wire.Frame{Kind: &wire.Frame_Heartbeat{Heartbeat: &wire.Heartbeat{Member: r}}}
	if err := p.conn.Send(p.h.t.Context(), beat); err != nil {
		p.h.t.Fatal(err)
	}
	synctest.Wait()
}

func (p *peer) view() *wire.View {
	p.h.t.Helper()
	return p.call(&wire.Request{Kind: &wire.Request_GetView{GetView: &wire.GetViewRequest{}}}).GetGetView().GetView()
}

func TestTheViewTellsWhatIsKnownOfEachMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		voter, standby := identity(4), identity(5)
		h.register(voter, wire.Role_ROLE_MEMBER)
		h.register(standby, wire.Role_ROLE_MEMBER)
		h.replication = func() coordinator.Replication {
			return coordinator.Replication{Committed: 70, Followers: []coordinator.Follower{
				{ID: voter.ID, Voter: true, Matched: 60, Lag: 10, Silent: 1500 * time.Millisecond},
				{ID: standby.ID, Matched: 0, Lag: 70, Silent: -1},
			}}
		}
		h.lead()
		client, v := h.dial(h.founder, 0), h.dial(voter, 0)
		h.worker(2, 1).beat(&wire.MemberReport{Applied: 99}) // a worker's word on it counts for nothing
		report := &wire.MemberReport{Applied: 59, PagesMissing: 3, DiskFree: 1 << 30, ClockMs: time.Now().UnixMilli() + 5000}
		v.beat(report)
		view := client.view()
		if view.GetCommitted() != 70 || view.GetFormat() != 2 || !slices.Equal(view.GetStandbys(), []string{string(standby.ID)}) {
			t.Errorf("the view is %v", view)
		}
		views := make(map[string]*wire.MemberView)
		for _, m := range view.GetMemberViews() {
			views[m.GetId()] = m
		}
		if len(views) != 3 {
			t.Fatalf("%d members are shown, want 3", len(views))
		}
		got := views[string(voter.ID)]
		want := &wire.MemberView{
			Id: string(voter.ID), Name: "device-" + voter.ID.Short(), Online: true, Voter: true, Report: report,
			Lag: 10, SilentMs: 1500, ClockAheadMs: 5000, Format: state.Format,
		}
		if !proto.Equal(got, want) {
			t.Errorf("the voter is shown as\n%v, want\n%v", got, want)
		}
		if s := views[string(standby.ID)]; s.GetOnline() || !s.GetStandby() || s.GetVoter() || s.GetSilentMs() != -1 || s.GetReport() != nil {
			t.Errorf("the standby is shown as %v", s)
		}
		if r, ok := h.c.MemberReport(voter.ID); !ok || r.GetPagesMissing() != 3 {
			t.Errorf("the voter's report is %v, %v", r, ok)
		}
		if _, ok := h.c.MemberReport(standby.ID); ok {
			t.Error("who has said nothing has a report")
		}
	})
}

func TestAClockThatIsNoneIsNotBelieved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		client := h.dial(h.founder, 0)
		for _, ms := range []int64{0, -1, -1 << 63, 1<<63 - 1} {
			client.beat(&wire.MemberReport{ClockMs: ms})
			if got := client.view().GetMemberViews()[0].GetClockAheadMs(); got != 0 {
				t.Errorf("a clock at %d is ahead by %d ms", ms, got)
			}
		}
	})
}

func (h *harness) replica(id wire.DeviceID) (replica string) {
	h.group.Read(func(s *state.State) { replica = s.Device(id).Replica() })
	return replica
}

func TestAReplicaIsRecordedWhenAllVotersUnderstandIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		h.group.set(func() { h.group.format = 1 })
		member := identity(4)
		h.register(member, wire.Role_ROLE_MEMBER)
		p := profile("member")
		p.Replica, p.Version = someReplica, "new"
		if _, err := h.dialAs(member, &wire.Hello{Profile: p}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		client := h.dial(h.founder, 0)
		if got := client.device(member.ID).GetProfile().GetVersion(); got != "new" || h.replica(member.ID) != "" {
			t.Errorf("with a voter of yesterday its version is %q, its replica %q", got, h.replica(member.ID))
		}
		h.group.Read(func(s *state.State) {
			if s.FormatInUse() != 1 {
				t.Error("an operation of format 2 was proposed")
			}
		})
		h.group.set(func() { h.group.format = 2 })
		time.Sleep(11 * time.Second)
		if got := h.replica(member.ID); got != someReplica {
			t.Errorf("when the last voter is of today it is %q", got)
		}
	})
}

func TestAProfileIsRecordedOnceThereIsQuorumAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		client := h.dial(h.founder, 0)
		worker := identity(4)
		h.register(worker, wire.Role_ROLE_WORKER)
		h.group.setFail(wire.Errorf(wire.Code_CODE_UNAVAILABLE, "no quorum"))
		p := profile("worker")
		p.Version, p.Replica = "new", someReplica // which a worker does not have
		if _, err := h.dialAs(worker, &wire.Hello{Profile: p}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		h.group.setFail(nil)
		time.Sleep(11 * time.Second)
		if got := client.device(worker.ID).GetProfile().GetVersion(); got != "new" || h.replica(worker.ID) != "" {
			t.Errorf("its version is %q, its replica %q", got, h.replica(worker.ID))
		}
	})
}

func TestAnswersThatMustBeCurrentComeFromTheLeaderOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		client := h.dial(h.founder, 0)
		h.worker(2, 2).serve(nil)
		id := client.submit(2, nil)
		client.results(id, false)
		h.group.set(func() { h.group.deposed = wire.Errorf(wire.Code_CODE_UNAVAILABLE, "another leads") })
		for name, r := range map[string]*wire.Request{
			"devices": {Kind: &wire.Request_ListDevices{ListDevices: &wire.ListDevicesRequest{}}},
			"invites": {Kind: &wire.Request_ListInvites{ListInvites: &wire.ListInvitesRequest{}}},
			"program": {Kind: &wire.Request_HasProgram{HasProgram: &wire.HasProgramRequest{Hash: hashOf("program")}}},
			"jobs":    {Kind: &wire.Request_ListJobs{ListJobs: &wire.ListJobsRequest{}}},
			"job":     {Kind: &wire.Request_GetJob{GetJob: &wire.GetJobRequest{JobId: string(id)}}},
			"results": readOf(id, 0),
		} {
			if _, err := client.conn.Call(t.Context(), r); wire.CodeOf(err) != wire.Code_CODE_UNAVAILABLE {
				t.Errorf("%s: got %v, want CODE_UNAVAILABLE", name, err)
			}
		}
		if out := client.view(); out.GetTerm() != 1 {
			t.Errorf("the view is for viewing, and comes: %v", out)
		}
	})
}

func TestALongPollVerifiesWhenItAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		client := h.dial(h.founder, 0)
		id := client.submit(1, nil)
		polled := make(chan error, 1)
		go func() {
			_, err := client.conn.Call(t.Context(), readOf(id, 0))
			polled <- err
		}()
		time.Sleep(5 * time.Second)
		h.group.set(func() { h.group.deposed = wire.Errorf(wire.Code_CODE_UNAVAILABLE, "another leads") })
		if err := <-polled; wire.CodeOf(err) != wire.Code_CODE_UNAVAILABLE {
			t.Errorf("got %v, want CODE_UNAVAILABLE", err)
		}
	})
}
