package e2e

import (
	"strings"
	"time"
)

// upgradeOneByOne has three members of a version that knows format 1 alone,
// built with the tag ostrich_format1, upgraded one by one while maps run: the
// swarm never stops, and uses the new format when the last voter knows it.
func upgradeOneByOne(o *ordeal) {
	old := variant(o.t, "ostrich_format1")
	for i := range 3 {
		n := newNode(o.t, string(rune('a'+i)), "--slots", "1")
		n.program = old
		if i == 0 {
			o.nodes = append(o.nodes, n.up())
			continue
		}
		o.nodes = append(o.nodes, n.up("--join", o.nodes[0].invite("member")))
	}
	o.nodes[0].online(3)
	o.nodes[0].voters(3)
	o.work()
	// The coordinator is neither the first nor the last.
	leader, others := o.agree()
	for _, n := range []*node{others[0], leader, others[1]} {
		o.suffer(o.upgrade(n))
		r := o.nodes[0].try(nil, "device", "drain", others[0].name)
		if last := n == others[1]; !last && (r.status != 1 || !strings.Contains(r.err, "version") && !strings.Contains(r.err, "upgrade")) {
			o.t.Errorf("before the last member is upgraded, draining a device gives %v; want status 1 and a word about versions", r)
		}
	}
	// All know the new format now.
	eventually(o.t, patience, "a command of the new format is taken", func() bool {
		return o.nodes[0].try(nil, "device", "drain", others[0].name).status == 0
	})
	eventually(o.t, patience, others[0].name+" is drained", func() bool {
		return o.nodes[0].device(others[0].name).Status == "DRAINING"
	})
	o.nodes[0].do(nil, "device", "enable", others[0].name)
	o.agree()
	o.account()
	o.downgrade(others[1], old)
}

// upgrade is a harm that should be none: a member is stopped gracefully, and
// started with the new program.
func (o *ordeal) upgrade(n *node) harm {
	return harm{
		name: "upgrade", victims: []*node{n}, lasts: 500 * time.Millisecond,
		begin: n.stop,
		end: func() {
			n.program = ""
			n.up()
		},
	}
}

// downgrade starts the old program on a folder of the new format: it stops with
// a word, and harms nothing.
func (o *ordeal) downgrade(n *node, old string) {
	o.t.Helper()
	n.stop()
	n.program = old
	n.launch()
	select {
	case <-n.ended:
	case <-time.After(patience):
		o.t.Fatalf("%s runs %v after its start, though its program does not know the format of its log:\n%s", n.name, patience, n.errors)
	}
	said := n.errors.String()
	if n.cmd.ProcessState.ExitCode() != 1 || !strings.Contains(said, "version") || strings.Contains(said, "goroutine ") {
		o.t.Errorf("an old program on a newer log ended with %v; want status 1 and which version is needed:\n%s", n.cmd.ProcessState, tail(said, 20))
	}
	o.t.Logf("the old program says: %s", tail(strings.TrimSpace(said), 1))
	n.program = ""
	n.up()
	o.agree()
	works(o.t, n)
}
