package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
)

// skipNamespace skips a test that this machine cannot run. A CI that says so
// of itself must be able to.
func skipNamespace(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("CI must run this test, but cannot: %s", why)
	}
	t.Skip("SKIP-NAMESPACE: " + why)
}

// skipDevice skips a test for which this machine lacks a device. A container may
// lack it for good: .ci/skips lists these tests.
func skipDevice(t *testing.T, why string) {
	t.Helper()
	t.Skip("SKIP-DEVICE, and what this test shows is NOT proven by this run: " + why)
}

// needRoot skips a test that only root on Linux can run.
func needRoot(t *testing.T) {
	t.Helper()
	if runtime.GOOS != "linux" || os.Geteuid() != 0 {
		skipNamespace(t, "this needs root on Linux")
	}
}

// lan is a network of its own: a switch, and a machine at each of its ports.
// The machines see each other and nothing else, the host's loopback included.
type lan struct {
	t    *testing.T
	name string // what the names of all namespaces begin with
}

// lans counts the networks of this run, for their names.
var lans atomic.Int32

// newSpaces makes namespaces for so many machines, with nothing in them, and
// others by name.
func newSpaces(t *testing.T, machines int, others ...string) *lan {
	t.Helper()
	needRoot(t)
	for command, debian := range map[string]string{"ip": "iproute2", "nsenter": "util-linux"} {
		if _, err := exec.LookPath(command); err != nil {
			skipNamespace(t, fmt.Sprintf("this needs the command %s (Debian: %s)", command, debian))
		}
	}
	l := &lan{t: t, name: fmt.Sprintf("ostrich-%d-%d", os.Getpid(), lans.Add(1))}
	var spaces []string
	for _, name := range others {
		spaces = append(spaces, l.name+"-"+name)
	}
	for i := range machines {
		spaces = append(spaces, l.machine(i))
	}
	for _, ns := range spaces {
		if out, err := exec.Command("ip", "netns", "add", ns).CombinedOutput(); err != nil {
			skipNamespace(t, fmt.Sprintf("ip netns add %s: %v: %s", ns, err, out))
		}
		// All that is in it goes with it.
		t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", ns).Run() })
	}
	return l
}

// newLAN makes a network with so many machines and no addresses.
func newLAN(t *testing.T, machines int) *lan {
	t.Helper()
	l := newSpaces(t, machines, "hub")
	hub := l.name + "-hub"
	l.ip("-n", hub, "link", "add", "hub", "type", "bridge")
	l.ip("-n", hub, "link", "set", "hub", "up")
	for i := range machines {
		ns := l.machine(i)
		port := fmt.Sprintf("port%d", i)
		l.ip("-n", hub, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", ns)
		l.ip("-n", hub, "link", "set", port, "master", "hub", "up")
		l.ip("-n", ns, "link", "set", "lo", "up")
		l.ip("-n", ns, "link", "set", "eth0", "up")
	}
	return l
}

// machine is the name of a machine's namespace.
func (l *lan) machine(i int) string { return fmt.Sprintf("%s-%d", l.name, i) }

// address gives a machine an address in place of those that it had.
func (l *lan) address(i int, network string) {
	l.t.Helper()
	ns := l.machine(i)
	l.ip("-n", ns, "addr", "flush", "dev", "eth0", "scope", "global")
	l.ip("-n", ns, "addr", "add", fmt.Sprintf("%s.%d/24", network, 11+i), "dev", "eth0")
	l.ip("-n", ns, "route", "replace", "default", "via", network+".1")
}

func (l *lan) ip(args ...string) {
	l.t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		l.t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// members starts so many members of one swarm, on the first machines, at
// addresses of a network, and waits until as many vote as have to.
func (l *lan) members(network string, size, voters int) (nodes []*node) {
	l.t.Helper()
	for i := range size {
		l.address(i, network)
		n := l.node(i, string(rune('a'+i)))
		if i == 0 {
			nodes = append(nodes, n.up())
			continue
		}
		nodes = append(nodes, n.up("--join", nodes[0].invite("member")))
	}
	nodes[0].voters(voters)
	return nodes
}

// node returns a node on a machine, with the flags that a person gives: none.
func (l *lan) node(i int, name string) *node {
	l.t.Helper()
	return &node{t: l.t, name: name, dir: folder(l.t), ns: l.machine(i)}
}
