package coordinator

import (
	"cmp"
	"context"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/ostrich-legs/ostrich/consensus/scheduler"
	"github.com/ostrich-legs/ostrich/consensus/state"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// maxOpenInput is how many bytes of inputs of one job may wait for their tasks:
// above it an append waits, which slows the submitter down to what the devices
// take.
const maxOpenInput = 1 << 30

// holdTime bounds how long a submit waits until most of the voters have said that
// they have what it names.
const holdTime = 5 * time.Second

// turnTime is how long an append waits for the one before it.
const turnTime = 500 * time.Millisecond

// maxListBytes bounds a list of jobs: it has to fit in a frame.
const maxListBytes = wire.MaxFrame - 64<<10

func (a asker) submitJob(ctx context.Context, r *wire.SubmitJobRequest) (*wire.SubmitJobResponse, error) {
	if err := a.need(wire.Role_ROLE_MEMBER, "submitting a job"); err != nil {
		return nil, err
	}
	submit := &wire.SubmitJob{JobId: r.GetJobId(), Spec: r.GetSpec(), Close: r.GetClose()}
	if in := r.GetInputs(); len(in.GetSegments()) > 0 {
		submit.Inputs = appendOp(in)
	}
	if err := checkHolds(r.GetInputs().GetHolds()); err != nil {
		return nil, err
	}
	id := wire.JobID(r.GetJobId())
	var made []wire.HoldID
	if _, attaches := a.c.total(id); !attaches {
		var err error
		if made, err = a.c.holdFor(ctx, r.GetSpec().GetProgram(), r.GetInputs().GetSegments()); err != nil {
			return nil, err
		}
	}
	op := &wire.Op{Kind: &wire.Op_SubmitJob{SubmitJob: submit}, Holds: r.GetInputs().GetHolds()}
	result, err := a.c.propose(ctx, a.id, op, made...)
	if err != nil {
		return nil, err
	}
	a.c.follow(id)
	job, err := a.c.job(id)
	if err != nil {
		return nil, err
	}
	if !result.Attached && !r.GetSpec().GetSingle() {
		a.c.say(lineInfo, a.id, "job %s runs %s", id.Short(), r.GetSpec().GetProgram().GetName())
	}
	return &wire.SubmitJobResponse{Job: job, Attached: result.Attached}, nil
}

func appendOp(in *wire.AppendInputsRequest) *wire.AppendInputs {
	return &wire.AppendInputs{
		JobId:        in.GetJobId(),
		Segments:     in.GetSegments(),
		DigestBefore: in.GetDigestBefore(),
		DigestAfter:  in.GetDigestAfter(),
	}
}

// checkHolds refuses holds that a coordinator makes for itself: nobody else's
// command may end them.
func checkHolds(holds [][]byte) error {
	for _, b := range holds {
		if id, err := wire.HoldIDFromBytes(b); err != nil || id.Term() != 0 {
			return wire.Errorf(wire.Code_CODE_INVALID, "a hold of inputs that is none")
		}
	}
	return nil
}

// total returns how many inputs a job has; ok is false if there is no such job.
func (c *Coordinator) total(id wire.JobID) (n uint32, ok bool) {
	c.cfg.Group.Read(func(s *state.State) {
		if j := s.Job(id); j != nil {
			n, ok = j.Total(), true
		}
	})
	return n, ok
}

// holdFor has most of the voters keep what a program and inputs name, and returns
// the hold for the operation that is about to name it; none if it is nothing.
func (c *Coordinator) holdFor(ctx context.Context, program *wire.Program, segments []*wire.Segment) ([]wire.HoldID, error) {
	names := slices.Clone(program.GetBlob().GetPages())
	for _, seg := range segments {
		if len(seg.GetPage()) > 0 {
			names = append(names, seg.GetPage())
		}
		names = append(names, seg.GetBlob().GetPages()...)
	}
	pages, err := wire.HashesFromBytes(names)
	if err != nil {
		return nil, wire.Errorf(wire.Code_CODE_INVALID, "what a job names: %v", err)
	}
	if len(pages) == 0 {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, holdTime)
	defer cancel()
	hold := wire.NewTermHoldID(c.term)
	if err = c.cfg.Pages.Hold(ctx, hold, pages); err != nil {
		c.useless.add(hold) // some may keep them
	}
	if wire.CodeOf(err) == wire.Code_CODE_NOT_FOUND {
		err = wire.Errorf(wire.Code_CODE_PRECONDITION, "the bytes of the program or of some inputs are not in the swarm any more (%v): submit them again", err)
	}
	return []wire.HoldID{hold}, err
}

// follow makes the soft state of a job follow what was committed of it.
func (c *Coordinator) follow(id wire.JobID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var ended bool
	c.cfg.Group.Read(func(s *state.State) {
		j := s.Job(id)
		if j == nil || j.Ended() {
			ended = true
			return
		}
		q := c.jobs[id]
		if q == nil {
			q = resumeJob(j, time.Now())
			c.jobs[id] = q
		}
		q.total = j.Total()
	})
	if q := c.jobs[id]; q != nil && ended {
		c.endJob(q)
	} else if q != nil {
		q.announce()
	}
	c.wake()
}

func (a asker) appendInputs(ctx context.Context, r *wire.AppendInputsRequest) (*wire.AppendInputsResponse, error) {
	if err := a.need(wire.Role_ROLE_MEMBER, "adding inputs"); err != nil {
		return nil, err
	}
	if err := checkHolds(r.GetHolds()); err != nil {
		return nil, err
	}
	id := wire.JobID(r.GetJobId())
	if err := a.c.awaitRoom(ctx, id); err != nil {
		return nil, err
	}
	a.c.awaitTurn(ctx, id, r.GetSegments())
	var made []wire.HoldID
	if n, ok := a.c.total(id); ok && n < endOf(r.GetSegments()) { // others are known, and name nothing anew
		var err error
		if made, err = a.c.holdFor(ctx, nil, r.GetSegments()); err != nil {
			return nil, err
		}
	}
	op := &wire.Op{Kind: &wire.Op_AppendInputs{AppendInputs: appendOp(r)}, Holds: r.GetHolds()}
	result, err := a.c.propose(ctx, a.id, op, made...)
	if err != nil {
		return nil, err
	}
	a.c.follow(id)
	return &wire.AppendInputsResponse{Total: result.Total}, nil
}

// endOf returns how many inputs a job has with the segments.
func endOf(segments []*wire.Segment) uint32 {
	if len(segments) == 0 {
		return 0
	}
	last := segments[len(segments)-1]
	return last.GetFirst() + last.GetCount()
}

// awaitRoom waits until the job's inputs that lie unprocessed are below their
// bound, or the job has ended.
func (c *Coordinator) awaitRoom(ctx context.Context, id wire.JobID) error {
	if !c.await(ctx, id, func(j *state.Job) bool { return j.OpenInputBytes() < maxOpenInput }) {
		return wire.Errorf(wire.Code_CODE_UNAVAILABLE, "the session ended")
	}
	return nil
}

// awaitTurn waits a moment for the inputs before these: a client sends several
// appends at one time, which may overtake each other.
func (c *Coordinator) awaitTurn(ctx context.Context, id wire.JobID, segments []*wire.Segment) {
	if len(segments) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, turnTime)
	defer cancel()
	c.await(ctx, id, func(j *state.Job) bool { return j.Total() >= segments[0].GetFirst() })
}

// await waits until an open job is as it should be, or open no more; false: ctx
// ended before.
func (c *Coordinator) await(ctx context.Context, id wire.JobID, ready func(*state.Job) bool) bool {
	for {
		changed := c.changes(id)
		var done bool
		c.cfg.Group.Read(func(s *state.State) {
			j := s.Job(id)
			done = j == nil || j.Ended() || ready(j)
		})
		if done || changed == nil {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-changed:
		}
	}
}

// changes returns a channel that closes at the job's next change; nil if it is
// not open.
func (c *Coordinator) changes(id wire.JobID) <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if q := c.jobs[id]; q != nil {
		return q.changed
	}
	return nil
}

func (a asker) closeInputs(ctx context.Context, r *wire.CloseInputsRequest) (*wire.CloseInputsResponse, error) {
	if err := a.need(wire.Role_ROLE_MEMBER, "closing a job's inputs"); err != nil {
		return nil, err
	}
	op := &wire.CloseInputs{JobId: r.GetJobId(), Total: r.GetTotal()}
	_, err := a.c.propose(ctx, a.id, &wire.Op{Kind: &wire.Op_CloseInputs{CloseInputs: op}})
	if err != nil {
		return nil, err
	}
	a.c.follow(wire.JobID(r.GetJobId()))
	return &wire.CloseInputsResponse{}, nil
}

func (a asker) cancelJob(ctx context.Context, r *wire.CancelJobRequest) (*wire.CancelJobResponse, error) {
	if err := a.need(wire.Role_ROLE_MEMBER, "cancelling a job"); err != nil {
		return nil, err
	}
	op := &wire.CancelJob{JobId: r.GetJobId(), Reason: r.GetReason()}
	_, err := a.c.propose(ctx, a.id, &wire.Op{Kind: &wire.Op_CancelJob{CancelJob: op}})
	if err != nil {
		return nil, err
	}
	a.c.follow(wire.JobID(r.GetJobId()))
	return &wire.CancelJobResponse{}, nil
}

func (a asker) retryJob(ctx context.Context, r *wire.RetryJobRequest) (*wire.RetryJobResponse, error) {
	if err := a.need(wire.Role_ROLE_MEMBER, "running tasks again"); err != nil {
		return nil, err
	}
	if tasks, done := a.c.retried(r); done {
		return &wire.RetryJobResponse{Tasks: tasks}, a.c.cfg.Group.Verify(ctx)
	}
	result, err := a.c.propose(ctx, a.id, &wire.Op{Kind: &wire.Op_RetryJob{RetryJob: &wire.RetryJob{JobId: r.GetJobId()}}})
	if wire.CodeOf(err) == wire.Code_CODE_PRECONDITION {
		if tasks, done := a.c.retried(r); done { // meanwhile
			return &wire.RetryJobResponse{Tasks: tasks}, nil
		}
	}
	if err != nil {
		return nil, err
	}
	a.c.follow(wire.JobID(r.GetJobId()))
	return &wire.RetryJobResponse{Tasks: result.Total}, nil
}

// retried reports whether a retry has been done already, by the same request
// with an outcome that its asker never learned, and how many tasks that opened:
// the job is open again, or has another end than the asker has seen.
func (c *Coordinator) retried(r *wire.RetryJobRequest) (tasks uint32, done bool) {
	c.cfg.Group.Read(func(s *state.State) {
		j := s.Job(wire.JobID(r.GetJobId()))
		if j == nil || j.Reopened() == 0 {
			return
		}
		seen := r.GetEndedAtMs()
		if tasks = j.Reopened(); !j.Ended() || seen != 0 && seen < j.EndedAtMS() {
			done = true
		}
	})
	return tasks, done
}

// pastFormat is the command format in which a job may leave a record.
const pastFormat = 2

// removeJob forgets a job, unless it was another than the one that is meant:
// then, as when there is none, the request may have come before, with an outcome
// that nobody learned, and nothing is left to do. As the word of an attached client it leaves detached
// and open jobs alone, and a record of the others where all voters know how to keep one.
func (a asker) removeJob(ctx context.Context, r *wire.RemoveJobRequest) (*wire.RemoveJobResponse, error) {
	if err := a.need(wire.Role_ROLE_MEMBER, "removing a job"); err != nil {
		return nil, err
	}
	id := wire.JobID(r.GetJobId())
	var keep bool
	a.c.cfg.Group.Read(func(s *state.State) {
		meant := r.GetCreatedAtMs()
		if p, ok := s.PastJob(id); ok {
			keep = r.GetAcknowledge() || meant != 0 && meant != p.CreatedAtMS
			return
		}
		j := s.Job(id)
		keep = j == nil || meant != 0 && meant != j.CreatedAtMS() ||
			r.GetAcknowledge() && (!j.Ended() || j.Spec().GetDetached())
	})
	if keep {
		return &wire.RemoveJobResponse{}, a.c.cfg.Group.Verify(ctx)
	}
	purge := &wire.PurgeJob{JobId: r.GetJobId(), KeepRecord: r.GetAcknowledge() && a.c.cfg.Group.Format() >= pastFormat}
	_, err := a.c.propose(ctx, a.id, &wire.Op{Kind: &wire.Op_PurgeJob{PurgeJob: purge}})
	if err != nil && wire.CodeOf(err) != wire.Code_CODE_NOT_FOUND {
		return nil, err
	}
	a.c.follow(id)
	return &wire.RemoveJobResponse{}, nil
}

func (a asker) listJobs(ctx context.Context, _ *wire.ListJobsRequest) (*wire.ListJobsResponse, error) {
	if err := a.c.cfg.Group.Verify(ctx); err != nil {
		return nil, err
	}
	var jobs []*wire.Job
	a.c.cfg.Group.Read(func(s *state.State) {
		for _, p := range s.PastJobs() {
			jobs = append(jobs, describePast(p))
		}
		for _, j := range s.Jobs() {
			jobs = append(jobs, describe(j))
		}
	})
	slices.SortStableFunc(jobs, func(a, b *wire.Job) int { return cmp.Compare(a.GetCreatedAtMs(), b.GetCreatedAtMs()) })
	a.c.mu.Lock()
	defer a.c.mu.Unlock()
	for _, job := range jobs {
		a.c.overlay(job)
		job.Spec = listed(job.GetSpec())
	}
	return &wire.ListJobsResponse{Jobs: newestJobs(jobs)}, nil
}

// newestJobs leaves the oldest ended jobs out of a list that would not fit in a
// frame.
func newestJobs(jobs []*wire.Job) []*wire.Job {
	size := 0
	for _, job := range jobs {
		size += proto.Size(job) + 8
	}
	return slices.DeleteFunc(jobs, func(job *wire.Job) bool {
		drop := size > maxListBytes && job.GetEndedAtMs() != 0
		if drop {
			size -= proto.Size(job) + 8
		}
		return drop
	})
}

// listed is a spec as a list of many jobs carries it: without what only its
// tasks need.
func listed(s *wire.JobSpec) *wire.JobSpec {
	return &wire.JobSpec{
		Program:  &wire.Program{Name: s.GetProgram().GetName()},
		Priority: s.GetPriority(),
		Detached: s.GetDetached(),
		Single:   s.GetSingle(),
	}
}

func (a asker) getJob(ctx context.Context, r *wire.GetJobRequest) (*wire.GetJobResponse, error) {
	if err := a.c.cfg.Group.Verify(ctx); err != nil {
		return nil, err
	}
	job, err := a.c.job(wire.JobID(r.GetJobId()))
	if err != nil {
		return nil, err
	}
	return &wire.GetJobResponse{Job: job}, nil
}

// job describes a job as it stands now.
func (c *Coordinator) job(id wire.JobID) (*wire.Job, error) {
	var job *wire.Job
	c.cfg.Group.Read(func(s *state.State) {
		if j := s.Job(id); j != nil {
			job = describe(j)
		} else if p, ok := s.PastJob(id); ok {
			job = describePast(p)
		}
	})
	return job, c.addSoft(id, job)
}

// addSoft adds the soft state to what a reading of the replicated state found
// of a job, and says so if it found none.
func (c *Coordinator) addSoft(id wire.JobID, job *wire.Job) error {
	if job == nil {
		var why error
		c.cfg.Group.Read(func(s *state.State) { why = s.NoJob(id) })
		return why
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.overlay(job)
	return nil
}

// describe is what the replicated state says of a job.
func describe(j *state.Job) *wire.Job {
	digest := j.Digest()
	job := &wire.Job{
		Id:           string(j.ID()),
		Spec:         j.Spec(),
		Submitter:    string(j.Submitter()),
		CreatedAtMs:  j.CreatedAtMS(),
		EndedAtMs:    j.EndedAtMS(),
		Error:        j.Error(),
		InputDigest:  digest[:],
		InputsClosed: j.Closed(),
		Tasks: &wire.TaskCounts{
			Total:     uint64(j.Total()),
			Completed: uint64(j.Completed()),
			Failed:    uint64(j.Failed()),
		},
	}
	job.State = endState(j.Phase())
	if !j.Ended() {
		job.State = wire.JobState_JOB_STATE_PENDING
		if !j.Closed() {
			job.State = wire.JobState_JOB_STATE_UPLOADING
		}
		job.Tasks.Pending = job.Tasks.Total - job.Tasks.Completed - job.Tasks.Failed
	}
	return job
}

// endState is the state of a job that has ended; unspecified of one that has
// not.
func endState(p state.Phase) wire.JobState {
	switch p {
	case state.Done:
		return wire.JobState_JOB_STATE_DONE
	case state.Failed:
		return wire.JobState_JOB_STATE_FAILED
	case state.Cancelled:
		return wire.JobState_JOB_STATE_CANCELLED
	}
	return wire.JobState_JOB_STATE_UNSPECIFIED
}

// describePast is what the replicated state says of a job of the past.
func describePast(p state.PastJob) *wire.Job {
	return &wire.Job{
		Id:           string(p.ID),
		Spec:         &wire.JobSpec{Program: &wire.Program{Name: p.Program}, Priority: p.Priority, Single: p.Single},
		State:        endState(p.Phase),
		Submitter:    string(p.Submitter),
		CreatedAtMs:  p.CreatedAtMS,
		EndedAtMs:    p.EndedAtMS,
		Error:        p.Error,
		InputsClosed: true,
		Tasks:        &wire.TaskCounts{Total: uint64(p.Total), Completed: uint64(p.Completed), Failed: uint64(p.Failed)},
	}
}

// overlay adds what only the coordinator knows: what runs, and what a job that
// stands still waits for. The caller holds the mutex.
func (c *Coordinator) overlay(job *wire.Job) {
	q := c.jobs[wire.JobID(job.GetId())]
	if q == nil || job.GetEndedAtMs() != 0 { // ended, and its queue not forgotten yet
		return
	}
	active := min(uint64(len(q.leased)+len(q.recording)), job.Tasks.Pending)
	job.Tasks.Active = active
	job.Tasks.Pending -= active
	if active > 0 || job.Tasks.Completed+job.Tasks.Failed > 0 {
		job.State = wire.JobState_JOB_STATE_RUNNING
	}
	if active == 0 && job.Tasks.Pending > 0 {
		job.WaitingFor = scheduler.WaitingFor(c.allDevices(), q.schedulable(q.pending()))
	}
}

// allDevices is a view of every connected device that runs tasks.
func (c *Coordinator) allDevices() (v scheduler.View) {
	for _, d := range c.devices {
		if d.gone.IsZero() && d.slots > 0 {
			v.Devices = append(v.Devices, d.schedulable())
		}
	}
	return v
}

func (a asker) hasProgram(ctx context.Context, r *wire.HasProgramRequest) (*wire.HasProgramResponse, error) {
	if err := a.need(wire.Role_ROLE_MEMBER, "submitting a job"); err != nil {
		return nil, err
	}
	hash, err := wire.HashFromBytes(r.GetHash())
	if err != nil {
		return nil, wire.Errorf(wire.Code_CODE_INVALID, "%v", err)
	}
	out := &wire.HasProgramResponse{}
	a.c.cfg.Group.Read(func(s *state.State) { out.Program = s.Program(hash) })
	return out, a.c.cfg.Group.Verify(ctx)
}
