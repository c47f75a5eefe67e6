package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
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

// newLAN makes a network with so many machines and no addresses.
func newLAN(t *testing.T, machines int) *lan {
	t.Helper()
	needRoot(t)
	if _, err := exec.LookPath("ip"); err != nil {
		skipNamespace(t, "this needs the command ip (Debian: iproute2)")
	}
	l := &lan{t: t, name: fmt.Sprintf("ostrich-%d", os.Getpid())}
	spaces := []string{l.name + "-hub"}
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
	hub := spaces[0]
	l.ip("-n", hub, "link", "add", "hub", "type", "bridge")
	l.ip("-n", hub, "link", "set", "hub", "up")
	for i, ns := range spaces[1:] {
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

// node returns a node on a machine, with the flags that a person gives: none.
func (l *lan) node(i int, name string) *node {
	l.t.Helper()
	return &node{t: l.t, name: name, dir: folder(l.t), ns: l.machine(i)}
}
