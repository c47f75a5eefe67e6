package coordinator

import (
	"context"
	"time"

	"github.com/ostrich-legs/ostrich/consensus/state"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// velocityWindow is the time over which the rate of completions is the mean.
const velocityWindow = 10

// doneRate counts completions by the second.
type doneRate struct {
	counts [velocityWindow + 1]uint64
	second int64
}

// advance moves the window to now.
func (r *doneRate) advance(now time.Time) {
	for s := max(r.second+1, now.Unix()-velocityWindow); s <= now.Unix(); s++ {
		r.counts[s%int64(len(r.counts))] = 0
	}
	r.second = max(r.second, now.Unix())
}

// add counts n completions.
func (r *doneRate) add(now time.Time, n uint64) {
	r.advance(now)
	r.counts[now.Unix()%int64(len(r.counts))] += n
}

// rate is the mean, per second, of the last ten whole seconds.
func (r *doneRate) rate(now time.Time) float64 {
	r.advance(now)
	var sum uint64
	for i, n := range r.counts {
		if int64(i) != now.Unix()%int64(len(r.counts)) {
			sum += n
		}
	}
	return float64(sum) / velocityWindow
}

func (a asker) getView(context.Context, *wire.GetViewRequest) (*wire.GetViewResponse, error) {
	return &wire.GetViewResponse{View: a.c.View()}, nil
}

// View is the coordinator's view of the whole.
func (c *Coordinator) View() *wire.View {
	var log Replication
	if c.cfg.Replication != nil {
		log = c.cfg.Replication()
	}
	v := &wire.View{
		Coordinator: string(c.cfg.Identity.ID),
		Term:        c.term,
		Generation:  c.swarm.generation,
		Members:     words(c.memberIDs()),
		Voters:      words(c.cfg.Group.Voters()),
		SwarmName:   c.swarm.name,
		Committed:   log.Committed,
		Format:      c.cfg.Group.Format(),
	}
	for _, f := range log.Followers {
		if !f.Voter {
			v.Standbys = append(v.Standbys, string(f.ID))
		}
	}
	devices := c.describeDevices()
	v.Resources = resources(devices)
	v.MemberViews = c.memberViews(devices, log.Followers)
	v.Stats = c.stats()
	v.RunState = "IDLE"
	if v.Stats.GetActiveTasks() > 0 {
		v.RunState = "RUNNING"
	}
	return v
}

// online reports whether a device is there, whatever its mode.
func online(d *wire.Device) bool { return d.GetStatus() != wire.DeviceStatus_DEVICE_STATUS_OFFLINE }

// resources sums up what the devices that are online bring; of those that are
// disabled only that they are there.
func resources(devices []*wire.Device) *wire.Resources {
	sum := &wire.Resources{}
	for _, d := range devices {
		if !online(d) {
			continue
		}
		sum.OnlineCount++
		if d.GetMode() == wire.DeviceMode_DEVICE_MODE_DISABLED {
			continue
		}
		can := d.GetProfile().GetCapabilities()
		sum.TotalCores += uint64(can.GetCpuCores())
		sum.TotalMemoryGb += can.GetMemoryGb()
		if can.GetGpuAvailable() {
			sum.TotalGpus++
		}
	}
	return sum
}

// stats joins the totals of the replicated state, which count over the life of
// the swarm, with what runs now.
func (c *Coordinator) stats() *wire.Stats {
	st := &wire.Stats{GlobalThrottle: 100}
	c.cfg.Group.Read(func(s *state.State) {
		all := s.Stats()
		st.TotalJobs = all.JobsTotal
		st.CompletedJobs = all.JobsDone + all.JobsFailed + all.JobsCancelled
		st.PendingJobs = all.JobsOpen
		st.TotalTasks = all.TasksTotal
		st.PendingTasks = all.TasksPending
		st.CompletedTasks = all.TasksCompleted
		st.FailedTasks = all.TasksFailed
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, q := range c.jobs {
		if active := uint64(len(q.leased) + len(q.recording)); active > 0 {
			st.ActiveTasks += active
			st.ActiveJobs++
		}
	}
	st.PendingJobs -= min(st.PendingJobs, st.ActiveJobs)
	st.PendingTasks -= min(st.PendingTasks, st.ActiveTasks)
	st.GlobalVelocity = c.done.rate(time.Now())
	return st
}

func words(ids []wire.DeviceID) []string {
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = string(id)
	}
	return out
}
