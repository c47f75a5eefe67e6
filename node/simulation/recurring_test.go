package simulation

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ostrich-legs/ostrich/consensus"
	"github.com/ostrich-legs/ostrich/consensus/state"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

var recurringFlag = flag.Int("recurring", 0, "worlds of recurring bytes in all; 0 means what CI runs")

const (
	// worldsInCI is how many seeds CI runs; shortWorlds, with -short.
	worldsInCI  = 200
	shortWorlds = 4
	customers   = 3
	// collectEvery is how often members look for pages that may go.
	collectEvery = time.Minute
	// endErrandsWithin bounds how long jobs take to end once all is healed: a
	// device may take a minute to write anew what was lost.
	endErrandsWithin = 3 * time.Minute
	// repairWithin bounds how long the members take to hold all pages then.
	repairWithin = 2 * time.Minute
	// night is how long all machines are switched off in some worlds: longer than
	// anything that was put waits for its command.
	night = 27 * time.Hour
	// nights is how many worlds there are for one with a night.
	nights = 8
)

// recurring is a swarm in which the same few bytes come again and again: five
// programs and five inputs, so that pages are named, given back and put anew all
// the time, by several devices and jobs at one time. At each step each page that
// the state names must lie on most of the voters' disks, and the results of each
// job that has ended must be what its program gives.
type recurring struct {
	*swarm
	goods    *goods
	programs [kinds]*wire.Program
	count    tally
	// bad is the one member whose disk loses pages, so that it never is two that
	// lose the same page; nil in a swarm of one.
	bad     *machine
	damaged atomic.Bool
	// counterfeits makes the programs give other bytes.
	counterfeits bool

	mu       sync.Mutex
	errands  map[string]*errand
	kept     []*errand // that have ended and are not removed
	reported map[wire.Hash]bool
	names    map[wire.Hash]bool // the last state that was seen by chronicle
	released map[wire.Hash]bool
}

// tally are the figures of a world, or of all.
type tally struct {
	worlds, jobs, done, cancelled, retried, removed, reused, twice, again, late atomic.Int64
	results, blobs, looks, named, namedAgain, left                              atomic.Int64
}

func (c *tally) all() map[string]*atomic.Int64 {
	return map[string]*atomic.Int64{
		"worlds": &c.worlds, "jobs": &c.jobs, "done": &c.done, "cancelled": &c.cancelled, "retried": &c.retried, "removed": &c.removed,
		"IDs used again": &c.reused, "submitted twice": &c.twice, "uploaded again": &c.again, "met by late submits": &c.late,
		"results read": &c.results, "blobs read": &c.blobs, "looks": &c.looks,
		"pages named": &c.named, "named again after release": &c.namedAgain, "pages left unnamed": &c.left,
	}
}

func (c *tally) String() (text string) {
	all := c.all()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		text += fmt.Sprintf(", %d %s", all[name].Load(), name)
	}
	return text[2:]
}

func (c *tally) add(o *tally) {
	mine := c.all()
	for name, n := range o.all() {
		mine[name].Add(n.Load())
	}
}

func TestRecurringBytesAreNeverLost(t *testing.T) {
	worlds := cmp.Or(*recurringFlag, worldsInCI)
	if testing.Short() && *recurringFlag == 0 {
		worlds = shortWorlds
	}
	seed := cmp.Or(*seedFlag, rand.Uint64N(1<<32))
	t.Logf("seeds %d to %d", seed, seed+uint64(worlds)-1)
	stock, begun := newGoods(), time.Now()
	var sum tally
	var mu sync.Mutex
	faults := make(map[string]int)
	t.Run("worlds", func(t *testing.T) {
		for i := range uint64(worlds) {
			t.Run(fmt.Sprintf("seed %d", seed+i), func(t *testing.T) {
				t.Parallel()
				w := liveRecurring(t, seed+i, stock)
				for _, red := range w.ledger.failed() {
					t.Error(red)
				}
				mu.Lock()
				defer mu.Unlock()
				sum.add(&w.count)
				for name, n := range w.ledger.faults {
					faults[name] += n
				}
			})
		}
	})
	t.Logf("seeds %d to %d in %v: %v", seed, seed+uint64(worlds)-1, time.Since(begun).Round(time.Second), &sum)
	for _, name := range slices.Sorted(maps.Keys(faults)) {
		t.Logf("%5d × %s", faults[name], name)
	}
	sum.mustBeEnough(t, faults)
}

// mustBeEnough fails the test unless enough happened.
func (c *tally) mustBeEnough(t *testing.T, seen map[string]int) {
	t.Helper()
	worlds := c.worlds.Load()
	if worlds < shortWorlds {
		return // a seed by itself
	}
	for name, least := range map[string]int64{
		"jobs": 8 * worlds, "done": 4 * worlds, "removed": 4 * worlds, "results read": 10 * worlds, "blobs read": 2 * worlds,
		"looks": 20 * worlds, "named again after release": 5 * worlds,
	} {
		if got := c.all()[name].Load(); got < least {
			t.Errorf("%d %s in %d worlds, want %d at least", got, name, worlds, least)
		}
	}
	if worlds < worldsInCI {
		return
	}
	for _, f := range recurringFaults(3) {
		if seen[f.name] == 0 {
			t.Errorf("in %d worlds it never happened that %s", worlds, f.name)
		}
	}
}

// liveRecurring lets one world live.
func liveRecurring(t *testing.T, seed uint64, stock *goods) *recurring {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 4))
	members := []int{3, 3, 3, 3, 3, 3, 1, 5}[random.IntN(8)]
	length := time.Duration(15+random.IntN(45)) * time.Second
	t.Logf("seed %d, %d members, %v", seed, members, length)
	begun := time.Now()
	var simulated time.Duration
	w := scene(t, options{seed: seed, members: members, devices: 1 + random.IntN(3), length: length}, stock, func(w *recurring) {
		start := time.Now()
		w.live()
		w.settle()
		if random.IntN(nights) == 0 {
			w.sleepANight()
		}
		simulated = time.Since(start)
	})
	t.Logf("%v simulated in %v: %v", simulated.Round(time.Second), time.Since(begun).Round(time.Millisecond), &w.count)
	return w
}

// scene makes a world and lets f happen in it.
func scene(t *testing.T, o options, stock *goods, f func(w *recurring)) *recurring {
	t.Helper()
	dir := folder(t)
	defer watch(o.seed).Stop()
	w := &recurring{
		goods: stock, errands: make(map[string]*errand), reported: make(map[wire.Hash]bool),
		names: make(map[wire.Hash]bool), released: make(map[wire.Hash]bool),
	}
	o.lean, o.collectEvery, o.sandbox, o.applied = true, collectEvery, w.newWorkshop, w.chronicle
	synctest.Test(t, func(t *testing.T) {
		w.swarm = newSwarm(t, o, dir)
		w.count.worlds.Add(1)
		if len(w.members) > 1 {
			w.bad = pick(w.swarm, w.members)
		}
		for p := range kinds {
			var err error
			if w.programs[p], err = w.putProgram(t.Context(), p); err != nil {
				t.Fatal(err)
			}
		}
		f(w)
		w.close()
	})
	return w
}

// putProgram puts the bytes of a program.
func (w *recurring) putProgram(ctx context.Context, p int) (*wire.Program, error) {
	text := programText(p)
	hash, err := w.putPage(ctx, text)
	if err != nil {
		return nil, err
	}
	return &wire.Program{
		Name: fmt.Sprintf("prog%d.wasm", p),
		Blob: &wire.Blob{Size: uint64(len(text)), Pages: [][]byte{hash[:]}, Hash: hash[:]},
	}, nil
}

// errand returns the job of that name.
func (w *recurring) errand(name string) *errand {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.errands[name]
}

func (w *recurring) keep(e *errand) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.kept = append(w.kept, e)
}

func (w *recurring) forget(e *errand) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.kept = slices.DeleteFunc(w.kept, func(o *errand) bool { return o == e })
}

// chronicle counts the pages that are named, as one member sees it.
func (w *recurring) chronicle(m *machine, g *consensus.Group) {
	if m != m.swarm.members[0] {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	now := make(map[wire.Hash]bool)
	g.Read(func(s *state.State) {
		for h := range s.Pages() {
			now[h] = true
		}
	})
	for h := range now {
		if !w.names[h] {
			w.count.named.Add(1)
			if w.released[h] {
				w.count.namedAgain.Add(1)
			}
		}
	}
	for h := range w.names {
		if !now[h] {
			w.released[h] = true
		}
	}
	w.names = now
}

// live lets customers work while faults happen, and heals everything.
func (w *recurring) live() {
	patience, end := context.WithCancel(context.Background())
	defer end()
	faulty, heal := context.WithTimeout(patience, w.options.length)
	defer heal()
	var working, others sync.WaitGroup
	for i := range customers {
		c := &customer{world: w, number: i, random: rand.New(rand.NewPCG(w.options.seed, uint64(i+20)))}
		working.Go(func() { c.trade(faulty, patience) })
	}
	others.Go(func() { w.inspect(faulty, rand.New(rand.NewPCG(w.options.seed, 30))) })
	w.disturb(faulty)
	for _, m := range w.machines() {
		m.up()
	}
	done := make(chan struct{})
	go func() { working.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(endErrandsWithin):
		w.ledger.red("%v after all was healed there is work left", endErrandsWithin)
		end()
		<-done
	}
	others.Wait()
	w.mustCatchUp()
}

// inspect looks at the disks, and reads what is kept, every now and then.
func (w *recurring) inspect(ctx context.Context, random *rand.Rand) {
	for sleep(ctx, time.Duration(200+random.IntN(2500))*time.Millisecond) == nil {
		w.look(false)
		w.mu.Lock()
		var e *errand
		if len(w.kept) > 0 {
			e = w.kept[random.IntN(len(w.kept))]
		}
		w.mu.Unlock()
		if e != nil {
			w.readKept(ctx, nil, e)
		}
	}
}

// readKept reads a job that has ended once more, unless it is removed.
func (w *recurring) readKept(ctx context.Context, by *machine, e *errand) {
	e.turn <- struct{}{}
	defer func() { <-e.turn }()
	if e.gone {
		return
	}
	job, err := w.read(ctx, by, e)
	if err == nil && job.GetState() != e.state {
		err = fmt.Errorf("it was %v and is %v", e.state, job.GetState())
	}
	if err != nil && ctx.Err() == nil {
		w.ledger.red("job %s, some time after its end: %v", e.name, err)
	}
}

// settle looks whether everything is as it should be when nothing goes wrong any
// more.
func (w *recurring) settle() {
	deadline := time.Now().Add(repairWithin)
	for !w.whole() && time.Now().Before(deadline) {
		time.Sleep(500 * time.Millisecond)
	}
	if !w.whole() {
		w.ledger.red("%v after the last work the members do not hold all pages:%s", repairWithin, w.lacking())
	}
	w.look(true)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, m := range w.members {
		w.mustGiveAll(ctx, m)
		w.mu.Lock()
		kept := slices.Clone(w.kept)
		w.mu.Unlock()
		for _, e := range kept {
			w.readKept(ctx, m, e)
		}
	}
	if ctx.Err() != nil {
		w.ledger.red("what is kept cannot be read in a minute")
	}
	w.mustAgree()
}

// sleepANight switches everything off for longer than any page waits for its
// command, and looks again.
func (w *recurring) sleepANight() {
	w.ledger.fault("everything is off for a night")
	for _, m := range w.machines() {
		m.crash(false)
	}
	time.Sleep(night)
	for _, m := range w.machines() {
		m.up()
	}
	time.Sleep(2 * collectEvery)
	w.settle()
	for _, m := range w.members {
		for _, h := range w.unnamed(m) {
			w.ledger.red("after a night %s keeps %s, which nothing names", m.name, w.goods.describe(h))
		}
	}
}
