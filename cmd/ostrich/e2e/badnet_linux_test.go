package e2e

import "time"

// spoilNetwork has the swarm work in a network that drops, delays, reorders and
// resets: see router.
func spoilNetwork(o *ordeal) {
	b := &badnet{o, newRouter(o.t, 3, o.random)}
	// One machine speaks TCP alone, so that resets have something to reset.
	for i := range 2 {
		b.usual(i, 2)
		b.usual(2, i)
	}
	for i := range 3 {
		n := b.router.lan.node(i, string(rune('a'+i)))
		n.flags = []string{"--slots", "1", "--no-mdns"}
		if i == 0 {
			o.nodes = append(o.nodes, n.up())
			continue
		}
		o.nodes = append(o.nodes, n.up("--join", o.nodes[0].invite("member")))
	}
	o.nodes[0].online(3)
	o.nodes[0].voters(3)
	o.work()
	moment := func() time.Duration { return o.between(2500*time.Millisecond, 5*time.Second) }
	slow := rule{low: 5 * time.Millisecond, high: 50 * time.Millisecond}
	for o.done < o.size {
		for _, round := range []func(leader *node, others []*node) harm{
			func(l *node, _ []*node) harm { return b.around("silence", cut, both, l) },
			func(_ *node, _ []*node) harm { return b.everywhere("delays of 5 to 50 ms", slow) },
			func(l *node, f []*node) harm { return b.among("silence between two", cut, l, o.any(f)) },
			func(_ *node, _ []*node) harm { return b.everywhere("5 % loss", rule{loss: 0.05}) },
			func(l *node, _ []*node) harm { return b.around("silence, it is not heard", cut, out, l) },
			func(_ *node, _ []*node) harm { return b.whatever(b.everywhere("a storm of resets", rule{reset: 1})) },
			func(l *node, _ []*node) harm { return b.around("silence, it does not hear", cut, in, l) },
			func(l *node, _ []*node) harm {
				return b.whatever(b.around("delays of up to 400 ms", rule{high: 400 * time.Millisecond}, both, l))
			},
			func(l *node, _ []*node) harm { return b.whatever(b.around("20 % loss", rule{loss: 0.2}, both, l)) },
			func(_ *node, f []*node) harm { return b.around("silence", cut, both, o.any(f)) },
		} {
			if o.done < o.size {
				h := round(o.agree())
				h.lasts = moment()
				o.suffer(h)
			}
		}
	}
	o.account()
}

// badnet is an ordeal in a network in user space.
type badnet struct {
	*ordeal
	router *router
}

// machine is the place of a node in the network.
func (b *badnet) machine(n *node) int {
	for i, m := range b.nodes {
		if m == n {
			return i
		}
	}
	b.t.Fatalf("%s has no machine", n.name)
	return 0
}

// usual sets the rule of good times between two machines.
func (b *badnet) usual(from, to int) { b.router.set(from, to, rule{noUDP: from == 2 || to == 2}) }

// harmOf is a harm to the links that are chosen.
func (b *badnet) harmOf(name string, bad rule, chosen func(from, to int) bool) harm {
	each := func(do func(from, to int)) func() {
		return func() {
			for from := range b.nodes {
				for to := range b.nodes {
					if from != to && chosen(from, to) {
						do(from, to)
					}
				}
			}
		}
	}
	return harm{
		name: name, end: each(b.usual),
		begin: each(func(from, to int) {
			rule := bad
			rule.noUDP = from == 2 || to == 2
			b.router.set(from, to, rule)
		}),
	}
}

// around is a harm to a machine's links, one way or both: it cannot work.
func (b *badnet) around(name string, bad rule, ways int, victim *node) harm {
	v := b.machine(victim)
	h := b.harmOf(name, bad, func(from, to int) bool {
		return from == v && ways&out != 0 || to == v && ways&in != 0
	})
	h.victims, h.lonely = []*node{victim}, true
	return h
}

// among is a harm to what links the coordinator and another machine; a third
// hears both.
func (b *badnet) among(name string, bad rule, leader, other *node) harm {
	x, y := b.machine(leader), b.machine(other)
	h := b.harmOf(name, bad, func(from, to int) bool { return from == x && to == y || from == y && to == x })
	h.victims, h.lonely = []*node{other}, true
	return h
}

// everywhere is a harm to all links with which all go on.
func (b *badnet) everywhere(name string, bad rule) harm {
	return b.harmOf(name, bad, func(int, int) bool { return true })
}

// whatever is a harm in which nobody is asked to go on.
func (b *badnet) whatever(h harm) harm {
	h.anything = true
	return h
}
