package consensus

import (
	"context"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/ostrich-legs/ostrich/consensus/state"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const (
	// reconcileIdle is how often a leader looks whether the servers are right
	// when nothing says that they may not be.
	reconcileIdle = 2 * time.Second
	// reconcileHurried is how often while a standby is waited for.
	reconcileHurried = 100 * time.Millisecond
	// newcomerGrace is how long a silent standby is waited for in a hurry.
	newcomerGrace = 10 * time.Second
)

// reconciler compares servers with members during one term.
type reconciler struct {
	group *Group
	term  uint64
	// since is when each server was first seen in this term: silence counts
	// from there.
	since map[Server]time.Time
	// unnamed is when each member was first seen online with no replica named.
	unnamed map[wire.DeviceID]time.Time
	// goal is the end of the log at the look before.
	goal uint64
}

func newReconciler(g *Group, term uint64) *reconciler {
	return &reconciler{
		group: g, term: term, goal: g.raft.LastIndex(),
		since: make(map[Server]time.Time), unnamed: make(map[wire.DeviceID]time.Time),
	}
}

// reconcile brings the group's servers in line with the registry until ctx ends.
func (g *Group) reconcile(ctx context.Context, term uint64) {
	r := newReconciler(g, term)
	for ctx.Err() == nil {
		pause := g.tune.reconcileIdle
		if r.look(ctx) {
			pause = g.tune.reconcileHurried
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-g.members:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// look makes at most one change, and reports whether to look again soon.
func (r *reconciler) look(ctx context.Context) (hurry bool) {
	goal := r.group.raft.LastIndex()
	v := r.view(time.Now())
	r.goal = goal
	c, ok := nextChange(v)
	if !ok {
		return v.waitsForStandby()
	}
	if err := r.group.alter(ctx, c); err != nil {
		if ctx.Err() == nil {
			r.group.log.Warn("the group's servers could not be changed; trying again", "change", string(c.verb), "device", c.server.ID, "error", err)
		}
		return false
	}
	if c.verb == addStandby { // how long it was silent before does not count: it would be removed again at once
		delete(r.since, Server{ID: c.server.ID, Replica: c.server.Replica})
	}
	r.group.log.Info("the group's servers changed", "change", string(c.verb), "device", c.server.ID)
	return true
}

// waitsForStandby reports whether a vote is to be given and a standby may be
// ready soon.
func (v view) waitsForStandby() bool {
	voters := v.pick(func(s serverView) bool { return s.voter })
	return len(voters) < TargetVoters(len(v.members)) && slices.ContainsFunc(v.servers, func(s serverView) bool {
		return !s.voter && s.silent < newcomerGrace
	})
}

func (r *reconciler) view(now time.Time) view {
	g := r.group
	v := view{self: g.me, absentAfter: g.tune.absentAfter}
	for _, s := range g.Servers() {
		v.servers = append(v.servers, r.serverView(s, now))
	}
	g.Read(func(s *state.State) {
		for _, d := range s.Devices() {
			if d.Role >= wire.Role_ROLE_MEMBER {
				v.members = append(v.members, viewMember(d, s.FormatInUse()))
			}
		}
	})
	named := v.namesReplicas()
	for i := range v.members {
		m := &v.members[i]
		n, known := g.pagesMissing(m.id)
		m.complete = known && n == 0
		m.unnamed = named && r.awaitsReplica(*m, now)
	}
	return v
}

// awaitsReplica reports whether a member may be about to say which replica it
// has. One that has been there for newcomerGrace and named none has a folder
// from before replicas had names.
func (r *reconciler) awaitsReplica(m memberView, now time.Time) bool {
	if m.replica != "" {
		return false
	}
	if !m.online {
		delete(r.unnamed, m.id)
		return true
	}
	since, ok := r.unnamed[m.id]
	if !ok {
		since = now
		r.unnamed[m.id] = now
	}
	return now.Sub(since) < newcomerGrace
}

func viewMember(d *state.Device, inUse uint32) memberView {
	return memberView{
		id: d.ID, replica: d.Replica(), online: d.Online, joinedAtMS: d.JoinedAtMS,
		idle:     d.Mode == wire.DeviceMode_DEVICE_MODE_DRAINING || d.Mode == wire.DeviceMode_DEVICE_MODE_DISABLED,
		outdated: max(1, d.Profile.GetFormat()) < inUse,
	}
}

func (r *reconciler) serverView(s Server, now time.Time) serverView {
	view := serverView{id: s.ID, replica: s.Replica, voter: s.Voter, caughtUp: true}
	if s.id() == r.group.me.id() {
		return view
	}
	key := Server{ID: s.ID, Replica: s.Replica}
	since, ok := r.since[key]
	if !ok {
		since = now
		r.since[key] = now
	}
	f := r.group.transport.follower(s, r.term)
	if f.contact.After(since) {
		since = f.contact
	}
	view.silent = max(0, now.Sub(since))
	view.caughtUp = !f.contact.IsZero() && f.matched >= r.goal
	return view
}

// pagesMissing asks the caller of Open.
func (g *Group) pagesMissing(id wire.DeviceID) (n uint64, known bool) {
	if g.missing == nil {
		return 0, true
	}
	return g.missing(id)
}

// alter makes one change and waits for it to be committed.
func (g *Group) alter(ctx context.Context, c change) error {
	s := c.server.raft()
	return g.await(ctx, func() raft.Future {
		switch c.verb {
		case addStandby:
			return g.raft.AddNonvoter(s.ID, s.Address, 0, rpcTimeout)
		case promote:
			return g.raft.AddVoter(s.ID, s.Address, 0, rpcTimeout)
		case demote:
			return g.raft.DemoteVoter(s.ID, 0, rpcTimeout)
		}
		return g.raft.RemoveServer(s.ID, 0, rpcTimeout)
	})
}
