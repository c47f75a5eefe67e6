package simulation

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ostrich-legs/ostrich/consensus"
	"github.com/ostrich-legs/ostrich/consensus/state"
	"github.com/ostrich-legs/ostrich/node/coordinator"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const (
	// hashEvery is how many entries lie between two comparisons of the state.
	hashEvery = 512
	// maxReds bounds the reports of one run.
	maxReds = 20
)

// ledger notes what was acknowledged, and says red when something contradicts
// it.
type ledger struct {
	count   counters
	history *history
	verdict verdict // of the history, in the end
	// generation is that of the newest recovery: nothing is accepted in an older
	// one from then on.
	generation atomic.Uint64

	mu       sync.Mutex
	reds     []string
	faults   map[string]int
	leaders  map[uint64]wire.DeviceID // who accepted something, by term
	hashes   map[uint64]seenHash      // of the state, by index
	runs     map[task]int             // started
	recorded map[recordKey]wire.TaskStatus
}

// counters are a run's figures.
type counters struct {
	elections, faults, powerFailures, unsynced, jumps, forged, offered, recorded, twice, again, jobs, cancels, removed, reread, invites, comparisons atomic.Int64
}

type seenHash struct {
	hash [32]byte
	by   wire.DeviceID
}

// recordKey names a task of a job as the log does.
type recordKey struct {
	job   wire.JobID
	index uint32
	round int // of the job's ID: it may be used again after a removal
}

func newLedger() *ledger {
	return &ledger{
		history:  newHistory(),
		faults:   make(map[string]int),
		leaders:  make(map[uint64]wire.DeviceID),
		hashes:   make(map[uint64]seenHash),
		runs:     make(map[task]int),
		recorded: make(map[recordKey]wire.TaskStatus),
	}
}

// red notes that something is wrong.
func (l *ledger) red(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.reds) < maxReds {
		l.reds = append(l.reds, fmt.Sprintf(format, args...))
	}
}

// failed reports whether something was wrong.
func (l *ledger) failed() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.reds
}

// ran notes that a task begins to run, which it has to so many times, and
// returns how often it has.
func (l *ledger) ran(t task, needed int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.runs[t]++
	if l.runs[t] > needed {
		l.count.again.Add(1)
	}
	if l.runs[t] == needed+1 {
		l.count.twice.Add(1)
	}
	return l.runs[t]
}

// look compares the state of a member, right after an entry, with that of the
// others at the same index.
func (l *ledger) look(self wire.DeviceID, g *consensus.Group) {
	g.ReadAt(func(index uint64, s *state.State) {
		if index > 0 && index%hashEvery == 0 {
			l.compare(self, index, s.Hash())
		}
	})
}

func (l *ledger) compare(self wire.DeviceID, index uint64, hash [32]byte) {
	l.mu.Lock()
	seen, ok := l.hashes[index]
	if !ok {
		l.hashes[index] = seenHash{hash, self}
	}
	l.mu.Unlock()
	if !ok {
		return
	}
	l.count.comparisons.Add(1)
	if seen.hash != hash {
		l.red("at index %d the state of %s is not that of %s", index, self.Short(), seen.by.Short())
	}
}

// accepted notes that a leader committed something in a term.
func (l *ledger) accepted(term uint64, by wire.DeviceID) {
	l.mu.Lock()
	other, ok := l.leaders[term]
	l.leaders[term] = by
	l.mu.Unlock()
	if ok && other != by {
		l.red("%s and %s both accepted in term %d", other.Short(), by.Short(), term)
	}
}

// record notes a result that the log took as the task's final one.
func (l *ledger) record(key recordKey, outcome byte) {
	l.mu.Lock()
	_, twice := l.recorded[key]
	l.recorded[key] = wire.TaskStatus_TASK_STATUS_OK
	if outcome != wire.OutcomeOK {
		l.recorded[key] = wire.TaskStatus_TASK_STATUS_FAILED
	}
	l.mu.Unlock()
	l.count.recorded.Add(1)
	if twice {
		l.red("task %d of job %s was recorded twice", key.index, key.job)
	}
}

// witness is the group as a coordinator uses it, and notes what it answers.
type witness struct {
	coordinator.Group
	self       wire.DeviceID
	ledger     *ledger
	generation uint64
}

func (w *witness) Propose(ctx context.Context, term uint64, op *wire.Op) (state.OpResult, error) {
	called := time.Now()
	result, err := w.Group.Propose(ctx, term, op)
	if err == nil {
		w.ledger.accepted(term, w.self)
		if newest := w.ledger.generation.Load(); w.generation < newest {
			w.ledger.red("%s accepted something in generation %d, and the swarm is of generation %d", w.self.Short(), w.generation, newest)
		}
	}
	if c := op.GetCompleteTasks(); c != nil {
		w.completed(called, c, result, err)
	}
	return result, err
}

// completed notes what became of a batch of results.
func (w *witness) completed(called time.Time, op *wire.CompleteTasks, result state.OpResult, err error) {
	id := wire.JobID(op.GetJobId())
	w.ledger.history.complete(called, id, op, result, err)
	round := w.ledger.history.round(id)
	for i, verdict := range result.Verdicts {
		if err == nil && (verdict == state.Recorded || verdict == state.FailedFinally) {
			w.ledger.record(recordKey{id, op.GetIndexes()[i], round}, op.GetOutcomes()[i])
		}
	}
}
