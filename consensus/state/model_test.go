package state

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// world makes up random logs, and remembers what each command said.
type world struct {
	*rapid.T
	s      *State
	nowMS  int64
	serial int
	// packs holds the packs of results, by page.
	packs map[wire.Hash][]byte
	// named follows the outcomes.
	named map[wire.Hash]bool
	// recorded counts, by job and task, the results since the last retry.
	recorded map[wire.JobID]map[uint32]int
	byDevice map[wire.DeviceID]uint64
	// known are the devices as of the operation that is followed.
	known map[wire.DeviceID]bool
}

func newWorld(t *rapid.T) *world {
	return &world{
		T: t, s: New(), nowMS: startMS, packs: map[wire.Hash][]byte{}, named: map[wire.Hash]bool{},
		recorded: map[wire.JobID]map[uint32]int{}, byDevice: map[wire.DeviceID]uint64{}, known: map[wire.DeviceID]bool{},
	}
}

func (w *world) pick(n int, label string) int { return rapid.IntRange(0, n-1).Draw(w.T, label) }

func (w *world) jobID() string { return string(rune('a' + w.pick(4, "job"))) }

// anyOp returns an operation that is often, but not always, sensible.
func (w *world) anyOp() any {
	if !w.s.Founded() {
		return foundOp()
	}
	switch w.pick(20, "kind") {
	case 0, 1:
		return w.submitOp()
	case 2, 3, 4:
		return w.appendOp()
	case 5:
		id := w.jobID()
		total := uint32(w.pick(4, "total"))
		if j := w.s.Job(wire.JobID(id)); j != nil && w.pick(4, "honest") > 0 {
			total = j.Total()
		}
		return &wire.CloseInputs{JobId: id, Total: total}
	case 6, 7, 8, 9, 10:
		return w.completeOp()
	case 11:
		return &wire.RetryJob{JobId: w.jobID()}
	case 12:
		if w.pick(4, "purge") > 0 {
			return w.packOp()
		}
		return &wire.PurgeJob{JobId: w.jobID(), KeepRecord: w.pick(2, "record") == 1}
	case 13:
		return w.packOp()
	case 14:
		return &wire.Sweep{}
	case 15:
		return &wire.CancelJob{JobId: w.jobID(), Reason: "enough"}
	}
	return w.registryOp()
}

func (w *world) registryOp() any {
	id := string(deviceID(w.pick(4, "device")))
	switch w.pick(8, "registry") {
	case 6:
		return &wire.SetDeviceMode{DeviceId: id, Mode: wire.DeviceMode(w.pick(4, "mode"))}
	case 7:
		return w.formatTwoOp(id)
	case 0:
		n := 200 + 2*w.pick(3, "invite")
		return &wire.IssueInvite{
			LinkKey: public(testKey(n)), CodeKey: public(testKey(n + 1)), Role: wire.Role(1 + w.pick(3, "role")),
			MaxUses: uint32(w.pick(3, "uses")), ExpiresAtMs: w.nowMS + int64(w.pick(3, "ttl"))*hourMS,
		}
	case 1:
		return &wire.AdmitDevice{Join: joinRequest(200+w.pick(6, "key"), w.pick(4, "device"), wire.Role(w.pick(4, "role")))}
	case 2:
		return &wire.SetPresence{DeviceId: id, Online: w.pick(2, "online") == 1}
	case 3:
		return &wire.UpdateDevice{DeviceId: id, Name: "renamed"}
	case 4:
		return &wire.UpdateDevice{DeviceId: id, Profile: profile(fmt.Sprint("p", w.pick(3, "profile")))}
	}
	if w.pick(3, "remove") > 0 {
		return &wire.RevokeInvite{InviteId: inviteID(public(testKey(200)))}
	}
	return &wire.RemoveDevice{DeviceId: id}
}

// formatTwoOp returns, for a device, what programs of format 1 do not know.
func (w *world) formatTwoOp(id string) any {
	if w.pick(2, "generation") == 1 {
		return &wire.RaiseGeneration{Generation: w.s.Generation() + uint64(w.pick(3, "more")) - 1}
	}
	p := profile("with a replica")
	p.Replica = []string{"0123456789abcdef", "fedcba9876543210", "none"}[w.pick(3, "replica")]
	return &wire.UpdateDevice{DeviceId: id, Profile: p}
}

func (w *world) submitOp() any {
	op := submit(w.jobID(), w.pick(2, "close") == 1)
	op.Spec.Program = testProgram([]string{"cat", "wc"}[w.pick(2, "program")])
	op.Spec.KeepGoing = w.pick(3, "keep going") > 0
	op.Spec.Retries = uint32(w.pick(3, "retries"))
	op.Spec.Detached = w.pick(2, "detached") == 1
	if w.pick(2, "inputs") == 1 {
		op.Inputs = &wire.AppendInputs{Segments: w.segments(0), DigestAfter: digest(fmt.Sprint(w.serial))}
	}
	return op
}

// segments returns some inputs from first on, in pages that jobs may share.
func (w *world) segments(first uint32) []*wire.Segment {
	var list []*wire.Segment
	for range 1 + w.pick(3, "segments") {
		var seg *wire.Segment
		switch page := fmt.Sprint("input ", w.pick(4, "page")); w.pick(3, "segment") {
		case 0:
			seg = inlineSegment(first, "x", "", "yz")
		case 1:
			seg = pageSegment(first, uint32(1+w.pick(80, "count")), page)
		case 2:
			seg = blobSegment(first, page)
		}
		first += seg.GetCount()
		list = append(list, seg)
	}
	return list
}

func (w *world) appendOp() any {
	id := w.jobID()
	w.serial++
	op := &wire.AppendInputs{JobId: id, DigestAfter: digest(fmt.Sprint(w.serial)), Segments: w.segments(uint32(w.pick(6, "first")))}
	if j := w.s.Job(wire.JobID(id)); j != nil && w.pick(5, "honest") > 0 {
		d := j.Digest()
		op.DigestBefore = d[:]
		op.Segments = w.segments(j.Total())
	}
	return op
}

func (w *world) completeOp() any {
	id := w.jobID()
	j := w.s.Job(wire.JobID(id))
	total := 8
	if j != nil && j.Total() > 0 {
		total = int(j.Total())
	}
	w.serial++
	op := &wire.CompleteTasks{JobId: id}
	for i := range 4 {
		op.Devices = append(op.Devices, string(deviceID(i)))
	}
	n := 1 + w.pick(90, "records")
	from, step := w.pick(total, "from"), 1+w.pick(3, "step")
	var records [][]byte
	for k := range n {
		i := uint32((from + k*step) % total)
		op.Indexes = append(op.Indexes, i)
		op.Outcomes = append(op.Outcomes, []byte{0, 0, 0, 0, 0, 0, 1, 1, 1, 2}[w.pick(10, "outcome")])
		op.DeviceOf = append(op.DeviceOf, uint32(k%4))
		records = append(records, fmt.Appendf(nil, "%d of %s, batch %d", i, id, w.serial))
	}
	if j != nil {
		op.LeasedBelow = uint32(w.pick(int(j.Total())+1, "leased"))
	}
	pack := wire.EncodePack(records)
	op.Results = &wire.Segment{Count: uint32(n), Inline: pack}
	if len(pack) > wire.MaxInline || w.pick(3, "page") == 0 {
		h := wire.HashOf(pack)
		w.packs[h] = pack
		op.Results.Inline, op.Results.Page = nil, h[:]
	}
	for range w.pick(3, "outputs") {
		op.OutputPages = append(op.OutputPages, pageHash(fmt.Sprint("output ", w.pick(5, "output"))))
	}
	return op
}

func (w *world) packOp() any {
	id := w.jobID()
	j := w.s.Job(wire.JobID(id))
	if j == nil {
		return &wire.PackResults{JobId: id, Batches: 1, Page: pageHash("x")}
	}
	first, n := j.InlineRun()
	if n > 1 && w.pick(3, "part") == 0 {
		first, n = first+1, n-1
	}
	page, err := j.PackRun(first, n)
	if err != nil {
		return &wire.PackResults{JobId: id, FirstBatch: uint32(first), Batches: uint32(n), Page: pageHash("x")}
	}
	h := wire.HashOf(page)
	w.packs[h] = page
	return &wire.PackResults{JobId: id, FirstBatch: uint32(first), Batches: uint32(n), Page: h[:]}
}

// step makes up a command.
func (w *world) step() *wire.Command {
	w.nowMS += []int64{0, 1, 500, 20 * 60 * 1000, 7 * hourMS}[w.pick(5, "time")] * int64(w.pick(2, "passes"))
	c := &wire.Command{Format: 1, Term: 1, TimeMs: w.nowMS}
	if w.pick(30, "stale") == 0 {
		c.Term = 9
	}
	for range 1 + w.pick(3, "ops") {
		c.Ops = append(c.Ops, wrap(w.anyOp()))
	}
	stamp(c)
	return c
}

// follow checks the outcome of a command against what it said.
func (w *world) follow(c *wire.Command, out Outcome) {
	for k, op := range c.GetOps() {
		if out.Results[k].Err != nil {
			continue
		}
		switch kind := op.GetKind().(type) {
		case *wire.Op_FoundSwarm:
			w.known[deviceID(0)] = true
		case *wire.Op_AdmitDevice:
			w.known[wire.DeviceID(kind.AdmitDevice.GetJoin().GetDeviceId())] = true
		case *wire.Op_RemoveDevice:
			delete(w.known, wire.DeviceID(kind.RemoveDevice.GetDeviceId()))
		case *wire.Op_SubmitJob:
			if id := wire.JobID(kind.SubmitJob.GetJobId()); !out.Results[k].Attached {
				w.recorded[id] = map[uint32]int{}
			}
		case *wire.Op_CompleteTasks:
			w.followComplete(kind.CompleteTasks, out.Results[k].Verdicts)
		case *wire.Op_RetryJob:
			for i, n := range w.recorded[wire.JobID(kind.RetryJob.GetJobId())] {
				if n < 0 {
					delete(w.recorded[wire.JobID(kind.RetryJob.GetJobId())], i)
				}
			}
		}
	}
	for _, h := range out.Named {
		if w.named[h] {
			w.Fatalf("page %v was named twice", h)
		}
		w.named[h] = true
	}
	for _, h := range out.Released {
		delete(w.named, h)
	}
}

func (w *world) followComplete(op *wire.CompleteTasks, verdicts []Verdict) {
	tasks := w.recorded[wire.JobID(op.GetJobId())]
	for k, v := range verdicts {
		i := op.GetIndexes()[k]
		switch v {
		case Recorded, FailedFinally:
			if tasks[i] != 0 {
				w.Fatalf("task %d was recorded twice", i)
			}
			tasks[i] = 1
			if v == FailedFinally {
				tasks[i] = -1
			} else if d := wire.DeviceID(op.GetDevices()[op.GetDeviceOf()[k]]); w.known[d] {
				w.byDevice[d]++
			}
		}
	}
}

// verify checks every invariant of the state.
func (w *world) verify() {
	refs := map[wire.Hash]uint32{}
	name := func(h wire.Hash) { refs[h]++ }
	for _, p := range w.s.programs {
		each(p.program.GetBlob().GetPages(), name)
	}
	stats := w.s.Stats()
	if stats.JobsTotal != stats.JobsOpen+stats.JobsDone+stats.JobsFailed+stats.JobsCancelled {
		w.Fatalf("the counts of jobs do not add up: %+v", stats)
	}
	pending := uint64(0)
	for _, j := range w.s.Jobs() {
		w.verifyJob(j, name)
		if !j.Ended() {
			pending += uint64(j.Total() - j.Completed() - j.Failed())
		}
	}
	if stats.TasksPending != pending {
		w.Fatalf("pending tasks: got %d, want %d", stats.TasksPending, pending)
	}
	if !maps.Equal(refs, w.s.pages.refs) {
		w.Fatalf("pages: the state counts %v, its facts name %v", w.s.pages.refs, refs)
	}
	if got, want := slices.Collect(maps.Keys(w.named)), slices.Collect(w.s.Pages()); len(got) != len(want) {
		w.Fatalf("the outcomes named %d pages, the state names %d", len(got), len(want))
	}
	for h := range w.named {
		if !w.s.Names(h) {
			w.Fatalf("page %v was not released", h)
		}
	}
	w.verifyPast()
	for _, d := range w.s.Devices() {
		if d.TasksCompleted != w.byDevice[d.ID] {
			w.Fatalf("device %s: got %d tasks, want %d", d.Name, d.TasksCompleted, w.byDevice[d.ID])
		}
	}
}

// verifyPast checks what is remembered of jobs that are gone.
func (w *world) verifyPast() {
	seen := map[wire.JobID]bool{}
	for _, p := range w.s.PastJobs() {
		if seen[p.ID] || w.s.Job(p.ID) != nil {
			w.Fatalf("job %s is there, and of the past, or that twice", p.ID)
		}
		seen[p.ID] = true
		if p.Phase == Open || p.Completed+p.Failed > p.Total {
			w.Fatalf("the record of job %s is %+v", p.ID, p)
		}
	}
}

func (w *world) verifyJob(j *Job, name func(wire.Hash)) {
	done, failed := uint32(0), uint32(0)
	for _, n := range w.recorded[j.ID()] {
		if n > 0 {
			done++
		} else {
			failed++
		}
	}
	if j.Completed() != done || j.Failed() != failed || done+failed > j.Total() {
		w.Fatalf("job %s: got %d + %d of %d, want %d + %d", j.ID(), j.Completed(), j.Failed(), j.Total(), done, failed)
	}
	w.verifyResults(j, name)
	openBytes := uint64(0)
	for i := range j.segments {
		g := &j.segments[i]
		if g.wire != nil {
			eachSegmentPage(g.wire, name)
		}
		open := false
		for k := g.first; k < g.first+g.count; k++ {
			ref, ok := j.Input(k)
			if ok != (g.wire != nil) || ok && (ref.Segment != g.wire || ref.Item != int(k-g.first)) {
				w.Fatalf("job %s: input %d is at %+v, %v", j.ID(), k, ref, ok)
			}
			open = open || !j.TaskDone(k)
			if !ok && w.recorded[j.ID()][k] != 1 {
				w.Fatalf("job %s: the bytes of input %d were released before its end", j.ID(), k)
			}
		}
		if open {
			openBytes += g.wire.GetBytes()
		}
	}
	if j.OpenInputBytes() != openBytes {
		w.Fatalf("job %s: got %d open bytes, want %d", j.ID(), j.OpenInputBytes(), openBytes)
	}
}

func (w *world) verifyResults(j *Job, name func(wire.Hash)) {
	inline, current := 0, uint32(0)
	for k, b := range j.batches {
		if b.inline == nil {
			name(b.page)
		}
		for _, h := range b.outputs {
			name(h)
		}
		inline += len(j.BatchInline(k))
	}
	if j.InlineBytes() != inline {
		w.Fatalf("job %s: got %d bytes inline, want %d", j.ID(), j.InlineBytes(), inline)
	}
	if first, n := j.InlineRun(); (n > 0) != (inline > 0) || n > 0 && j.BatchInline(first) == nil {
		w.Fatalf("job %s: inline run %d, %d of %d bytes", j.ID(), first, n, inline)
	}
	for number := range j.Results() {
		ref, ok := j.Result(number)
		if !ok {
			w.Fatalf("job %s has no result %d of %d", j.ID(), number, j.Results())
		}
		pack := ref.Inline
		if pack == nil {
			pack = w.packs[ref.Page]
		}
		item, err := wire.PackItem(pack, ref.Item)
		want := fmt.Sprintf("%d of %s, batch ", ref.Index, j.ID())
		if err != nil || len(item) < len(want) || string(item[:len(want)]) != want {
			w.Fatalf("result %d: got %q (%v), want %q", number, item, err, want)
		}
		at, ok := j.NumberOf(ref.Index)
		if (ok && at == number) == ref.Superseded || !ref.Superseded && ref.Failed != j.TaskFailed(ref.Index) {
			w.Fatalf("result %d is %+v, and its task has number %d, %v", number, ref, at, ok)
		}
		if !ref.Superseded {
			current++
		}
	}
	if current != j.Completed()+j.Failed() {
		w.Fatalf("job %s: %d results of %d tasks", j.ID(), current, j.Completed()+j.Failed())
	}
	if _, ok := j.Result(j.Results()); ok {
		w.Fatalf("job %s has a result that was not recorded", j.ID())
	}
}

func TestInvariantsHoldAfterAnyLog(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(rt)
		for range rapid.IntRange(1, 60).Draw(rt, "commands") {
			c := w.step()
			w.follow(c, w.s.Apply(1, c))
			w.verify()
		}
	})
}

func TestTheSameLogGivesTheSameState(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(rt)
		other := New()
		for range rapid.IntRange(1, 40).Draw(rt, "commands") {
			c := w.step()
			got, want := other.Apply(1, c), w.s.Apply(1, c)
			if !reflect.DeepEqual(got, want) || other.Hash() != w.s.Hash() {
				rt.Fatalf("one log, two outcomes:\n%+v\n%+v", got, want)
			}
		}
	})
}

func TestASnapshotAndTheRestEqualTheWhole(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(rt)
		n := rapid.IntRange(1, 50).Draw(rt, "commands")
		cut := rapid.IntRange(0, n-1).Draw(rt, "cut")
		var other *State
		for k := range n {
			if k == cut {
				if other = restored(t, w.s); other.Hash() != w.s.Hash() {
					rt.Fatal("a restored state has another hash")
				}
			}
			c := w.step()
			want := w.s.Apply(1, c)
			if other == nil {
				continue
			}
			if got := other.Apply(1, c); !reflect.DeepEqual(got, want) || other.Hash() != w.s.Hash() {
				rt.Fatalf("after a snapshot the log goes on differently:\n%+v\n%+v", got, want)
			}
		}
	})
}
