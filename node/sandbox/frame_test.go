package sandbox

import (
	"bufio"
	"bytes"
	"reflect"
	"testing"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// oneFrame reads the only frame of b.
func oneFrame(t *testing.T, b []byte) frame {
	t.Helper()
	r := bufio.NewReader(bytes.NewReader(b))
	f, err := readFrame(r, maxTaskFrame)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.ReadByte(); err == nil {
		t.Fatal("bytes are left behind the frame")
	}
	return f
}

func TestATaskArrivesAsItWasSent(t *testing.T) {
	sent := Task{Args: []string{"a", ""}, Env: []string{"K=V"}, Stdin: []byte("in"), StdinPath: "p", Seed: Seed("j", 7),
		MemoryMiB: 5, MaxOutput: 1 << 33, OutputPath: "o"}
	var got task
	if err := got.decode(oneFrame(t, appendTask(nil, &sent)).body); err != nil {
		t.Fatal(err)
	}
	want := task{memoryMiB: 5, maxOutput: 1 << 33, seed: sent.Seed, args: [][]byte{[]byte("a\x00"), {0}},
		env: [][]byte{[]byte("K=V\x00")}, outputPath: "o", stdinPath: "p", stdin: []byte("in")}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestAResultArrivesAsItWasSent(t *testing.T) {
	task := Task{MaxOutput: 1 << 20, OutputPath: "o"}
	for _, c := range []struct {
		sent   Result
		inFile bool
	}{
		{Result{Stdout: []byte("out"), StdoutSize: 3, Stderr: []byte("err"), Duration: time.Second}, false},
		{Result{ExitCode: 1<<32 - 1, Failure: wire.FailureKind_FAILURE_KIND_EXIT, Error: "exit", Stdout: []byte{}, Stderr: []byte{}}, false},
		{Result{StdoutPath: "o", StdoutSize: 1 << 20, Stderr: []byte{}}, true},
	} {
		got, err := decodeResult(oneFrame(t, appendResult(nil, &c.sent, c.inFile)).body, &task)
		if err != nil || !reflect.DeepEqual(got, c.sent) {
			t.Errorf("got %+v, %v; want %+v", got, err, c.sent)
		}
	}
}

func TestAResultThatLiesIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		task   Task
		res    Result
		inFile bool
	}{
		"more output than allowed": {Task{MaxOutput: 2}, Result{Stdout: []byte("out"), StdoutSize: 3}, false},
		"a size that is not so":    {Task{MaxOutput: 9}, Result{Stdout: []byte("out"), StdoutSize: 2}, false},
		"a file that is not meant": {Task{MaxOutput: 9}, Result{StdoutSize: 2}, true},
		"long stderr":              {Task{}, Result{Stderr: make([]byte, wire.MaxStderr+1)}, false},
		"an unknown failure":       {Task{}, Result{Failure: 99}, false},
	} {
		if res, err := decodeResult(oneFrame(t, appendResult(nil, &c.res, c.inFile)).body, &c.task); err == nil {
			t.Errorf("%s: got %+v", name, res)
		}
	}
}

func FuzzDecodeResult(f *testing.F) {
	f.Add(appendResult(nil, &Result{Stdout: []byte("out"), StdoutSize: 3, Error: "x", Stderr: []byte("y")}, false))
	f.Add(appendResult(nil, &Result{StdoutSize: 3, Failure: 3}, true))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bufio.NewReader(bytes.NewReader(b))
		for {
			fr, err := readFrame(r, maxResultFrame)
			if err != nil {
				return
			}
			task := Task{MaxOutput: 100, OutputPath: "o"}
			if res, err := decodeResult(fr.body, &task); err == nil && (res.StdoutSize > 100 || len(res.Stdout) > 100) {
				t.Errorf("got %+v", res)
			}
		}
	})
}

func FuzzDecodeTask(f *testing.F) {
	f.Add(appendTask(nil, &Task{Args: []string{"a", "b"}, Env: []string{"K=V"}, Stdin: []byte("in")})[5:])
	f.Fuzz(func(t *testing.T, b []byte) {
		var got task
		if err := got.decode(b); err == nil && len(got.args)+len(got.env) > len(b) {
			t.Errorf("%d strings of %d bytes", len(got.args)+len(got.env), len(b))
		}
	})
}
