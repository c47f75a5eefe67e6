package e2e

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/ostrich-legs/ostrich/node/control"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// agreeLimit is how long members may take to agree after a harm has ended, on a
// machine however busy. What they do take is in the log.
const agreeLimit = 60 * time.Second

// size makes the flag that sets how many harms an ordeal does.
func size(name string, ci int, what string) *int {
	return flag.Int(name, ci, "harms of TestOrdeals/"+name+": "+what+"; with many, -timeout 0")
}

// How many harms each ordeal does: few in an ordinary run, and as many as asked
// for at full size:
//
//	go test ./cmd/ostrich/e2e -run TestOrdeals/stops -stops 500 -timeout 0
var (
	stopsFlag     = size("stops", 10, "processes that are stopped by SIGSTOP")
	cutsFlag      = size("cuts", 10, "links and routes that are cut")
	badnetFlag    = size("badnet", 10, "a network that delays, drops and resets")
	powerFlag     = size("power", 5, "power cuts")
	damageFlag    = size("damage", 50, "damaged files")
	takeoversFlag = size("takeovers", 6, "deaths of coordinators, to measure")
	disksFlag     = size("disks", 6, "disks that are full, fail or stall")
)

// sideBySide is how many ordeals go on at one time.
const sideBySide = 4

// TestOrdeals has swarms of real processes work while they are harmed, side by
// side. Each ordeal prints its seed, which -seed sets.
func TestOrdeals(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it takes minutes")
	}
	needRoot(t)
	ordeals := []struct {
		name string
		size int
		run  func(o *ordeal)
	}{ // the longest first
		{"stops", *stopsFlag, stopProcesses},
		{"damage", *damageFlag, damageFiles},
		{"disks", *disksFlag, spoilDisks},
		{"cuts", *cutsFlag, cutLinks},
		{"badnet", *badnetFlag, spoilNetwork},
		{"takeovers", *takeoversFlag, takeOver},
		{"power", *powerFlag, cutPower},
		{"upgrade", 3, upgradeOneByOne},
		{"behind", 1, fallBehind},
	}
	var all sync.WaitGroup
	places := make(chan struct{}, sideBySide)
	for _, one := range ordeals {
		places <- struct{}{}
		all.Go(func() {
			defer func() { <-places }()
			t.Run(one.name, func(t *testing.T) {
				o := newOrdeal(t, one.size)
				one.run(o)
				o.report()
			})
		})
	}
	all.Wait()
}

// harm is something bad that befalls machines for a while.
type harm struct {
	name string
	// victims cannot work while it lasts. If they are not most of the members,
	// the others go on.
	victims []*node
	// lonely victims know that they have no quorum.
	lonely bool
	// anything may happen while it lasts: what counts is what is afterwards.
	anything bool
	lasts    time.Duration
	prepare  func() // comes before; may be nil
	begin    func()
	end      func()
}

// ordeal is a swarm at work that is harmed again and again.
type ordeal struct {
	t       *testing.T
	size    int
	random  *rand.Rand
	nodes   []*node // members
	workers []*node
	streams []*stream // a map through each member

	done      int // harms
	tasks     int // of maps that have ended
	maps      int // names the maps
	takeovers map[string][]time.Duration
	others    map[string][]time.Duration // gaps of harms to others than the coordinator
	agreed    []time.Duration
}

func newOrdeal(t *testing.T, size int) *ordeal {
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64N(1 << 32)
	}
	t.Logf("seed %d, %d harms", seed, size)
	return &ordeal{t: t, size: size, random: rand.New(rand.NewPCG(seed, 0)),
		takeovers: map[string][]time.Duration{}, others: map[string][]time.Duration{}}
}

// any returns one of the nodes.
func (o *ordeal) any(nodes []*node) *node { return nodes[o.random.IntN(len(nodes))] }

// between draws a time.
func (o *ordeal) between(low, high time.Duration) time.Duration {
	return low + time.Duration(o.random.Int64N(int64(high-low)))
}

// but returns the members except those that are named.
func (o *ordeal) but(named ...*node) (all []*node) {
	for _, n := range o.nodes {
		if !slices.Contains(named, n) {
			all = append(all, n)
		}
	}
	return all
}

// work begins a map through each member.
func (o *ordeal) work() {
	o.t.Helper()
	o.maps++
	for _, n := range o.nodes {
		o.streams = append(o.streams, newStream(n, fmt.Sprintf("%s-%d", n.name, o.maps)))
	}
	o.agree()
}

// account ends the maps, wants all that they sent to be done once, and every
// member to say the same.
func (o *ordeal) account() {
	o.t.Helper()
	for _, s := range o.streams {
		n := s.drain()
		o.tasks += n
		for _, on := range o.nodes {
			if j := on.job(s.id); j.Tasks.Total != uint64(n) || j.Tasks.Completed != uint64(n) {
				o.t.Errorf("%s says of the map through %s, which had %d inputs: %+v", on.name, s.on.name, n, j)
			}
			s.compare(on)
		}
		s.finish()
	}
	o.streams = nil
	if o.t.Failed() {
		o.t.FailNow()
	}
}

// harmsPerMap is after how many harms maps end and new ones begin.
const harmsPerMap = 10

// suffer lets the swarm go through a harm and back to where all is well.
func (o *ordeal) suffer(h harm) {
	o.t.Helper()
	leader, _ := o.agree()
	before := o.term()
	if h.prepare != nil {
		h.prepare()
	}
	began := time.Now()
	h.begin()
	marks := o.marks() // what is sent from now on was not seen by a coordinator that is gone
	var gap time.Duration
	well := o.but(h.victims...)
	majority := 2*len(well) > len(o.nodes)
	if majority && !h.anything {
		gap = o.goesOn(h, marks, began)
	}
	time.Sleep(time.Until(began.Add(h.lasts))) // the harm is the test's input
	quiet := o.silence(h, began)
	if !h.anything {
		o.during(h, well, majority, began)
	}
	h.end()
	healed := time.Now()
	o.agree()
	settled := time.Since(healed)
	o.agreed = append(o.agreed, settled)
	o.done++
	struck := slices.Contains(h.victims, leader)
	if gap > 0 && struck {
		o.takeovers[h.name] = append(o.takeovers[h.name], gap)
	} else if gap > 0 {
		o.others[h.name] = append(o.others[h.name], gap)
	}
	o.t.Logf("harm %d: %s (%s) for %v: coordinator %s harmed: %v; others' next result after %v, their longest silence %v; all well %v after its end; terms %d to %d",
		o.done, h.name, names(h.victims), h.lasts.Round(100*time.Millisecond), leader.name, struck,
		gap.Round(time.Millisecond), quiet.Round(time.Millisecond), settled.Round(time.Millisecond), before, o.term())
	if o.done%harmsPerMap == 0 && o.done < o.size {
		o.account()
		o.work()
	}
}

// marks are the next inputs of all maps.
func (o *ordeal) marks() map[*stream]int {
	all := map[*stream]int{}
	for _, s := range o.streams {
		all[s] = s.mark()
	}
	return all
}

// goesOn waits until the maps of those who are well have results of inputs that
// they sent after the harm began, and returns the time of the first.
func (o *ordeal) goesOn(h harm, marks map[*stream]int, began time.Time) time.Duration {
	o.t.Helper()
	var first time.Time
	for _, s := range o.streams {
		if slices.Contains(h.victims, s.on) {
			continue
		}
		at := o.progress(s, marks[s], h.name)
		if first.IsZero() || at.Before(first) {
			first = at
		}
	}
	return first.Sub(began)
}

// silence is the longest time without a result that those who are well have
// seen since the harm began.
func (o *ordeal) silence(h harm, began time.Time) (longest time.Duration) {
	for _, s := range o.streams {
		if !slices.Contains(h.victims, s.on) {
			longest = max(longest, s.silence(began))
		}
	}
	return longest
}

// progress waits for a result of an input from mark on.
func (o *ordeal) progress(s *stream, mark int, when string) (at time.Time) {
	o.t.Helper()
	for end := time.Now().Add(streamLimit); ; time.Sleep(20 * time.Millisecond) {
		at, ok := s.first(mark)
		if ok {
			s.complaints()
			return at
		}
		if time.Now().After(end) {
			o.diagnose()
			o.t.Fatalf("%s: %v later the map on %s has no result of an input sent since (%d of %d have come):\n%s",
				when, streamLimit, s.on.name, s.seen(), s.mark(), tail(s.r.err.String(), 10))
		}
	}
}

// stale is the age of an input whose result is overdue: three seconds of
// silence, five of grace, and a busy machine.
const stale = 25 * time.Second

// during looks at a swarm that is being harmed.
func (o *ordeal) during(h harm, well []*node, majority bool, began time.Time) {
	o.t.Helper()
	if majority {
		for _, s := range o.streams {
			if slices.Contains(h.victims, s.on) || time.Since(began) < stale {
				continue
			}
			if n := s.open(time.Now().Add(-stale)); n > 0 {
				o.t.Errorf("%s: %d inputs that %s sent more than %v ago have no result: they wait for victims", h.name, n, s.on.name, stale)
			}
		}
	}
	var cutOff []*node
	if !majority {
		cutOff = append(cutOff, well...)
	}
	if h.lonely {
		cutOff = append(cutOff, h.victims...)
	}
	for _, n := range cutOff {
		eventually(o.t, patience, n.name+" knows in "+h.name+" that it has no quorum", func() bool {
			st, err := n.ask()
			return err == nil && !st.GetQuorum()
		})
	}
}

// ask asks a node for its status, without a command line.
func (n *node) ask() (*wire.Status, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	c, err := control.Dial(n.dir)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	out, err := control.Call(ctx, c.GetStatus, &wire.GetStatusRequest{})
	return out.GetStatus(), err
}

// agree waits until all members name the same coordinator, with a quorum, vote,
// and get on with their maps. It returns the coordinator and the others.
func (o *ordeal) agree() (leader *node, others []*node) {
	o.t.Helper()
	began := time.Now()
	for {
		if leader = o.agreement(); leader != nil {
			break
		}
		if time.Since(began) > agreeLimit {
			o.diagnose()
			o.t.Fatalf("%v later the members do not agree", agreeLimit)
		}
		time.Sleep(50 * time.Millisecond)
	}
	for _, s := range o.streams {
		s.revive()
	}
	marks := o.marks()
	for _, s := range o.streams {
		o.progress(s, marks[s], "when all is well")
	}
	return leader, o.but(leader)
}

// agreement returns the coordinator if all members name it.
func (o *ordeal) agreement() (leader *node) {
	var first *wire.Status
	for _, n := range o.nodes {
		st, err := n.ask()
		if err != nil || !st.GetQuorum() {
			return nil
		}
		v := st.GetView()
		if first == nil {
			first = st
		}
		if w := first.GetView(); v.GetTerm() != w.GetTerm() || v.GetCoordinator() != w.GetCoordinator() || len(v.GetVoters()) != len(o.nodes) {
			return nil
		}
		if v.GetCoordinator() == st.GetDeviceId() {
			leader = n
		}
	}
	return leader
}

// term is the highest that a member knows of.
func (o *ordeal) term() (term uint64) {
	for _, n := range o.nodes {
		if st, err := n.ask(); err == nil {
			term = max(term, st.GetView().GetTerm())
		}
	}
	return term
}

// diagnose logs what each member thinks.
func (o *ordeal) diagnose() {
	for _, n := range append(slices.Clone(o.nodes), o.workers...) {
		st, err := n.ask()
		v := st.GetView()
		o.t.Logf("%s: quorum %v, coordinator %.12s…, term %d, voters %d, log to %d, applied to %d, %d of its pages missing (%v)", n.name, st.GetQuorum(), v.GetCoordinator(),
			v.GetTerm(), len(v.GetVoters()), st.GetLogIndex(), st.GetApplied(), st.GetPagesMissing(), err)
		for _, m := range v.GetMemberViews() {
			o.t.Logf("  it sees %s: online %v, votes %v, %d entries behind, silent for %d ms", m.GetName(), m.GetOnline(), m.GetVoter(), m.GetLag(), m.GetSilentMs())
		}
	}
	for _, s := range o.streams {
		o.t.Logf("the map through %s: %+v", s.on.name, s.on.job(s.id))
	}
}

// report prints the distributions.
func (o *ordeal) report() {
	o.t.Helper()
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "harm\ttimes\tmedian\t95 %\t99 %\tmax")
	row := func(name string, all []time.Duration) {
		slices.Sort(all)
		at := func(percent int) time.Duration {
			return all[(len(all)*percent+99)/100-1].Round(10 * time.Millisecond)
		}
		fmt.Fprintf(w, "%s\t%d\t%v\t%v\t%v\t%v\n", name, len(all), at(50), at(95), at(99), at(100))
	}
	var every []time.Duration
	for _, name := range sorted(o.takeovers) {
		row(name+", of the coordinator", o.takeovers[name])
		every = append(every, o.takeovers[name]...)
	}
	if len(every) > 0 {
		row("all of the coordinator", every)
	}
	for _, name := range sorted(o.others) {
		row(name+", of others", o.others[name])
	}
	if len(o.agreed) > 0 {
		row("from the end of a harm until all is well", o.agreed)
	}
	_ = w.Flush()
	load, _ := os.ReadFile("/proc/loadavg")
	o.t.Logf("%d harms, %d tasks recorded once each; load average %.14s; from the harm to the first result of an input that was sent after it:\n%s",
		o.done, o.tasks, load, b.String())
}

func sorted(m map[string][]time.Duration) (keys []string) {
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// names lists nodes by name.
func names(nodes []*node) string {
	var all []string
	for _, n := range nodes {
		all = append(all, n.name)
	}
	return strings.Join(all, " ")
}
