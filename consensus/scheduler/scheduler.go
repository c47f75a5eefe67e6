package scheduler

import (
	"cmp"
	"slices"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// View is what Plan decides on. Plan reads it only.
type View struct {
	// Devices are those that may be given work now, each once.
	Devices []Device
	// Jobs are the open jobs with pending tasks, each once. A job without any
	// may be in it too: then what it has in flight counts against the devices.
	Jobs []Job
}

// Device is a device that can take work now.
type Device struct {
	ID wire.DeviceID
	// Slots is how many tasks it runs at one time; without one it gets none.
	Slots, Cores int
	MemoryMiB    int
	GPU, Browser bool
	// Barred devices are given nothing: they drain, or are disabled. What they
	// hold counts all the same.
	Barred bool
	// Sick devices can run nothing now, as they say themselves.
	Sick   bool
	Labels map[string]string
	// Weight is Weight's, corrected by what the device really does.
	Weight float64
	// InFlight counts the tasks leased to it now, by job.
	InFlight map[wire.JobID]int
}

// Job is an open job.
type Job struct {
	ID          wire.JobID
	Submitter   wire.DeviceID
	Priority    int
	CreatedAtMS int64
	// Pending counts tasks that wait to be leased, InFlight those leased now.
	// MaxInFlight bounds the latter; 0 means no bound.
	Pending, InFlight, MaxInFlight int
	// MemoryMiB is what one task may use.
	MemoryMiB int
	Require   *wire.Requirements
	// TaskTime is the measured mean run time of its tasks on a device; a
	// device that is absent is unknown.
	TaskTime map[wire.DeviceID]time.Duration
}

// Grant gives a number of a job's pending tasks to a device, in as many leases
// as Batch makes of them.
type Grant struct {
	Device wire.DeviceID
	Job    wire.JobID
	Tasks  int
}

// Plan returns what to lease now: by strict priority, within a priority in
// equal shares to the submitters, and within a submitter to the oldest job
// first. What a device holds of jobs of a priority and above is never planned
// beyond one quota in sum. A job with less than the devices could take is
// spread over them in proportion to their weight. Grants come in order of
// priority, at most one for a device and job. The cost is of the order of
// devices times jobs, whatever the number of tasks.
func Plan(v View) []Grant {
	jobs := make([]*Job, 0, len(v.Jobs))
	for i := range v.Jobs {
		jobs = append(jobs, &v.Jobs[i])
	}
	slices.SortStableFunc(jobs, func(a, b *Job) int {
		return cmp.Or(cmp.Compare(b.Priority, a.Priority), cmp.Compare(a.CreatedAtMS, b.CreatedAtMS), cmp.Compare(a.ID, b.ID))
	})
	p := newPlanner(v.Devices)
	for len(jobs) > 0 {
		n := 1
		for n < len(jobs) && jobs[n].Priority == jobs[0].Priority {
			n++
		}
		p.level(jobs[:n])
		jobs = jobs[n:]
	}
	return p.grants
}
