package web_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/ostrich-legs/ostrich/node/sandbox"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// outcome is what a run of a program came to, in a page's words.
type outcome struct {
	Failure        wire.FailureKind
	ExitCode       uint32
	Error          string
	Stdout, Stderr string
}

// run is a run of a program of node/sandbox.
type run struct {
	name, file string
	args       []string
	env        []string
	input      string
	memoryMiB  uint32
	maxOutput  uint64
	index      uint32
}

func (r run) native(t *testing.T, pool *sandbox.Pool) outcome {
	t.Helper()
	file := "../../node/sandbox/" + r.file
	module, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var got outcome
	task := sandbox.Task{
		Args: r.args, Env: r.env, Stdin: []byte(r.input), Seed: sandbox.Seed("job", r.index),
		MemoryMiB: r.memoryMiB, MaxOutput: r.maxOutput, OutputPath: t.TempDir() + "/out",
	}
	err = pool.Run(context.Background(), sandbox.Program{Hash: wire.HashOf(module), Path: file}, []sandbox.Task{task}, func(_ int, res sandbox.Result) {
		stdout := res.Stdout
		if res.StdoutPath != "" {
			if stdout, err = os.ReadFile(res.StdoutPath); err != nil {
				t.Error(err)
			}
		}
		got = outcome{res.Failure, res.ExitCode, res.Error, hex.EncodeToString(stdout), hex.EncodeToString(res.Stderr)}
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func (r run) inBrowser(p *tab) outcome {
	p.t.Helper()
	task := map[string]any{"args": r.args, "env": r.env, "input": r.input, "maxOutput": r.maxOutput, "index": r.index}
	if task["args"] = r.args; r.args == nil {
		task["args"] = []string{}
	}
	if task["env"] = r.env; r.env == nil {
		task["env"] = []string{}
	}
	return eval[outcome](p, `parts.runTask($0, $1, $2)`, "/sandbox/"+r.file, r.memoryMiB, task)
}

func (r run) withDefaults() run {
	if r.memoryMiB == 0 {
		r.memoryMiB = wire.DefaultMemoryMiB
	}
	if r.maxOutput == 0 {
		r.maxOutput = wire.DefaultMaxOutput
	}
	return r
}

func TestAProgramDoesTheSameInABrowserAsNatively(t *testing.T) {
	pool := sandbox.New(sandbox.Options{Slots: 1})
	t.Cleanup(func() { pool.Close() })
	p := open(t, startBrowser(t), partsPage(t)+"/parts")
	lines := strings.Repeat("Ostriches läuft fast, 1234\n", 3000)
	for _, r := range []run{
		{name: "cat", file: "programs/cat.wasm", input: lines},
		{name: "cat of nothing", file: "programs/cat.wasm"},
		{name: "upper", file: "programs/upper.wasm", input: "Ostrich\n"},
		{name: "wordcount", file: "programs/wordcount.wasm", input: lines},
		{name: "noop", file: "programs/noop.wasm"},
		{name: "render", file: "programs/render.wasm", input: "640 360 32 32 1280 720\n"},
		{name: "spin", file: "programs/spin.wasm", args: []string{"spin", "3"}},
		{name: "arguments", file: "testdata/show.wasm", args: []string{"show", "", "two words", "ünï"}, env: []string{"K=V", "EMPTY="}, input: "12345"},
		{name: "vectors", file: "testdata/vectors.wasm"},
		{name: "vectors of another task", file: "testdata/vectors.wasm", index: 4_000_000_000},
		{name: "sleep", file: "testdata/sleep.wasm"},
		{name: "memory without end", file: "testdata/misbehave.wasm", input: "m"},
		{name: "exit", file: "testdata/exit.wasm", args: []string{"exit", "3"}},
		{name: "memory within its bound", file: "testdata/hog.wasm", args: []string{"hog", "20"}, memoryMiB: 32},
		{name: "memory beyond its bound", file: "testdata/hog.wasm", memoryMiB: 32},
		{name: "refused memory that it copes with", file: "testdata/hog.wasm", args: []string{"hog", "1000", "cope"}, memoryMiB: 32},
		{name: "output beyond its bound", file: "testdata/flood.wasm", args: []string{"flood", "1", "65"}, maxOutput: 64 << 10},
		{name: "a large output", file: "testdata/flood.wasm", args: []string{"flood", "1", "3000"}},
		{name: "the end of stderr", file: "testdata/flood.wasm", args: []string{"flood", "2", "100000"}},
		{name: "Go", file: "testdata/wordcount-go.wasm", input: lines},
	} {
		r := r.withDefaults()
		t.Run(r.name, func(t *testing.T) {
			p := &tab{t: t, ctx: p.ctx}
			want, got := r.native(t, pool), r.inBrowser(p)
			if got != want {
				t.Errorf("got  %v %d %q\n stdout %s\n stderr %s\nwant %v %d %q\n stdout %s\n stderr %s",
					got.Failure, got.ExitCode, got.Error, cut(got.Stdout), cut(got.Stderr),
					want.Failure, want.ExitCode, want.Error, cut(want.Stdout), cut(want.Stderr))
			}
		})
	}
}

func cut(hexed string) string {
	b, _ := hex.DecodeString(hexed)
	return string(b[:min(len(b), 2000)])
}

func TestTheVectorsHoldInABrowser(t *testing.T) {
	golden, err := os.ReadFile("../../node/sandbox/testdata/vectors.txt")
	if err != nil {
		t.Fatal(err)
	}
	_, want, _ := strings.Cut(string(golden), "\n")
	p := open(t, startBrowser(t), partsPage(t)+"/parts")
	got := run{file: "testdata/vectors.wasm"}.withDefaults().inBrowser(p)
	if cut(got.Stdout) != want {
		t.Errorf("got:\n%s\nwant:\n%s", cut(got.Stdout), want)
	}
}

func TestTrapsAreNamedInABrowser(t *testing.T) {
	p := open(t, startBrowser(t), partsPage(t)+"/parts")
	for _, c := range []struct {
		r    run
		text string
	}{
		{run{file: "testdata/trap.wasm"}, "trap: unreachable"},
		{run{file: "testdata/recurse.wasm", args: []string{"recurse", "deep"}}, "trap: "},
	} {
		got := c.r.withDefaults().inBrowser(p)
		if got.Failure != wire.FailureKind_FAILURE_KIND_TRAP || !strings.HasPrefix(got.Error, c.text) {
			t.Errorf("%s: got %v %q, want a trap that begins %q", c.r.file, got.Failure, got.Error, c.text)
		}
	}
}

func TestFloatsAreTheSameInABrowserUpToNaN(t *testing.T) {
	p := open(t, startBrowser(t), partsPage(t)+"/parts")
	got := run{file: "testdata/nan.wasm"}.withDefaults().inBrowser(p)
	lines := strings.Split(cut(got.Stdout), "\n")
	if len(lines) != 7 || lines[4] != "1/3 3fd5555555555555" || lines[5] != "sin(1) 3feaed548f090cee" {
		t.Fatalf("got %q", lines)
	}
	for _, line := range lines[:4] {
		if !strings.HasSuffix(line, " nan") {
			t.Errorf("got %q", line)
		}
	}
}

// manyFunctions is a command of so many functions that do nothing, whose _start
// grows its memory.
func manyFunctions(count int) []byte {
	section := func(id byte, parts ...[]byte) []byte {
		body := bytes.Join(parts, nil)
		return append(binary.AppendUvarint([]byte{id}, uint64(len(body))), body...)
	}
	n := binary.AppendUvarint(nil, uint64(count+1))
	return bytes.Join([][]byte{
		[]byte("\x00asm\x01\x00\x00\x00"),
		section(1, []byte{1, 0x60, 0, 0}),
		section(3, n, make([]byte, count+1)),
		section(5, []byte{1, 0, 1}),
		section(7, []byte("\x02\x06_start\x00\x00\x06memory\x02\x00")),
		section(10, n, []byte{7, 0, 0x41, 1, 0x40, 0, 0x1a, 0x0b}, bytes.Repeat([]byte{2, 0, 0x0b}, count)),
	}, nil)
}

func TestAProgramOfVeryManyFunctionsRunsInABrowser(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "*")
		w.Write(manyFunctions(300_000))
	}))
	defer server.Close()
	p := open(t, startBrowser(t), partsPage(t)+"/parts")
	task := map[string]any{"args": []string{}, "env": []string{}}
	if got := eval[outcome](p, `parts.runTask($0, $1, $2)`, server.URL, 16, task); got != (outcome{}) {
		t.Errorf("got %+v", got)
	}
}
