package scheduler

import (
	"cmp"
	"slices"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// slack absorbs the rounding of shares.
const slack = 1e-9

// maxRounds bounds how often the room that some submitters left is shared
// among the others.
const maxRounds = 4

// planner carries the state of one Plan.
type planner struct {
	devices []*device // heaviest first
	grants  []Grant
}

// device is a device of the view and how full it is.
type device struct {
	*Device
	weight float64
	// load is what it holds, in parts of the quotas of the jobs: 1 is full.
	load float64
}

// task is a job of the level at work.
type task struct {
	*Job
	left  int         // tasks that may still be granted
	given map[int]int // by device
}

// share is a submitter of the level at work.
type share struct {
	jobs []*task // oldest first
	// usage is its part of the swarm's work, in weighted load.
	usage float64
}

func newPlanner(devices []Device) *planner {
	p := &planner{}
	for i := range devices {
		d := &devices[i]
		if d.Slots > 0 {
			p.devices = append(p.devices, &device{Device: d, weight: sane(d.Weight)})
		}
	}
	slices.SortStableFunc(p.devices, func(a, b *device) int {
		return cmp.Or(cmp.Compare(b.weight, a.weight), cmp.Compare(a.ID, b.ID))
	})
	return p
}

// sane keeps a weight that was measured badly from spoiling the plan.
func sane(weight float64) float64 {
	if !(weight >= 0.1) { // NaN too
		return 0.1
	}
	return min(weight, 1e6)
}

// level plans for the jobs of one priority, oldest first. What higher levels
// hold is in the devices' load; what lower ones hold is not, and so it does not
// stand in the way.
func (p *planner) level(jobs []*Job) {
	shares := p.shares(jobs)
	for range maxRounds {
		if !p.round(shares) {
			break
		}
	}
	p.crumbs(shares)
	for _, s := range shares {
		for _, t := range s.jobs {
			p.emit(t)
		}
	}
}

// shares groups jobs by submitter and counts what is in flight already.
func (p *planner) shares(jobs []*Job) []*share {
	var list []*share
	of := map[wire.DeviceID]*share{}
	for _, j := range jobs {
		s := of[j.Submitter]
		if s == nil {
			s = &share{}
			of[j.Submitter] = s
			list = append(list, s)
		}
		t := &task{Job: j, left: max(j.Pending, 0), given: map[int]int{}}
		if j.MaxInFlight > 0 {
			t.left = min(t.left, max(j.MaxInFlight-max(j.InFlight, 0), 0))
		}
		s.jobs = append(s.jobs, t)
		for _, d := range p.devices {
			if n := d.InFlight[j.ID]; n > 0 {
				quota, _ := quotaOf(d.Device, j)
				s.hold(d, n, quota)
			}
		}
	}
	return list
}

// hold counts n tasks more on d.
func (s *share) hold(d *device, n, quota int) {
	part := float64(n) / float64(quota)
	d.load += part
	s.usage += part * d.weight
}

func (s *share) wants() bool {
	return slices.ContainsFunc(s.jobs, func(t *task) bool { return t.left > 0 })
}

// round gives each submitter that wants more an equal part of the room on each
// device, and reports whether that changed anything.
func (p *planner) round(shares []*share) bool {
	wanting := slices.DeleteFunc(slices.Clone(shares), func(s *share) bool { return !s.wants() })
	parts := make([]float64, len(p.devices))
	for i, d := range p.devices {
		parts[i] = max(1-d.load, 0) / float64(max(len(wanting), 1))
	}
	changed := false
	for _, s := range wanting {
		mine := slices.Clone(parts)
		for _, t := range s.jobs {
			changed = p.fill(s, t, mine) || changed
		}
	}
	return changed
}

// fill gives tasks of t to devices, within the parts of each that are open to
// its submitter, which it lessens.
func (p *planner) fill(s *share, t *task, parts []float64) bool {
	if t.left == 0 {
		return false
	}
	var offers []offer
	for i, d := range p.devices {
		if parts[i] < slack || !meets(d.Device, t.Job) {
			continue
		}
		quota, batch := quotaOf(d.Device, t.Job)
		held := max(d.InFlight[t.ID], 0) + t.given[i]
		room := min(quota-held, int(parts[i]*float64(quota)+slack))
		if room > 0 && worthwhile(d.Device, room, held, batch) {
			offers = append(offers, offer{device: i, room: room, held: held, quota: quota, weight: d.weight})
		}
	}
	spread(offers, t.left)
	changed := false
	for _, o := range offers {
		if o.take > 0 {
			p.give(s, t, o.device, o.take)
			parts[o.device] -= float64(o.take) / float64(o.quota)
			changed = true
		}
	}
	return changed
}

// worthwhile reports whether a grant of room tasks should be made now: of tiny
// tasks, crumbs wait until they make a batch, as long as each slot has one.
func worthwhile(d *Device, room, held, batch int) bool {
	return room >= batch || held < batch*d.Slots
}

func (p *planner) give(s *share, t *task, device, n int) {
	quota, _ := quotaOf(p.devices[device].Device, t.Job)
	t.given[device] += n
	t.left -= n
	s.hold(p.devices[device], n, quota)
}

// crumbs gives what equal parts were too small for, one task after another, to
// the submitters in turn, beginning with the one that has least. A device gets
// as many as make a quota, or one of each submitter.
func (p *planner) crumbs(shares []*share) {
	turn := slices.Clone(shares)
	slices.SortStableFunc(turn, func(a, b *share) int { return cmp.Compare(a.usage, b.usage) })
	at := 0
	for i, d := range p.devices {
		misses, gave := 0, 0
		for ; misses < len(turn) && gave < len(turn)+minQuota && d.load < 1-slack; at++ {
			if p.crumb(turn[at%len(turn)], i) {
				misses = 0
				gave++
			} else {
				misses++
			}
		}
	}
}

// crumb gives one task of the submitter's oldest job that fits to a device.
func (p *planner) crumb(s *share, i int) bool {
	d := p.devices[i]
	for _, t := range s.jobs {
		if t.left == 0 || !meets(d.Device, t.Job) {
			continue
		}
		quota, batch := quotaOf(d.Device, t.Job)
		held := max(d.InFlight[t.ID], 0) + t.given[i]
		if held < quota && d.load+1/float64(quota) <= 1+slack && worthwhile(d.Device, 1, held, batch) {
			p.give(s, t, i, 1)
			return true
		}
	}
	return false
}

// emit turns what a job was given into grants.
func (p *planner) emit(t *task) {
	for i, d := range p.devices {
		if n := t.given[i]; n > 0 {
			p.grants = append(p.grants, Grant{Device: d.ID, Job: t.ID, Tasks: n})
		}
	}
}
