package simulation

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	"github.com/ostrich-legs/ostrich/consensus"
	"github.com/ostrich-legs/ostrich/consensus/state"
	"github.com/ostrich-legs/ostrich/node/coordinator"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// mustBeRed fails the test unless something was wrong in these words.
func (l *ledger) mustBeRed(t *testing.T, words string) {
	t.Helper()
	reds := l.failed()
	for _, r := range reds {
		if strings.Contains(r, words) {
			return
		}
	}
	t.Errorf("a broken rule was not seen: want red with %q, got %d others: %.500q", words, len(reds), reds)
}

// mustBeRight fails the test if anything was wrong: nothing was broken.
func (l *ledger) mustBeRight(t *testing.T) {
	t.Helper()
	for _, red := range l.failed() {
		t.Errorf("nothing was broken, and yet: %s", red)
	}
}

// newIDs is a group that does not know a submit that it has seen: the first
// time its outcome is unknown, and sent again it makes another job.
type newIDs struct {
	coordinator.Group
	mu   sync.Mutex
	seen map[string]bool
}

func (g *newIDs) Propose(ctx context.Context, term uint64, op *wire.Op) (state.OpResult, error) {
	submit := op.GetSubmitJob()
	if submit == nil {
		return g.Group.Propose(ctx, term, op)
	}
	g.mu.Lock()
	again := g.seen[submit.GetJobId()]
	g.seen[submit.GetJobId()] = true
	g.mu.Unlock()
	if again {
		op = proto.CloneOf(op)
		op.GetSubmitJob().JobId += "-again"
		op.GetSubmitJob().GetInputs().JobId = op.GetSubmitJob().GetJobId()
		return g.Group.Propose(ctx, term, op)
	}
	if _, err := g.Group.Propose(ctx, term, op); err != nil {
		return state.OpResult{}, err
	}
	return state.OpResult{}, wire.Errorf(wire.Code_CODE_UNKNOWN_OUTCOME, "it cannot be known whether the operation was committed")
}

// eager is a group that says of every tenth batch of results that it is
// recorded, and does not record it.
type eager struct {
	coordinator.Group
	mu sync.Mutex
	n  int
}

func (g *eager) Propose(ctx context.Context, term uint64, op *wire.Op) (state.OpResult, error) {
	c := op.GetCompleteTasks()
	g.mu.Lock()
	g.n++
	lies := c != nil && g.n%10 == 0
	g.mu.Unlock()
	if !lies {
		return g.Group.Propose(ctx, term, op)
	}
	result := state.OpResult{Verdicts: make([]state.Verdict, len(c.GetIndexes()))}
	for i := range result.Verdicts {
		result.Verdicts[i] = state.Recorded
	}
	return result, nil
}

// credulous is a group that believes that it leads.
type credulous struct{ coordinator.Group }

func (credulous) Verify(context.Context) error { return nil }

func TestSubmitsThatAreNotDeduplicatedAreSeen(t *testing.T) {
	o := options{seed: 1, members: 3, devices: 1, length: 10 * time.Second}
	o.wrap = func(g coordinator.Group) coordinator.Group {
		return &newIDs{Group: g, seen: make(map[string]bool)}
	}
	simulate(t, o).mustBeRed(t, "which nobody submitted")
}

func TestResultsThatAreAcknowledgedAndNotRecordedAreSeen(t *testing.T) {
	o := options{seed: 1, members: 3, devices: 2, length: 10 * time.Second}
	o.wrap = func(g coordinator.Group) coordinator.Group { return &eager{Group: g} }
	simulate(t, o).mustBeRed(t, "has lost the result")
}

// scenario runs f with a swarm, of three members unless o says otherwise, and
// one client.
func scenario(t *testing.T, o options, f func(s *swarm, c *client)) *ledger {
	t.Helper()
	dir := folder(t)
	var l *ledger
	synctest.Test(t, func(t *testing.T) {
		o.members = cmp.Or(o.members, 3)
		s := newSwarm(t, o, dir)
		l = s.ledger
		c := &client{swarm: s, program: s.putProgram(t.Context())}
		f(s, c)
		s.mustHoldWhatWasAcknowledged([]*client{c})
		s.close()
	})
	for _, w := range l.history.check().wrong {
		l.red("%s", w)
	}
	return l
}

// begin submits a job of one input that stays open for more.
func (c *client) begin(ctx context.Context, m *machine) *jobPlan {
	j := &jobPlan{
		id: "watched", name: "watched", inputs: [][]byte{[]byte("Pone"), []byte("Ptwo")}, small: true,
		spec: &wire.JobSpec{Program: c.program, Env: []string{"JOB=watched"}, TimeoutMs: 60_000, MemoryMib: 64, MaxOutputBytes: 1 << 20, Detached: true},
	}
	c.swarm.ledger.history.track(j.id)
	c.jobs = append(c.jobs, j)
	inputs, err := c.pack(ctx, j, 0, 1)
	if err == nil {
		in := jobInput{kind: "submit", n: 1}
		_, err = c.call(ctx, m, j, in, &wire.Request{Kind: &wire.Request_SubmitJob{SubmitJob: &wire.SubmitJobRequest{
			JobId: string(j.id), Spec: j.spec, Inputs: inputs,
		}}})
	}
	if err != nil {
		c.swarm.t.Fatalf("submitting: %v", err)
	}
	j.acked = 1
	return j
}

// readFromADeposedLeader lets a client cancel a job by the new coordinator, and
// then look at it by the old one, which is cut off.
func readFromADeposedLeader(s *swarm, c *client) {
	ctx := s.t.Context()
	old := s.coordinator()
	j := c.begin(ctx, old)
	heal := s.isolate(old)
	next := old
	s.eventually(30*time.Second, "another member coordinates", func() bool {
		for _, m := range s.members {
			if m != old && m.member().lead.Load() != nil {
				next = m
			}
		}
		return next != old
	})
	j.cancel = time.Millisecond
	c.call(ctx, next, j, jobInput{kind: "cancel"}, &wire.Request{Kind: &wire.Request_CancelJob{CancelJob: &wire.CancelJobRequest{JobId: string(j.id)}}})
	time.Sleep(time.Millisecond) // calls that touch count as concurrent
	short, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	c.call(short, old, j, jobInput{kind: "get"}, &wire.Request{Kind: &wire.Request_GetJob{GetJob: &wire.GetJobRequest{JobId: string(j.id)}}})
	heal()
	for _, m := range s.members { // one that clings does not follow
		m.crash(false)
		m.up()
	}
	s.mustAgree()
}

func TestReadsThatDoNotVerifyWhoLeadsAreSeen(t *testing.T) {
	o := options{seed: 1, clings: true, wrap: func(g coordinator.Group) coordinator.Group { return credulous{g} }}
	scenario(t, o, readFromADeposedLeader).mustBeRed(t, "is in no order possible")
	scenario(t, options{seed: 1}, readFromADeposedLeader).mustBeRight(t)
}

// oneComesBackEmpty submits a job while one member is away, lets the member that
// is left with it and the one that was away elect a leader, if they do, and then
// brings the first one back.
func oneComesBackEmpty(s *swarm, c *client) {
	first := s.coordinator()
	var others []*machine
	for _, m := range s.members {
		if m != first {
			others = append(others, m)
		}
	}
	witness, away := others[0], others[1]
	away.crash(false)
	c.begin(s.t.Context(), first)
	first.crash(false)
	witness.crash(false)
	if err := witness.loseLog(); err != nil {
		s.t.Fatal(err)
	}
	witness.up()
	away.up()
	within(30*time.Second, func() bool { return s.coordinator() != nil })
	first.up()
	s.eventually(time.Minute, "all members vote and hold one state", func() bool { return s.agree() && s.allVote() })
}

// A member that lost its log must not vote from the memory that it lacks. With
// the guard of replicas it does not.
func TestAMemberThatVotesAfterLosingItsLogIsSeen(t *testing.T) {
	broken := consensus.Faults{NoReplicas: true}
	scenario(t, options{seed: 1, broken: broken}, oneComesBackEmpty).mustBeRed(t, "has lost job watched")
	scenario(t, options{seed: 1}, oneComesBackEmpty).mustBeRight(t)
}

// ownClock makes each member apply commands with the time of its own clock, as
// an Apply that asks for the time would.
func ownClock(m *machine) func(*raft.Log) {
	const sum = 4 // bytes of checksum before a command; see consensus/entry.go
	return func(l *raft.Log) {
		cmd := new(wire.Command)
		if l.Type != raft.LogCommand || proto.Unmarshal(l.Data[sum:], cmd) != nil {
			return
		}
		cmd.TimeMs = m.clock().UnixMilli()
		data, err := proto.MarshalOptions{}.MarshalAppend(make([]byte, sum), cmd)
		if err != nil {
			return
		}
		binary.BigEndian.PutUint32(data, crc32.Checksum(data[sum:], crc32.MakeTable(crc32.Castagnoli)))
		l.Data = data
	}
}

func TestAClockInsideApplyIsSeen(t *testing.T) {
	o := options{seed: 1, members: 3, devices: 2, length: 20 * time.Second, alter: ownClock}
	simulate(t, o).mustBeRed(t, "is not that of")
}

func TestLeasesThatAreAcceptedWithoutTheirTokenAreSeen(t *testing.T) {
	o := options{seed: 1, members: 3, devices: 2, length: 30 * time.Second, tokensProveNothing: true}
	o.faults = []fault{{"a device is isolated", func(s *swarm) func() { return s.isolate(pick(s, s.devices)) }}}
	simulate(t, o).mustBeRed(t, "forged")
	o.tokensProveNothing = false
	l := simulate(t, o)
	l.mustBeRight(t)
	if l.count.forged.Load() == 0 {
		t.Error("nothing was forged")
	}
}

func TestTheLedgerSeesContradictions(t *testing.T) {
	tests := map[string]struct {
		note func(*ledger)
		want string
	}{
		"two states at one index": {func(l *ledger) {
			l.compare("a", 64, [32]byte{1})
			l.compare("b", 64, [32]byte{2})
		}, "is not that of"},
		"two leaders in one term": {func(l *ledger) {
			l.accepted(7, "a")
			l.accepted(7, "b")
		}, "both accepted in term 7"},
		"a task recorded twice": {func(l *ledger) {
			l.record(recordKey{job: "j"}, wire.OutcomeOK)
			l.record(recordKey{job: "j"}, wire.OutcomeOK)
		}, "was recorded twice"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			l := newLedger()
			test.note(l)
			l.mustBeRed(t, test.want)
		})
	}
}

// step is one call of a made-up history: each begins after the one before has
// ended.
type step struct {
	in   jobInput
	out  jobOutput
	code wire.Code
}

func TestHistoriesWithoutAnOrderAreSeen(t *testing.T) {
	submit := step{in: jobInput{kind: "submit", n: 2, close: true}}
	complete := func(index, verdict rune) step {
		return step{in: jobInput{kind: "complete", indexes: string(index), outcomes: "\x00"}, out: jobOutput{verdicts: string(verdict)}}
	}
	get := func(phase wire.JobState, completed uint64) step {
		return step{in: jobInput{kind: "get"}, out: jobOutput{state: phase, total: 2, completed: completed, closed: true}}
	}
	cancel := step{in: jobInput{kind: "cancel"}}
	lost := step{in: jobInput{kind: "cancel"}, code: wire.Code_CODE_UNKNOWN_OUTCOME}
	first, second := complete(0, rune(state.Recorded)), complete(1, rune(state.Recorded))
	running, done, cancelled := wire.JobState_JOB_STATE_RUNNING, wire.JobState_JOB_STATE_DONE, wire.JobState_JOB_STATE_CANCELLED
	tests := map[string]struct {
		steps []step
		right bool
	}{
		"to its end":                          {[]step{submit, first, get(running, 1), second, get(done, 2)}, true},
		"a completion is lost":                {[]step{submit, first, second, get(running, 1)}, false},
		"a task is recorded twice":            {[]step{submit, first, first}, false},
		"done and then cancelled":             {[]step{submit, first, second, cancel}, false},
		"a cancellation is lost":              {[]step{submit, cancel, get(running, 0)}, false},
		"an unknown cancellation happened":    {[]step{submit, lost, get(cancelled, 0)}, true},
		"an unknown cancellation did not":     {[]step{submit, lost, first, second, get(done, 2)}, true},
		"an unknown cancellation was undone":  {[]step{submit, lost, get(cancelled, 0), get(running, 0)}, false},
		"a look at a job before there is one": {[]step{get(running, 0), submit}, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHistory()
				h.track("j")
				for _, s := range test.steps {
					called := time.Now()
					time.Sleep(time.Second)
					var err error
					if s.code != wire.Code_CODE_UNSPECIFIED {
						err = wire.Errorf(s.code, "made up")
					}
					h.job(called, "j", s.in, err, s.out)
					time.Sleep(time.Second)
				}
				if wrong := h.check().wrong; (len(wrong) == 0) != test.right {
					t.Errorf("right is %v, want %v: %s", len(wrong) == 0, test.right, wrong)
				}
			})
		})
	}
}

func TestAnInviteUsedTooOftenIsSeen(t *testing.T) {
	key := ed25519.PublicKey("made up")
	for admitted := range 4 {
		h := newHistory()
		h.invite(time.Now(), key, inviteInput{kind: "issue", uses: 2}, nil)
		for device := range admitted {
			h.invite(time.Now(), key, inviteInput{kind: "admit", device: device}, nil)
		}
		wrong := h.check().wrong
		if got, want := len(wrong) == 0, admitted <= 2; got != want {
			t.Errorf("%d devices by an invite of two uses: right is %v, want %v: %s", admitted, got, want, fmt.Sprint(wrong))
		}
	}
}
