package e2e

import (
	"fmt"
	"time"
)

// cutLinks cuts real links and routes between machines that have a network
// namespace each.
func cutLinks(o *ordeal) {
	c := newCuts(o)
	moment := func() time.Duration { return o.between(2500*time.Millisecond, 5*time.Second) }
	for o.done < o.size {
		for _, round := range []func(leader *node, others []*node) harm{
			func(l *node, _ []*node) harm { return c.down("link down", moment(), l) },
			func(_ *node, f []*node) harm { return c.down("link down", moment(), o.any(f)) },
			func(l *node, _ []*node) harm { return c.blackhole("both ways", moment(), l, both) },
			func(l *node, f []*node) harm { return c.down("most links down", moment(), l, o.any(f)) },
			func(l *node, _ []*node) harm { return c.blackhole("it is not heard", moment(), l, out) },
			func(l *node, _ []*node) harm { return c.blackhole("it does not hear", moment(), l, in) },
			func(l *node, _ []*node) harm { return c.flapping(moment(), l) },
			func(_ *node, f []*node) harm { return c.blackhole("it is not heard", moment(), o.any(f), out) },
			func(_ *node, f []*node) harm { return c.flapping(moment(), o.any(f)) },
			func(l *node, _ []*node) harm { return c.down("link down", moment(), l) },
		} {
			if o.done < o.size {
				o.suffer(round(o.agree()))
			}
		}
	}
	o.account()
}

// cuts are an ordeal in a network whose links can be cut.
type cuts struct {
	*ordeal
	lan     *lan
	network string
}

// newCuts starts three members that have a network namespace each.
func newCuts(o *ordeal) *cuts {
	const network = "10.77.3"
	l := newLAN(o.t, 3)
	for i := range 3 {
		l.address(i, network)
		n := l.node(i, string(rune('a'+i)))
		n.flags = []string{"--slots", "1"}
		if i == 0 {
			o.nodes = append(o.nodes, n.up())
			continue
		}
		o.nodes = append(o.nodes, n.up("--join", o.nodes[0].invite("member")))
	}
	o.nodes[0].online(3)
	o.nodes[0].voters(3)
	o.work()
	return &cuts{o, l, network}
}

// takeOver has coordinators die in three ways, to measure how long the swarm is
// without one.
func takeOver(o *ordeal) {
	c := newCuts(o)
	for o.done < o.size {
		for _, round := range []func(leader *node) harm{
			c.crash,
			func(l *node) harm { return o.stop("SIGSTOP", takeoverTime, l) },
			func(l *node) harm { return c.down("link down", takeoverTime, l) },
		} {
			if o.done < o.size {
				leader, _ := o.agree()
				time.Sleep(o.between(0, 500*time.Millisecond)) // the moment is the test's input
				o.suffer(round(leader))
			}
		}
	}
	o.account()
}

// takeoverTime is how long a coordinator is away that is measured.
const takeoverTime = 2500 * time.Millisecond

// crash is a harm: kill -9.
func (c *cuts) crash(victim *node) harm {
	return harm{
		name: "kill -9", victims: []*node{victim}, lasts: takeoverTime / 2,
		begin: victim.kill, end: func() { victim.up() },
	}
}

// machine is the place of a node in the network.
func (c *cuts) machine(n *node) int {
	for i, m := range c.nodes {
		if m == n {
			return i
		}
	}
	c.t.Fatalf("%s has no machine", n.name)
	return 0
}

// link sets the switch's side of a machine's link up or down: the machine itself
// sees nothing but silence.
func (c *cuts) link(n *node, state string) {
	c.lan.ip("-n", c.lan.name+"-hub", "link", "set", fmt.Sprintf("port%d", c.machine(n)), state)
}

// down is a harm: machines hear nobody and are heard by nobody.
func (c *cuts) down(name string, lasts time.Duration, victims ...*node) harm {
	set := func(state string) func() {
		return func() {
			for _, n := range victims {
				c.link(n, state)
			}
		}
	}
	return harm{name: name, victims: victims, lonely: true, lasts: lasts, begin: set("down"), end: set("up")}
}

// flapping is a harm: a link that comes and goes.
func (c *cuts) flapping(lasts time.Duration, victim *node) harm {
	return harm{
		name: "flapping link", victims: []*node{victim}, anything: true,
		begin: func() {
			for end := time.Now().Add(lasts); time.Now().Before(end); {
				c.link(victim, "down")
				time.Sleep(c.between(50*time.Millisecond, 1200*time.Millisecond))
				c.link(victim, "up")
				time.Sleep(c.between(50*time.Millisecond, 800*time.Millisecond))
			}
		},
		end: func() {},
	}
}

// The ways of a cut.
const (
	out = 1 << iota
	in
	both = out | in
)

// blackhole is a harm: routes between a machine and all others swallow what is
// sent, one way or both.
func (c *cuts) blackhole(name string, lasts time.Duration, victim *node, ways int) harm {
	set := func(verb string) func() {
		return func() {
			for _, other := range c.but(victim) {
				if ways&out != 0 {
					c.route(verb, victim, other)
				}
				if ways&in != 0 {
					c.route(verb, other, victim)
				}
			}
		}
	}
	return harm{name: "blackhole, " + name, victims: []*node{victim}, lonely: true, lasts: lasts, begin: set("add"), end: set("del")}
}

// route adds or deletes the route of a machine that leads what it sends to
// another into nothing.
func (c *cuts) route(verb string, from, to *node) {
	c.lan.ip("-n", c.lan.machine(c.machine(from)), "route", verb, "blackhole", fmt.Sprintf("%s.%d/32", c.network, 11+c.machine(to)))
}
