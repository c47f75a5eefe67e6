package controltest

import (
	"context"
	"slices"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

func devices() []*wire.Device {
	device := func(id, name string, status wire.DeviceStatus) *wire.Device {
		return &wire.Device{
			Id: id, Role: wire.Role_ROLE_MEMBER, Status: status, Weight: 60, TotalTasksCompleted: 7,
			LastHeartbeatMs: Time, JoinedAtMs: Time - 5000,
			Profile: &wire.DeviceProfile{
				Name: name, Type: wire.DeviceType_DEVICE_TYPE_SERVER, OpsScore: 1234.5, Version: "dev",
				Capabilities: &wire.Capabilities{CpuCores: 4, MemoryGb: 7.5, Runtime: "wazero"},
			},
		}
	}
	first := device(Self, "alpha", wire.DeviceStatus_DEVICE_STATUS_ONLINE)
	first.Role = wire.Role_ROLE_ADMIN
	first.Profile.Labels = map[string]string{"zone": "a"}
	third := device(Third, "gamma", wire.DeviceStatus_DEVICE_STATUS_OFFLINE)
	third.LastHeartbeatMs = 0
	return []*wire.Device{first, device(Other, "beta", wire.DeviceStatus_DEVICE_STATUS_BUSY), third}
}

func memberViews() []*wire.MemberView {
	return []*wire.MemberView{
		{Id: Self, Name: "alpha", Online: true, Voter: true, Version: "dev", Format: 2, Report: &wire.MemberReport{Applied: 1229, DiskFree: 5 << 30, PagesMissing: 2, ClockMs: Time}},
		{Id: Other, Name: "beta", Online: true, Standby: true, Lag: 4, SilentMs: 30, ClockAheadMs: 3200, Version: "dev", Format: 2, Report: &wire.MemberReport{Applied: 1226, DiskFree: 1 << 30}},
		{Id: Third, Name: "gamma", SilentMs: -1, Version: "dev", Format: 1},
	}
}

// plan is that of a survivor of three voters.
func plan() *wire.RecoveryPlan {
	return &wire.RecoveryPlan{
		Generation: 1, NewGeneration: 2, Last: 1234, Committed: 1230, LastTimeMs: Time,
		Devices: 3, OpenJobs: 1, EndedJobs: 4, Results: 900, PagesMissing: 2,
		Voters: []*wire.RecoveryPeer{{Id: Other, Name: "beta"}, {Id: Third, Name: "gamma", Reachable: true}},
		Losses: []string{"what was acknowledged after the last entry is lost", "2 pages are not on this disk"},
	}
}

func findings() []*wire.Finding {
	return []*wire.Finding{
		{Level: "ok", Subject: "quorum", Text: "alpha coordinates the swarm"},
		{Level: "warning", Subject: "clock", Text: "beta is 3.2 s ahead", Mend: "set its clock"},
	}
}

func logs() []*wire.LogLine {
	return []*wire.LogLine{
		{TimeMs: Time, Level: "info", Source: "coordinator", Device: Self, Message: "beta joined"},
		{TimeMs: Time + 1, Level: "warn", Source: "join", Device: Other, Message: "refused an invite that has expired", Audit: true},
		{TimeMs: Time + 2, Level: "info", Source: "coordinator", Device: "", Message: "job done"},
	}
}

// GetStatus describes the swarm.
func (s *Service) GetStatus(context.Context, *connect.Request[wire.GetStatusRequest]) (*connect.Response[wire.GetStatusResponse], error) {
	return call(s, "GetStatus", func() (*wire.GetStatusResponse, error) {
		return &wire.GetStatusResponse{Status: &wire.Status{
			SwarmId: "00112233445566778899aabbccddeeff", Name: "alpha", DeviceId: Self, Role: wire.Role_ROLE_ADMIN, Quorum: true,
			P2PAddresses:  []string{"/ip4/192.0.2.1/tcp/7776/p2p/" + Self},
			PublicAddress: "http://192.0.2.1:7777", ControlAddress: "http://127.0.0.1:7778", BytesStored: 4096,
			LogIndex: 1234, Applied: 1229, Lag: 1, PagesMissing: 2,
			Warnings: []string{"with two members the loss of either stops the swarm; add a third"}, Version: "dev", Pid: 42,
			View: &wire.View{
				Coordinator: Self, Term: 3, Members: []string{Self, Other, Third}, Voters: []string{Self}, RunState: "RUNNING",
				Standbys: []string{Other}, Committed: 1230, Format: 2, MemberViews: memberViews(),
				Stats:     &wire.Stats{TotalJobs: 2, ActiveJobs: 1, CompletedJobs: 1, TotalTasks: 10, CompletedTasks: 9, PendingTasks: 1, GlobalVelocity: 1.5, GlobalThrottle: 100},
				Resources: &wire.Resources{TotalCores: 12, TotalMemoryGb: 22.5, OnlineCount: 2}, SwarmName: "home",
			},
		}}, nil
	})
}

// ListDevices lists the three devices.
func (s *Service) ListDevices(context.Context, *connect.Request[wire.ListDevicesRequest]) (*connect.Response[wire.ListDevicesResponse], error) {
	return call(s, "ListDevices", func() (*wire.ListDevicesResponse, error) {
		return &wire.ListDevicesResponse{Devices: s.devices}, nil
	})
}

// RenameDevice gives a device another name.
func (s *Service) RenameDevice(_ context.Context, r *connect.Request[wire.RenameDeviceRequest]) (*connect.Response[wire.RenameDeviceResponse], error) {
	return call(s, "RenameDevice", func() (*wire.RenameDeviceResponse, error) {
		for _, d := range s.devices {
			if d.GetId() == r.Msg.GetDeviceId() {
				d.Profile.Name = r.Msg.GetName()
				return &wire.RenameDeviceResponse{}, nil
			}
		}
		return nil, wire.Errorf(wire.Code_CODE_NOT_FOUND, "there is no device %s", r.Msg.GetDeviceId())
	})
}

// CreateInvite makes an invite whose secrets say what was asked for.
func (s *Service) CreateInvite(_ context.Context, r *connect.Request[wire.CreateInviteRequest]) (*connect.Response[wire.CreateInviteResponse], error) {
	return call(s, "CreateInvite", func() (*wire.CreateInviteResponse, error) {
		ttl, uses := r.Msg.GetTtlMs(), r.Msg.GetMaxUses()
		if ttl == 0 {
			ttl = 3600_000
		}
		invite := &wire.Invite{Id: "inv-1", Role: r.Msg.GetRole(), MaxUses: uses, CreatedAtMs: Time, ExpiresAtMs: Time + ttl, CreatedBy: Self}
		s.invites = append(s.invites, invite)
		return &wire.CreateInviteResponse{Invite: &wire.Invite{
			Id: invite.Id, Role: invite.Role, MaxUses: uses, CreatedAtMs: Time, ExpiresAtMs: Time + ttl, CreatedBy: Self,
			Link: "http://192.0.2.1:7777/join#secret", Code: "ABCDE12345", Text: "ostrich1-text",
		}}, nil
	})
}

// ListInvites lists the invites without their secrets.
func (s *Service) ListInvites(context.Context, *connect.Request[wire.ListInvitesRequest]) (*connect.Response[wire.ListInvitesResponse], error) {
	return call(s, "ListInvites", func() (*wire.ListInvitesResponse, error) {
		return &wire.ListInvitesResponse{Invites: s.invites}, nil
	})
}

// RevokeInvite marks an invite as revoked.
func (s *Service) RevokeInvite(_ context.Context, r *connect.Request[wire.RevokeInviteRequest]) (*connect.Response[wire.RevokeInviteResponse], error) {
	return call(s, "RevokeInvite", func() (*wire.RevokeInviteResponse, error) {
		for _, i := range s.invites {
			if i.GetId() == r.Msg.GetInviteId() {
				i.Revoked = true
				return &wire.RevokeInviteResponse{}, nil
			}
		}
		return nil, wire.Errorf(wire.Code_CODE_NOT_FOUND, "there is no invite %s", r.Msg.GetInviteId())
	})
}

// Leave ends the node.
func (s *Service) Leave(context.Context, *connect.Request[wire.LeaveRequest]) (*connect.Response[wire.LeaveResponse], error) {
	defer s.stopped()
	return call(s, "Leave", func() (*wire.LeaveResponse, error) { return &wire.LeaveResponse{}, nil })
}

// Stop ends the node.
func (s *Service) Stop(context.Context, *connect.Request[wire.StopRequest]) (*connect.Response[wire.StopResponse], error) {
	defer s.stopped()
	return call(s, "Stop", func() (*wire.StopResponse, error) { return &wire.StopResponse{}, nil })
}

func (s *Service) stopped() {
	if s.Stopped != nil {
		s.Stopped()
	}
}

// RemoveDevice takes a device out of the list. Beta joined by an invite that
// lets others in still; gamma is what the others cannot do without.
func (s *Service) RemoveDevice(_ context.Context, r *connect.Request[wire.RemoveDeviceRequest]) (*connect.Response[wire.RemoveDeviceResponse], error) {
	return call(s, "RemoveDevice", func() (*wire.RemoveDeviceResponse, error) {
		at := s.device(r.Msg.GetDeviceId())
		switch {
		case at < 0:
			return nil, wire.Errorf(wire.Code_CODE_NOT_FOUND, "there is no device %s", r.Msg.GetDeviceId())
		case r.Msg.GetDeviceId() == Third:
			return nil, wire.Errorf(wire.Code_CODE_PRECONDITION, "without gamma the voters that are left could not commit")
		}
		s.devices = slices.Delete(s.devices, at, at+1)
		if r.Msg.GetRevokeInvite() {
			return &wire.RemoveDeviceResponse{}, nil
		}
		return &wire.RemoveDeviceResponse{OpenInvite: "inv-1"}, nil
	})
}

// SetDeviceMode drains, disables or enables a device.
func (s *Service) SetDeviceMode(_ context.Context, r *connect.Request[wire.SetDeviceModeRequest]) (*connect.Response[wire.SetDeviceModeResponse], error) {
	return call(s, "SetDeviceMode", func() (*wire.SetDeviceModeResponse, error) {
		at := s.device(r.Msg.GetDeviceId())
		if at < 0 {
			return nil, wire.Errorf(wire.Code_CODE_NOT_FOUND, "there is no device %s", r.Msg.GetDeviceId())
		}
		s.devices[at].Mode = r.Msg.GetMode()
		return &wire.SetDeviceModeResponse{}, nil
	})
}

func (s *Service) device(id string) int {
	return slices.IndexFunc(s.devices, func(d *wire.Device) bool { return d.GetId() == id })
}

// Recover shows Plan, or, asked to, says that it is done.
func (s *Service) Recover(_ context.Context, r *connect.Request[wire.RecoverRequest]) (*connect.Response[wire.RecoverResponse], error) {
	return call(s, "Recover", func() (*wire.RecoverResponse, error) {
		plan := proto.CloneOf(s.Plan)
		switch {
		case !r.Msg.GetConfirm():
			return &wire.RecoverResponse{Plan: plan}, nil
		case plan.GetRefusal() != "":
			return nil, wire.Errorf(wire.Code_CODE_PRECONDITION, "%s", plan.GetRefusal())
		case r.Msg.GetLast() != plan.GetLast():
			return nil, wire.Errorf(wire.Code_CODE_PRECONDITION, "the log ends at %d", plan.GetLast())
		}
		plan.Kept = "/data/raft.generation-1.20260102T030405"
		return &wire.RecoverResponse{Plan: plan, Done: true}, nil
	})
}

// Diagnose returns Findings.
func (s *Service) Diagnose(context.Context, *connect.Request[wire.DiagnoseRequest]) (*connect.Response[wire.DiagnoseResponse], error) {
	return call(s, "Diagnose", func() (*wire.DiagnoseResponse, error) {
		return &wire.DiagnoseResponse{Findings: s.Findings}, nil
	})
}
