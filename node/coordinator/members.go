package coordinator

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/ostrich-legs/ostrich/consensus/state"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// replicaFormat is the command format in which a profile may name the device's
// memory of the log.
const replicaFormat = 2

// maxClockMS bounds a clock that is believed to be one: the year 37,000.
const maxClockMS = 1 << 50

// memberReport is what a member last said of itself.
type memberReport struct {
	report *wire.MemberReport
	// clockAheadMS is how far its clock was ahead of ours when that came.
	clockAheadMS int64
}

// noteReport keeps what a member says of its part in keeping the swarm's
// memory. What others say is dropped.
func (c *Coordinator) noteReport(d *device, r *wire.MemberReport) {
	if r == nil {
		return
	}
	record, err := c.registered(d.id)
	if err != nil || record.Role < wire.Role_ROLE_MEMBER {
		return
	}
	noted := memberReport{report: r}
	if ms := r.GetClockMs(); ms > 0 && ms < maxClockMS {
		noted.clockAheadMS = ms - time.Now().UnixMilli()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.devices[d.id] == d { // else it may have been removed since
		c.reports[d.id] = noted
	}
}

// MemberReport returns what a member last said of itself in this term; false if
// it has said nothing. The caller must not change it.
func (c *Coordinator) MemberReport(id wire.DeviceID) (*wire.MemberReport, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	noted, ok := c.reports[id]
	return noted.report, ok
}

// recordProfile has the registry say of a device what its session told, and
// notes whether something is left to record. It reports false if the log could
// not be written.
func (c *Coordinator) recordProfile(ctx context.Context, d *device) bool {
	written := true
	profile, whole := c.recordable(d)
	var same bool
	c.cfg.Group.Read(func(s *state.State) {
		known := s.Device(d.id)
		same = known != nil && proto.Equal(known.Profile, profile)
	})
	if !same {
		_, err := c.propose(ctx, d.id, &wire.Op{Kind: &wire.Op_UpdateDevice{UpdateDevice: &wire.UpdateDevice{
			DeviceId: string(d.id), Profile: profile,
		}}})
		if err != nil {
			c.cfg.Log.Debug("a device's profile was not recorded", "device", d.id, "err", err)
			written = wire.CodeOf(err) == wire.Code_CODE_INVALID
			whole = written // trying again would change nothing
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	d.profileDue = !whole
	return written
}

// recordable returns the device's profile as the registry may have it now:
// without its replica while some voter would not understand that, and of a
// worker, which has none. It reports whether that is all there will be to it.
func (c *Coordinator) recordable(d *device) (profile *wire.DeviceProfile, whole bool) {
	if d.profile.GetReplica() == "" {
		return d.profile, true
	}
	record, err := c.registered(d.id)
	worker := err == nil && record.Role < wire.Role_ROLE_MEMBER
	if !worker && c.cfg.Group.Format() >= replicaFormat {
		return d.profile, true
	}
	profile = proto.CloneOf(d.profile)
	profile.Replica = ""
	return profile, worker
}

// recordProfiles records what could not be when the sessions began: not all
// voters understood it, or there was no quorum.
func (c *Coordinator) recordProfiles(ctx context.Context) {
	var due []*device
	c.mu.Lock()
	for _, d := range c.devices {
		if d.profileDue && d.gone.IsZero() {
			due = append(due, d)
		}
	}
	c.mu.Unlock()
	for _, d := range due {
		if !c.recordProfile(ctx, d) {
			return
		}
	}
}

// memberViews lists what is known of each member among the devices, in their
// order.
func (c *Coordinator) memberViews(devices []*wire.Device, followers []Follower) []*wire.MemberView {
	servers := make(map[wire.DeviceID]Follower, len(followers)+1)
	for _, id := range c.cfg.Group.Voters() {
		servers[id] = Follower{ID: id, Voter: true, Silent: -1}
	}
	for _, f := range followers {
		servers[f.ID] = f
	}
	if self, ok := servers[c.cfg.Identity.ID]; ok { // it leads: it lacks nothing
		self.Silent = 0
		servers[self.ID] = self
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var views []*wire.MemberView
	for _, d := range devices {
		if d.GetRole() < wire.Role_ROLE_MEMBER {
			continue
		}
		id := wire.DeviceID(d.GetId())
		noted := c.reports[id]
		v := &wire.MemberView{
			Id:           d.GetId(),
			Name:         d.GetProfile().GetName(),
			Online:       online(d),
			Report:       noted.report,
			ClockAheadMs: noted.clockAheadMS,
			SilentMs:     -1,
			Version:      d.GetProfile().GetVersion(),
			Format:       d.GetProfile().GetFormat(),
		}
		if f, ok := servers[id]; ok {
			v.Voter, v.Standby, v.Lag = f.Voter, !f.Voter, f.Lag
			if f.Silent >= 0 {
				v.SilentMs = f.Silent.Milliseconds()
			}
		}
		views = append(views, v)
	}
	return views
}
