package scheduler

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Numbers of section 7 of the design.
const (
	// batchTime is what one lease should be worth, so that its overhead
	// vanishes.
	batchTime = 100 * time.Millisecond
	maxBatch  = 4096
	// startBatch is how many tasks of unknown length a slot is given.
	startBatch = 2
	// queueTime is what a device may hold at most, so that a slow one never
	// keeps the others waiting at the end.
	queueTime = 2 * time.Second
	// minQuota and tasksPerCore make the quota of tasks that are neither tiny
	// nor long.
	minQuota     = 10
	tasksPerCore = 4
)

// Weight returns what a device is expected to do, before correction:
// cores × 10, 50 more with a GPU, and score/1000 up to 100.
func Weight(cores int, gpu bool, score float64) float64 {
	weight := float64(max(cores, 0)) * 10
	if gpu {
		weight += 50
	}
	if score > 0 { // not for NaN
		weight += min(score/1000, 100)
	}
	return weight
}

// Batch returns how many tasks one lease should hold: about 100 ms of work for
// one slot, from 1 to 4,096; 2 while the time of a task is unknown.
func Batch(taskTime time.Duration, known bool) int {
	if !known {
		return startBatch
	}
	return int(min(max(batchTime/max(taskTime, 1), 1), maxBatch))
}

// Quota returns how many tasks of one job may be in flight on d: max(10,
// cores × 4), fewer when that is more than about 2 s of work but never fewer
// than its slots, more when tasks are so tiny that two batches a slot are more.
// While the time of a task is unknown it is one small batch a slot.
func Quota(d Device, taskTime time.Duration, known bool) int {
	if d.Slots < 1 {
		return 0
	}
	if !known {
		return startBatch * d.Slots
	}
	quota := max(minQuota, tasksPerCore*d.Cores, d.Slots)
	quota = max(quota, 2*d.Slots*Batch(taskTime, true))
	if long := queueTime / max(taskTime, 1); int64(long) < int64(quota) {
		quota = min(quota, max(1, int(long))*d.Slots)
	}
	return quota
}

// need is one requirement of a job.
type need struct {
	words string
	met   func(Device) bool
}

// needs lists what j requires of a device, the most basic first.
func needs(j Job) []need {
	list := []need{
		{"a device that runs tasks", func(d Device) bool { return d.Slots > 0 }},
		{"a device that is neither draining nor disabled", func(d Device) bool { return !d.Barred }},
		{"a device that is not sick", func(d Device) bool { return !d.Sick }},
	}
	r := j.Require
	if r.GetNative() {
		list = append(list, need{"a native device", func(d Device) bool { return !d.Browser }})
	}
	if r.GetBrowser() {
		list = append(list, need{"a browser", func(d Device) bool { return d.Browser }})
	}
	if r.GetGpu() {
		list = append(list, need{"a device with a GPU", func(d Device) bool { return d.GPU }})
	}
	for _, key := range slices.Sorted(maps.Keys(r.GetLabels())) {
		value := r.GetLabels()[key]
		list = append(list, need{"a device with the label " + key + "=" + value, func(d Device) bool {
			got, ok := d.Labels[key]
			return ok && got == value
		}})
	}
	return append(list, need{
		fmt.Sprintf("a device with %d MiB of memory for a task", j.MemoryMiB),
		func(d Device) bool { return d.MemoryMiB >= j.MemoryMiB },
	})
}

// Eligible reports whether d may and can run tasks of j at all.
func Eligible(d Device, j Job) bool { return meets(&d, &j) }

// meets is Eligible without a list of words.
func meets(d *Device, j *Job) bool {
	r := j.Require
	if d.Barred || d.Sick || d.Slots < 1 || d.MemoryMiB < j.MemoryMiB || r.GetNative() && d.Browser || r.GetBrowser() && !d.Browser || r.GetGpu() && !d.GPU {
		return false
	}
	for key, value := range r.GetLabels() {
		if got, ok := d.Labels[key]; !ok || got != value {
			return false
		}
	}
	return true
}

// WaitingFor says in words why no device of the view can take tasks of j; ""
// if some device can. It names the first requirement that no device meets, or
// those that no device meets together.
func WaitingFor(v View, j Job) string {
	left := v.Devices
	var met []string
	for _, n := range needs(j) {
		var fit []Device
		for _, d := range left {
			if n.met(d) {
				fit = append(fit, d)
			}
		}
		if len(fit) == 0 && len(left) == len(v.Devices) {
			return n.words
		}
		if len(fit) == 0 {
			return strings.Join(append(met, n.words), ", which is also ")
		}
		if len(fit) < len(left) {
			met = append(met, n.words)
		}
		left = fit
	}
	return ""
}

// quotaOf returns Quota and Batch of a job on a device.
func quotaOf(d *Device, j *Job) (quota, batch int) {
	taskTime, known := j.TaskTime[d.ID]
	return Quota(*d, taskTime, known), Batch(taskTime, known)
}
