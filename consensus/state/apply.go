package state

import "github.com/ostrich-legs/ostrich/p2p/wire"

// maxTimeMS bounds a command's time (the year 37,000), so that sums with
// durations cannot overflow.
const maxTimeMS = 1 << 50

// maxActor bounds the bytes of an actor's ID.
const maxActor = 128

// Outcome is what applying a command did.
type Outcome struct {
	// Results has one entry an operation.
	Results []OpResult
	// Named lists the pages that nothing named before and something does now.
	Named []wire.Hash
	// Released lists the pages that nothing names any more, and those that the
	// command brought in vain.
	Released []wire.Hash
}

// OpResult is what one operation did. Err, a *wire.CodedError or nil, is the
// same on every node; where it is set, the operation changed nothing.
type OpResult struct {
	Err error
	// Total is, for submit and append, the number of inputs acknowledged; for
	// retry, the failed tasks that run again.
	Total uint32
	// Attached is set when a submit found the job there, with the same spec.
	Attached bool
	// Verdicts has, for complete, one entry a record.
	Verdicts []Verdict
	// ID is the ID of the invite issued.
	ID string
	// Role is the role that an admitted device has now.
	Role wire.Role
}

// Verdict says what became of a record in CompleteTasks.
type Verdict uint8

const (
	// Unwanted: the task had ended before, or its job has, or is unknown.
	Unwanted Verdict = iota
	// Recorded: the task is done, and this is its result.
	Recorded
	// FailedFinally: the task has failed for good, and this is its result.
	FailedFinally
	// Retry: a failed attempt was counted; the task is still open.
	Retry
)

// Apply applies a command that committed in raftTerm. It is deterministic and
// never panics, whatever the command says. The state keeps parts of cmd: the
// caller must not change it afterwards. A command refused as a whole (it
// committed in another term than it was proposed in: CODE_UNAVAILABLE; its
// format is too new: CODE_VERSION) changes nothing, and each result says so.
func (s *State) Apply(raftTerm uint64, cmd *wire.Command) Outcome {
	out := Outcome{Results: make([]OpResult, len(cmd.GetOps()))}
	if err := refuseWhole(raftTerm, cmd); err != nil {
		for i := range out.Results {
			out.Results[i].Err = err
		}
		return out
	}
	s.nowMS = max(s.nowMS, cmd.GetTimeMs())
	s.pages.begin()
	for i, op := range cmd.GetOps() {
		result, err := s.applyOp(cmd.GetFormat(), op)
		if err != nil {
			result = OpResult{Err: err}
		} else {
			s.format = max(s.format, min(FormatOf(op), cmd.GetFormat()))
		}
		out.Results[i] = result
	}
	out.Named, out.Released = s.pages.end()
	return out
}

// refuseWhole says why no operation of the command may be applied. The term
// comes first: a stale command changes nothing whatever its format.
func refuseWhole(raftTerm uint64, cmd *wire.Command) error {
	switch {
	case cmd.GetTerm() != raftTerm:
		return wire.Errorf(wire.Code_CODE_UNAVAILABLE,
			"a command of term %d committed in term %d: the coordinator changed; ask again", cmd.GetTerm(), raftTerm)
	case cmd.GetFormat() > Format:
		return wire.Errorf(wire.Code_CODE_VERSION,
			"a command of format %d: this program understands formats up to %d and must be upgraded", cmd.GetFormat(), Format)
	case cmd.GetFormat() == 0:
		return invalid("a command without a format")
	case cmd.GetTimeMs() < 0 || cmd.GetTimeMs() > maxTimeMS:
		return invalid("a command's time of %d ms is out of range", cmd.GetTimeMs())
	}
	return nil
}

// FormatOf returns the format that a command needs to carry the operation: a
// command's format is the highest of its operations'. It does not look into
// whether the operation makes sense.
func FormatOf(op *wire.Op) uint32 {
	switch k := op.GetKind().(type) {
	case *wire.Op_SetDeviceMode, *wire.Op_RaiseGeneration:
		return 2
	case *wire.Op_UpdateDevice:
		if k.UpdateDevice.GetProfile().GetReplica() != "" {
			return 2
		}
	case *wire.Op_PurgeJob:
		if k.PurgeJob.GetKeepRecord() {
			return 2
		}
	}
	return 1
}

// applyOp applies an operation of a command of that format.
func (s *State) applyOp(format uint32, op *wire.Op) (OpResult, error) {
	if err := checkText("an actor", op.GetActor(), 0, maxActor); err != nil {
		return OpResult{}, err
	}
	actor := wire.DeviceID(op.GetActor())
	if found := op.GetFoundSwarm(); found != nil {
		return OpResult{}, s.foundSwarm(found)
	}
	if !s.Founded() {
		return OpResult{}, wire.Errorf(wire.Code_CODE_PRECONDITION, "the swarm is not founded yet")
	}
	switch k := op.GetKind().(type) {
	case *wire.Op_IssueInvite:
		return s.issueInvite(actor, k.IssueInvite)
	case *wire.Op_RevokeInvite:
		return OpResult{}, s.revokeInvite(k.RevokeInvite)
	case *wire.Op_AdmitDevice:
		return s.admitDevice(k.AdmitDevice)
	case *wire.Op_UpdateDevice:
		return OpResult{}, s.updateDevice(format, k.UpdateDevice)
	case *wire.Op_SetPresence:
		return OpResult{}, s.setPresence(k.SetPresence)
	case *wire.Op_RemoveDevice:
		return OpResult{}, s.removeDevice(k.RemoveDevice)
	}
	if format >= 2 {
		switch k := op.GetKind().(type) {
		case *wire.Op_SetDeviceMode:
			return OpResult{}, s.setDeviceMode(k.SetDeviceMode)
		case *wire.Op_RaiseGeneration:
			return OpResult{}, s.raiseGeneration(wire.DeviceID(op.GetActor()), k.RaiseGeneration)
		}
	}
	return s.applyJobOp(format, actor, op)
}

func (s *State) applyJobOp(format uint32, actor wire.DeviceID, op *wire.Op) (OpResult, error) {
	switch k := op.GetKind().(type) {
	case *wire.Op_SubmitJob:
		return s.submitJob(actor, k.SubmitJob)
	case *wire.Op_AppendInputs:
		return s.appendInputs(k.AppendInputs)
	case *wire.Op_CloseInputs:
		return OpResult{}, s.closeInputs(k.CloseInputs)
	case *wire.Op_CompleteTasks:
		return s.completeTasks(k.CompleteTasks)
	case *wire.Op_CancelJob:
		return OpResult{}, s.cancelJob(k.CancelJob)
	case *wire.Op_RetryJob:
		return s.retryJob(k.RetryJob)
	case *wire.Op_PurgeJob:
		return OpResult{}, s.purgeJob(k.PurgeJob, format >= 2 && k.PurgeJob.GetKeepRecord())
	case *wire.Op_PackResults:
		return OpResult{}, s.packResults(k.PackResults)
	case *wire.Op_Sweep:
		s.sweep()
		return OpResult{}, nil
	}
	return OpResult{}, invalid("an operation of no kind that is known in the command's format")
}
