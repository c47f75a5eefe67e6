package scheduler

import (
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// View is what Plan decides on.
type View struct {
	Devices []Device
	// Jobs are the open jobs with pending tasks.
	Jobs []Job
}

// Device is a device that can take work now.
type Device struct {
	ID           wire.DeviceID
	Slots, Cores int
	MemoryMiB    int
	GPU, Browser bool
	Labels       map[string]string
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

// Grant gives a number of a job's pending tasks to a device.
type Grant struct {
	Device wire.DeviceID
	Job    wire.JobID
	Tasks  int
}

// Plan returns what to lease now.
func Plan(v View) []Grant { return nil }

// Weight returns what a device is expected to do, before correction:
// cores × 10, 50 more with a GPU, and score/1000 up to 100.
func Weight(cores int, gpu bool, score float64) float64 { return 0 }

// Quota returns how many tasks of one job may be in flight on d.
func Quota(d Device, taskTime time.Duration, known bool) int { return 0 }

// Batch returns how many tasks one lease should hold.
func Batch(taskTime time.Duration, known bool) int { return 0 }

// Eligible reports whether d can run tasks of j at all.
func Eligible(d Device, j Job) bool { return false }

// WaitingFor says in words why no device of the view can take tasks of j; ""
// if some device can.
func WaitingFor(v View, j Job) string { return "" }
