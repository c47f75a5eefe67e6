package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// stallTime is twice as long as a coordinator's disk may take to answer.
const stallTime = 10 * time.Second

// spoilDisks fills the disks of members, and has their logs fail or stall: the
// program is built with the tag ostrich_faults.
func spoilDisks(o *ordeal) {
	d := &spoiled{o, map[*node]string{}}
	program := variant(o.t, "ostrich_faults")
	for i := range 3 {
		n := newNode(o.t, string(rune('a'+i)), "--slots", "1")
		d.disks[n] = smallDisk(o.t, "800m")
		n.dir, n.program = filepath.Join(d.disks[n], "data"), program
		if i == 0 {
			o.nodes = append(o.nodes, n.up())
			continue
		}
		o.nodes = append(o.nodes, n.up("--join", o.nodes[0].invite("member")))
	}
	o.nodes[0].online(3)
	o.nodes[0].voters(3)
	o.work()
	for o.done < o.size {
		for _, round := range []func(leader *node, others []*node) harm{
			func(l *node, _ []*node) harm { return d.stall(l, true) },
			func(_ *node, f []*node) harm { return d.full(o.any(f)) },
			func(l *node, _ []*node) harm { return d.fault("log fails", "fail", 4*time.Second, l) },
			func(_ *node, f []*node) harm { return d.fault("log fails", "fail", 4*time.Second, o.any(f)) },
			func(l *node, _ []*node) harm { return d.full(l) },
			func(_ *node, f []*node) harm { return d.stall(o.any(f), false) },
		} {
			if o.done < o.size {
				o.suffer(round(o.agree()))
			}
		}
	}
	o.account()
}

// spoiled is an ordeal of disks that do not do what they should.
type spoiled struct {
	*ordeal
	disks map[*node]string
}

// full is a harm: no byte is free.
func (d *spoiled) full(victim *node) harm {
	var free func()
	return harm{
		name: "full disk", victims: []*node{victim}, lasts: d.between(4*time.Second, 8*time.Second),
		begin: func() { free = fill(d.t, d.disks[victim], 0) },
		end: func() {
			free()
			d.bringBack(victim)
		},
	}
}

// fault is a harm to the log of a member, in a word that the program knows.
func (d *spoiled) fault(name, word string, lasts time.Duration, victim *node) harm {
	file := filepath.Join(victim.dir, "faults")
	return harm{
		name: name, victims: []*node{victim}, lasts: lasts,
		begin: func() {
			if err := os.WriteFile(file, []byte(word), 0o600); err != nil {
				d.t.Fatal(err)
			}
		},
		end: func() {
			if err := os.Remove(file); err != nil {
				d.t.Fatal(err)
			}
			d.bringBack(victim)
		},
	}
}

// stall is a harm: the log takes ten seconds to answer. A coordinator ends then,
// and must not take that long.
func (d *spoiled) stall(victim *node, leads bool) harm {
	h := d.fault("stalled log", "stall", stallTime, victim)
	end := h.end
	h.end = func() {
		select {
		case <-victim.ended:
		default:
			if leads {
				d.t.Errorf("the log of %s, which coordinated, has stalled for %v, and it still runs:\n%s", victim.name, stallTime, tail(victim.errors.String(), 10))
			}
		}
		end()
	}
	return h
}

// bringBack starts a node that has ended meanwhile; that it may do with status 1
// and a word.
func (d *spoiled) bringBack(n *node) {
	d.t.Helper()
	select {
	case <-n.ended:
	case <-time.After(2 * time.Second): // it may be about to
		return
	}
	said := n.errors.String()
	lines := strings.Split(strings.TrimSpace(said), "\n")
	last := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, "ostrich: ") })
	if n.cmd.ProcessState.ExitCode() != 1 || last < 0 {
		d.t.Fatalf("%s ended with %v and no word:\n%s", n.name, n.cmd.ProcessState, tail(said, 40))
	}
	d.t.Logf("%s ended: %s", n.name, lines[last])
	n.up()
}
