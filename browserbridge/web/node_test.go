package web_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// machine is a real node, in a process and a folder of its own.
type machine struct {
	t      testing.TB
	binary string
	folder string
	up     *exec.Cmd
}

// build makes the program.
func build(t testing.TB) string {
	t.Helper()
	if testing.Short() {
		t.Skip("it builds the program")
	}
	binary := filepath.Join(t.TempDir(), "ostrich")
	cmd := exec.Command("go", "build", "-o", binary, "../../cmd/ostrich")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building ostrich: %v\n%s", err, out)
	}
	return binary
}

// start brings a node up, and waits until it is ready.
func start(t testing.TB, binary, name string, args ...string) *machine {
	t.Helper()
	m := &machine{t: t, binary: binary, folder: filepath.Join(t.TempDir(), name)}
	m.begin(args...)
	return m
}

// begin starts the node, for the first time or again.
func (m *machine) begin(args ...string) {
	t := m.t
	t.Helper()
	name := filepath.Base(m.folder)
	args = append([]string{"up", "--data", m.folder, "--name", name, "--public", "127.0.0.1:0", "--control", "127.0.0.1:0", "--p2p", "127.0.0.1:0", "--no-mdns"}, args...)
	m.up = exec.Command(m.binary, args...)
	var log bytes.Buffer
	m.up.Stderr = &log
	stdout, err := m.up.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := m.up.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.kill)
	ready := make(chan bool, 1)
	go func() {
		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			if lines.Text() == "ready" {
				ready <- true
				break
			}
		}
		close(ready)
		_, _ = io.Copy(io.Discard, stdout)
	}()
	select {
	case ok := <-ready:
		if !ok {
			_ = m.up.Wait()
			t.Fatalf("%s did not come up:\n%s", name, log.String())
		}
	case <-time.After(patience):
		t.Fatalf("%s is not ready after %v", name, patience)
	}
}

// kill ends the node as a power cut would.
func (m *machine) kill() {
	_ = m.up.Process.Kill()
	_ = m.up.Wait()
}

// command is a command about this node.
func (m *machine) command(args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(m.t.Context(), 2*patience)
	m.t.Cleanup(cancel)
	return exec.CommandContext(ctx, m.binary, append([]string{"--data", m.folder}, args...)...)
}

func (m *machine) ostrich(args ...string) []byte {
	m.t.Helper()
	cmd := m.command(args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		m.t.Fatalf("ostrich %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return out
}

// invite makes an invite.
func (m *machine) invite(args ...string) (invite struct{ ID, Link, Code, Text string }) {
	m.t.Helper()
	if err := json.Unmarshal(m.ostrich(append([]string{"invite", "--json"}, args...)...), &invite); err != nil {
		m.t.Fatal(err)
	}
	return invite
}

type listedDevice struct {
	ID, Name, Type, Status, Role string
	Capabilities                 struct{ Runtime string }
	TotalTasksCompleted          int
}

// browsers lists the browsers that the node knows.
func (m *machine) browsers() (found []listedDevice) {
	m.t.Helper()
	var all []listedDevice
	if err := json.Unmarshal(m.ostrich("devices", "--json"), &all); err != nil {
		m.t.Fatal(err)
	}
	for _, d := range all {
		if d.Type == "BROWSER" {
			found = append(found, d)
		}
	}
	return found
}

// swarmOf starts three members, and waits until each votes.
func swarmOf(t *testing.T, binary string) (a, b, c *machine) {
	t.Helper()
	a = start(t, binary, "a")
	b = start(t, binary, "b", "--join", a.invite("--role", "member").Text)
	c = start(t, binary, "c", "--join", a.invite("--role", "member").Text)
	deadline := time.Now().Add(patience)
	for {
		var status struct{ Voters []string }
		if err := json.Unmarshal(a.ostrich("status", "--json"), &status); err != nil {
			t.Fatal(err)
		}
		if len(status.Voters) == 3 {
			return a, b, c
		}
		if time.Now().After(deadline) {
			t.Fatalf("voters are %v after %v", status.Voters, patience)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func TestARealNodeMapsOverABrowser(t *testing.T) {
	binary := build(t)
	browser := startBrowser(t)
	a := start(t, binary, "alpha")
	begun := time.Now()
	p := open(t, browser, a.invite().Link)
	p.until("the page is ready", func() bool { return p.text("headline") == "Ready" })
	t.Logf("ready %v after the click", time.Since(begun))
	list := a.browsers()
	if len(list) != 1 || list[0].Status == "OFFLINE" || !strings.HasPrefix(list[0].Capabilities.Runtime, "Chrome ") || list[0].Role != "worker" {
		t.Fatalf("devices: %+v", list)
	}
	cmd := a.command("map", "builtin:upper", "--require", "browser")
	var in, want strings.Builder
	for i := range 3000 {
		fmt.Fprintf(&in, "line %d\n", i)
		fmt.Fprintf(&want, "LINE %d\n", i)
	}
	cmd.Stdin = strings.NewReader(in.String())
	begun = time.Now()
	got, err := cmd.Output()
	if err != nil || string(got) != want.String() {
		t.Fatalf("map: %v, %d bytes of output, want %d", err, len(got), want.Len())
	}
	t.Logf("3,000 tasks took %v", time.Since(begun))
	p.until("the page counts them", func() bool { return p.text("done") == "3,000" })
	for _, screen := range screens {
		p.look("node", screen)
	}
	p.close()
	deadline := time.Now().Add(patience)
	for a.browsers()[0].Status != "OFFLINE" {
		if time.Now().After(deadline) {
			t.Fatalf("the tab was closed, and the device is %s", a.browsers()[0].Status)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func TestAPageOutlivesItsBridgeAndTheCoordinator(t *testing.T) {
	binary := build(t)
	browser := startBrowser(t)
	a, b, c := swarmOf(t, binary)
	p := open(t, browser, b.invite().Link)
	p.loses.Store(true)
	p.until("the page is ready", func() bool { return p.text("headline") == "Ready" })
	mapWhile(t, c, p, b.kill)
	b.begin()
	mapWhile(t, c, p, a.kill)
}

// mapWhile runs a map over the page, in the middle of which something happens.
func mapWhile(t *testing.T, from *machine, p *tab, happens func()) {
	t.Helper()
	cmd := from.command("map", "builtin:spin", "--range", "0..99", "--require", "browser", "--", "5000")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	before := p.text("done")
	p.until("the page computes", func() bool { return p.text("done") != before })
	through := p.text("detail")
	begun := time.Now()
	happens()
	p.until("the page is connected again", func() bool {
		now := p.text("detail")
		return now != through && strings.HasPrefix(now, "Connected")
	})
	t.Logf("%v after it the page was connected again", time.Since(begun))
	if err := cmd.Wait(); err != nil {
		t.Fatalf("map: %v", err)
	}
	if n := strings.Count(out.String(), "\n"); n != 100 {
		t.Errorf("%d outputs, want 100", n)
	}
}

func TestAPageOutlivesACrashOfTheWebRTCStack(t *testing.T) {
	binary := build(t)
	browser := startBrowser(t)
	a := start(t, binary, "alpha")
	p := open(t, browser, a.invite().Link)
	p.loses.Store(true)
	p.until("the page is ready", func() bool { return p.text("headline") == "Ready" })
	cmd := a.command("map", "builtin:spin", "--range", "0..99", "--require", "browser", "--", "5000")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.until("the page computes", func() bool { return p.text("done") != "0" })
	stack, err := os.FindProcess(a.stack())
	if err == nil {
		err = stack.Kill()
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("map: %v", err)
	}
	if n := strings.Count(out.String(), "\n"); n != 100 {
		t.Errorf("%d outputs, want 100", n)
	}
	if list := a.browsers(); len(list) != 1 {
		t.Errorf("devices: %+v", list)
	}
}

// stack is the process of the node's WebRTC stack.
func (m *machine) stack() int {
	m.t.Helper()
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", m.up.Process.Pid))
	if err != nil || len(lists) == 0 {
		m.t.Skip("this system does not list the children of a process")
	}
	for _, list := range lists {
		children, _ := os.ReadFile(list) // of a thread that has ended
		for _, child := range strings.Fields(string(children)) {
			env, _ := os.ReadFile("/proc/" + child + "/environ")
			if pid, err := strconv.Atoi(child); err == nil && strings.Contains(string(env), "OSTRICH_BRIDGE_CHILD=1") {
				return pid
			}
		}
	}
	m.t.Fatal("the WebRTC stack has no process")
	return 0
}

func TestARealNodeTakesCodesAndRefusesInvitesThatAreNoneAnyMore(t *testing.T) {
	binary := build(t)
	browser := startBrowser(t)
	a := start(t, binary, "alpha")
	once, revoked := a.invite("--uses", "1"), a.invite()
	a.ostrich("invite", "revoke", revoked.ID)
	page, _, _ := strings.Cut(once.Link, "#")
	first := open(t, browser, page)
	first.until("the page asks for an invite", func() bool { return first.text("headline") == "Join a swarm" })
	first.typeCode(once.Code)
	first.until("the page is ready", func() bool { return first.text("headline") == "Ready" })

	second := open(t, browser, once.Link)
	for _, c := range []struct{ code, why string }{
		{"", "used up"},
		{revoked.Code, "revoked"},
		{"0000000000", "invite"},
	} {
		before := second.text("detail")
		if c.code != "" {
			second.typeCode(c.code)
		}
		second.until("the page says "+c.why, func() bool {
			return second.text("headline") == "This device was not let in" && second.text("detail") != before && strings.Contains(second.text("detail"), c.why)
		})
		t.Logf("%q: %s", c.code, second.text("detail"))
	}
	if list := a.browsers(); len(list) != 1 {
		t.Errorf("devices: %+v", list)
	}
}
