package state

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

var (
	commandsFlag = flag.Int64("commands", 0, "random commands that are applied twice; 0 means what CI does")
	seedFlag     = flag.Uint64("seed", 0, "seed of the first random log; 0 draws one")
)

const (
	// logLength is how many commands one random log has.
	logLength = 10_000
	// hashedEvery is how many commands lie between two comparisons of hashes;
	// outcomes are compared after each.
	hashedEvery = 500
	// cutEvery is the mean of the commands between two snapshots.
	cutEvery = 700
)

func TestAMillionRandomCommandsGiveOneState(t *testing.T) {
	total := *commandsFlag
	switch {
	case total > 0:
	case testing.Short():
		total = 5 * logLength
	default:
		total = 1_000_000
	}
	seed := cmp.Or(*seedFlag, rand.Uint64N(1<<32))
	t.Logf("%d commands in logs of %d, seeds from %d on", total, logLength, seed)
	logs := uint64(total+logLength-1) / logLength
	begun, done := time.Now(), tally{}
	var next atomic.Uint64
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			joins := make(signed)
			for n := next.Add(1) - 1; n < logs && !t.Failed(); n = next.Add(1) - 1 {
				length := min(logLength, total-int64(n)*logLength)
				if err := newTwins(seed+n, joins, &done).run(int(length)); err != nil {
					t.Errorf("seed %d: %v", seed+n, err)
				}
			}
		})
	}
	workers.Wait()
	t.Logf("%v in %v", &done, time.Since(begun).Round(time.Millisecond))
	if done.commands.Load() != total && !t.Failed() {
		t.Errorf("%d commands were applied, want %d", done.commands.Load(), total)
	}
	if done.accepted.Load() < total/2 || done.cuts.Load() == 0 || done.recorded.Load() < total/2 {
		t.Errorf("these logs say too little: %v", &done)
	}
}

// The check is checked: it has to see a state that looks at a clock of its own.
func TestAClockInsideApplyDivergesTheStates(t *testing.T) {
	w := newTwins(cmp.Or(*seedFlag, 1), make(signed), &tally{})
	w.skew = func(cmd *wire.Command) { cmd.TimeMs += 3 }
	if err := w.run(logLength); err == nil {
		t.Error("two states that went by two clocks passed for one")
	}
}

// tally counts what was applied.
type tally struct{ commands, accepted, refused, recorded, cuts atomic.Int64 }

func (c *tally) String() string {
	return fmt.Sprintf("%d commands applied twice, %d operations accepted, %d refused, %d results recorded, %d snapshots restored",
		c.commands.Load(), c.accepted.Load(), c.refused.Load(), c.recorded.Load(), c.cuts.Load())
}

// twins are two states that one log is applied to: one from its start to its
// end, the other as another member has it: decoded from bytes, and thrown away
// at random cuts for what its snapshot brings back.
type twins struct {
	*maker
	other *State
	count *tally
	skew  func(*wire.Command) // alters what the other state is given; may be nil
}

func newTwins(seed uint64, joins signed, count *tally) *twins {
	m := &maker{random: rand.New(rand.NewPCG(seed, 0)), joins: joins, s: New(), nowMS: startMS}
	return &twins{maker: m, other: New(), count: count}
}

func (w *twins) run(commands int) error {
	for k := range commands {
		if w.random.IntN(cutEvery) == 0 {
			if err := w.cut(); err != nil {
				return fmt.Errorf("before command %d: %w", k, err)
			}
		}
		cmd := w.command()
		if err := w.apply(cmd); err != nil {
			return fmt.Errorf("command %d, %v: %w", k, cmd, err)
		}
		if (k+1)%hashedEvery == 0 || k+1 == commands {
			if w.s.Hash() != w.other.Hash() {
				return fmt.Errorf("after command %d the states have two hashes", k)
			}
		}
		w.count.commands.Add(1)
	}
	return nil
}

// apply applies a command to both states.
func (w *twins) apply(cmd *wire.Command) error {
	data, err := proto.Marshal(cmd)
	if err != nil {
		return err
	}
	again := new(wire.Command)
	if err := proto.Unmarshal(data, again); err != nil {
		return err
	}
	if w.skew != nil {
		w.skew(again)
	}
	want, got := w.s.Apply(1, cmd), w.other.Apply(1, again)
	if len(got.Results) != len(want.Results) || !slices.Equal(got.Named, want.Named) || !slices.Equal(got.Released, want.Released) {
		return fmt.Errorf("two outcomes:\n%+v\n%+v", want, got)
	}
	for i := range want.Results {
		a, b := &want.Results[i], &got.Results[i]
		if !sameError(a.Err, b.Err) || a.Total != b.Total || a.Attached != b.Attached || a.ID != b.ID || a.Role != b.Role || !slices.Equal(a.Verdicts, b.Verdicts) {
			return fmt.Errorf("two outcomes of operation %d:\n%+v\n%+v", i, *a, *b)
		}
		w.tell(a)
	}
	return nil
}

func sameError(a, b error) bool {
	if a == nil || b == nil {
		return a == b
	}
	return wire.CodeOf(a) == wire.CodeOf(b) && a.Error() == b.Error()
}

func (w *twins) tell(r *OpResult) {
	if r.Err != nil {
		w.count.refused.Add(1)
		return
	}
	w.count.accepted.Add(1)
	for _, v := range r.Verdicts {
		if v == Recorded || v == FailedFinally {
			w.count.recorded.Add(1)
		}
	}
}

// cut puts what a snapshot brings back in the place of the other state.
func (w *twins) cut() error {
	var buf bytes.Buffer
	if err := w.other.Snapshot(&buf); err != nil {
		return err
	}
	again, err := Restore(bytes.NewReader(buf.Bytes()))
	if err != nil {
		return err
	}
	if again.Hash() != w.other.Hash() {
		return errors.New("a restored state has another hash")
	}
	w.other = again
	w.count.cuts.Add(1)
	return nil
}

// signed keeps requests to join: signing costs more than all else here.
type signed map[[3]int]*wire.JoinRequest

func (s signed) join(invite, device int, role wire.Role) *wire.JoinRequest {
	key := [3]int{invite, device, int(role)}
	if s[key] == nil {
		s[key] = joinRequest(invite, device, role)
	}
	return s[key]
}

// maker makes up commands that suit the state often enough. It draws numbers
// itself: rapid's generators would be most of the cost.
type maker struct {
	random *rand.Rand
	joins  signed
	s      *State
	nowMS  int64
	serial uint32
	ids    []string // of devices, by number
}

func (w *maker) n(n int) int { return w.random.IntN(n) }

// one reports true once in n times.
func (w *maker) one(n int) bool { return w.random.IntN(n) == 0 }

// page returns one of n pages of a kind.
func (w *maker) page(kind byte, n int) []byte {
	var h [32]byte
	h[0], h[1] = kind, byte(w.n(n))
	return h[:]
}

// fresh returns bytes of a hash's size that were not there before.
func (w *maker) fresh() []byte {
	w.serial++
	var h [32]byte
	binary.BigEndian.PutUint32(h[4:], w.serial)
	return h[:]
}

const makerDevices = 12

func (w *maker) device(n int) string {
	for len(w.ids) <= n {
		w.ids = append(w.ids, string(deviceID(len(w.ids))))
	}
	return w.ids[n]
}

func (w *maker) someDevice() string { return w.device(w.n(makerDevices)) }

// command makes up the next command of the log.
func (w *maker) command() *wire.Command {
	switch x := w.n(1000); {
	case x < 500:
		w.nowMS += int64(w.n(20))
	case x < 520:
		w.nowMS += int64(w.n(hourMS))
	case x < 523:
		w.nowMS += int64(w.n(30 * hourMS))
	case x < 540:
		w.nowMS -= int64(w.n(hourMS)) // a proposer that is wrong: the state must not follow
	}
	c := &wire.Command{Format: Format, Term: 1, TimeMs: w.nowMS}
	switch w.n(200) {
	case 0:
		c.Term = 2
	case 1, 2, 3, 4, 5, 6:
		c.Format = 1
	case 7:
		c.Format = Format + 1
	}
	for more := true; more; more = w.one(3) {
		c.Ops = append(c.Ops, w.op())
	}
	return c
}

func (w *maker) op() *wire.Op {
	if !w.s.Founded() {
		return wrap(foundOp())
	}
	op := &wire.Op{Actor: w.someDevice()}
	if w.one(7) {
		w.registry(op)
		return op
	}
	w.job(op)
	return op
}

func (w *maker) job(op *wire.Op) {
	id := string(rune('a' + w.n(10)))
	j := w.s.Job(wire.JobID(id))
	switch x := w.n(100); {
	case j == nil && x < 70, x < 2:
		op.Kind = &wire.Op_SubmitJob{SubmitJob: w.submit(id)}
	case x < 15:
		op.Kind = &wire.Op_AppendInputs{AppendInputs: w.append(id, j)}
	case x < 19:
		total := uint32(w.n(6))
		if j != nil && !w.one(5) {
			total = j.Total()
		}
		op.Kind = &wire.Op_CloseInputs{CloseInputs: &wire.CloseInputs{JobId: id, Total: total}}
	case x < 20:
		op.Kind = &wire.Op_CancelJob{CancelJob: &wire.CancelJob{JobId: id, Reason: "enough"}}
	case x < 23:
		op.Kind = &wire.Op_RetryJob{RetryJob: &wire.RetryJob{JobId: id}}
	case x < 29 || j != nil && j.Ended() && x < 60:
		op.Kind = &wire.Op_PurgeJob{PurgeJob: &wire.PurgeJob{JobId: id, KeepRecord: w.one(2)}}
	case x < 36:
		op.Kind = &wire.Op_PackResults{PackResults: w.pack(id, j)}
	case x < 37:
		op.Kind = &wire.Op_Sweep{Sweep: &wire.Sweep{}}
	default:
		op.Kind = &wire.Op_CompleteTasks{CompleteTasks: w.complete(id, j)}
	}
}

func (w *maker) submit(id string) *wire.SubmitJob {
	spec := testSpec()
	spec.Program = testProgram([]string{"cat", "wc", "sed"}[w.n(3)])
	spec.KeepGoing, spec.Detached, spec.Retries = !w.one(3), w.one(2), uint32(w.n(3))
	op := &wire.SubmitJob{JobId: id, Spec: spec, Close: w.one(4)}
	if !w.one(3) {
		op.Inputs = &wire.AppendInputs{Segments: w.segments(0), DigestAfter: w.fresh()}
	}
	return op
}

func (w *maker) segments(first uint32) []*wire.Segment {
	var list []*wire.Segment
	for more := true; more; more = w.one(2) {
		var g *wire.Segment
		switch w.n(3) {
		case 0:
			g = inlineSegment(first, "x", "", "yz")
		case 1:
			g = &wire.Segment{First: first, Count: uint32(1 + w.n(60)), Page: w.page('i', 6), Bytes: uint64(w.n(5000))}
		default:
			g = &wire.Segment{First: first, Count: 1, Bytes: wire.PageSize + 1, Blob: &wire.Blob{
				Size: wire.PageSize + 1, Pages: [][]byte{w.page('i', 6), w.page('i', 6)},
			}}
		}
		first += g.GetCount()
		list = append(list, g)
	}
	return list
}

func (w *maker) append(id string, j *Job) *wire.AppendInputs {
	op := &wire.AppendInputs{JobId: id, DigestAfter: w.fresh()}
	if j == nil || w.one(8) {
		op.Segments = w.segments(uint32(w.n(6)))
		return op
	}
	d := j.Digest()
	op.DigestBefore, op.Segments = d[:], w.segments(j.Total())
	return op
}

func (w *maker) complete(id string, j *Job) *wire.CompleteTasks {
	op := &wire.CompleteTasks{JobId: id, Devices: []string{w.someDevice(), w.someDevice()}}
	total := 8
	if j != nil && j.Total() > 0 {
		total = int(j.Total())
		op.LeasedBelow = uint32(w.n(total + 1))
	}
	n := 1 + w.n(8)
	if w.one(6) {
		n = 1 + w.n(90)
	}
	from, step := w.n(total), 1+w.n(3)
	var records [][]byte
	for k := range n {
		op.Indexes = append(op.Indexes, uint32((from+k*step)%total))
		op.Outcomes = append(op.Outcomes, "\x00\x00\x00\x00\x00\x00\x00\x01\x01\x02"[w.n(10)])
		op.DeviceOf = append(op.DeviceOf, uint32(k%2))
		records = append(records, w.fresh()[:8])
	}
	op.Results = &wire.Segment{Count: uint32(n)}
	if w.one(3) {
		op.Results.Page = w.fresh()
	} else {
		op.Results.Inline = wire.EncodePack(records)
	}
	for w.one(4) {
		op.OutputPages = append(op.OutputPages, w.page('o', 8))
	}
	return op
}

func (w *maker) pack(id string, j *Job) *wire.PackResults {
	op := &wire.PackResults{JobId: id, Batches: 1, Page: w.fresh()}
	if j == nil {
		return op
	}
	first, n := j.InlineRun()
	if n > 1 && w.one(3) {
		first, n = first+1, n-1
	}
	op.FirstBatch, op.Batches = uint32(first), uint32(n)
	return op
}

func (w *maker) registry(op *wire.Op) {
	n := w.n(makerDevices)
	id := w.device(n)
	switch x := w.n(100); {
	case x < 10:
		k := 200 + 2*w.n(4)
		op.Kind = &wire.Op_IssueInvite{IssueInvite: &wire.IssueInvite{
			LinkKey: public(testKey(k)), CodeKey: public(testKey(k + 1)), Role: wire.Role(1 + w.n(3)),
			MaxUses: uint32(w.n(4)), ExpiresAtMs: w.nowMS + int64(w.n(3))*hourMS,
		}}
	case x < 22:
		op.Kind = &wire.Op_AdmitDevice{AdmitDevice: &wire.AdmitDevice{Join: w.joins.join(200+w.n(8), n, wire.Role(w.n(2)))}}
	case x < 50:
		op.Kind = &wire.Op_SetPresence{SetPresence: &wire.SetPresence{DeviceId: id, Online: w.one(2)}}
	case x < 60:
		op.Kind = &wire.Op_UpdateDevice{UpdateDevice: &wire.UpdateDevice{DeviceId: id, Name: fmt.Sprint("name ", w.n(50))}}
	case x < 75:
		p := profile(fmt.Sprint("p", w.n(5)))
		p.Replica = []string{"", "", "0123456789abcdef", "fedcba9876543210", "not hexadecimal!"}[w.n(5)]
		op.Kind = &wire.Op_UpdateDevice{UpdateDevice: &wire.UpdateDevice{DeviceId: id, Profile: p}}
	case x < 95:
		op.Kind = &wire.Op_SetDeviceMode{SetDeviceMode: &wire.SetDeviceMode{DeviceId: id, Mode: wire.DeviceMode(w.n(5))}}
	case x < 97:
		op.Kind = &wire.Op_RevokeInvite{RevokeInvite: &wire.RevokeInvite{InviteId: inviteID(public(testKey(200 + 2*w.n(4))))}}
	case x < 99:
		op.Kind = &wire.Op_RaiseGeneration{RaiseGeneration: &wire.RaiseGeneration{Generation: w.s.Generation() + uint64(w.n(3)) - min(1, w.s.Generation())}}
	default:
		op.Kind = &wire.Op_RemoveDevice{RemoveDevice: &wire.RemoveDevice{DeviceId: id}}
	}
}
