package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/ostrich-legs/ostrich/node/control/controltest"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

func TestInputModes(t *testing.T) {
	tree := t.TempDir()
	for path, text := range map[string]string{"b/2": "two", "b/1": "one", "a": "first", "c/x/y": "deep"} {
		os.MkdirAll(filepath.Dir(filepath.Join(tree, path)), 0o777)
		os.WriteFile(filepath.Join(tree, path), []byte(text), 0o666)
	}
	os.Symlink(filepath.Join(tree, "a"), filepath.Join(tree, "b", "0-link"))
	list := filepath.Join(tree, "a")
	long := strings.Repeat("x", 300<<10)
	tests := []struct {
		name  string
		stdin string
		args  []string
		want  []string
	}{
		{"no input", "", nil, nil},
		{"lines", "a\nb\n", nil, []string{"a\n", "b\n"}},
		{"the last line as it comes", "a\nb", nil, []string{"a\n", "b"}},
		{"empty lines are tasks", "\n\na\n", nil, []string{"\n", "\n", "a\n"}},
		{"carriage returns stay", "a\r\nb", nil, []string{"a\r\n", "b"}},
		{"a long line", "a\n" + long + "\nb\n", nil, []string{"a\n", long + "\n", "b\n"}},
		{"null", "a\nb\x00\x00c", []string{"--null"}, []string{"a\nb", "", "c"}},
		{"null at the end", "a\x00b\x00", []string{"--null"}, []string{"a", "b"}},
		{"chunks", "aa\nbb\ncc\n", []string{"--chunk", "7"}, []string{"aa\nbb\n", "cc\n"}},
		{"chunks that fit", "aa\nbb\ncc\n", []string{"--chunk", "6"}, []string{"aa\nbb\n", "cc\n"}},
		{"a chunk without a line", "aaaaaaa\nb", []string{"--chunk", "4"}, []string{"aaaa", "aaa\n", "b"}},
		{"range", "ignored", []string{"--range", "-1..2"}, []string{"-1\n", "0\n", "1\n", "2\n"}},
		{"one number", "", []string{"--range", "7..7"}, []string{"7\n"}},
		{"files", "", []string{"--files", filepath.Join(tree, "b"), list, filepath.Join(tree, "c")}, []string{"one", "two", "first", "deep"}},
		{"files from stdin", list + "\n\n" + filepath.Join(tree, "b"), []string{"--files-from", "-"}, []string{"first", "one", "two"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBox(t)
			args := append([]string{"map", "builtin:cat", "--id", "j", "--detach"}, tt.args...)
			if status, _, errOut := b.call(t, tt.stdin, args...); status != 0 {
				t.Fatalf("status %d: %s", status, errOut)
			}
			var got []string
			for _, in := range b.service.Inputs("j") {
				got = append(got, string(in))
			}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %.200q, want %.200q", got, tt.want)
			}
		})
	}
}

func TestInputsThatCannotBeReadFailTheMap(t *testing.T) {
	b := newBox(t)
	for _, args := range [][]string{
		{"--files", "/nonexistent"}, {"--files", os.DevNull}, {"--files-from", "/nonexistent"}, {"--files-from", "-"},
	} {
		status, out, errOut := b.call(t, "/nonexistent\n", append([]string{"map", "builtin:cat"}, args...)...)
		if status != exitFailed || out != "" || !strings.HasPrefix(errOut, "ostrich: ") {
			t.Errorf("%v: status %d, %q %q", args, status, out, errOut)
		}
	}
}

func TestOutputsAreLines(t *testing.T) {
	b := newBox(t)
	big := strings.Repeat("y", 200<<10)
	status, out, errOut := b.call(t, "a\n\n"+big+"\nlast", "map", "builtin:cat")
	if want := "a\n\n" + big + "\nlast\n"; status != 0 || out != want || errOut != "" {
		t.Errorf("status %d, %d bytes (want %d), stderr %q", status, len(out), len(want), errOut)
	}
	b.service.Compute = func(*wire.JobSpec, uint32, []byte) *wire.TaskResult { return controltest.Echo(nil, 0, nil) }
	if _, out, _ := b.call(t, "a\nb\n", "map", "builtin:cat"); out != "\n\n" {
		t.Errorf("empty outputs gave %q, want a newline each", out)
	}
	if status, out, errOut := b.call(t, "", "map", "builtin:cat"); status != 0 || out+errOut != "" {
		t.Errorf("no input: status %d, %q %q", status, out, errOut)
	}
}

func TestAMapThatIsDoneIsAcknowledged(t *testing.T) {
	b := newBox(t)
	b.call(t, "a\n", "map", "builtin:cat")
	b.call(t, "a\n", "run", "builtin:cat")
	if n := b.service.Calls("RemoveJob"); n != 2 {
		t.Errorf("of a map and a run that are done %d are acknowledged", n)
	}
	b.call(t, "a\n", "map", "builtin:cat", "--id", "kept", "--detach")
	if b.service.Job("kept") == nil {
		t.Error("the detached job is gone")
	}
}

func TestTheIDOfAMapThatIsDoneAttachesStill(t *testing.T) {
	for _, command := range []string{"map", "run"} {
		b := newBox(t)
		for range 2 {
			if status, out, errOut := b.call(t, "a\n", command, "builtin:cat", "--id", "j"); status != 0 || out != "a\n" {
				t.Errorf("%s: status %d, %q, %s", command, status, out, errOut)
			}
		}
		if status, out, _ := b.call(t, "a\n", command, "builtin:upper", "--id", "j"); status == 0 || out != "" {
			t.Errorf("%s of another program under that ID: status %d, %q", command, status, out)
		}
	}
}

func TestFailedTasks(t *testing.T) {
	third := func(_ *wire.JobSpec, i uint32, in []byte) *wire.TaskResult {
		if i == 2 {
			return controltest.Fail(9, "bad\nworse")
		}
		return controltest.Echo(nil, i, in)
	}
	tests := []struct {
		args       []string
		stdout     string
		wantStderr []string
	}{
		{[]string{"--keep-going"}, "a\nb\nd\n", []string{"task 2: bad\ntask 2: worse\n", "1 of 4 tasks failed"}},
		{nil, "a\nb\n", []string{"task 2: bad\ntask 2: worse\n", "tasks failed"}},
	}
	for _, tt := range tests {
		b := newBox(t)
		b.service.Compute = third
		status, out, errOut := b.call(t, "a\nb\nc\nd\n", append([]string{"map", "builtin:cat"}, tt.args...)...)
		if status != exitTasksFailed || out != tt.stdout {
			t.Errorf("%v: status %d, %q, want 3 and %q", tt.args, status, out, tt.stdout)
		}
		for _, want := range tt.wantStderr {
			if !strings.Contains(errOut, want) {
				t.Errorf("%v: stderr %q lacks %q", tt.args, errOut, want)
			}
		}
	}
}

func TestJSONOfAMap(t *testing.T) {
	b := newBox(t)
	status, out, _ := b.call(t, "a\nb", "map", "builtin:cat", "--json")
	if status != 0 {
		t.Fatal(status)
	}
	for i, line := range strings.Split(strings.TrimSpace(out), "\n") {
		var got struct {
			Index, Number, Attempts, DurationMs, ExitCode int
			Status, Output, Stderr, Device                string
		}
		dec := json.NewDecoder(strings.NewReader(line))
		if err := dec.Decode(&got); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		data, _ := base64.StdEncoding.DecodeString(got.Output)
		if got.Index != i || got.Status != "ok" || got.Device != controltest.Other || string(data) != []string{"a\n", "b"}[i] {
			t.Errorf("line %d: %+v", i, got)
		}
	}
}

func TestOutWritesFilesOfWhatSucceeded(t *testing.T) {
	b := newBox(t)
	b.service.Compute = func(_ *wire.JobSpec, i uint32, in []byte) *wire.TaskResult {
		if i == 1 {
			return controltest.Fail(1, "")
		}
		return controltest.Echo(nil, i, bytes.Repeat(in, 100_000))
	}
	dir := filepath.Join(t.TempDir(), "new", "out")
	status, out, _ := b.call(t, "a\nb\nc", "map", "builtin:cat", "--out", dir, "--keep-going")
	if status != exitTasksFailed || out != "" {
		t.Errorf("status %d, stdout %q", status, out)
	}
	entries, _ := os.ReadDir(dir)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if !reflect.DeepEqual(names, []string{"0", "2"}) {
		t.Errorf("the folder holds %v", names)
	}
	if data, _ := os.ReadFile(filepath.Join(dir, "2")); string(data) != strings.Repeat("c", 100_000) {
		t.Errorf("file 2 has %d bytes", len(data))
	}
}

func TestFlagsBecomeTheSpec(t *testing.T) {
	b := newBox(t)
	status, out, errOut := b.call(t, "", strings.Fields("map builtin:upper --range 1..3 --detach --id j --keep 7d --keep-going --retries 5 --timeout 1m30s --memory 64 --max-output 1 "+
		"--env B=0 --env A=1 --env B=x=y --priority -3 --max-in-flight 9 --require native --require zone=a -- -v --keep x")...)
	if status != 0 || out != "j\n" {
		t.Fatalf("status %d, %q %q", status, out, errOut)
	}
	s := b.service.Job("j").GetSpec()
	got := fmt.Sprint(s.GetProgram().GetName(), s.GetArgs(), s.GetEnv(), s.GetRetries(), s.GetTimeoutMs(), s.GetMemoryMib(), s.GetMaxOutputBytes(),
		s.GetKeepGoing(), s.GetPriority(), s.GetMaxInFlight(), s.GetRequire().GetNative(), s.GetRequire().GetLabels(), s.GetDetached(), s.GetKeepMs())
	want := fmt.Sprint("upper", []string{"-v", "--keep", "x"}, []string{"A=1", "B=x=y"}, 5, 90000, 64, 1<<20,
		true, -3, 9, true, map[string]string{"zone": "a"}, true, 7*24*3600*1000)
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	b.call(t, "", "map", "builtin:cat", "--detach", "--id", "k")
	if s := b.service.Job("k").GetSpec(); s.GetRetries() != 2 || s.GetMemoryMib() != 256 || s.GetTimeoutMs() != 600_000 || s.GetMaxOutputBytes() != 16<<20 {
		t.Errorf("the defaults are %v", s)
	}
	b.call(t, "", "run", "builtin:cat", "--detach", "--id", "l")
	if s := b.service.Job("l").GetSpec(); s.GetRetries() != 0 || !s.GetSingle() {
		t.Errorf("the defaults of run are %v", s)
	}
}

func TestTheSameIDAttachesAndAnotherProgramIsRefused(t *testing.T) {
	b := newBox(t)
	for range 2 {
		if status, _, errOut := b.call(t, "a\nb\n", "map", "builtin:cat", "--id", "j", "--detach"); status != 0 {
			t.Fatal(errOut)
		}
	}
	tests := [][]string{{"builtin:upper"}, {"builtin:cat", "--retries", "7"}, {"builtin:cat", "--", "arg"}}
	for _, args := range tests {
		if status, _, _ := b.call(t, "a\nb\n", append([]string{"map", "--id", "j", "--detach"}, args...)...); status != exitFailed {
			t.Errorf("%v: status %d, want a refusal", args, status)
		}
	}
	if status, _, errOut := b.call(t, "a\nother\n", "map", "builtin:cat", "--id", "j", "--detach"); status != exitFailed || !strings.Contains(errOut, "--id") {
		t.Errorf("other inputs: status %d, %s", status, errOut)
	}
	if b.service.Job("j").GetState() != wire.JobState_JOB_STATE_DONE {
		t.Error("a refusal changed the job")
	}
}

func TestRunEndsAsItsProgram(t *testing.T) {
	failed := func(kind wire.FailureKind, code uint32) *wire.TaskResult {
		return &wire.TaskResult{Status: wire.TaskStatus_TASK_STATUS_FAILED, Failure: kind, ExitCode: code, Error: "went wrong", Output: []byte("partial")}
	}
	tests := []struct {
		name   string
		result *wire.TaskResult
		want   int
	}{
		{"exit 3", failed(wire.FailureKind_FAILURE_KIND_EXIT, 3), 3},
		{"exit 1", failed(wire.FailureKind_FAILURE_KIND_EXIT, 1), 1},
		{"exit 256", failed(wire.FailureKind_FAILURE_KIND_EXIT, 256), 255},
		{"time", failed(wire.FailureKind_FAILURE_KIND_TIMEOUT, 0), 124},
		{"memory", failed(wire.FailureKind_FAILURE_KIND_MEMORY, 0), 137},
		{"output", failed(wire.FailureKind_FAILURE_KIND_OUTPUT, 0), 137},
		{"trap", failed(wire.FailureKind_FAILURE_KIND_TRAP, 0), 134},
		{"ostrich", failed(wire.FailureKind_FAILURE_KIND_INTERNAL, 0), 125},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBox(t)
			b.service.Compute = func(*wire.JobSpec, uint32, []byte) *wire.TaskResult { return tt.result }
			if status, out, _ := b.call(t, "", "run", "builtin:cat"); status != tt.want || out != "" {
				t.Errorf("status %d, %q; want %d", status, out, tt.want)
			}
		})
	}
	b := newBox(t)
	if status, out, errOut := b.call(t, "no newline", "run", "builtin:cat"); status != 0 || out != "no newline" || errOut != "" {
		t.Errorf("status %d, %q %q", status, out, errOut)
	}
	broken := filepath.Join(t.TempDir(), "broken.wasm")
	os.WriteFile(broken, []byte("nonsense"), 0o666)
	for _, prog := range []string{broken, "/nonexistent", "builtin:nonsense", t.TempDir()} {
		if status, _, errOut := b.call(t, "", "run", prog); status != exitOstrich || !strings.Contains(errOut, "program") {
			t.Errorf("run %s: status %d, %s", prog, status, errOut)
		}
		if status, _, _ := b.call(t, "", "map", prog); status != exitFailed {
			t.Errorf("map %s: status %d", prog, status)
		}
	}
}

func TestAnInterruptCancelsTheJob(t *testing.T) {
	for _, command := range []string{"map", "run"} {
		b := newBox(t)
		b.service.Hold = true
		ctx, stop := context.WithCancelCause(t.Context())
		stdin, feed := io.Pipe()
		go func() {
			feed.Write([]byte("a\n"))
			for command == "map" && b.service.Job("j").GetTasks().GetTotal() < 1 {
				time.Sleep(time.Millisecond)
			}
			stop(errInterrupted)
		}()
		status, _, errOut := b.callWith(ctx, stdin, command, "builtin:cat", "--id", "j")
		feed.Close()
		if status != exitInterrupted {
			t.Errorf("%s: status %d, %s", command, status, errOut)
		}
		if job := b.service.Job("j"); command == "map" && job.GetState() != wire.JobState_JOB_STATE_CANCELLED {
			t.Errorf("the job is %v", job.GetState())
		}
		if command == "map" {
			_, _, errOut = b.call(t, "a\n", command, "builtin:cat", "--id", "j")
			if !strings.Contains(errOut, "ostrich job rm j") {
				t.Errorf("the same again says %q, and not how to begin anew", errOut)
			}
		}
	}
}

// closedAfter takes some bytes and then nobody reads.
type closedAfter struct{ left int }

func (c *closedAfter) Write(p []byte) (int, error) {
	if c.left -= len(p); c.left < 0 {
		return 0, io.ErrClosedPipe
	}
	return len(p), nil
}

func TestAClosedPipeEndsQuietlyAndCancelsTheJob(t *testing.T) {
	b := newBox(t)
	var errOut bytes.Buffer
	endless, feed := io.Pipe()
	go func() {
		for {
			if _, err := feed.Write([]byte("line\n")); err != nil {
				return
			}
		}
	}()
	defer endless.Close()
	status := run(t.Context(), []string{"--data", b.dir, "map", "builtin:cat", "--id", "j"}, endless, &closedAfter{20}, &errOut)
	if status != exitClosedPipe || errOut.Len() != 0 {
		t.Errorf("status %d, stderr %q", status, errOut.String())
	}
	if state := b.service.Job("j").GetState(); state != wire.JobState_JOB_STATE_CANCELLED {
		t.Errorf("the job is %v", state)
	}
	if status := run(t.Context(), []string{"--data", b.dir, "devices"}, strings.NewReader(""), &closedAfter{}, &errOut); status != exitClosedPipe || errOut.Len() != 0 {
		t.Errorf("devices: status %d, stderr %q", status, errOut.String())
	}
}

func TestOutputFlowsBeforeTheInputEnds(t *testing.T) {
	b := newBox(t)
	stdin, feed := io.Pipe()
	result, stdout := io.Pipe()
	done := make(chan int, 1)
	go func() {
		done <- run(t.Context(), []string{"--data", b.dir, "map", "builtin:cat"}, stdin, stdout, io.Discard)
		stdout.Close()
	}()
	for i := range 3 {
		line := fmt.Sprintf("line %d\n", i)
		feed.Write([]byte(line))
		got := make([]byte, len(line))
		if _, err := io.ReadFull(result, got); err != nil || string(got) != line {
			t.Fatalf("got %q, %v; want %q", got, err, line)
		}
	}
	feed.Close()
	io.Copy(io.Discard, result)
	if status := <-done; status != 0 {
		t.Errorf("status %d", status)
	}
}
