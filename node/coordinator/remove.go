package coordinator

import (
	"context"
	"time"

	"github.com/ostrich-legs/ostrich/consensus/state"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// removalPatience is how long this node tries to hand over after somebody asked
// to take it out: a little longer than they wait.
const removalPatience = 10 * time.Second

// removeDevice takes a device out of the swarm for ever: itself, which is to
// leave, or, for an admin, any. Asked again it changes nothing.
func (a asker) removeDevice(ctx context.Context, r *wire.RemoveDeviceRequest) (*wire.RemoveDeviceResponse, error) {
	id := wire.DeviceID(r.GetDeviceId())
	if id != a.id || r.GetRevokeInvite() {
		if err := a.need(wire.Role_ROLE_ADMIN, "removing another device"); err != nil {
			return nil, err
		}
	}
	gone, err := a.c.remove(ctx, a.id, r)
	if err != nil {
		return nil, err
	}
	if gone == nil {
		return &wire.RemoveDeviceResponse{}, nil
	}
	if id == a.id {
		a.c.audit(id, "device %s left the swarm", id.Short())
		if gone.Role == wire.Role_ROLE_ADMIN && a.c.countRole(wire.Role_ROLE_ADMIN) == 0 {
			a.c.audit(id, "the swarm has no admin any more: nobody can invite members or remove devices")
		}
	} else {
		a.c.audit(id, "device %s was removed from the swarm by %s", id.Short(), a.id.Short())
	}
	a.c.expel(id, a.id)
	return &wire.RemoveDeviceResponse{OpenInvite: a.c.openInvite(gone.InvitedBy)}, nil
}

// remove commits the removal of a device, unless that would harm those that
// stay, and before it, if asked, the end of the invite that it came by: so that
// what is asked again finds either both to do or none. It returns the record of
// the device as it was; nil if it was removed before.
func (c *Coordinator) remove(ctx context.Context, actor wire.DeviceID, r *wire.RemoveDeviceRequest) (*state.Device, error) {
	id := wire.DeviceID(r.GetDeviceId())
	select {
	case c.removing <- struct{}{}:
		defer func() { <-c.removing }()
	case <-ctx.Done():
		return nil, wire.Errorf(wire.Code_CODE_UNAVAILABLE, "the session ended")
	}
	record, err := c.registered(id)
	switch wire.CodeOf(err) {
	case wire.Code_CODE_UNSPECIFIED:
	case wire.Code_CODE_REMOVED:
		return nil, c.cfg.Group.Verify(ctx)
	default:
		return nil, unknownDevice(id)
	}
	if by, err := c.registered(actor); id != actor && (err != nil || by.Role < wire.Role_ROLE_ADMIN) {
		// Two admins remove each other: one was first, and stays.
		return nil, wire.Errorf(wire.Code_CODE_DENIED, "device %s is no admin of the swarm any more", actor.Short())
	}
	if err := c.mayGo(&record); err != nil {
		return nil, err
	}
	if r.GetRevokeInvite() && c.openInvite(record.InvitedBy) != "" {
		if err := c.revokeInvite(ctx, actor, record.InvitedBy); err != nil {
			return nil, err
		}
	}
	_, err = c.propose(ctx, actor, &wire.Op{Kind: &wire.Op_RemoveDevice{RemoveDevice: &wire.RemoveDevice{DeviceId: string(id)}}})
	if err != nil {
		return nil, err
	}
	return &record, nil
}

// mayGo says why a device must stay.
func (c *Coordinator) mayGo(d *state.Device) error {
	members, id := c.countRole(wire.Role_ROLE_MEMBER), d.ID
	switch all := c.countRole(wire.Role_ROLE_WORKER); {
	case all == 1:
		return nil
	case d.Role >= wire.Role_ROLE_MEMBER && members == 1:
		return wire.Errorf(wire.Code_CODE_PRECONDITION,
			"device %s is the only member: without it nobody would remember the swarm. Add a member with \"ostrich invite --role member\" first, or take the other devices out (ostrich device remove NAME)", id.Short())
	case id == c.cfg.Identity.ID:
		return c.handOverFirst()
	}
	return c.cfg.Group.CanLose(id)
}

// handOverFirst is the answer to those who take this node itself out, unless
// the others could not go on: they would cut it off before it could hand over.
// It does that soon, see ToBeRemoved, and they ask its successor.
func (c *Coordinator) handOverFirst() error {
	id := c.cfg.Identity.ID
	if len(c.cfg.Group.Voters()) > 1 { // else a standby takes over
		if err := c.cfg.Group.CanLose(id); err != nil {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.removal = time.Now()
	return wire.Errorf(wire.Code_CODE_UNAVAILABLE, "device %s coordinates the swarm: another has to, before it can be removed", id.Short())
}

// ToBeRemoved reports whether somebody waits for another node to coordinate, so
// that this one can be taken out of the swarm.
func (c *Coordinator) ToBeRemoved() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.removal.IsZero() && time.Since(c.removal) < removalPatience
}

// countRole counts the devices that have a role or one above it.
func (c *Coordinator) countRole(least wire.Role) (n int) {
	c.cfg.Group.Read(func(s *state.State) {
		for _, d := range s.Devices() {
			if d.Role >= least {
				n++
			}
		}
	})
	return n
}

// openInvite returns the ID of an invite if it lets others in still, else "".
func (c *Coordinator) openInvite(id string) string {
	i := c.findInvite(id)
	now := time.Now().UnixMilli()
	if i == nil || i.GetRevoked() || now >= i.GetExpiresAtMs() || i.GetMaxUses() > 0 && i.GetUses() >= i.GetMaxUses() {
		return ""
	}
	return id
}

// removedText is the goodbye to a device that was removed.
const removedText = "this device was removed from the swarm"

// expel frees what a removed device holds, and ends its session: at once, or, if
// it asked itself, soon after its answer.
func (c *Coordinator) expel(id, asker wire.DeviceID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.left, id)
	delete(c.reports, id)
	c.membersDue = true
	d := c.devices[id]
	if d == nil {
		return
	}
	c.free(d)
	d.expelled = true
	if id == asker {
		c.expelled = append(c.expelled, d)
		return
	}
	c.running.Go(func() { d.conn.Close(removedText, false) })
}
