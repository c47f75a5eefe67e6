package state

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

func TestASubmitHappensOnce(t *testing.T) {
	w := founded(t)
	op := submit("a", false, inlineSegment(0, "x", "y"), pageSegment(2, 3, "p"))
	if r := w.must(op); r.Total != 5 || r.Attached {
		t.Errorf("got %+v", r)
	}
	if len(w.last.Named) != 3 { // two of the program, one of the inputs
		t.Errorf("got %d pages named, want 3", len(w.last.Named))
	}
	if r := w.must(op); r.Total != 5 || !r.Attached {
		t.Errorf("sent twice: got %+v", r)
	}
	other := submit("a", false)
	other.Spec.Args = []string{"-x"}
	w.refuse(other, wire.Code_CODE_CONFLICT)
	j := w.s.Job("a")
	if j.Submitter() != deviceID(0) || j.CreatedAtMS() != startMS || j.Phase() != Open || j.Closed() || j.OpenInputBytes() != 5 {
		t.Errorf("the job is %+v", j)
	}
	if p := w.s.Program(programHash(testProgram("cat"))); p.GetName() != "cat" {
		t.Errorf("its program is %v", p)
	}
}

func TestAnEmptyJobIsDoneAtOnce(t *testing.T) {
	w := founded(t)
	w.must(submit("a", true))
	if j := w.s.Job("a"); j.Phase() != Done || j.EndedAtMS() != startMS || len(w.s.OpenJobs()) != 0 {
		t.Errorf("it is %v", j.Phase())
	}
}

func TestSubmitsAreRefused(t *testing.T) {
	for name, change := range map[string]func(*wire.SubmitJob){
		"no ID":                    func(s *wire.SubmitJob) { s.JobId = "" },
		"a long ID":                func(s *wire.SubmitJob) { s.JobId = strings.Repeat("a", 65) },
		"a strange ID":             func(s *wire.SubmitJob) { s.JobId = "a/b" },
		"no spec":                  func(s *wire.SubmitJob) { s.Spec = nil },
		"no program":               func(s *wire.SubmitJob) { s.Spec.Program = nil },
		"no name of the program":   func(s *wire.SubmitJob) { s.Spec.Program.Name = "" },
		"a path for a name":        func(s *wire.SubmitJob) { s.Spec.Program.Name = "a/b" },
		"no blob":                  func(s *wire.SubmitJob) { s.Spec.Program.Blob = nil },
		"a short program hash":     func(s *wire.SubmitJob) { s.Spec.Program.Blob.Hash = []byte{1} },
		"a short page hash":        func(s *wire.SubmitJob) { s.Spec.Program.Blob.Pages[0] = []byte{1} },
		"a page too few":           func(s *wire.SubmitJob) { s.Spec.Program.Blob.Pages = s.Spec.Program.Blob.Pages[:1] },
		"an empty program":         func(s *wire.SubmitJob) { s.Spec.Program.Blob.Size = 0 },
		"a huge program":           func(s *wire.SubmitJob) { s.Spec.Program.Blob.Size = wire.MaxProgram + 1 },
		"a size that overflows":    func(s *wire.SubmitJob) { s.Spec.Program.Blob.Size = math.MaxUint64 },
		"many arguments":           func(s *wire.SubmitJob) { s.Spec.Args = make([]string, wire.MaxArgs+1) },
		"a zero byte":              func(s *wire.SubmitJob) { s.Spec.Args = []string{"a\x00"} },
		"an argument in Latin-1":   func(s *wire.SubmitJob) { s.Spec.Args = []string{"\xfc"} },
		"a variable without value": func(s *wire.SubmitJob) { s.Spec.Env = []string{"A"} },
		"a variable without name":  func(s *wire.SubmitJob) { s.Spec.Env = []string{"=A"} },
		"a variable in Latin-1":    func(s *wire.SubmitJob) { s.Spec.Env = []string{"A=\xfc"} },
		"many retries":             func(s *wire.SubmitJob) { s.Spec.Retries = wire.MaxRetries + 1 },
		"a negative time-out":      func(s *wire.SubmitJob) { s.Spec.TimeoutMs = -1 },
		"a long time-out":          func(s *wire.SubmitJob) { s.Spec.TimeoutMs = math.MaxInt64 },
		"much memory":              func(s *wire.SubmitJob) { s.Spec.MemoryMib = 4097 },
		"a large output":           func(s *wire.SubmitJob) { s.Spec.MaxOutputBytes = wire.MaxBlob + 1 },
		"a negative keep":          func(s *wire.SubmitJob) { s.Spec.KeepMs = -1 },
		"a long keep":              func(s *wire.SubmitJob) { s.Spec.KeepMs = math.MaxInt64 },
		"a native browser":         func(s *wire.SubmitJob) { s.Spec.Require = &wire.Requirements{Native: true, Browser: true} },
		"a label without a key":    func(s *wire.SubmitJob) { s.Spec.Require.Labels[""] = "" },
		"inputs of another job":    func(s *wire.SubmitJob) { s.Inputs.JobId = "b" },
		"a digest that is short":   func(s *wire.SubmitJob) { s.Inputs.DigestAfter = []byte{1} },
		"a first digest that is":   func(s *wire.SubmitJob) { s.Inputs.DigestBefore = []byte{1} },
		"a bad segment":            func(s *wire.SubmitJob) { s.Inputs.Segments[0].Count = 0 },
	} {
		t.Run(name, func(t *testing.T) {
			op := submit("a", false, inlineSegment(0, "x"))
			change(op)
			founded(t).refuse(op, wire.Code_CODE_INVALID)
		})
	}
	w := founded(t)
	w.refuse(submit("a", false, inlineSegment(1, "x")), wire.Code_CODE_PRECONDITION)
	op := submit("a", false, inlineSegment(0, "x"))
	op.Inputs.DigestBefore = digest("something")
	w.refuse(op, wire.Code_CODE_CONFLICT)
	w.must(submit("a", false))
	forged := submit("b", false)
	forged.Spec.Program.Blob.Pages[0] = pageHash("forged")
	w.refuse(forged, wire.Code_CODE_CONFLICT)
}

func TestSegmentsAreRefused(t *testing.T) {
	for name, change := range map[string]func(*wire.Segment){
		"nothing":              func(s *wire.Segment) { s.Inline = nil },
		"no items":             func(s *wire.Segment) { s.Count = 0 },
		"too many items":       func(s *wire.Segment) { s.Count = wire.MaxPackItems + 1 },
		"another count":        func(s *wire.Segment) { s.Count = 3 },
		"another size":         func(s *wire.Segment) { s.Bytes = 9 },
		"a damaged pack":       func(s *wire.Segment) { s.Inline = []byte{9} },
		"too much":             func(s *wire.Segment) { *s = *inlineSegment(0, strings.Repeat("x", wire.MaxInline)) },
		"inline and page":      func(s *wire.Segment) { s.Page = pageHash("x") },
		"inline and blob":      func(s *wire.Segment) { s.Blob = blobSegment(0, "x").Blob },
		"a short page":         func(s *wire.Segment) { s.Inline, s.Page = nil, []byte{1} },
		"a full page":          func(s *wire.Segment) { s.Inline, s.Page, s.Bytes = nil, pageHash("x"), wire.PageSize+1 },
		"two in a blob":        func(s *wire.Segment) { *s = *blobSegment(0, "x"); s.Count = 2 },
		"a blob's other size":  func(s *wire.Segment) { *s = *blobSegment(0, "x"); s.Bytes++ },
		"a blob's hash":        func(s *wire.Segment) { *s = *blobSegment(0, "x"); s.Blob.Hash = pageHash("x") },
		"a blob's few pages":   func(s *wire.Segment) { *s = *blobSegment(0, "x"); s.Blob.Pages = s.Blob.Pages[1:] },
		"a blob that is empty": func(s *wire.Segment) { *s = wire.Segment{Count: 1, Blob: &wire.Blob{}} },
		"a blob that is huge": func(s *wire.Segment) {
			*s = wire.Segment{Count: 1, Bytes: wire.MaxBlob + 1, Blob: &wire.Blob{Size: wire.MaxBlob + 1}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := founded(t)
			w.must(submit("a", false))
			seg := inlineSegment(0, "x", "y")
			change(seg)
			w.refuse(&wire.AppendInputs{JobId: "a", Segments: []*wire.Segment{seg}, DigestAfter: digest("x")}, wire.Code_CODE_INVALID)
		})
	}
	w := founded(t)
	w.must(submit("a", false))
	for name, tc := range map[string]struct {
		segments []*wire.Segment
		want     wire.Code
	}{
		"none":      {nil, wire.Code_CODE_INVALID},
		"a nil one": {[]*wire.Segment{nil}, wire.Code_CODE_INVALID},
		"a gap":     {[]*wire.Segment{inlineSegment(0, "x"), inlineSegment(2, "y")}, wire.Code_CODE_INVALID},
		"overlap":   {[]*wire.Segment{inlineSegment(0, "x"), inlineSegment(0, "y")}, wire.Code_CODE_INVALID},
		"beyond":    {[]*wire.Segment{pageSegment(wire.MaxTasks-1, 2, "p")}, wire.Code_CODE_EXHAUSTED},
		"overflow":  {[]*wire.Segment{pageSegment(math.MaxUint32, 2, "p")}, wire.Code_CODE_EXHAUSTED},
	} {
		t.Run(name, func(t *testing.T) {
			w.t = t
			w.refuse(&wire.AppendInputs{JobId: "a", Segments: tc.segments, DigestAfter: digest("x")}, tc.want)
		})
	}
}

func appendOp(id, before, after string, segments ...*wire.Segment) *wire.AppendInputs {
	op := &wire.AppendInputs{JobId: id, Segments: segments, DigestAfter: digest(after)}
	if before != "" {
		op.DigestBefore = digest(before)
	}
	return op
}

func TestAppendsFollowEachOther(t *testing.T) {
	w := founded(t)
	w.must(submit("a", false))
	one := appendOp("a", "", "1", inlineSegment(0, "x", "y"))
	two := appendOp("a", "1", "2", pageSegment(2, 4, "p"), blobSegment(6, "b"))
	three := appendOp("a", "2", "3", inlineSegment(7, "z"))
	w.refuse(two, wire.Code_CODE_PRECONDITION) // a gap
	w.must(one)
	w.refuse(appendOp("a", "other", "2", pageSegment(2, 4, "p")), wire.Code_CODE_CONFLICT)
	w.must(two)
	if r := w.must(three); r.Total != 8 {
		t.Errorf("got %d inputs, want 8", r.Total)
	}
	for i, want := range []string{"0 0", "0 1", "2 0", "2 1", "2 2", "2 3", "6 0", "7 0"} {
		ref, ok := w.s.Job("a").Input(uint32(i))
		if got := fmt.Sprint(ref.Segment.GetFirst(), ref.Item); !ok || got != want {
			t.Errorf("input %d: got %s, %v, want %s", i, got, ok, want)
		}
	}
	if _, ok := w.s.Job("a").Input(8); ok {
		t.Error("there is an input 8")
	}
	// Those in the middle come again, also once their bytes are released.
	w.must(completeOK("a", 2, 3, 4, 5, 6))
	for _, op := range []*wire.AppendInputs{one, two, three} {
		if r := w.must(op); r.Total != 8 || w.s.Job("a").Total() != 8 {
			t.Errorf("known inputs: got %+v", r)
		}
	}
	w.must(appendOp("a", "x", "3", pageSegment(7, 1, "other page, same digest")))
	if len(w.last.Released) != 1 {
		t.Error("a page that came in vain is not given back")
	}
	w.refuse(appendOp("a", "1", "2", pageSegment(2, 4, "q"), blobSegment(6, "b")), wire.Code_CODE_CONFLICT)
	w.refuse(appendOp("a", "1", "4", inlineSegment(1, "y")), wire.Code_CODE_CONFLICT)
	w.refuse(appendOp("a", "2", "3", inlineSegment(7, "z", "beyond")), wire.Code_CODE_CONFLICT)
	w.refuse(appendOp("b", "", "1", inlineSegment(0, "x")), wire.Code_CODE_NOT_FOUND)
	w.must(&wire.CloseInputs{JobId: "a", Total: 8})
	w.refuse(appendOp("a", "3", "4", inlineSegment(8, "x")), wire.Code_CODE_PRECONDITION)
	w.must(&wire.CancelJob{JobId: "a"})
	w.must(three)
	w.refuse(appendOp("a", "3", "4", inlineSegment(8, "x")), wire.Code_CODE_PRECONDITION)
}

func TestClosing(t *testing.T) {
	w := founded(t)
	w.must(submit("a", false, inlineSegment(0, "x")))
	w.refuse(&wire.CloseInputs{JobId: "a", Total: 2}, wire.Code_CODE_PRECONDITION)
	w.refuse(&wire.CloseInputs{JobId: "b"}, wire.Code_CODE_NOT_FOUND)
	w.must(completeOK("a", 0))
	if w.s.Job("a").Ended() {
		t.Error("it ended before it was closed")
	}
	w.must(&wire.CloseInputs{JobId: "a", Total: 1})
	if w.s.Job("a").Phase() != Done {
		t.Errorf("it is %v", w.s.Job("a").Phase())
	}
	w.must(&wire.CloseInputs{JobId: "a", Total: 1})
	w.must(submit("b", false))
	w.must(&wire.CancelJob{JobId: "b", Reason: "enough"})
	w.must(&wire.CancelJob{JobId: "b"})
	if j := w.s.Job("b"); j.Phase() != Cancelled || j.Error() != "enough" {
		t.Errorf("it is %v: %s", j.Phase(), j.Error())
	}
	w.refuse(&wire.CloseInputs{JobId: "b"}, wire.Code_CODE_PRECONDITION)
	w.refuse(&wire.CancelJob{JobId: "a"}, wire.Code_CODE_PRECONDITION)
	w.refuse(&wire.CancelJob{JobId: "c"}, wire.Code_CODE_NOT_FOUND)
	w.refuse(&wire.CancelJob{JobId: "a", Reason: strings.Repeat("x", 501)}, wire.Code_CODE_INVALID)
}

func TestVerdicts(t *testing.T) {
	w := founded(t)
	w.must(submit("a", true, inlineSegment(0, "0", "1", "2", "3")))
	fail := map[uint32]byte{1: wire.OutcomeFailed, 2: wire.OutcomeFatal}
	for step, want := range [][]Verdict{
		{Recorded, Retry, FailedFinally, Unwanted},
		{Unwanted, Retry, Unwanted, Unwanted},
		{Unwanted, FailedFinally, Unwanted, Unwanted},
		{Unwanted, Unwanted, Unwanted, Unwanted},
	} {
		if got := w.must(complete("a", fail, 0, 1, 2, 0)).Verdicts; !slices.Equal(got, want) {
			t.Errorf("report %d: got %v, want %v", step, got, want)
		}
	}
	j := w.s.Job("a")
	if j.Completed() != 1 || j.Failed() != 2 || j.Failures(1) != 3 || j.Failures(0) != 0 || j.Results() != 3 {
		t.Errorf("got %d completed, %d failed, %d failures, %d results", j.Completed(), j.Failed(), j.Failures(1), j.Results())
	}
	for number, want := range []string{"0 0 false", "2 2 true", "1 1 true"} {
		ref, _ := j.Result(uint32(number))
		if got := fmt.Sprint(ref.Index, ref.Item, ref.Failed); got != want {
			t.Errorf("result %d: got %s, want %s", number, got, want)
		}
	}
	w.must(completeOK("a", 3))
	if j.Phase() != Failed || j.Error() != "2 of 4 tasks failed" {
		t.Errorf("it is %v: %s", j.Phase(), j.Error())
	}
	if got := w.must(completeOK("gone", 0, 1)).Verdicts; !slices.Equal(got, []Verdict{Unwanted, Unwanted}) {
		t.Errorf("for a job that is gone: got %v", got)
	}
	if got := w.s.Device(deviceID(0)).TasksCompleted; got != 2 {
		t.Errorf("the device completed %d, want 2", got)
	}
	want := Stats{JobsTotal: 1, JobsFailed: 1, TasksTotal: 4, TasksCompleted: 2, TasksFailed: 2}
	if got := w.s.Stats(); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestTheFirstFailureEndsAJobThatDoesNotKeepGoing(t *testing.T) {
	w := founded(t)
	op := submit("a", false, inlineSegment(0, "0", "1", "2"))
	op.Spec.KeepGoing, op.Spec.Retries = false, 0
	w.must(op)
	got := w.must(complete("a", map[uint32]byte{1: wire.OutcomeFailed}, 0, 1, 2)).Verdicts
	if want := []Verdict{Recorded, FailedFinally, Unwanted}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if j := w.s.Job("a"); j.Phase() != Failed || j.Error() != "task 1 failed" || j.Results() != 2 {
		t.Errorf("it is %v: %s", j.Phase(), j.Error())
	}
}

func TestCompletionsAreRefused(t *testing.T) {
	for name, change := range map[string]func(*wire.CompleteTasks){
		"no results":              func(c *wire.CompleteTasks) { c.Results = nil },
		"no records":              func(c *wire.CompleteTasks) { *c = wire.CompleteTasks{JobId: "a", Results: &wire.Segment{}} },
		"neither inline nor page": func(c *wire.CompleteTasks) { c.Results.Inline = nil },
		"inline and page":         func(c *wire.CompleteTasks) { c.Results.Page = pageHash("x") },
		"a blob":                  func(c *wire.CompleteTasks) { c.Results.Blob = &wire.Blob{} },
		"a damaged pack":          func(c *wire.CompleteTasks) { c.Results.Inline = []byte{7} },
		"another count":           func(c *wire.CompleteTasks) { c.Results.Count = 1 },
		"a short page hash":       func(c *wire.CompleteTasks) { c.Results.Inline, c.Results.Page = nil, []byte{1} },
		"an index too few":        func(c *wire.CompleteTasks) { c.Indexes = c.Indexes[:1] },
		"an outcome too few":      func(c *wire.CompleteTasks) { c.Outcomes = c.Outcomes[:1] },
		"a device too few":        func(c *wire.CompleteTasks) { c.DeviceOf = c.DeviceOf[:1] },
		"an unknown outcome":      func(c *wire.CompleteTasks) { c.Outcomes[0] = 3 },
		"a device not listed":     func(c *wire.CompleteTasks) { c.DeviceOf[1] = 1 },
		"a device from afar":      func(c *wire.CompleteTasks) { c.DeviceOf[1] = math.MaxUint32 },
		"an index beyond":         func(c *wire.CompleteTasks) { c.Indexes[1] = 2 },
		"a short output page":     func(c *wire.CompleteTasks) { c.OutputPages = [][]byte{{1}} },
		"leased beyond":           func(c *wire.CompleteTasks) { c.LeasedBelow = 3 },
	} {
		t.Run(name, func(t *testing.T) {
			w := founded(t)
			w.must(submit("a", true, inlineSegment(0, "0", "1")))
			op := completeOK("a", 0, 1)
			change(op)
			w.refuse(op, wire.Code_CODE_INVALID)
		})
	}
}

func TestPagesAreGivenBack(t *testing.T) {
	w := founded(t)
	w.must(submit("a", true, pageSegment(0, 2, "p"), blobSegment(2, "b"), pageSegment(3, 1, "p")))
	if got := len(w.last.Named); got != 5 {
		t.Errorf("got %d pages named, want 5", got)
	}
	steps := []struct {
		op   *wire.CompleteTasks
		want string // named, released
	}{
		{inPage(completeOK("a", 0), "r1"), "1 0"},
		{inPage(completeOK("a", 0), "r2"), "0 1"},                                       // nothing in it is recorded
		{inPage(completeOK("a", 0), "r1"), "0 0"},                                       // nor here, but the page is named
		{inPage(complete("a", map[uint32]byte{1: wire.OutcomeFailed}, 1), "r3"), "0 1"}, // a retry
		{inPage(completeOK("a", 1), "r4"), "1 0"},                                       // p is still named by input 3
		{inPage(completeOK("a", 2), "r5"), "1 2"},                                       // the blob
		{inPage(completeOK("a", 3), "p"), "0 0"},                                        // p goes and comes
	}
	for k, step := range steps {
		step.op.OutputPages = [][]byte{pageHash("r1")}
		w.must(step.op)
		if got := fmt.Sprint(len(w.last.Named), len(w.last.Released)); got != step.want {
			t.Errorf("step %d: got %s pages named and released, want %s", k, got, step.want)
		}
	}
	w.must(&wire.PurgeJob{JobId: "a"})
	if got := len(w.last.Released); got != 4 {
		t.Errorf("purged: got %d pages released, want 4", got)
	}
	w.refuse(&wire.PurgeJob{JobId: "a"}, wire.Code_CODE_NOT_FOUND)
	if w.s.Job("a") != nil || len(w.s.Jobs()) != 0 {
		t.Error("the job is still there")
	}
	w.nowMS += programGraceMS
	w.must(&wire.Sweep{})
	if got := len(w.last.Released); got != 2 || len(w.s.pages.refs) != 0 {
		t.Errorf("swept: got %d pages released, want the program's 2", got)
	}
}

func TestRetryRunsOnlyWhatFailed(t *testing.T) {
	w := founded(t)
	fatal := map[uint32]byte{1: wire.OutcomeFatal, 2: wire.OutcomeFatal}
	w.must(submit("a", true, inlineSegment(0, "0", "1", "2", "3")))
	w.refuse(&wire.RetryJob{JobId: "a"}, wire.Code_CODE_PRECONDITION)
	w.must(complete("a", fatal, 0, 1, 2, 3))
	j := w.s.Job("a")
	if j.OpenInputBytes() != 0 {
		t.Errorf("got %d open bytes of an ended job", j.OpenInputBytes())
	}
	if r := w.must(&wire.RetryJob{JobId: "a"}); r.Total != 2 {
		t.Errorf("got %d tasks, want 2", r.Total)
	}
	if j.Phase() != Open || j.TaskDone(1) || !j.TaskDone(0) || j.Failures(1) != 0 || j.Failed() != 0 || j.OpenInputBytes() != 4 {
		t.Errorf("reopened: %v, %d failed, %d bytes", j.Phase(), j.Failed(), j.OpenInputBytes())
	}
	if _, ok := j.NumberOf(1); ok {
		t.Error("an open task has a number")
	}
	w.must(completeOK("a", 2, 1))
	if n, ok := j.NumberOf(2); !ok || n != 4 || j.Results() != 6 || j.Phase() != Done {
		t.Errorf("done again: number %d of %d, %v", n, j.Results(), j.Phase())
	}
	for number, want := range []bool{false, true, true, false, false, false} {
		if ref, _ := j.Result(uint32(number)); ref.Superseded != want {
			t.Errorf("result %d: got superseded %v, want %v", number, ref.Superseded, want)
		}
	}
	w.refuse(&wire.RetryJob{JobId: "a"}, wire.Code_CODE_PRECONDITION)
	w.refuse(&wire.RetryJob{JobId: "b"}, wire.Code_CODE_NOT_FOUND)
	if got := w.s.Stats(); got.JobsDone != 1 || got.JobsFailed != 0 || got.TasksFailed != 0 || got.TasksCompleted != 4 {
		t.Errorf("got %+v", got)
	}
}

func TestPackingKeepsNumbers(t *testing.T) {
	w := founded(t)
	w.must(submit("a", true, pageSegment(0, 100, "p")))
	failed := map[uint32]byte{5: wire.OutcomeFailed}
	w.must(inPage(completeOK("a", 90), "r"))
	w.must(complete("a", failed, 1, 5, 3, 1, 2))
	w.must(complete("a", nil, 1, 7))
	w.must(inPage(completeOK("a", 91), "s"))
	w.must(completeOK("a", 8))
	j := w.s.Job("a")
	if first, n := j.InlineRun(); first != 1 || n != 2 {
		t.Fatalf("got run %d, %d", first, n)
	}
	page, err := j.PackRun(1, 2)
	if err != nil {
		t.Fatal(err)
	}
	hash := wire.HashOf(page)
	pack := func(first, n uint32, page []byte) *wire.PackResults {
		return &wire.PackResults{JobId: "a", FirstBatch: first, Batches: n, Page: page}
	}
	w.refuse(pack(0, 2, hash[:]), wire.Code_CODE_PRECONDITION)
	w.refuse(pack(1, 3, hash[:]), wire.Code_CODE_PRECONDITION)
	w.refuse(pack(1, 0, hash[:]), wire.Code_CODE_PRECONDITION)
	w.refuse(pack(4, 2, hash[:]), wire.Code_CODE_PRECONDITION)
	w.refuse(pack(math.MaxUint32, math.MaxUint32, hash[:]), wire.Code_CODE_PRECONDITION)
	w.refuse(pack(1, 2, pageHash("wrong")), wire.Code_CODE_PRECONDITION)
	w.refuse(pack(1, 2, []byte{1}), wire.Code_CODE_INVALID)
	w.refuse(&wire.PackResults{JobId: "b", Page: hash[:]}, wire.Code_CODE_NOT_FOUND)
	w.must(pack(1, 2, hash[:]))
	if len(w.last.Named) != 1 || j.InlineBytes() != len(j.BatchInline(3)) || j.BatchInline(1) != nil || j.BatchInline(9) != nil {
		t.Errorf("packed: %d pages named, %d bytes inline", len(w.last.Named), j.InlineBytes())
	}
	for number, index := range []uint32{90, 1, 3, 2, 7, 91, 8} {
		ref, ok := j.Result(uint32(number))
		if !ok || ref.Index != index {
			t.Errorf("result %d: got task %d, %v, want %d", number, ref.Index, ok, index)
		}
		if ref.Page != hash {
			continue
		}
		item, err := wire.PackItem(page, ref.Item)
		if want := fmt.Sprintf("record of %d", index); err != nil || string(item) != want {
			t.Errorf("result %d: got %q (%v), want %q", number, item, err, want)
		}
	}
	if first, n := j.InlineRun(); first != 3 || n != 1 {
		t.Errorf("got run %d, %d, want 3, 1", first, n)
	}
}

func TestTheLeaseMarkOnlyRises(t *testing.T) {
	w := founded(t)
	w.must(submit("a", true, pageSegment(0, 100, "p")))
	for i, mark := range []uint32{50, 20} {
		op := completeOK("a", uint32(i))
		op.LeasedBelow = mark
		w.must(op)
		if got := w.s.Job("a").LeasedBelow(); got != 50 {
			t.Errorf("got %d, want 50", got)
		}
	}
}

func TestSweeping(t *testing.T) {
	w := founded(t)
	w.must(submit("idle", false, inlineSegment(0, "x")))
	detached := submit("detached", true)
	detached.Spec.Detached = true
	w.must(detached)
	short := submit("short", true)
	short.Spec.Detached, short.Spec.KeepMs = true, hourMS
	w.must(short)
	w.must(submit("attached", true))
	ids := func() string {
		var list []string
		for _, j := range w.s.Jobs() {
			list = append(list, string(j.ID()))
		}
		return strings.Join(list, " ")
	}
	w.nowMS += hourMS - 1
	if now := w.nowMS; w.s.SweepDue(now) || !w.s.SweepDue(now+1) {
		t.Errorf("a sweep is due: %v, and a moment later: %v; want it when the short one's time is over", w.s.SweepDue(now), w.s.SweepDue(now+1))
	}
	w.must(&wire.Sweep{})
	if j := w.s.Job("idle"); j.Ended() || ids() != "idle detached short attached" {
		t.Errorf("swept early: %s", ids())
	}
	w.nowMS++
	w.must(&wire.Sweep{})
	if j := w.s.Job("idle"); j.Phase() != Failed || j.Error() != "inputs stopped coming after 1" || ids() != "idle detached attached" {
		t.Errorf("after an hour: %v, %s; %s", j.Phase(), j.Error(), ids())
	}
	w.nowMS += dayMS - hourMS
	w.must(&wire.Sweep{})
	if ids() != "idle detached" {
		t.Errorf("after a day: %s", ids())
	}
	w.nowMS += hourMS
	w.must(&wire.Sweep{})
	if ids() != "detached" {
		t.Errorf("a day after the idle job failed: %s", ids())
	}
	w.nowMS += 6 * dayMS
	w.must(&wire.Sweep{})
	if ids() != "" || w.s.Program(programHash(testProgram("cat"))) == nil {
		t.Errorf("after a week: %s", ids())
	}
	w.must(submit("idle", false)) // an ID may come again
	w.must(&wire.PurgeJob{JobId: "idle"})
	if got := w.s.Stats(); got.JobsTotal != 5 || got.JobsDone != 3 || got.JobsFailed != 1 || got.JobsCancelled != 1 {
		t.Errorf("got %+v", got)
	}
	w.nowMS += dayMS
	w.must(&wire.Sweep{})
	if w.s.Program(programHash(testProgram("cat"))) != nil || len(w.s.pages.refs) != 0 {
		t.Error("the program was not released")
	}
}

func TestOpenJobsAreBounded(t *testing.T) {
	w := founded(t)
	w.must(submit("failed", true, inlineSegment(0, "x")))
	w.must(complete("failed", map[uint32]byte{0: wire.OutcomeFatal}, 0))
	for i := range wire.MaxOpenJobs {
		w.must(submit(fmt.Sprint(i), false))
	}
	w.refuse(submit("more", false), wire.Code_CODE_EXHAUSTED)
	w.refuse(&wire.RetryJob{JobId: "failed"}, wire.Code_CODE_EXHAUSTED)
	if r := w.must(submit("7", false)); !r.Attached {
		t.Error("a job that is there cannot be attached to")
	}
	w.must(&wire.CancelJob{JobId: "7"})
	w.must(&wire.RetryJob{JobId: "failed"})
	if open := w.s.OpenJobs(); open[0].ID() != "failed" || len(open) != wire.MaxOpenJobs {
		t.Errorf("a reopened job is not in its place: %s is first of %d", open[0].ID(), len(open))
	}
}

func TestUnknownOperationsAreRefused(t *testing.T) {
	w := founded(t)
	w.refuse(nil, wire.Code_CODE_INVALID)
	out := w.s.Apply(1, &wire.Command{Format: 1, Term: 1, Ops: []*wire.Op{nil, {Actor: strings.Repeat("x", 200)}, {Kind: &wire.Op_SubmitJob{}}}})
	for i, r := range out.Results {
		if wire.CodeOf(r.Err) != wire.Code_CODE_INVALID {
			t.Errorf("operation %d: got %v", i, r.Err)
		}
	}
}
