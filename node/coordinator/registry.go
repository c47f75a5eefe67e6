package coordinator

import (
	"bytes"
	"context"
	"slices"
	"time"

	"github.com/ostrich-legs/ostrich/consensus/state"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// Defaults of an invite: section 9 of the design.
const (
	workerInviteTTL = 24 * time.Hour
	memberInviteTTL = time.Hour
	maxInviteTTL    = 365 * 24 * time.Hour
)

func (a asker) listDevices(ctx context.Context, _ *wire.ListDevicesRequest) (*wire.ListDevicesResponse, error) {
	devices := a.c.describeDevices()
	for _, d := range devices {
		showMode(d)
	}
	if err := a.c.cfg.Group.Verify(ctx); err != nil {
		return nil, err
	}
	return &wire.ListDevicesResponse{Devices: devices}, nil
}

// showMode makes what an admin wants of a device its status, where that is not
// that it works.
func showMode(d *wire.Device) {
	switch d.GetMode() {
	case wire.DeviceMode_DEVICE_MODE_DRAINING:
		d.Status = wire.DeviceStatus_DEVICE_STATUS_DRAINING
	case wire.DeviceMode_DEVICE_MODE_DISABLED:
		d.Status = wire.DeviceStatus_DEVICE_STATUS_DISABLED
	}
}

// describeDevices lists the registry with what the coordinator sees of it. The
// status is that of the device's presence and work, whatever its mode.
func (c *Coordinator) describeDevices() []*wire.Device {
	var out []*wire.Device
	c.cfg.Group.Read(func(s *state.State) {
		for _, d := range s.Devices() {
			out = append(out, described(d))
		}
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, d := range out {
		c.overlayDevice(d)
	}
	return out
}

// described is what the replicated state says of a device.
func described(d *state.Device) *wire.Device {
	profile := &wire.DeviceProfile{
		Name:         d.Name,
		Type:         d.Profile.GetType(),
		Capabilities: d.Profile.GetCapabilities(),
		Labels:       d.Profile.GetLabels(),
		OpsScore:     d.Profile.GetOpsScore(),
		Version:      d.Profile.GetVersion(),
		Format:       d.Profile.GetFormat(),
	}
	status := wire.DeviceStatus_DEVICE_STATUS_OFFLINE
	if d.Online {
		status = wire.DeviceStatus_DEVICE_STATUS_ONLINE
	}
	return &wire.Device{
		Id:                  string(d.ID),
		Profile:             profile,
		Role:                d.Role,
		Status:              status,
		TotalTasksCompleted: d.TasksCompleted,
		LastHeartbeatMs:     d.PresenceAtMS,
		JoinedAtMs:          d.JoinedAtMS,
		Mode:                d.Mode,
		InvitedBy:           d.InvitedBy,
	}
}

// overlayDevice adds what the coordinator sees. A device whose link broke counts
// as online for a while; one that said goodbye does not. The caller holds the
// mutex.
func (c *Coordinator) overlayDevice(d *wire.Device) {
	id := wire.DeviceID(d.GetId())
	live := c.devices[id]
	if live == nil || !live.gone.IsZero() {
		if l, ok := c.left[id]; ok {
			d.LastHeartbeatMs = max(d.LastHeartbeatMs, l.at.UnixMilli())
			if l.goodbye {
				d.Status = wire.DeviceStatus_DEVICE_STATUS_OFFLINE
			}
		}
		return
	}
	d.Status = wire.DeviceStatus_DEVICE_STATUS_ONLINE
	if live.total > 0 {
		d.Status = wire.DeviceStatus_DEVICE_STATUS_BUSY
	}
	if d.Unwell = live.unwell; d.Unwell != "" {
		d.Status = wire.DeviceStatus_DEVICE_STATUS_SICK
	}
	d.LastHeartbeatMs = live.lastSeen.UnixMilli()
	d.InFlight = uint32(live.total)
	d.Weight = live.schedulable().Weight
}

func (a asker) renameDevice(ctx context.Context, r *wire.RenameDeviceRequest) (*wire.RenameDeviceResponse, error) {
	if wire.DeviceID(r.GetDeviceId()) != a.id {
		if err := a.need(wire.Role_ROLE_ADMIN, "renaming another device"); err != nil {
			return nil, err
		}
	}
	if err := wire.CheckName(r.GetName()); err != nil {
		return nil, err
	}
	_, err := a.c.propose(ctx, a.id, &wire.Op{Kind: &wire.Op_UpdateDevice{UpdateDevice: &wire.UpdateDevice{
		DeviceId: r.GetDeviceId(), Name: r.GetName(),
	}}})
	if err != nil {
		return nil, err
	}
	a.c.say(lineInfo, wire.DeviceID(r.GetDeviceId()), "device %s is named %q now", wire.DeviceID(r.GetDeviceId()).Short(), r.GetName())
	return &wire.RenameDeviceResponse{}, nil
}

func (a asker) createInvite(ctx context.Context, r *wire.CreateInviteRequest) (*wire.CreateInviteResponse, error) {
	need := wire.Role_ROLE_ADMIN
	if r.GetRole() == wire.Role_ROLE_WORKER {
		need = wire.Role_ROLE_MEMBER
	}
	if err := a.need(need, "inviting "+wire.RoleWord(r.GetRole())); err != nil {
		return nil, err
	}
	ttl, uses, err := inviteTerms(r)
	if err != nil {
		return nil, err
	}
	if made := a.c.madeInvite(r, a.id); made != nil {
		return &wire.CreateInviteResponse{Invite: made}, nil
	}
	if !a.c.invites.Allow() {
		return nil, wire.Errorf(wire.Code_CODE_EXHAUSTED, "at most 5 new invites a minute: wait a little, or use one that there is (\"ostrich invite ls\")")
	}
	issue := &wire.IssueInvite{
		LinkKey: r.GetLinkKey(), CodeKey: r.GetCodeKey(), Role: r.GetRole(), MaxUses: uses,
		ExpiresAtMs: time.Now().Add(ttl).UnixMilli(),
	}
	result, err := a.c.propose(ctx, a.id, &wire.Op{Kind: &wire.Op_IssueInvite{IssueInvite: issue}})
	if err != nil {
		return nil, err
	}
	a.c.audit(a.id, "invite %s was made, for %s", result.ID, wire.RoleWord(r.GetRole()))
	invite := a.c.findInvite(result.ID)
	if invite == nil {
		return nil, wire.Errorf(wire.Code_CODE_NOT_FOUND, "invite %s is gone already", result.ID)
	}
	return &wire.CreateInviteResponse{Invite: invite}, nil
}

// inviteTerms returns how long and how often an invite may be used.
func inviteTerms(r *wire.CreateInviteRequest) (ttl time.Duration, uses uint32, err error) {
	if ms := r.GetTtlMs(); ms < 0 || ms > maxInviteTTL.Milliseconds() {
		return 0, 0, wire.Errorf(wire.Code_CODE_INVALID, "an invite lives for 1 s to 365 days, not %d ms", ms)
	}
	ttl, uses = time.Duration(r.GetTtlMs())*time.Millisecond, r.GetMaxUses()
	worker := r.GetRole() == wire.Role_ROLE_WORKER
	switch {
	case ttl == 0 && worker:
		ttl = workerInviteTTL
	case ttl == 0:
		ttl = memberInviteTTL
	case ttl < time.Second:
		return 0, 0, wire.Errorf(wire.Code_CODE_INVALID, "an invite lives for 1 s to 365 days, not %v", ttl)
	}
	if !worker && !r.GetUsesSet() {
		uses = 1
	}
	return ttl, uses, nil
}

// madeInvite returns the invite that the same request has made before, with an
// outcome that its asker never learned; nil if there is none.
func (c *Coordinator) madeInvite(r *wire.CreateInviteRequest, actor wire.DeviceID) (made *wire.Invite) {
	c.cfg.Group.Read(func(s *state.State) {
		i := s.InviteByKey(r.GetLinkKey())
		if i != nil && i.CreatedBy == actor && i.Role == r.GetRole() && bytes.Equal(i.CodeKey, r.GetCodeKey()) {
			made = describeInvite(i)
		}
	})
	return made
}

func (c *Coordinator) findInvite(id string) *wire.Invite {
	for _, i := range c.allInvites() {
		if i.GetId() == id {
			return i
		}
	}
	return nil
}

func (c *Coordinator) allInvites() (out []*wire.Invite) {
	c.cfg.Group.Read(func(s *state.State) {
		for _, i := range s.Invites() {
			out = append(out, describeInvite(i))
		}
	})
	return out
}

func describeInvite(i *state.Invite) *wire.Invite {
	return &wire.Invite{
		Id: i.ID, Role: i.Role, Uses: i.Uses, MaxUses: i.MaxUses, Revoked: i.Revoked,
		CreatedAtMs: i.CreatedAtMS, ExpiresAtMs: i.ExpiresAtMS, CreatedBy: string(i.CreatedBy),
	}
}

func (a asker) listInvites(ctx context.Context, _ *wire.ListInvitesRequest) (*wire.ListInvitesResponse, error) {
	if err := a.need(wire.Role_ROLE_MEMBER, "listing invites"); err != nil {
		return nil, err
	}
	invites := slices.DeleteFunc(a.c.allInvites(), func(i *wire.Invite) bool { return i.GetRevoked() })
	if err := a.c.cfg.Group.Verify(ctx); err != nil {
		return nil, err
	}
	return &wire.ListInvitesResponse{Invites: invites}, nil
}

func (a asker) revokeInvite(ctx context.Context, r *wire.RevokeInviteRequest) (*wire.RevokeInviteResponse, error) {
	if err := a.need(wire.Role_ROLE_MEMBER, "revoking an invite"); err != nil {
		return nil, err
	}
	if i := a.c.findInvite(r.GetInviteId()); i != nil && i.GetRole() != wire.Role_ROLE_WORKER {
		if err := a.need(wire.Role_ROLE_ADMIN, "revoking an invite for "+wire.RoleWord(i.GetRole())); err != nil {
			return nil, err
		}
	}
	if err := a.c.revokeInvite(ctx, a.id, r.GetInviteId()); err != nil {
		return nil, err
	}
	return &wire.RevokeInviteResponse{}, nil
}

// revokeInvite ends an invite on behalf of actor.
func (c *Coordinator) revokeInvite(ctx context.Context, actor wire.DeviceID, id string) error {
	_, err := c.propose(ctx, actor, &wire.Op{Kind: &wire.Op_RevokeInvite{RevokeInvite: &wire.RevokeInvite{InviteId: id}}})
	if err == nil {
		c.audit(actor, "invite %s was revoked", id)
	}
	return err
}

// admitDevice lets a joiner in whose proof the asking member passes on. Apply
// verifies it.
func (a asker) admitDevice(ctx context.Context, r *wire.AdmitRequest) (*wire.AdmitResponse, error) {
	if err := a.need(wire.Role_ROLE_MEMBER, "letting a device in"); err != nil {
		return nil, err
	}
	joiner := wire.DeviceID(r.GetJoin().GetDeviceId())
	result, err := a.c.propose(ctx, a.id, &wire.Op{Kind: &wire.Op_AdmitDevice{AdmitDevice: &wire.AdmitDevice{Join: r.GetJoin()}}})
	if err != nil {
		if code := wire.CodeOf(err); code != wire.Code_CODE_UNAVAILABLE && code != wire.Code_CODE_UNKNOWN_OUTCOME {
			a.c.refused(a.device, "device %s was not let in: %v", joiner.Short(), err)
		}
		return nil, err
	}
	a.c.audit(joiner, "device %s joined as %s", joiner.Short(), wire.RoleWord(result.Role))
	return &wire.AdmitResponse{
		Role:       result.Role,
		Generation: a.c.swarm.generation,
		SwarmName:  a.c.swarm.name,
		Members:    a.c.members(),
	}, nil
}
