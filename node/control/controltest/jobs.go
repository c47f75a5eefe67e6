package controltest

import (
	"bytes"
	"context"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// job is a job of the fake queue.
type job struct {
	id      string
	spec    *wire.JobSpec
	inputs  [][]byte
	digest  wire.Digest
	closed  bool
	state   wire.JobState // DONE, FAILED, CANCELLED; else it is open
	reason  string
	results []*wire.TaskResult // in the order of completion
	byIndex map[uint32]*wire.TaskResult
	failed  uint64
	held    []uint32
}

func (j *job) ended() bool { return j.state != wire.JobState_JOB_STATE_UNSPECIFIED }

func (j *job) view() *wire.Job {
	total, done := uint64(len(j.inputs)), uint64(len(j.results))
	v := &wire.Job{
		Id: j.id, Spec: j.spec, State: j.state, Submitter: Self, CreatedAtMs: Time, Error: j.reason,
		Tasks:       &wire.TaskCounts{Total: total, Pending: total - done, Completed: done - j.failed, Failed: j.failed},
		InputDigest: bytes.Clone(j.digest[:]), InputsClosed: j.closed,
	}
	switch {
	case j.ended():
		v.EndedAtMs = Time + 1000
	case !j.closed:
		v.State = wire.JobState_JOB_STATE_UPLOADING
	default:
		v.State = wire.JobState_JOB_STATE_RUNNING
	}
	return v
}

func (s *Service) find(id string) *job {
	for _, j := range s.jobs {
		if j.id == id {
			return j
		}
	}
	return nil
}

func (s *Service) get(id string) (*job, error) {
	if j := s.find(id); j != nil {
		return j, nil
	}
	return nil, wire.Errorf(wire.Code_CODE_NOT_FOUND, "there is no job %s", id)
}

// SubmitJob makes or attaches to a job.
func (s *Service) SubmitJob(_ context.Context, r *connect.Request[wire.SubmitJobRequest]) (*connect.Response[wire.SubmitJobResponse], error) {
	return call(s, "SubmitJob", func() (*wire.SubmitJobResponse, error) {
		j := s.find(r.Msg.GetJobId())
		if j != nil {
			if !proto.Equal(j.spec, r.Msg.GetSpec()) {
				return nil, wire.Errorf(wire.Code_CODE_CONFLICT, "job %s exists with another program or other flags", j.id)
			}
			return &wire.SubmitJobResponse{Job: j.view(), Attached: true}, nil
		}
		j = &job{id: r.Msg.GetJobId(), spec: r.Msg.GetSpec(), byIndex: map[uint32]*wire.TaskResult{}}
		s.jobs = append(s.jobs, j)
		if in := r.Msg.GetInputs(); in != nil {
			if err := s.append(j, in); err != nil {
				return nil, err
			}
		}
		if r.Msg.GetClose() {
			s.close(j)
		}
		return &wire.SubmitJobResponse{Job: j.view()}, nil
	})
}

// AppendInputs adds inputs; a gap is refused, and so is a wrong digest.
func (s *Service) AppendInputs(_ context.Context, r *connect.Request[wire.AppendInputsRequest]) (*connect.Response[wire.AppendInputsResponse], error) {
	return call(s, "AppendInputs", func() (*wire.AppendInputsResponse, error) {
		j, err := s.get(r.Msg.GetJobId())
		if err == nil {
			err = s.append(j, r.Msg)
		}
		if err != nil {
			return nil, err
		}
		return &wire.AppendInputsResponse{Total: uint32(len(j.inputs))}, nil
	})
}

func (s *Service) append(j *job, r *wire.AppendInputsRequest) error {
	known := uint32(len(j.inputs))
	switch {
	case j.ended() || j.closed:
		return wire.Errorf(wire.Code_CODE_PRECONDITION, "job %s takes no more inputs", j.id)
	case r.GetFirst() > known:
		return wire.Errorf(wire.Code_CODE_PRECONDITION, "inputs %d to %d are missing", known, r.GetFirst()-1)
	case r.GetFirst() < known || !bytes.Equal(r.GetDigestBefore(), j.digest[:]):
		return wire.Errorf(wire.Code_CODE_CONFLICT, "job %s has other inputs there", j.id)
	}
	digest := j.digest
	inputs := make([][]byte, len(r.GetItems()))
	for i, in := range r.GetItems() {
		inputs[i] = in.GetData()
		if b := in.GetBlob(); b != nil {
			inputs[i] = s.blobs[wire.Hash(b.GetPages()[0])]
		}
		digest = digest.Next(wire.HashOf(inputs[i]))
	}
	if !bytes.Equal(r.GetDigestAfter(), digest[:]) {
		return wire.Errorf(wire.Code_CODE_CONFLICT, "the digest is not that of the inputs")
	}
	j.digest = digest
	j.inputs = append(j.inputs, inputs...)
	indexes := make([]uint32, len(inputs))
	for i := range indexes {
		indexes[i] = known + uint32(i)
		if s.Reverse {
			indexes[i] = known + uint32(len(inputs)-1-i)
		}
	}
	if j.held = append(j.held, indexes...); !s.Hold {
		s.compute(j)
	}
	return nil
}

// compute records the results of all held inputs, as far as the job lives.
func (s *Service) compute(j *job) {
	f := s.Compute
	if f == nil {
		f = Echo
	}
	for _, i := range j.held {
		if j.ended() {
			break
		}
		r := f(j.spec, i, j.inputs[i])
		if r == nil {
			continue
		}
		r.Index, r.Number, r.Device, r.Attempts, r.DurationUs = i, uint32(len(j.results)), Other, 1, 2500
		if len(r.GetOutput()) > 64<<10 {
			h := wire.HashOf(r.GetOutput())
			s.blobs[h] = r.GetOutput()
			r.OutputBlob = &wire.Blob{Size: uint64(len(r.GetOutput())), Pages: [][]byte{h[:]}}
			r.Output = nil
		}
		j.results, j.byIndex[i] = append(j.results, r), r
		if r.GetStatus() == wire.TaskStatus_TASK_STATUS_FAILED {
			if j.failed++; !j.spec.GetKeepGoing() {
				j.state = wire.JobState_JOB_STATE_FAILED
			}
		}
	}
	j.held = nil
}

func (s *Service) close(j *job) {
	j.closed = true
	s.compute(j)
	if !j.ended() && len(j.results) == len(j.inputs) {
		j.state = wire.JobState_JOB_STATE_DONE
		if j.failed > 0 {
			j.state = wire.JobState_JOB_STATE_FAILED
		}
	}
}

// CloseInputs says that the inputs are complete.
func (s *Service) CloseInputs(_ context.Context, r *connect.Request[wire.CloseInputsRequest]) (*connect.Response[wire.CloseInputsResponse], error) {
	return call(s, "CloseInputs", func() (*wire.CloseInputsResponse, error) {
		j, err := s.get(r.Msg.GetJobId())
		if err != nil {
			return nil, err
		}
		if j.ended() && !j.closed {
			return nil, wire.Errorf(wire.Code_CODE_PRECONDITION, "job %s has ended", j.id)
		}
		if int(r.Msg.GetTotal()) != len(j.inputs) {
			return nil, wire.Errorf(wire.Code_CODE_PRECONDITION, "job %s has %d inputs, not %d", j.id, len(j.inputs), r.Msg.GetTotal())
		}
		s.close(j)
		return &wire.CloseInputsResponse{}, nil
	})
}

// CancelJob ends a job.
func (s *Service) CancelJob(_ context.Context, r *connect.Request[wire.CancelJobRequest]) (*connect.Response[wire.CancelJobResponse], error) {
	return call(s, "CancelJob", func() (*wire.CancelJobResponse, error) {
		j, err := s.get(r.Msg.GetJobId())
		if err != nil {
			return nil, err
		}
		if !j.ended() {
			j.state, j.reason = wire.JobState_JOB_STATE_CANCELLED, r.Msg.GetReason()
		}
		return &wire.CancelJobResponse{}, nil
	})
}

// RetryJob says how many tasks have failed.
func (s *Service) RetryJob(_ context.Context, r *connect.Request[wire.RetryJobRequest]) (*connect.Response[wire.RetryJobResponse], error) {
	return call(s, "RetryJob", func() (*wire.RetryJobResponse, error) {
		j, err := s.get(r.Msg.GetJobId())
		if err != nil {
			return nil, err
		}
		return &wire.RetryJobResponse{Tasks: uint32(j.failed)}, nil
	})
}

// RemoveJob forgets a job.
func (s *Service) RemoveJob(_ context.Context, r *connect.Request[wire.RemoveJobRequest]) (*connect.Response[wire.RemoveJobResponse], error) {
	return call(s, "RemoveJob", func() (*wire.RemoveJobResponse, error) {
		j, err := s.get(r.Msg.GetJobId())
		if err != nil {
			return nil, err
		}
		if !r.Msg.GetAcknowledge() || j.ended() && !j.spec.GetDetached() {
			for i := range s.jobs {
				if s.jobs[i] == j {
					s.jobs = append(s.jobs[:i:i], s.jobs[i+1:]...)
					break
				}
			}
		}
		return &wire.RemoveJobResponse{}, nil
	})
}

// ListJobs lists all jobs.
func (s *Service) ListJobs(context.Context, *connect.Request[wire.ListJobsRequest]) (*connect.Response[wire.ListJobsResponse], error) {
	return call(s, "ListJobs", func() (*wire.ListJobsResponse, error) {
		res := &wire.ListJobsResponse{}
		for _, j := range s.jobs {
			res.Jobs = append(res.Jobs, j.view())
		}
		return res, nil
	})
}

// GetJob shows a job.
func (s *Service) GetJob(_ context.Context, r *connect.Request[wire.GetJobRequest]) (*connect.Response[wire.GetJobResponse], error) {
	return call(s, "GetJob", func() (*wire.GetJobResponse, error) {
		j, err := s.get(r.Msg.GetJobId())
		if err != nil {
			return nil, err
		}
		return &wire.GetJobResponse{Job: j.view()}, nil
	})
}
