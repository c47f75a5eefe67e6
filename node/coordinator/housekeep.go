package coordinator

import (
	"context"
	"time"

	"github.com/ostrich-legs/ostrich/consensus/state"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// housekeep watches what only time changes, on a slow beat.
func (c *Coordinator) housekeep(ctx context.Context) error {
	beat := time.NewTicker(housekeepEvery)
	defer beat.Stop()
	nextSweep := time.Now().Add(sweepEvery)
	nextPresence := time.Now()
	nextSpeed := time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-beat.C:
		}
		now := time.Now()
		c.freeGone(now)
		c.forgetStale(now)
		c.tellMembers()
		if now.After(nextSpeed) {
			c.correctSpeeds()
			nextSpeed = now.Add(heartbeatEvery)
		}
		if now.After(nextPresence) {
			c.notePresence(ctx, now)
			c.recordProfiles(ctx)
			nextPresence = now.Add(heartbeatEvery)
		}
		if now.After(nextSweep) || c.sweepDue(now) || c.useless.many() {
			c.sweep(ctx)
			nextSweep = now.Add(sweepEvery)
		}
	}
}

// freeGone frees the leases of links that broke and did not come back, and ends
// the sessions of devices that were removed.
func (c *Coordinator) freeGone(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, d := range c.devices {
		if !d.gone.IsZero() && now.Sub(d.gone) > linkGrace {
			c.say(lineWarn, d.id, "device %s is gone; what it worked on goes to others", d.id.Short())
			c.free(d)
		}
	}
	for _, d := range c.expelled {
		c.running.Go(func() { d.conn.Close(removedText, false) })
	}
	c.expelled = nil
}

// forgetStale forgets the pages that are half written and of which no more comes.
func (c *Coordinator) forgetStale(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, d := range c.devices {
		d.staged.forgetIf(func(p *staged) bool { return now.Sub(p.moved) > stagedFor })
	}
}

// tellMembers tells devices that do not replicate the registry who the members
// are and where, when that has changed: a worker outlives those that it knew when
// its session began. Pages ask for other bridges by themselves.
func (c *Coordinator) tellMembers() {
	c.mu.Lock()
	due := c.membersDue
	c.membersDue = false
	c.mu.Unlock()
	if !due {
		return
	}
	members := c.members()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, d := range c.devices {
		record, err := c.registered(d.id)
		if err != nil || record.Role >= wire.Role_ROLE_MEMBER || d.profile.GetType() == wire.DeviceType_DEVICE_TYPE_BROWSER || !d.gone.IsZero() {
			continue
		}
		d.conn.Post(&wire.Frame{Kind: &wire.Frame_Welcome{Welcome: c.welcome(record, members)}})
	}
}

// notePresence records which devices have gone offline: the transition only.
func (c *Coordinator) notePresence(ctx context.Context, now time.Time) {
	var online []wire.DeviceID
	c.cfg.Group.Read(func(s *state.State) {
		for _, d := range s.Devices() {
			if d.Online {
				online = append(online, d.ID)
			}
		}
	})
	for _, id := range online {
		if c.silent(id, now) && id != c.cfg.Identity.ID {
			c.setPresence(ctx, id, false)
		}
	}
}

// silent reports whether a device has had no session for so long that it counts
// as offline. It forgets when that began.
func (c *Coordinator) silent(id wire.DeviceID, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.devices[id] != nil {
		return false
	}
	since := c.started
	if l, ok := c.left[id]; ok {
		since = l.at
	}
	if now.Sub(since) < offlineAfter {
		return false
	}
	delete(c.left, id)
	return true
}

// setPresence records that a device went on or off line.
func (c *Coordinator) setPresence(ctx context.Context, id wire.DeviceID, online bool) {
	_, err := c.propose(ctx, c.cfg.Identity.ID, &wire.Op{Kind: &wire.Op_SetPresence{SetPresence: &wire.SetPresence{
		DeviceId: string(id), Online: online,
	}}})
	if err != nil {
		c.cfg.Log.Debug("presence was not recorded", "device", id, "err", err)
		return
	}
	word := "offline"
	if online {
		word = "online"
	}
	c.say(lineInfo, id, "device %s is %s", id.Short(), word)
}

// sweep lets the state forget what time has passed by, if it holds anything
// that could be.
func (c *Coordinator) sweep(ctx context.Context) {
	if _, err := c.propose(ctx, c.cfg.Identity.ID, &wire.Op{Kind: &wire.Op_Sweep{Sweep: &wire.Sweep{}}}); err != nil {
		c.cfg.Log.Debug("sweep", "err", err)
		return
	}
	c.mu.Lock()
	var open []wire.JobID
	for id := range c.jobs {
		open = append(open, id)
	}
	c.mu.Unlock()
	for _, id := range open {
		c.follow(id)
	}
}

// sweepDue reports whether the time of a job is over that --keep gave it.
func (c *Coordinator) sweepDue(now time.Time) (due bool) {
	c.cfg.Group.Read(func(s *state.State) { due = s.SweepDue(now.UnixMilli()) })
	return due
}

// correctSpeeds compares what each device takes for the tasks of a job with
// the mean of all that work on it: section 7 of the design.
func (c *Coordinator) correctSpeeds() {
	c.mu.Lock()
	defer c.mu.Unlock()
	ratios := make(map[wire.DeviceID][]float64)
	for _, q := range c.jobs {
		if len(q.taskTime) < 2 {
			continue
		}
		var sum time.Duration
		for _, t := range q.taskTime {
			sum += t
		}
		mean := float64(sum) / float64(len(q.taskTime))
		for id, t := range q.taskTime {
			if t > 0 {
				ratios[id] = append(ratios[id], mean/float64(t))
			}
		}
	}
	for id, list := range ratios {
		if d := c.devices[id]; d != nil {
			var sum float64
			for _, r := range list {
				sum += r
			}
			d.speed += (min(10, max(0.1, sum/float64(len(list)))) - d.speed) / 2
		}
	}
}
