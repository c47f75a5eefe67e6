package e2e

import (
	"syscall"
	"time"
)

const (
	// pastLease and pastOffline are longer than a lease, and than the silence
	// after which a device counts as offline.
	pastLease   = 35 * time.Second
	pastOffline = 66 * time.Second
)

// stopProcesses stops members and workers by SIGSTOP, as a laptop's lid or a
// hypervisor does, for moments and for longer than leases and sessions live.
func stopProcesses(o *ordeal) {
	o.nodes = swarm(o.t, 3)
	for _, name := range []string{"v", "w"} {
		o.workers = append(o.workers, newNode(o.t, name, "--slots", "1").up("--join", o.nodes[0].invite("worker")))
	}
	o.nodes[0].online(5)
	o.work()
	moment := func() time.Duration { return o.between(2*time.Second, 5*time.Second) }
	for o.done < o.size {
		for _, round := range []func(leader *node, others []*node) harm{
			func(l *node, _ []*node) harm { return o.stop("stop", moment(), l) },
			func(_ *node, f []*node) harm { return o.stop("stop", moment(), o.any(f)) },
			func(l *node, _ []*node) harm { return o.stop("stop past the lease", pastLease, l, o.any(o.workers)) },
			func(_ *node, _ []*node) harm { return o.stop("stop of all", moment(), o.nodes...) },
			func(l *node, _ []*node) harm { return o.stop("stop", moment(), l) },
			func(l *node, f []*node) harm { return o.stop("stop of most", moment(), l, o.any(f)) },
			func(_ *node, f []*node) harm {
				return o.stop("stop past offline", pastOffline, o.any(f), o.any(o.workers))
			},
			func(l *node, _ []*node) harm { return o.stop("stop", moment(), l) },
			func(_ *node, _ []*node) harm { return o.stop("stop", moment(), o.any(o.workers)) },
			func(l *node, f []*node) harm {
				if o.size > 10 { // too long for an ordinary run to have two of
					return o.stop("stop past offline", pastOffline, l)
				}
				return o.stop("stop", moment(), l)
			},
		} {
			if o.done < o.size {
				o.suffer(round(o.agree()))
			}
		}
	}
	o.account()
}

// stop is a harm: processes stand still.
func (o *ordeal) stop(name string, lasts time.Duration, victims ...*node) harm {
	signal := func(s syscall.Signal) func() {
		return func() {
			for _, n := range victims {
				if err := n.cmd.Process.Signal(s); err != nil {
					o.t.Fatal(err)
				}
			}
		}
	}
	return harm{name: name, victims: victims, lasts: lasts, begin: signal(syscall.SIGSTOP), end: signal(syscall.SIGCONT)}
}
