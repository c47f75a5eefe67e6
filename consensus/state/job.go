package state

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// Phase is where a job stands in its life.
//
//	Open ──▶ Done | Failed | Cancelled        (retry leads back to Open)
type Phase uint8

const (
	// Open: its inputs still come, or some of its tasks have not ended.
	Open Phase = iota
	// Done: all its tasks completed.
	Done
	// Failed: a task failed for good, or its inputs stopped coming.
	Failed
	// Cancelled: it was cancelled.
	Cancelled
)

// String returns the phase in a word, for people.
func (p Phase) String() string {
	switch p {
	case Open:
		return "open"
	case Done:
		return "done"
	case Failed:
		return "failed"
	}
	return "cancelled"
}

// Job is a job and its tasks.
type Job struct {
	id        wire.JobID
	seq       uint64 // order of creation
	spec      *wire.JobSpec
	submitter wire.DeviceID
	createdMS int64
	touchedMS int64 // when inputs or results last came
	endedMS   int64
	phase     Phase
	err       string

	closed    bool
	digest    wire.Digest
	segments  []segment
	openBytes uint64

	total, completed, failed uint32
	leasedBelow              uint32
	numbers                  numbers
	failures                 map[uint32]uint16

	// next is the number of the next result. Failed results below retriedAt
	// were superseded by a retry.
	next, retriedAt uint32
	batches         []*batch
	// inlineFrom is the place of the oldest inline batch, or of none.
	inlineFrom  int
	inlineBytes int
}

// ID returns the job's ID.
func (j *Job) ID() wire.JobID { return j.id }

// Spec returns what the submitter fixed.
func (j *Job) Spec() *wire.JobSpec { return j.spec }

// Submitter returns the device that submitted it.
func (j *Job) Submitter() wire.DeviceID { return j.submitter }

// CreatedAtMS returns when it was submitted.
func (j *Job) CreatedAtMS() int64 { return j.createdMS }

// EndedAtMS returns when it ended; 0 while it is open.
func (j *Job) EndedAtMS() int64 { return j.endedMS }

// Phase returns where it stands.
func (j *Job) Phase() Phase { return j.phase }

// Ended reports whether it is in a terminal phase.
func (j *Job) Ended() bool { return j.phase != Open }

// Error says in words why it failed or was cancelled; "" otherwise.
func (j *Job) Error() string { return j.err }

// Total returns the number of inputs acknowledged.
func (j *Job) Total() uint32 { return j.total }

// Completed returns the number of tasks that completed; failed ones excluded.
func (j *Job) Completed() uint32 { return j.completed }

// Failed returns the number of tasks that failed for good.
func (j *Job) Failed() uint32 { return j.failed }

// Closed reports whether all inputs have come.
func (j *Job) Closed() bool { return j.closed }

// Digest returns the chain digest of the inputs acknowledged.
func (j *Job) Digest() wire.Digest { return j.digest }

// LeasedBelow returns the lease high-water mark: as of the newest completion
// that was applied, no task at or above it had been leased.
func (j *Job) LeasedBelow() uint32 { return j.leasedBelow }

// Reopened returns how many tasks the last retry opened again, as far as the job
// tells: those that wait, and those that have ended since. 0 if it was never
// retried.
func (j *Job) Reopened() uint32 {
	if j.retriedAt == 0 {
		return 0
	}
	return j.next - j.retriedAt + j.pending()
}

// TaskDone reports whether task i has ended, completed or failed.
func (j *Job) TaskDone(i uint32) bool { return j.numbers.get(i) != 0 }

// TaskFailed reports whether task i has failed for good.
func (j *Job) TaskFailed(i uint32) bool { return j.numbers.get(i)&failedBit != 0 }

// Failures returns how many attempts of task i have failed; 0 once it has
// completed.
func (j *Job) Failures(i uint32) uint32 { return uint32(j.failures[i]) }

// pending returns the number of tasks that have not ended.
func (j *Job) pending() uint32 { return j.total - j.completed - j.failed }

// end moves an open job to a terminal phase.
func (s *State) end(j *Job, phase Phase, reason string) {
	j.phase, j.err, j.endedMS = phase, reason, s.nowMS
	s.life.ended[phase]++
	if at, ok := findJob(s.openJobs, j); ok {
		s.openJobs = slices.Delete(s.openJobs, at, at+1)
	}
}

// reopen is the inverse of end.
func (s *State) reopen(j *Job) {
	s.life.ended[j.phase]--
	j.phase, j.err, j.endedMS = Open, "", 0
	at, _ := findJob(s.openJobs, j)
	s.openJobs = slices.Insert(s.openJobs, at, j)
}

// findJob returns where j stands, or belongs, in jobs by order of creation.
func findJob(jobs []*Job, j *Job) (int, bool) {
	return slices.BinarySearchFunc(jobs, j.seq, func(o *Job, seq uint64) int { return cmp.Compare(o.seq, seq) })
}

// settle ends a job whose inputs have all come and whose tasks have all ended.
func (s *State) settle(j *Job) {
	switch {
	case j.Ended() || !j.closed || j.pending() > 0:
	case j.failed > 0:
		s.end(j, Failed, fmt.Sprintf("%d of %d tasks failed", j.failed, j.total))
	default:
		s.end(j, Done, "")
	}
}
