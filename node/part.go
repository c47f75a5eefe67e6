package node

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/ostrich-legs/ostrich/consensus"
	"github.com/ostrich-legs/ostrich/consensus/state"
	"github.com/ostrich-legs/ostrich/node/coordinator"
	"github.com/ostrich-legs/ostrich/p2p/blob"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const (
	// standBackEvery is how often a node that leads looks whether it should.
	standBackEvery = 250 * time.Millisecond
	// answersWithin is how lately a server must have answered to be one that
	// leadership can go to.
	answersWithin = 3 * time.Second
	// The pause between two times of handing over doubles from the first to the
	// last, and starts again after forgetHandOvers: where all want to stand back,
	// somebody has to lead.
	firstHandOverPause = time.Second
	lastHandOverPause  = time.Minute
	forgetHandOvers    = 5 * time.Minute
)

// keepGroup takes part in the group until ctx ends. It closes and opens it again
// when that is asked for, and after this node has handed leadership over: a raft
// instance that goes on after that may refuse writes in a later term (#696).
func (n *node) keepGroup(ctx context.Context) error {
	r := n.replica.Load()
	var handed handOvers
	for {
		q, err := n.takePart(ctx, r, &handed)
		if errors.Is(err, consensus.ErrStalled) {
			close(n.stalled)
		}
		if damage := err; errors.Is(damage, consensus.ErrDamaged) && q == nil && n.hasOthers() {
			q, err = &reopening{done: make(chan error, 1), between: func() error {
				_, err := n.setAside("damaged", damage.Error())
				return err
			}}, nil
		}
		if err != nil && q != nil {
			q.done <- err
		}
		if err != nil || q == nil {
			return err
		}
		if err := n.openAgain(r, q); err != nil {
			return err
		}
	}
}

// takePart takes part until ctx ends, which gives nil, or the group has to be
// opened again. A node that leads hands over first.
func (n *node) takePart(ctx context.Context, r *replica, handed *handOvers) (*reopening, error) {
	g := r.now.Load()
	turn, end := context.WithCancel(ctx)
	defer end()
	ended := make(chan error, 1)
	go func() {
		ended <- g.Run(turn, func(ctx context.Context, term uint64) error { return n.coordinate(ctx, g, term) })
	}()
	look := time.NewTicker(standBackEvery)
	defer look.Stop()
	for {
		var q *reopening
		select {
		case err := <-ended:
			return nil, err
		case q = <-r.reopenings:
		case now := <-look.C:
			if why := n.standsBack(g); why != "" && handed.due(now) {
				n.announce(lineInfo, false, "hands the coordinator's role over: "+why)
				q = &reopening{done: make(chan error, 1)}
			}
		}
		if q != nil {
			end()
			return q, <-ended
		}
	}
}

// handOvers spaces the times at which a node gives leadership away.
type handOvers struct {
	last  time.Time
	pause time.Duration
}

// due reports whether leadership may be given away now, and notes it.
func (h *handOvers) due(now time.Time) bool {
	if since := now.Sub(h.last); since < h.pause {
		return false
	} else if since > forgetHandOvers {
		h.pause = 0
	}
	h.last, h.pause = now, min(max(firstHandOverPause, 2*h.pause), lastHandOverPause)
	return true
}

// standsBack says why this node, which leads, should let another lead; "" when
// it should not, or no other could.
func (n *node) standsBack(g *openGroup) string {
	if n.lead.Load() == nil {
		return ""
	}
	if why := n.prefersNotToLead(g); why != "" && n.othersCanLead(g) {
		return why
	}
	return ""
}

// prefersNotToLead says why this device should not coordinate; "" when it may.
func (n *node) prefersNotToLead(g *openGroup) string {
	switch {
	case n.leaving.Load():
		return "this device leaves the swarm"
	case n.disk.low.Load():
		return "the disk of this device is almost full"
	}
	if c := n.lead.Load(); c != nil && c.ToBeRemoved() {
		return "this device is to be taken out of the swarm"
	}
	switch n.mode(g) {
	case wire.DeviceMode_DEVICE_MODE_DRAINING:
		return "this device is draining"
	case wire.DeviceMode_DEVICE_MODE_DISABLED:
		return "this device is disabled"
	}
	return ""
}

// mode is what an admin wants of this device.
func (n *node) mode(g *openGroup) (mode wire.DeviceMode) {
	if g != nil {
		g.Read(func(s *state.State) {
			if d := s.Device(n.id.ID); d != nil {
				mode = d.Mode
			}
		})
	}
	return mode
}

// othersCanLead reports whether a server that answers could take leadership and
// keep it: a voter, or, where this node alone votes, a standby.
func (n *node) othersCanLead(g *openGroup) bool {
	sole := len(g.Voters()) == 1
	enabled := make(map[wire.DeviceID]bool)
	g.Read(func(s *state.State) {
		for _, d := range s.Devices() {
			enabled[d.ID] = d.Mode == wire.DeviceMode_DEVICE_MODE_ENABLED
		}
	})
	c := n.lead.Load()
	for _, f := range g.Followers() {
		if f.ID == n.id.ID || !enabled[f.ID] || !(f.Voter || sole) || f.Silent < 0 || f.Silent > answersWithin {
			continue
		}
		if c != nil {
			if r, ok := c.MemberReport(f.ID); ok && r.GetDiskFree() > 0 && r.GetDiskFree() < diskLow {
				continue
			}
		}
		return true
	}
	return false
}

// coordinate is this node's role while it leads: see consensus.Group.Run.
func (n *node) coordinate(ctx context.Context, g *openGroup, term uint64) error {
	c := coordinator.New(coordinator.Config{
		Identity:    n.id,
		Group:       g,
		Pages:       n.replica.Load().pages,
		Peers:       n.host.Peers,
		Publish:     n.logs.publish,
		Replication: func() coordinator.Replication { return replication(g) },
		Log:         n.log.With("part", "coordinator"),
	}, term)
	return c.Run(ctx, func() {
		n.lead.Store(c)
		n.worker.Link().Redial()
	}, func() { n.lead.Store(nil) })
}

// replication is how far the other servers' logs are, for the coordinator's
// view.
func replication(g *openGroup) coordinator.Replication {
	out := coordinator.Replication{Committed: g.Status().Committed}
	for _, f := range g.Followers() {
		out.Followers = append(out.Followers, coordinator.Follower{
			ID: f.ID, Voter: f.Voter, Matched: f.Matched, Lag: f.Lag, Silent: f.Silent,
		})
	}
	return out
}

// pagesMissing answers the group's leader: how many pages a member lacks. A
// member counts only what its state names already: what it says is believed once
// its state is as far as the group was when it was first asked about.
func (n *node) pagesMissing(id wire.DeviceID) (missing uint64, known bool) {
	c, g := n.lead.Load(), n.group()
	if c == nil || g == nil {
		return 0, false
	}
	goal := n.goals.of(id, g.Status().Committed, time.Now())
	report, ok := c.MemberReport(id)
	return report.GetPagesMissing(), ok && report.GetApplied() >= goal
}

// goalFor is how long a goal stands: a report comes every ten seconds.
const goalFor = time.Minute

// pageGoals says how far the states of members must be for their count of pages
// to mean something.
type pageGoals struct {
	mu    sync.Mutex
	goals map[wire.DeviceID]pageGoal
}

type pageGoal struct {
	index uint64
	since time.Time
}

// of returns the goal of a member: what was committed when it was set.
func (p *pageGoals) of(id wire.DeviceID, committed uint64, now time.Time) uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	goal, ok := p.goals[id]
	if !ok || now.Sub(goal.since) >= goalFor {
		if p.goals == nil {
			p.goals = make(map[wire.DeviceID]pageGoal)
		}
		goal = pageGoal{committed, now}
		p.goals[id] = goal
	}
	return goal.index
}

// report is what this member says of its part in keeping the swarm's memory.
func (n *node) report() *wire.MemberReport {
	r := n.replica.Load()
	if r == nil {
		return nil
	}
	free, err := blob.FreeSpace(n.folder.dir)
	if err == nil {
		free = max(1, free) // 0 means that the system does not say
	}
	return &wire.MemberReport{
		Applied:      r.now.Load().Status().Applied,
		PagesMissing: uint64(r.pages.Status().Missing),
		DiskFree:     free,
		ClockMs:      time.Now().UnixMilli(),
	}
}
