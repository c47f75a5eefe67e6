package simulation

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/ostrich-legs/ostrich/consensus/state"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

var (
	seedFlag    = flag.Uint64("seed", 0, "seed of the first swarm; 0 draws one")
	hoursFlag   = flag.Float64("hours", 0, "simulated hours in all; 0 means what CI runs")
	membersFlag = flag.Int("members", 3, "members of a swarm, with -hours")
)

func TestMain(m *testing.M) {
	// A swarm is small and makes much garbage: fewer collections are a third of
	// the time. The limit is for machines with little memory.
	debug.SetGCPercent(800)
	debug.SetMemoryLimit(1 << 30)
	if raceEnabled {
		// Go's runtime gives the detector one context for all timers of a bubble,
		// and two threads that use it at a time end the process
		// (go.dev/issue/78156): every fifth run did. With one thread none can, and
		// the races that are found are the same: they follow from what orders the
		// accesses, not from when they happen.
		runtime.GOMAXPROCS(1)
	}
	goleak.VerifyTestMain(m)
}

const (
	// runLength is how long one swarm lives at full size.
	runLength = 20 * time.Minute
	// endWithin bounds how long jobs take to end once all is healed.
	endWithin = time.Minute
	// agreeWithin bounds how long members take to agree then.
	agreeWithin = 10 * time.Second
	clients     = 4
	// hangs is how much real time one life may take, many times what it does.
	hangs = 6 * time.Minute
)

// life is how long a swarm of so many members lives.
type life struct {
	members int
	length  time.Duration
}

// inCI are two simulated hours.
func inCI() (lives []life) {
	for range 6 {
		lives = append(lives, life{3, 15 * time.Minute})
	}
	return append(lives, life{5, 15 * time.Minute}, life{5, 15 * time.Minute})
}

func TestTheSwarmSurvivesWhatMachinesAndNetworksDo(t *testing.T) {
	lives := inCI()
	switch {
	case *hoursFlag > 0:
		lives = nil
		for left := time.Duration(*hoursFlag * float64(time.Hour)); left > 0; left -= runLength {
			lives = append(lives, life{*membersFlag, min(left, runLength)})
		}
	case testing.Short():
		lives = []life{{3, 30 * time.Second}}
	}
	all := liveAll(t, lives, options{devices: 4, reuses: true})
	if !testing.Short() {
		all.mustBeEnough(t)
	}
}

// liveAll lets one swarm after another live, as many at one time as there are
// processors.
func liveAll(t *testing.T, lives []life, o options) *totals {
	t.Helper()
	seed := cmp.Or(*seedFlag, rand.Uint64N(1<<32))
	all := &totals{begun: time.Now()}
	t.Run("lives", func(t *testing.T) {
		for i, l := range lives {
			t.Run(fmt.Sprintf("seed %d", seed+uint64(i)), func(t *testing.T) {
				t.Parallel()
				o := o
				o.seed, o.members, o.length = seed+uint64(i), l.members, l.length
				s := simulate(t, o)
				s.mustBeGreen(t)
				all.add(l, s)
			})
		}
	})
	t.Logf("in all, seeds from %d on: %v", seed, all)
	return all
}

// totals are the figures of several swarms.
type totals struct {
	begun time.Time

	mu                                                   sync.Mutex
	lived                                                time.Duration
	operations, histories, undecided                     int
	faults, elections, offered, recorded, dark, unsynced int64
}

func (a *totals) add(l life, s *ledger) {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := &s.count
	a.lived += l.length
	a.operations += s.verdict.operations
	a.histories += s.verdict.histories
	a.undecided += s.verdict.undecided
	a.faults += c.faults.Load()
	a.elections += c.elections.Load()
	a.offered += c.offered.Load()
	a.recorded += c.recorded.Load()
	a.dark += c.powerFailures.Load()
	a.unsynced += c.unsynced.Load()
}

// Least figures of what a run shows something by.
const (
	faultsPerMinute   = 1
	offeredPerSecond  = 90 // of the 100: clients wait where nothing goes on
	operationsPerHour = 25_000
	maxUndecided      = 1000 // one history in so many
)

// mustBeEnough fails the test unless enough happened.
func (a *totals) mustBeEnough(t *testing.T) {
	t.Helper()
	if got, want := float64(a.faults), a.lived.Minutes()*faultsPerMinute; got < want {
		t.Errorf("%v faults, want %v at least", got, want)
	}
	if got, want := float64(a.offered), a.lived.Seconds()*offeredPerSecond; got < want {
		t.Errorf("%v tasks were offered, want %v at least", got, want)
	}
	if got, want := float64(a.operations), a.lived.Hours()*operationsPerHour; got < want {
		t.Errorf("%v operations were checked, want %v at least", got, want)
	}
	if a.undecided > a.histories/maxUndecided {
		t.Errorf("%d of %d histories were too hard to decide", a.undecided, a.histories)
	}
}

func (a *totals) String() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return fmt.Sprintf("%v simulated in %v: %d operations in %d histories checked (%d undecided), %d faults, %d failures of the power (%d writes lost), %d terms led, %d tasks offered, %d recorded",
		a.lived, time.Since(a.begun).Round(time.Second), a.operations, a.histories, a.undecided, a.faults, a.dark, a.unsynced, a.elections, a.offered, a.recorded)
}

// folder returns a folder for one run, in memory where the system has one: what
// the disk does with an fsync is not what is tested here.
func folder(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "ostrich-simulation-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// simulate runs one swarm and returns what was seen.
func simulate(t *testing.T, o options) *ledger {
	t.Helper()
	t.Logf("seed %d, %d members, %d devices, %v", o.seed, o.members, o.devices, o.length)
	dir, begun := folder(t), time.Now()
	defer watch(o.seed).Stop()
	var s *swarm
	var simulated time.Duration
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		s = newSwarm(t, o, dir)
		s.live()
		s.close()
		simulated = time.Since(start)
	})
	took := time.Since(begun)
	return s.judge(t, simulated, took)
}

// watch ends the process of a life that hangs, and shows where: what waits for a
// lock, inside, stops the simulated time, and all of go test's waits with it.
func watch(seed uint64) *time.Timer {
	return time.AfterFunc(hangs, func() {
		fmt.Fprintf(os.Stderr, "the life of seed %d has taken %v\n", seed, hangs)
		pprof.Lookup("goroutine").WriteTo(os.Stderr, 1)
		os.Exit(2)
	})
}

// judge looks for an order of each history.
func (s *swarm) judge(t *testing.T, simulated, took time.Duration) *ledger {
	t.Helper()
	begun := time.Now()
	v := s.ledger.history.check()
	for _, w := range v.wrong {
		s.ledger.red("%s", w)
	}
	s.ledger.verdict = v
	t.Logf("%v simulated in %v; %d operations checked in %v, %d histories undecided; %s", simulated.Round(time.Second), took.Round(time.Second),
		v.operations, time.Since(begun).Round(time.Second), v.undecided, s.ledger)
	return s.ledger
}

// live lets clients work while faults happen, then heals everything and looks
// at what is there.
func (s *swarm) live() {
	patience, end := context.WithCancel(context.Background())
	defer end()
	faulty, heal := context.WithTimeout(patience, s.options.length)
	defer heal()
	program := s.putProgram(patience)
	var all []*client
	var working, others sync.WaitGroup
	for i := range clients {
		c := &client{swarm: s, number: i, program: program, random: rand.New(rand.NewPCG(s.options.seed, uint64(i+10)))}
		all = append(all, c)
		working.Go(func() { c.offer(faulty, patience, float64(offeredRate)/clients) })
	}
	others.Go(func() { s.invite(faulty) })
	for range hands {
		others.Go(func() { s.office.operate(faulty) })
	}
	s.harm(faulty)
	for _, m := range s.machines() {
		m.up()
	}
	s.mustCatchUp()
	done := make(chan struct{})
	go func() { working.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(endWithin):
		s.ledger.red("%v after all was healed there is work left: %s", endWithin, s.unfinished(all))
		end()
		<-done
	}
	end()
	others.Wait()
	s.mustAgree()
	s.mustHoldWhatWasAcknowledged(all)
}

// unfinished says of the jobs that have not ended what their clients and the
// coordinator know, and what the devices do.
func (s *swarm) unfinished(all []*client) string {
	ctx, cancel := context.WithTimeout(context.Background(), callLimit)
	defer cancel()
	text := ""
	for _, c := range all {
		for _, j := range c.jobs {
			j.mu.Lock()
			ended, told := j.ended, fmt.Sprintf("%d of %d inputs acknowledged, closed %v, %d results", j.acked, len(j.inputs), j.closed, len(j.results))
			j.mu.Unlock()
			if ended != wire.JobState_JOB_STATE_UNSPECIFIED {
				continue
			}
			r, err := s.ask(ctx, nil, &wire.Request{Kind: &wire.Request_GetJob{GetJob: &wire.GetJobRequest{JobId: string(j.id)}}})
			job := r.GetGetJob().GetJob()
			text += fmt.Sprintf("\n\tjob %s: %s; the coordinator: %v %v %q %v", j.id, told, job.GetState(), job.GetTasks(), job.GetWaitingFor(), err)
		}
	}
	for _, m := range s.machines() {
		switch p := m.process().(type) {
		case *member:
			text += fmt.Sprintf("\n\t%s: %+v; coordinates: %v", m.name, p.worker.Status(), p.lead.Load() != nil)
		case *device:
			text += fmt.Sprintf("\n\t%s: %+v", m.name, p.worker.Status())
		}
	}
	return text
}

// putProgram puts the one program's bytes into a page.
func (s *swarm) putProgram(ctx context.Context) *wire.Program {
	bytes := []byte("the program")
	hash, err := s.putPage(ctx, bytes)
	if err != nil {
		s.t.Fatal(err)
	}
	return &wire.Program{Name: "prog.wasm", Blob: &wire.Blob{Size: uint64(len(bytes)), Pages: [][]byte{hash[:]}, Hash: hash[:]}}
}

// mustCatchUp waits, all being healed, until no member is behind.
func (s *swarm) mustCatchUp() {
	time.Sleep(agreeWithin - time.Second)
	var newest uint64
	for _, m := range s.members {
		if p := m.member(); p != nil {
			newest = max(newest, p.group.Status().Committed)
		}
	}
	time.Sleep(time.Second)
	for _, m := range s.members {
		if p := m.member(); p == nil || p.group.Status().Applied < newest {
			s.ledger.red("%v after all was healed %s has not applied entry %d", agreeWithin, m.name, newest)
		}
	}
	if s.coordinator() == nil {
		s.ledger.red("%v after all was healed nobody coordinates", agreeWithin)
	}
}

// mustAgree waits until all members hold the coordinator's state.
func (s *swarm) mustAgree() {
	if !within(agreeWithin, s.agree) {
		s.ledger.red("the members do not hold one state %v after the last work", agreeWithin)
	}
}

// agree reports whether all members hold one state, and one of them coordinates.
func (s *swarm) agree() bool {
	seen := make(map[[32]byte]bool)
	for _, m := range s.members {
		p := m.member()
		if p == nil {
			return false
		}
		p.group.Read(func(s *state.State) { seen[s.Hash()] = true })
	}
	return len(seen) == 1 && s.coordinator() != nil
}

// mustHoldWhatWasAcknowledged compares the state of every member with what
// clients were told.
func (s *swarm) mustHoldWhatWasAcknowledged(all []*client) {
	for _, m := range s.members {
		p := m.member()
		if p == nil {
			continue
		}
		p.group.Read(func(st *state.State) {
			known := make(map[wire.JobID]bool)
			for _, c := range all {
				for _, j := range c.jobs {
					known[j.id] = true
					if !j.removed {
						s.compareJob(m, st.Job(j.id), j)
					}
				}
			}
			for _, j := range st.Jobs() {
				if !known[j.ID()] {
					s.ledger.red("%s holds job %s, which nobody submitted", m.name, j.ID())
				}
			}
			s.compareRecorded(m, st)
		})
	}
}

func (s *swarm) compareJob(m *machine, got *state.Job, j *jobPlan) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.acked == 0 && !j.closed {
		return // its submit was not acknowledged
	}
	if got == nil {
		s.ledger.red("%s has lost job %s", m.name, j.id)
		return
	}
	if got.Total() < j.acked || j.closed && !got.Closed() || j.cancelled && got.Phase() != state.Cancelled {
		s.ledger.red("%s has job %s with %d inputs, closed %v, %v; acknowledged were %d, closed %v, cancelled %v",
			m.name, j.id, got.Total(), got.Closed(), got.Phase(), j.acked, j.closed, j.cancelled)
	}
	for i, r := range j.results {
		if number, ok := got.NumberOf(i); !ok || number != r.GetNumber() {
			s.ledger.red("%s has task %d of job %s with number %d (%v), and a client was told %d", m.name, i, j.id, number, ok, r.GetNumber())
			return
		}
	}
}

// compareRecorded looks for every completion that the log acknowledged.
func (s *swarm) compareRecorded(m *machine, st *state.State) {
	s.ledger.mu.Lock()
	recorded := maps.Clone(s.ledger.recorded)
	s.ledger.mu.Unlock()
	for key := range recorded {
		j := st.Job(key.job)
		if j != nil && key.round == s.ledger.history.round(key.job) && !j.TaskDone(key.index) {
			s.ledger.red("%s has lost the result of task %d of job %s", m.name, key.index, key.job)
		}
	}
}

// mustBeGreen fails the test if anything was wrong, or nothing happened.
func (l *ledger) mustBeGreen(t *testing.T) {
	t.Helper()
	if l.count.elections.Load() == 0 || l.count.faults.Load() == 0 || l.count.recorded.Load() == 0 || l.count.comparisons.Load() == 0 {
		t.Errorf("nothing to see: %s", l)
	}
	for _, r := range l.failed() {
		t.Error(r)
	}
}

// String gives the figures of a run.
func (l *ledger) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := &l.count
	text := fmt.Sprintf("%d faults, %d terms led, %d jobs (%d cancelled, %d removed, %d read again), %d tasks offered, %d recorded, %d ran more often than needed (%d runs too many), %d invites, %d states compared",
		c.faults.Load(), c.elections.Load(), c.jobs.Load(), c.cancels.Load(), c.removed.Load(), c.reread.Load(),
		c.offered.Load(), c.recorded.Load(), c.twice.Load(), c.again.Load(), c.invites.Load(), c.comparisons.Load())
	for _, name := range slices.Sorted(maps.Keys(l.faults)) {
		text += fmt.Sprintf("\n\t%3d × %s", l.faults[name], name)
	}
	return text
}
