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
	since map[wire.DeviceID]time.Time
	// goal is the end of the log at the look before.
	goal uint64
}

// reconcile brings the group's servers in line with the registry until ctx ends.
func (g *Group) reconcile(ctx context.Context, term uint64) {
	r := &reconciler{group: g, term: term, since: make(map[wire.DeviceID]time.Time), goal: g.raft.LastIndex()}
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
			r.group.log.Warn("the group's servers could not be changed; trying again", "change", string(c.verb), "device", c.id, "error", err)
		}
		return false
	}
	r.group.log.Info("the group's servers changed", "change", string(c.verb), "device", c.id)
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
	v := view{self: r.group.self, absentAfter: r.group.tune.absentAfter}
	for _, s := range r.group.Servers() {
		v.servers = append(v.servers, r.serverView(s, now))
	}
	r.group.Read(func(s *state.State) {
		for _, d := range s.Devices() {
			if d.Role >= wire.Role_ROLE_MEMBER {
				v.members = append(v.members, memberView{id: d.ID, online: d.Online, joinedAtMS: d.JoinedAtMS})
			}
		}
	})
	return v
}

func (r *reconciler) serverView(s Server, now time.Time) serverView {
	if s.ID == r.group.self {
		return serverView{id: s.ID, voter: s.Voter, caughtUp: true}
	}
	since, ok := r.since[s.ID]
	if !ok {
		since = now
		r.since[s.ID] = now
	}
	f := r.group.transport.follower(s.ID, r.term)
	if f.contact.After(since) {
		since = f.contact
	}
	return serverView{
		id:       s.ID,
		voter:    s.Voter,
		silent:   max(0, now.Sub(since)),
		caughtUp: !f.contact.IsZero() && f.matched >= r.goal,
	}
}

// alter makes one change and waits for it to be committed.
func (g *Group) alter(ctx context.Context, c change) error {
	s := g.server(c.id)
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
