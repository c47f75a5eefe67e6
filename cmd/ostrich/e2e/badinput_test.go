package e2e

import (
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// complaint wants an exit status, and one sentence on stderr that holds all
// words. A node's log and the hint to --help may stand beside it.
func complaint(t *testing.T, r result, status int, words ...string) {
	t.Helper()
	var said []string
	for line := range strings.Lines(r.err) {
		if !strings.HasPrefix(line, "time=") && !strings.HasPrefix(line, "Try: ostrich") {
			said = append(said, strings.TrimSuffix(line, "\n"))
		}
	}
	if len(said) != 1 || !strings.HasPrefix(said[0], "ostrich: ") || r.status != status || r.out != "" {
		t.Errorf("%v; want status %d, no stdout and one line on stderr", r, status)
		return
	}
	for _, w := range words {
		if !strings.Contains(said[0], w) {
			t.Errorf("stderr is %q, want %q in it", said[0], w)
		}
	}
}

// works wants the swarm to do what it is there for.
func works(t *testing.T, n *node) {
	t.Helper()
	if got, want := n.do(strings.NewReader("still\nthere"), "map", "builtin:upper"), "STILL\nTHERE\n"; got != want {
		t.Errorf("afterwards a map on %s gives %q, want %q", n.name, got, want)
	}
}

// tryUp starts a node that must not get ready, and returns how it ended.
func (n *node) tryUp(flags ...string) result {
	n.t.Helper()
	n.launch(flags...)
	select {
	case <-n.ended:
	case <-n.out.seen:
		n.t.Errorf("%s is ready, and should not be: %v", n.name, flags)
		n.kill()
	case <-time.After(readyTime):
		n.t.Errorf("%s neither ends nor gets ready: %v\n%s", n.name, flags, n.errors)
		n.kill()
	}
	return result{n.cmd.ProcessState.ExitCode(), n.out.String(), n.errors.String()}
}

func TestBadCommandLinesAreRefused(t *testing.T) {
	t.Parallel()
	n := newNode(t, "a").up()
	dir := folder(t)
	missing := filepath.Join(dir, "missing")
	tests := []struct {
		args   string
		status int
		words  []string
	}{
		{"map", 2, []string{"PROG"}},
		{"frobnicate", 2, []string{"frobnicate"}},
		{"status --frobnicate", 2, []string{"--frobnicate"}},
		{"run builtin:noop surplus", 2, []string{"surplus"}},
		{"job", 2, []string{"needs a command"}},
		{"job results", 2, []string{"ID"}},
		{"map builtin:noop --range 5..1", 2, []string{"5..1"}},
		{"map builtin:noop --range 1-5", 2, []string{"1-5"}},
		{"map builtin:noop --chunk 0", 2, []string{"--chunk"}},
		{"map builtin:noop --null --range 1..2", 2, []string{"--null", "--range"}},
		{"map builtin:noop --ordered --unordered", 2, []string{"--unordered"}},
		{"map builtin:noop --timeout soon", 2, []string{"--timeout", "soon"}},
		{"map builtin:noop --env nothing", 2, []string{"nothing"}},
		{"map builtin:noop --files", 2, []string{"PATH"}},
		{"map builtin:noop --verify 2", 2, []string{"--verify"}},
		{"invite --role king", 2, []string{"king", "worker"}},
		{"leave", 2, []string{"--yes"}},
		{"up --p2p nonsense", 2, []string{"--p2p", "nonsense"}},
		{"up --label nothing", 2, []string{"nothing"}},
		{"map builtin:nosuch", 1, []string{"builtin:nosuch", "wordcount"}},
		{"map " + missing, 1, []string{missing}},
		{"map builtin:cat --files " + missing, 1, []string{missing}},
		{"map builtin:cat --files-from " + missing, 1, []string{missing}},
		{"run " + dir, 125, []string{dir}},
		{"job show nosuch", 1, []string{"nosuch", "ostrich jobs"}},
		{"device rename nosuch x", 1, []string{"nosuch", "ostrich devices"}},
		{"invite revoke nosuch", 1, []string{"nosuch"}},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			complaint(t, n.try(nil, strings.Fields(tt.args)...), tt.status, tt.words...)
		})
	}
	t.Run("a file that disappears from the list", func(t *testing.T) {
		r := n.try(strings.NewReader(missing+"\n"), "map", "builtin:cat", "--files-from", "-")
		complaint(t, r, 1, missing)
	})
	if jobs := n.jobs(); len(jobs) > 1 {
		t.Errorf("what was refused has left jobs: %v", jobs)
	}
	works(t, n)
}

// section returns a section of a WebAssembly module.
func section(id byte, body string) string { return string([]byte{id, byte(len(body))}) + body }

func TestModulesThatAreNoCommandsAreRefusedAtSubmit(t *testing.T) {
	t.Parallel()
	n := newNode(t, "a").up()
	dir := folder(t)
	const (
		header  = "\x00asm\x01\x00\x00\x00"
		oneType = "\x01\x60\x00\x00" // func()
		oneFunc = "\x01\x00"
		oneBody = "\x01\x02\x00\x0b"
		memory  = "\x01\x00\x01"
		command = "\x02\x06_start\x00\x00\x06memory\x02\x00"
	)
	tests := []struct{ name, module, words string }{
		{"text", "print('hello')\n", "not WebAssembly"},
		{"empty", "", "empty"},
		{"component", "\x00asm\x0d\x00\x01\x00", "component"},
		{"cut off", header + "\x01\x40\x01", ""},
		{"reactor", header + section(1, oneType) + section(3, oneFunc) + section(7, "\x01\x0b_initialize\x00\x00") + section(10, oneBody), "_start"},
		{"unknown import", header + section(1, oneType) + section(2, "\x01\x03env\x03foo\x00\x00") + section(3, oneFunc) +
			section(7, "\x01\x06_start\x00\x01") + section(10, oneBody), `"env"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(dir, tt.name+".wasm")
			if err := os.WriteFile(path, []byte(tt.module), 0o600); err != nil {
				t.Fatal(err)
			}
			r := n.try(strings.NewReader("x\n"), "map", path)
			complaint(t, r, 1, path, tt.words)
			if strings.Contains(r.err, n.dir) {
				t.Errorf("stderr names a file of the node's own: %s", r.err)
			}
			complaint(t, n.try(nil, "run", path), 125, path, tt.words)
		})
	}
	if jobs := n.jobs(); len(jobs) > 0 {
		t.Errorf("what was refused has left jobs: %v", jobs)
	}
	good := filepath.Join(dir, "good.wasm")
	module := header + section(1, oneType) + section(3, oneFunc) + section(5, memory) + section(7, command) + section(10, oneBody)
	if err := os.WriteFile(good, []byte(module), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := n.do(nil, "run", good); got != "" {
		t.Errorf("the smallest command prints %q", got)
	}
}

func TestANodeThatCannotStartSaysWhy(t *testing.T) {
	t.Parallel()
	n := newNode(t, "a").up()
	t.Run("a data folder in use", func(t *testing.T) {
		second := &node{t: t, name: "a", dir: n.dir, flags: loopback(t)}
		complaint(t, second.tryUp(), 1, n.dir, "in use", "--data")
	})
	t.Run("a data folder that is a file", func(t *testing.T) {
		file := filepath.Join(folder(t), "file")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		second := &node{t: t, name: "f", dir: file, flags: loopback(t)}
		complaint(t, second.tryUp(), 1, file)
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	for _, flag := range []string{"--public", "--control", "--p2p"} {
		t.Run("a port in use for "+flag, func(t *testing.T) {
			address := listener.Addr().String()
			second := newNode(t, "b")
			complaint(t, second.tryUp(flag, address), 1, "use", flag, strconv.Itoa(listener.Addr().(*net.TCPAddr).Port))
			works(t, second.up())
		})
	}
	works(t, n)
}

func TestCommandsWithoutANodeSayHowToStartOne(t *testing.T) {
	t.Parallel()
	n := newNode(t, "none")
	for _, args := range []string{
		"status", "devices", "jobs", "logs", "invite", "invite ls", "down", "leave --yes",
		"map builtin:cat", "run builtin:cat", "job show x", "job results x", "device rename a b",
	} {
		t.Run(args, func(t *testing.T) {
			complaint(t, n.try(nil, strings.Fields(args)...), 4, n.dir, "ostrich up")
		})
	}
}

func TestInvitesThatAreNotGoodAreRefused(t *testing.T) {
	t.Parallel()
	a := newNode(t, "a").up()
	joiner := newNode(t, "b")
	good := a.invite("member")

	t.Run("mangled", func(t *testing.T) {
		for _, text := range []string{"nonsense", good[:len(good)-3], strings.Replace(good, good[20:22], "zz", 1)} {
			r := joiner.tryUp("--join", text)
			if r.status != 1 && r.status != 2 {
				t.Errorf("%v", r)
			}
			complaint(t, r, r.status, "invite")
		}
	})
	t.Run("expired", func(t *testing.T) {
		text := a.invite("member", "--ttl", "1s")
		time.Sleep(1100 * time.Millisecond) // its life
		complaint(t, joiner.tryUp("--join", text), 1, "expired")
	})
	t.Run("revoked", func(t *testing.T) {
		var i invite
		a.read(&i, "invite", "--role", "member")
		a.do(nil, "invite", "revoke", i.ID)
		complaint(t, joiner.tryUp("--join", i.Text), 1, "revoked")
	})
	// The folder of all those failures is as good as new.
	joiner.up("--join", good)
	t.Run("used up", func(t *testing.T) {
		complaint(t, newNode(t, "c").tryUp("--join", good), 1, "used")
	})
	t.Run("but one from stdin is taken", func(t *testing.T) {
		w := newNode(t, "w")
		w.input = a.invite("worker") + "\n"
		w.up("--join", "-").stop()
	})
	t.Run("of another swarm on a used folder", func(t *testing.T) {
		other := newNode(t, "other").up()
		text := other.invite("member")
		joiner.stop()
		complaint(t, joiner.tryUp("--join", text), 1, joiner.dir, "another", "ostrich leave")
		// An invite of its own swarm is ignored, though it is used up.
		joiner.up("--join", good)
	})
	a.online(2)
	works(t, joiner)
}

func TestAWorkerSaysThatAMapNeedsAMember(t *testing.T) {
	t.Parallel()
	a := newNode(t, "a").up()
	w := newNode(t, "w").up("--join", a.invite("worker"))
	complaint(t, w.try(strings.NewReader("x\n"), "map", "builtin:upper"), 1, "member", "worker", "ostrich invite --role member")
	complaint(t, w.try(strings.NewReader("x\n"), "run", "builtin:upper"), 125, "member", "worker", "ostrich invite --role member")
	complaint(t, w.try(nil, "invite"), 1, "member", "worker")
	if s := w.status(); s.Role != "worker" {
		t.Errorf("the role of a worker is %q", s.Role)
	}
	var all []device
	if err := json.Unmarshal([]byte(w.do(nil, "devices", "--json")), &all); err != nil || len(all) != 2 {
		t.Errorf("a worker lists the devices as %v (%v)", all, err)
	}
	works(t, a)
}
