package state

import (
	"slices"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// maxPast bounds the jobs of the past that are remembered: the oldest go first.
const maxPast = 1000

// PastJob is what is remembered for a day of an attached job whose client has
// all that it wants: everything but its inputs, its results and what its tasks
// were told.
type PastJob struct {
	ID        wire.JobID
	Program   string // its name
	Priority  int32
	Single    bool
	Submitter wire.DeviceID
	// CreatedAtMS and EndedAtMS are when it was submitted, and when it ended.
	CreatedAtMS, EndedAtMS int64
	// Phase is Done, Failed or Cancelled, and Error why it failed or was
	// cancelled.
	Phase Phase
	Error string
	// Total counts its inputs; Completed and Failed how their tasks ended.
	Total, Completed, Failed uint32
}

// PastJobs returns the jobs of the past, those that were forgotten first before
// the others. None of them has the ID of a job.
func (s *State) PastJobs() []PastJob { return slices.Clone(s.past) }

// PastJob returns the job of the past with that ID.
func (s *State) PastJob(id wire.JobID) (PastJob, bool) {
	at := s.findPast(id)
	if at < 0 {
		return PastJob{}, false
	}
	return s.past[at], true
}

func (s *State) findPast(id wire.JobID) int {
	return slices.IndexFunc(s.past, func(p PastJob) bool { return p.ID == id })
}

// remember makes an ended job one of the past.
func (s *State) remember(j *Job) {
	if len(s.past) == maxPast {
		s.past = slices.Delete(s.past, 0, 1)
	}
	s.past = append(s.past, PastJob{
		ID: j.id, Program: j.spec.GetProgram().GetName(), Priority: j.spec.GetPriority(), Single: j.spec.GetSingle(),
		Submitter: j.submitter, CreatedAtMS: j.createdMS, EndedAtMS: j.endedMS, Phase: j.phase, Error: j.err,
		Total: j.total, Completed: j.completed, Failed: j.failed,
	})
}

// forgetPast forgets a job of the past, and reports whether there was one.
func (s *State) forgetPast(id wire.JobID) bool {
	at := s.findPast(id)
	if at < 0 {
		return false
	}
	s.past = slices.Delete(s.past, at, at+1)
	return true
}

// sweepPast forgets the jobs of the past that ended a day ago.
func (s *State) sweepPast() {
	s.past = slices.DeleteFunc(s.past, func(p PastJob) bool { return s.nowMS-p.EndedAtMS >= attachedKeepMS })
}

func encodePast(e *encoder, p PastJob) {
	e.text(string(p.ID))
	e.text(p.Program)
	e.uint(uint64(uint32(p.Priority)))
	e.bool(p.Single)
	e.text(string(p.Submitter))
	e.uint(uint64(p.CreatedAtMS))
	e.uint(uint64(p.EndedAtMS))
	e.uint(uint64(p.Phase))
	e.text(p.Error)
	e.uint(uint64(p.Total))
	e.uint(uint64(p.Completed))
	e.uint(uint64(p.Failed))
}

// past reads a job of the past.
func (d *decoder) past(s *State) {
	p := PastJob{ID: wire.JobID(d.text("a job's ID", maxText)), Program: d.text("the name of a program", maxText)}
	p.Priority = int32(d.u32("a priority"))
	p.Single = d.bool()
	p.Submitter = wire.DeviceID(d.text("a submitter", maxActor))
	p.CreatedAtMS = d.time("the time of a job")
	p.EndedAtMS = d.time("the time of a job")
	p.Phase = Phase(d.limited("the phase of a job", uint64(Cancelled)))
	p.Error = d.text("the error of a job", maxText)
	p.Total = uint32(d.limited("the tasks of a job", wire.MaxTasks))
	p.Completed = uint32(d.limited("the tasks of a job", uint64(p.Total)))
	p.Failed = uint32(d.limited("the tasks of a job", uint64(p.Total-p.Completed)))
	if d.err != nil {
		return
	}
	d.check(p.ID.Check())
	d.check(checkText("the name of a program", p.Program, 1, 255))
	d.check(checkText("a submitter", string(p.Submitter), 0, maxActor))
	d.check(checkText("the error of a job", p.Error, 0, wire.MaxErrorText))
	d.expect(p.Phase != Open, "a job of the past is open")
	d.expect(s.jobs[p.ID] == nil && s.findPast(p.ID) < 0, "two jobs have one ID")
	s.past = append(s.past, p)
}
