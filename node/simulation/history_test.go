package simulation

import (
	"crypto/ed25519"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/ostrich-legs/ostrich/consensus/state"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// checkLimit bounds the search for an order of one history.
const checkLimit = 2 * time.Second

// history is what was called and answered, by the job, the invite or the device
// that it is about.
type history struct {
	mu      sync.Mutex
	tracked map[wire.JobID]bool
	rounds  map[wire.JobID]int
	jobs    map[wire.JobID][]porcupine.Operation
	invites map[string][]porcupine.Operation
	devices map[wire.DeviceID][]porcupine.Operation
}

func newHistory() *history {
	return &history{
		tracked: make(map[wire.JobID]bool),
		rounds:  make(map[wire.JobID]int),
		jobs:    make(map[wire.JobID][]porcupine.Operation),
		invites: make(map[string][]porcupine.Operation),
		devices: make(map[wire.DeviceID][]porcupine.Operation),
	}
}

// track lets the history of a job be kept. It has at most 64 tasks.
func (h *history) track(id wire.JobID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tracked[id] = true
}

// again begins another round of a job's ID.
func (h *history) again(id wire.JobID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.rounds[id]++
}

func (h *history) round(id wire.JobID) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.rounds[id]
}

// job notes a call about a job and its answer.
func (h *history) job(called time.Time, id wire.JobID, in jobInput, err error, seen jobOutput) {
	out := seen
	out.code = wire.CodeOf(err)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.tracked[id] {
		h.jobs[id] = append(h.jobs[id], operation(called, in, out, out.code))
	}
}

// complete notes a batch of results and the log's verdicts. The group says of
// what is unavailable that it has not happened and will not.
func (h *history) complete(called time.Time, id wire.JobID, op *wire.CompleteTasks, result state.OpResult, err error) {
	h.mu.Lock()
	tracked := h.tracked[id]
	h.mu.Unlock()
	if !tracked || wire.CodeOf(err) == wire.Code_CODE_UNAVAILABLE {
		return
	}
	in := jobInput{kind: "complete", outcomes: string(op.GetOutcomes())}
	for _, i := range op.GetIndexes() {
		in.indexes += string(rune(i))
	}
	var out jobOutput
	for _, v := range result.Verdicts {
		out.verdicts += string(rune(v))
	}
	h.job(called, id, in, err, out)
}

// invite notes a call about an invite and its answer.
func (h *history) invite(called time.Time, key ed25519.PublicKey, in inviteInput, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	code := wire.CodeOf(err)
	h.invites[string(key)] = append(h.invites[string(key)], operation(called, in, code, code))
}

// device notes a call about a device of the registry and its answer.
func (h *history) device(called time.Time, id wire.DeviceID, in deviceInput, out deviceOutput) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.devices[id] = append(h.devices[id], operation(called, in, out, out.code))
}

// operation is a call that ends now, or, where its outcome is unknown, never
// has to.
func operation(called time.Time, in, out any, code wire.Code) porcupine.Operation {
	op := porcupine.Operation{Input: in, Call: called.UnixNano(), Output: out, Return: time.Now().UnixNano()}
	if unknown(code) {
		op.Return = math.MaxInt64
	}
	return op
}

// unknown reports whether the call may still take effect.
func unknown(code wire.Code) bool {
	switch code {
	case wire.Code_CODE_UNKNOWN_OUTCOME, wire.Code_CODE_UNAVAILABLE, wire.Code_CODE_EXHAUSTED:
		return true
	}
	return false
}

// verdict is what the check of all histories gave.
type verdict struct {
	operations int
	histories  int
	undecided  int // histories whose orders were too many to try
	wrong      []string
}

// check looks for an order of each history.
func (h *history) check() (v verdict) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for id, ops := range h.jobs {
		v.check(jobModel(), "job "+string(id), ops)
	}
	for key, ops := range h.invites {
		v.check(inviteModel(), fmt.Sprintf("invite %x", key[:4]), ops)
	}
	for id, ops := range h.devices {
		v.check(deviceModel(), "device "+id.Short(), ops)
	}
	return v
}

func (v *verdict) check(model porcupine.Model, what string, ops []porcupine.Operation) {
	v.operations += len(ops)
	v.histories++
	switch porcupine.CheckOperationsTimeout(model, ops, checkLimit) {
	case porcupine.Unknown:
		v.undecided++
	case porcupine.Illegal:
		v.wrong = append(v.wrong, fmt.Sprintf("the history of %s is in no order possible:%s", what, describe(ops)))
	}
}

func describe(ops []porcupine.Operation) (text string) {
	const day = int64(24 * time.Hour)
	for _, op := range ops {
		returned := "never"
		if op.Return != math.MaxInt64 {
			returned = time.Duration(op.Return % day).String()
		}
		text += fmt.Sprintf("\n\t%v … %s: %+v → %+v", time.Duration(op.Call%day), returned, op.Input, op.Output)
	}
	return text
}

// jobInput is a call about a job.
type jobInput struct {
	kind              string // submit, append, close, cancel, complete, get
	first, n          uint32 // submit, append, close
	close             bool   // submit
	indexes, outcomes string // complete: a rune, a byte each
}

// jobOutput is what was answered.
type jobOutput struct {
	code     wire.Code
	verdicts string // complete: a rune each
	// get
	state            wire.JobState
	total, completed uint64
	closed           bool
}

// jobState is a job as the model knows it.
type jobState struct {
	exists, closed bool
	phase          state.Phase
	total          uint32
	done           uint64 // a bit each
}

// jobModel says what one job does when one call comes after the other. A call
// of unknown outcome takes effect when the search finds it convenient: at the
// end, if it never did.
func jobModel() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return jobState{} },
		Step: func(s, in, out any) (bool, any) {
			return s.(jobState).step(in.(jobInput), out.(jobOutput))
		},
	}
}

func (s jobState) step(in jobInput, out jobOutput) (bool, any) {
	anything := unknown(out.code)
	answer := func(next jobState, code wire.Code) (bool, any) { return anything || out.code == code, next }
	const ok, gone, refused = wire.Code_CODE_UNSPECIFIED, wire.Code_CODE_NOT_FOUND, wire.Code_CODE_PRECONDITION
	switch {
	case in.kind == "submit":
		if !s.exists {
			s = jobState{exists: true, total: in.n, closed: in.close}.settled()
		}
		return answer(s, ok)
	case in.kind == "complete":
		return s.complete(in, out)
	case !s.exists:
		return answer(s, gone)
	case in.kind == "append":
		if in.first+in.n > s.total && (s.closed || s.phase != state.Open) {
			return answer(s, refused)
		}
		s.total = max(s.total, in.first+in.n)
		return answer(s, ok)
	case in.kind == "close":
		if !s.closed && s.phase != state.Open || s.total != in.n {
			return answer(s, refused)
		}
		s.closed = true
		return answer(s.settled(), ok)
	case in.kind == "cancel":
		if s.phase == state.Done {
			return answer(s, refused)
		}
		s.phase = state.Cancelled
		return answer(s, ok)
	}
	return anything || s.shows(out), s
}

// complete judges results as the log does.
func (s jobState) complete(in jobInput, out jobOutput) (bool, any) {
	verdicts := []rune(out.verdicts)
	same := true
	for k, i := range []rune(in.indexes) {
		verdict := state.Unwanted
		if s.exists && s.phase == state.Open && s.done&(1<<i) == 0 {
			verdict = state.Retry
			if in.outcomes[k] == wire.OutcomeOK {
				verdict = state.Recorded
				s.done |= 1 << i
			}
		}
		same = same && k < len(verdicts) && verdicts[k] == rune(verdict)
	}
	return unknown(out.code) || same, s.settled()
}

// settled ends a job whose tasks have all ended.
func (s jobState) settled() jobState {
	if s.phase == state.Open && s.closed && s.done == 1<<s.total-1 {
		s.phase = state.Done
	}
	return s
}

// shows reports whether a look at the job could see this.
func (s jobState) shows(out jobOutput) bool {
	phase := state.Open
	switch out.state {
	case wire.JobState_JOB_STATE_DONE:
		phase = state.Done
	case wire.JobState_JOB_STATE_CANCELLED:
		phase = state.Cancelled
	case wire.JobState_JOB_STATE_FAILED:
		phase = state.Failed
	}
	completed := uint64(0)
	for bit := range s.total {
		completed += s.done >> bit & 1
	}
	return out.code == wire.Code_CODE_UNSPECIFIED && out.total == uint64(s.total) && out.closed == s.closed &&
		phase == s.phase && completed == out.completed
}

// inviteInput is a call about an invite.
type inviteInput struct {
	kind   string // issue, admit, revoke
	uses   int    // issue
	device int    // admit: a small number
}

// inviteState is an invite as the model knows it.
type inviteState struct {
	exists, revoked bool
	left            int
	used            uint64 // a bit for each device
}

// inviteModel says what one invite does when one call comes after the other.
func inviteModel() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return inviteState{} },
		Step: func(s, in, out any) (bool, any) {
			return s.(inviteState).step(in.(inviteInput), out.(wire.Code))
		},
	}
}

func (s inviteState) step(in inviteInput, code wire.Code) (bool, any) {
	answer := func(next inviteState, want wire.Code) (bool, any) { return unknown(code) || code == want, next }
	const ok, gone, denied = wire.Code_CODE_UNSPECIFIED, wire.Code_CODE_NOT_FOUND, wire.Code_CODE_DENIED
	switch {
	case in.kind == "issue":
		if !s.exists {
			s = inviteState{exists: true, left: in.uses}
		}
		return answer(s, ok)
	case !s.exists:
		return answer(s, gone)
	case in.kind == "revoke":
		s.revoked = true
		return answer(s, ok)
	case s.used&(1<<in.device) != 0:
		return answer(s, ok)
	case s.revoked || s.left == 0:
		return answer(s, denied)
	}
	s.left--
	s.used |= 1 << in.device
	return answer(s, ok)
}
