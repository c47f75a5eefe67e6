package state

import (
	"bytes"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// submitJob makes a job, with the inputs that come along. Sent twice it
// happens once.
func (s *State) submitJob(actor wire.DeviceID, op *wire.SubmitJob) (OpResult, error) {
	id := wire.JobID(op.GetJobId())
	if err := id.Check(); err != nil {
		return OpResult{}, invalid("%v", err)
	}
	if err := checkSpec(op.GetSpec()); err != nil {
		return OpResult{}, err
	}
	inputs := op.GetInputs()
	if _, err := checkSegments(inputs.GetSegments()); err != nil {
		return OpResult{}, err
	}
	if j := s.jobs[id]; j != nil {
		if !proto.Equal(j.spec, op.GetSpec()) {
			return OpResult{}, wire.Errorf(wire.Code_CODE_CONFLICT, "there is a job %s already, with another program or other flags: give another --id, or remove that one (ostrich job rm %s)", id, id)
		}
		s.offerSegments(inputs.GetSegments())
		return OpResult{Total: j.total, Attached: true}, nil
	}
	if err := s.checkRoom(); err != nil {
		return OpResult{}, err
	}
	if err := s.checkHeld(op.GetSpec().GetProgram()); err != nil {
		return OpResult{}, err
	}
	j := &Job{id: id, seq: s.nextSeq, spec: op.GetSpec(), submitter: actor, createdMS: s.nowMS, touchedMS: s.nowMS}
	if inputs != nil && len(inputs.GetSegments()) > 0 {
		if err := checkFirstInputs(j, inputs); err != nil {
			return OpResult{}, err
		}
		j.digest = wire.Digest(inputs.GetDigestAfter())
	}
	s.addJob(j)
	s.addSegments(j, inputs.GetSegments())
	j.closed = op.GetClose()
	s.settle(j)
	return OpResult{Total: j.total}, nil
}

// checkOpenRoom refuses an open job more than there can be.
func (s *State) checkOpenRoom() error {
	if len(s.openJobs) >= wire.MaxOpenJobs {
		return wire.Errorf(wire.Code_CODE_EXHAUSTED, "%d jobs are open, as many as there can be: wait for one to end", len(s.openJobs))
	}
	return nil
}

// checkRoom refuses a new job more than the swarm can hold.
func (s *State) checkRoom() error {
	if err := s.checkOpenRoom(); err != nil {
		return err
	}
	if len(s.jobs) >= maxJobs {
		return wire.Errorf(wire.Code_CODE_EXHAUSTED, "the swarm keeps %d jobs, as many as it can: remove some that have ended", len(s.jobs))
	}
	return nil
}

// checkFirstInputs accepts inputs that come with the submit of j.
func checkFirstInputs(j *Job, inputs *wire.AppendInputs) error {
	if other := inputs.GetJobId(); other != "" && other != string(j.id) {
		return invalid("a submit of job %s with inputs of another", j.id)
	}
	if first := inputs.GetSegments()[0].GetFirst(); first != 0 {
		return wire.Errorf(wire.Code_CODE_PRECONDITION, "a submit brings inputs from %d on: they must begin at 0", first)
	}
	return checkDigests(j, inputs)
}

// checkDigests accepts inputs that continue those that the job has.
func checkDigests(j *Job, inputs *wire.AppendInputs) error {
	if len(inputs.GetDigestAfter()) != len(j.digest) {
		return invalid("a digest of inputs has 32 bytes, not %d", len(inputs.GetDigestAfter()))
	}
	before := inputs.GetDigestBefore()
	if len(before) == 0 {
		before = make([]byte, len(j.digest)) // no inputs
	}
	if len(before) != len(j.digest) {
		return invalid("a digest of inputs has 32 bytes, not %d", len(before))
	}
	if !bytes.Equal(before, j.digest[:]) {
		return wire.Errorf(wire.Code_CODE_CONFLICT, "the %d inputs that job %s has are not the same as those said to come before", j.total, j.id)
	}
	return nil
}

func (s *State) addJob(j *Job) {
	s.nextSeq++
	s.forgetPast(j.id)
	s.jobs[j.id] = j
	s.jobOrder = append(s.jobOrder, j)
	s.openJobs = append(s.openJobs, j)
	s.life.jobs++
	s.useProgram(j.spec.GetProgram())
}

// appendInputs adds inputs at the end of an open job. Inputs that the job has
// already are dropped if they are the same.
func (s *State) appendInputs(op *wire.AppendInputs) (OpResult, error) {
	segments := op.GetSegments()
	n, err := checkSegments(segments)
	if err != nil {
		return OpResult{}, err
	}
	if n == 0 {
		return OpResult{}, invalid("an append without inputs")
	}
	j := s.jobs[wire.JobID(op.GetJobId())]
	if j == nil {
		return OpResult{}, s.NoJob(wire.JobID(op.GetJobId()))
	}
	first := segments[0].GetFirst()
	switch {
	case first < j.total:
		return s.repeatedInputs(j, op)
	case j.Ended():
		return OpResult{}, wire.Errorf(wire.Code_CODE_PRECONDITION, "job %s has ended (%s): it takes no more inputs", j.id, j.phase)
	case j.closed:
		return OpResult{}, wire.Errorf(wire.Code_CODE_PRECONDITION, "the inputs of job %s are closed at %d", j.id, j.total)
	case first > j.total:
		return OpResult{}, wire.Errorf(wire.Code_CODE_PRECONDITION, "inputs from %d on came before those from %d on", first, j.total)
	}
	if err := checkDigests(j, op); err != nil {
		return OpResult{}, err
	}
	j.digest = wire.Digest(op.GetDigestAfter())
	j.touchedMS = s.nowMS
	s.addSegments(j, segments)
	return OpResult{Total: j.total}, nil
}

// repeatedInputs drops inputs that came before, and refuses others in their
// place.
func (s *State) repeatedInputs(j *Job, op *wire.AppendInputs) (OpResult, error) {
	segments := op.GetSegments()
	last := segments[len(segments)-1]
	if last.GetFirst()+last.GetCount() <= j.total && (bytes.Equal(op.GetDigestAfter(), j.digest[:]) || j.knows(segments)) {
		if !j.Ended() {
			j.touchedMS = s.nowMS
		}
		s.offerSegments(segments)
		return OpResult{Total: j.total}, nil
	}
	return OpResult{}, wire.Errorf(wire.Code_CODE_CONFLICT, "job %s has other inputs from %d on already", j.id, segments[0].GetFirst())
}

// offerSegments notes the pages of segments that are not kept.
func (s *State) offerSegments(segments []*wire.Segment) {
	for _, seg := range segments {
		eachSegmentPage(seg, s.pages.offer)
	}
}

// closeInputs says that all inputs have come.
func (s *State) closeInputs(op *wire.CloseInputs) error {
	j := s.jobs[wire.JobID(op.GetJobId())]
	switch {
	case j == nil:
		return s.NoJob(wire.JobID(op.GetJobId()))
	case j.total != op.GetTotal():
		return wire.Errorf(wire.Code_CODE_PRECONDITION, "job %s has %d inputs, not %d", j.id, j.total, op.GetTotal())
	case j.closed:
		return nil
	case j.Ended():
		return wire.Errorf(wire.Code_CODE_PRECONDITION, "job %s has ended (%s)", j.id, j.phase)
	}
	j.closed = true
	s.settle(j)
	return nil
}

// cancelJob ends an open job.
func (s *State) cancelJob(op *wire.CancelJob) error {
	if err := checkText("the reason of a cancel", op.GetReason(), 0, wire.MaxErrorText); err != nil {
		return err
	}
	j := s.jobs[wire.JobID(op.GetJobId())]
	switch {
	case j == nil:
		return s.NoJob(wire.JobID(op.GetJobId()))
	case j.phase == Cancelled:
		return nil
	case j.Ended():
		return wire.Errorf(wire.Code_CODE_PRECONDITION, "job %s has ended already (%s)", j.id, j.phase)
	}
	reason := op.GetReason()
	if reason == "" {
		reason = "cancelled"
	}
	s.end(j, Cancelled, reason)
	return nil
}

// retryJob makes the failed tasks of an ended job open again. Their old
// records keep their numbers; the new ones get new numbers.
func (s *State) retryJob(op *wire.RetryJob) (OpResult, error) {
	j := s.jobs[wire.JobID(op.GetJobId())]
	switch {
	case j == nil:
		return OpResult{}, s.NoJob(wire.JobID(op.GetJobId()))
	case !j.Ended():
		return OpResult{}, wire.Errorf(wire.Code_CODE_PRECONDITION, "job %s has not ended: its failed tasks can run again when it has", j.id)
	case j.failed == 0:
		return OpResult{}, wire.Errorf(wire.Code_CODE_PRECONDITION, "job %s has no failed tasks", j.id)
	case j.next > maxNumber-wire.MaxTasks:
		return OpResult{}, wire.Errorf(wire.Code_CODE_EXHAUSTED, "job %s was retried too often", j.id)
	}
	if err := s.checkOpenRoom(); err != nil {
		return OpResult{}, err
	}
	again := j.failed
	j.numbers.eachFailed(func(i uint32) {
		j.numbers.set(i, 0)
		delete(j.failures, i)
		s.taskReopened(j, i)
	})
	j.retriedAt, j.touchedMS = j.next, s.nowMS
	s.reopen(j)
	return OpResult{Total: again}, nil
}

// purgeJob forgets a job and gives its pages back, or a job of the past. With
// record it is one of the past then; repeated that changes nothing.
func (s *State) purgeJob(op *wire.PurgeJob, record bool) error {
	id := wire.JobID(op.GetJobId())
	j := s.jobs[id]
	switch {
	case j == nil && record && s.findPast(id) >= 0:
		return nil
	case j == nil && !record && s.forgetPast(id):
		return nil
	case j == nil:
		return s.NoJob(wire.JobID(op.GetJobId()))
	}
	if at, ok := findJob(s.jobOrder, j); ok {
		s.jobOrder = slices.Delete(s.jobOrder, at, at+1)
	}
	s.forgetJob(j)
	if record {
		s.remember(j)
	}
	return nil
}

// forgetJob drops all that a job holds, save its place in the order of jobs.
func (s *State) forgetJob(j *Job) {
	if !j.Ended() {
		s.end(j, Cancelled, "")
	}
	for i := range j.segments {
		if seg := j.segments[i].wire; seg != nil {
			eachSegmentPage(seg, s.pages.drop)
		}
	}
	for _, b := range j.batches {
		s.dropBatch(b)
	}
	s.leaveProgram(j.spec.GetProgram())
	delete(s.jobs, j.id)
}

// NoJob says why there is nothing to have of a job: CODE_PRECONDITION if it
// ended a while ago, CODE_NOT_FOUND if there is none.
func (s *State) NoJob(id wire.JobID) error {
	if s.findPast(id) >= 0 {
		return wire.Errorf(wire.Code_CODE_PRECONDITION, "job %s has ended, and its client had all its results: they are kept after that only with --detach or --id", id)
	}
	return wire.Errorf(wire.Code_CODE_NOT_FOUND, "there is no job %s: it may have been removed", id)
}
