package state

import (
	"fmt"
	"slices"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// Retention.
const (
	// inputsIdleMS is how long a job may wait for its next input.
	inputsIdleMS = hourMS
	// attachedKeepMS is how long an attached job is kept whose client never
	// acknowledged its end.
	attachedKeepMS = dayMS
)

// sweep does what is due at the command's time. Its cost grows with the jobs,
// invites and programs, not with the tasks of jobs that stay.
func (s *State) sweep() {
	for _, j := range slices.Clone(s.openJobs) {
		if !j.closed && s.nowMS-j.touchedMS >= inputsIdleMS {
			s.end(j, Failed, fmt.Sprintf("inputs stopped coming after %d", j.total))
		}
	}
	s.jobOrder = slices.DeleteFunc(s.jobOrder, func(j *Job) bool {
		due := keptLongEnough(j, s.nowMS)
		if due {
			s.forgetJob(j)
		}
		return due
	})
	s.sweepPast()
	s.forgetPrograms()
	s.forgetInvites()
}

// SweepDue reports whether a sweep at a time would forget a job: an idle swarm
// needs no other one soon.
func (s *State) SweepDue(nowMS int64) bool {
	return slices.ContainsFunc(s.jobOrder, func(j *Job) bool { return keptLongEnough(j, nowMS) })
}

// keptLongEnough reports whether a job has ended so long ago that it goes.
func keptLongEnough(j *Job, nowMS int64) bool {
	return j.Ended() && nowMS-j.endedMS >= keepMS(j.spec)
}

// keepMS returns how long after its end a job is kept.
func keepMS(spec *wire.JobSpec) int64 {
	switch {
	case !spec.GetDetached():
		return attachedKeepMS
	case spec.GetKeepMs() == 0:
		return wire.DefaultKeep.Milliseconds()
	}
	return spec.GetKeepMs()
}
