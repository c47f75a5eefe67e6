package controltest

import (
	"context"

	"connectrpc.com/connect"

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
			Warnings: []string{"with two members the loss of either stops the swarm; add a third"}, Version: "dev", Pid: 42,
			View: &wire.View{
				Coordinator: Self, Term: 3, Members: []string{Self, Other, Third}, Voters: []string{Self}, RunState: "RUNNING",
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
