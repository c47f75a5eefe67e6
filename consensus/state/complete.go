package state

import (
	"fmt"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// completeTasks records a batch of results. Those of tasks that have ended, or
// of a job that has or is gone, are unwanted, which is no error: work that was
// done twice is ordinary.
func (s *State) completeTasks(op *wire.CompleteTasks) (OpResult, error) {
	if err := checkComplete(op); err != nil {
		return OpResult{}, err
	}
	result := OpResult{Verdicts: make([]Verdict, len(op.GetIndexes()))}
	j := s.jobs[wire.JobID(op.GetJobId())]
	if j == nil || j.Ended() {
		s.offerBatch(op)
		return result, nil
	}
	if err := checkAgainst(j, op); err != nil {
		return OpResult{}, err
	}
	b := &batch{first: j.next, items: op.GetResults().GetCount()}
	s.record(j, b, op, result.Verdicts)
	j.leasedBelow = max(j.leasedBelow, op.GetLeasedBelow())
	s.keepBatch(j, b, op)
	s.settle(j)
	return result, nil
}

// checkComplete accepts a batch that is consistent in itself.
func checkComplete(op *wire.CompleteTasks) error {
	seg := op.GetResults()
	if err := checkCount(seg); err != nil {
		return err
	}
	n := int(seg.GetCount())
	if len(op.GetIndexes()) != n || len(op.GetOutcomes()) != n || len(op.GetDeviceOf()) != n {
		return invalid("a batch of %d results with %d indexes, %d outcomes and %d devices",
			n, len(op.GetIndexes()), len(op.GetOutcomes()), len(op.GetDeviceOf()))
	}
	for i, outcome := range op.GetOutcomes() {
		if outcome > wire.OutcomeFatal {
			return invalid("there is no outcome %d", outcome)
		}
		if at := op.GetDeviceOf()[i]; uint64(at) >= uint64(len(op.GetDevices())) {
			return invalid("a result of device %d in a list of %d", at, len(op.GetDevices()))
		}
	}
	if err := checkHashes("a page of an output", op.GetOutputPages()); err != nil {
		return err
	}
	inline, page := len(seg.GetInline()) > 0, len(seg.GetPage()) > 0
	if inline == page || seg.GetBlob() != nil {
		return invalid("a batch of results must be either inline or in a page")
	}
	if page {
		return checkHash("the page of a batch of results", seg.GetPage())
	}
	_, err := checkInline(seg)
	return err
}

// checkAgainst accepts a batch whose tasks the job has.
func checkAgainst(j *Job, op *wire.CompleteTasks) error {
	for _, i := range op.GetIndexes() {
		if i >= j.total {
			return invalid("a result of task %d: job %s has %d", i, j.id, j.total)
		}
	}
	if op.GetLeasedBelow() > j.total {
		return invalid("tasks below %d are said to be leased: job %s has %d", op.GetLeasedBelow(), j.id, j.total)
	}
	return nil
}

// record passes a verdict on each record, until a failure ends the job.
func (s *State) record(j *Job, b *batch, op *wire.CompleteTasks, verdicts []Verdict) {
	for k, i := range op.GetIndexes() {
		if j.TaskDone(i) {
			continue
		}
		verdict := j.judge(i, op.GetOutcomes()[k])
		verdicts[k] = verdict
		if verdict == Retry {
			continue
		}
		failed := verdict == FailedFinally
		value := b.end() + 1
		if failed {
			value |= failedBit
		} else if d := s.devices[wire.DeviceID(op.GetDevices()[op.GetDeviceOf()[k]])]; d != nil {
			d.TasksCompleted++
		}
		j.numbers.set(i, value)
		b.places.add(place{index: i, item: uint32(k), failed: failed})
		s.taskEnded(j, i, failed)
		if failed && !j.spec.GetKeepGoing() {
			s.end(j, Failed, fmt.Sprintf("task %d failed", i))
			return
		}
	}
}

// judge counts an attempt of an open task and says what becomes of the task.
func (j *Job) judge(i uint32, outcome byte) Verdict {
	if outcome == wire.OutcomeOK {
		delete(j.failures, i)
		return Recorded
	}
	if j.failures == nil {
		j.failures = map[uint32]uint16{}
	}
	j.failures[i]++
	if outcome == wire.OutcomeFatal || uint32(j.failures[i]) > j.spec.GetRetries() {
		return FailedFinally
	}
	return Retry
}

// keepBatch adds a batch to the job if anything in it was recorded.
func (s *State) keepBatch(j *Job, b *batch, op *wire.CompleteTasks) {
	if b.places.count == 0 {
		s.offerBatch(op)
		return
	}
	j.touchedMS = s.nowMS
	if inline := op.GetResults().GetInline(); len(inline) > 0 {
		b.inline = inline
	} else {
		b.page = wire.Hash(op.GetResults().GetPage())
	}
	each(op.GetOutputPages(), func(h wire.Hash) { b.outputs = append(b.outputs, h) })
	s.addBatch(j, b)
}

// offerBatch notes the pages of a batch that is not kept.
func (s *State) offerBatch(op *wire.CompleteTasks) {
	eachSegmentPage(op.GetResults(), s.pages.offer)
	each(op.GetOutputPages(), s.pages.offer)
}
