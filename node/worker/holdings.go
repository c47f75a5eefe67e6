package worker

import (
	"sync"
	"time"

	"github.com/ostrich-legs/ostrich/node/session"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const (
	// maxKept bounds the bytes of results in memory that wait to be
	// acknowledged; above it no further task begins.
	maxKept = 64 << 20
	// maxKeptFiles bounds the bytes of outputs in files likewise.
	maxKeptFiles = 4 << 30
	// maxUploads bounds the outputs on their way to pages.
	maxUploads = 32
	// maxHeldTasks and maxHeldInput bound what a coordinator may lease to a
	// device at one time: tasks, and bytes of inputs in memory.
	maxHeldTasks = 1 << 20
	maxHeldInput = 256 << 20
	// maxIdleJobs bounds the jobs remembered without a lease.
	maxIdleJobs = 4096
	// maxEarly bounds the cancellations remembered before their lease arrives.
	maxEarly = 256
)

// attempt names a lease.
type attempt struct{ term, counter uint64 }

func attemptOf(a *wire.Attempt) attempt { return attempt{a.GetTerm(), a.GetCounter()} }

// taskState is where a task of a lease stands.
//
//	waiting ⇄ running ─▶ ended ─▶ settled
//	   └──────────┴── cancelled ──▶┘
type taskState uint8

const (
	waiting taskState = iota
	running           // in a batch, or its output is being uploaded
	ended             // has a result that is not acknowledged
	settled           // acknowledged or cancelled
)

// task is one task of a lease.
type task struct {
	input  *wire.LeasedInput // nil once it has run
	result *wire.TaskResult
	file   string // the output, until it is settled
	size   int64  // bytes in file
	stop   func() // ends the output's way to pages; nil if it is not on its way
	batch  *batch // what it runs in
	state  taskState
}

// lease is a lease that is held.
type lease struct {
	claim  *wire.LeaseClaim
	job    *job
	tasks  []task
	places map[uint32]int32 // of each index in tasks; nil if they are consecutive
	todo   []int32          // places of waiting tasks, in order
	open   int              // tasks that are not settled
}

// place returns where the task with the index is.
func (l *lease) place(index uint32) (int32, bool) {
	if l.places != nil {
		p, ok := l.places[index]
		return p, ok
	}
	p := int64(index) - int64(l.claim.Indexes[0])
	return int32(p), p >= 0 && p < int64(len(l.tasks))
}

// job is what the tasks of a job have in common.
type job struct {
	id       wire.JobID
	spec     *wire.JobSpec
	program  wire.Hash
	args     []string
	leases   int
	path     string        // the program's file; "" while it is not here
	fetching bool          // the program is being fetched
	mean     time.Duration // of the tasks' times; 0 if unknown
}

// learn takes the time that a task took.
func (j *job) learn(took time.Duration) {
	if j.mean == 0 {
		j.mean = took
	}
	j.mean += (took - j.mean) / 8
}

// holdings is all that the device holds: jobs, leases, tasks, results.
type holdings struct {
	slots    int
	programs *programs
	wake     chan struct{} // capacity 1: the reporter has something to do

	mu      sync.Mutex
	work    sync.Cond // take has something to do
	stopped bool
	unwell  bool          // the sandbox can run nothing now
	conn    *session.Conn // nil without a session
	jobs    map[wire.JobID]*job
	leases  map[attempt]*lease
	order   []*lease            // those with waiting tasks, oldest first
	early   []*wire.CancelTasks // of leases that have not arrived
	trash   []string            // files that are no longer needed

	waiting, running int   // tasks
	uploads          int   // outputs on their way to pages
	inputs           int64 // bytes of inputs of waiting and running tasks
	kept, keptFiles  int64 // bytes of results that are not acknowledged

	outbox      []outcome // ended and not sent in this session
	outboxBytes int64
	outboxSince time.Time // when the first of them ended
}

func newHoldings(slots int, p *programs) *holdings {
	h := &holdings{
		slots: slots, programs: p,
		wake:   make(chan struct{}, 1),
		jobs:   make(map[wire.JobID]*job),
		leases: make(map[attempt]*lease),
	}
	h.work.L = &h.mu
	return h
}

// signal wakes the reporter.
func (h *holdings) signal() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// stop lets no further batch be taken.
func (h *holdings) stop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stopped = true
	h.work.Broadcast()
}

// setUnwell lets no further batch be taken, or lets them be taken again.
func (h *holdings) setUnwell(unwell bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.unwell = unwell
	h.work.Broadcast()
}

// opened notes a new session: all results without acknowledgement are to be
// sent on it, and jobs without leases are forgotten, because their specs come
// again.
func (h *holdings) opened(conn *session.Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.conn = conn
	h.early = nil
	for id, j := range h.jobs {
		if j.leases == 0 {
			delete(h.jobs, id)
		}
	}
	h.outbox, h.outboxBytes = nil, 0
	for _, l := range h.leases {
		for i := range l.tasks {
			if l.tasks[i].state == ended {
				h.outbox = append(h.outbox, outcome{l, int32(i), l.tasks[i].result})
			}
		}
	}
	conn.SetBusy(len(h.leases) > 0)
	h.signal()
}

func (h *holdings) closed() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.conn = nil
}

// busy tells the session whether leases are held.
func (h *holdings) busy() {
	if h.conn != nil {
		h.conn.SetBusy(len(h.leases) > 0)
	}
}

// claims returns what proves the leases that are held, as far as a hello has
// room for them.
func (h *holdings) claims() []*wire.LeaseClaim {
	const room = 512 << 10
	h.mu.Lock()
	defer h.mu.Unlock()
	var claims []*wire.LeaseClaim
	size := 0
	for _, l := range h.leases {
		size += 200 + 10*len(l.claim.GetIndexes())
		if size > room {
			break
		}
		claims = append(claims, l.proof())
	}
	return claims
}

// proof is the lease's claim for a hello: the token covers all its tasks, so
// those that are settled are named apart.
func (l *lease) proof() *wire.LeaseClaim {
	c := l.claim
	proof := &wire.LeaseClaim{JobId: c.GetJobId(), Attempt: c.GetAttempt(), Indexes: c.GetIndexes(), Token: c.GetToken()}
	for p := range l.tasks {
		if l.tasks[p].state == settled {
			proof.Settled = append(proof.Settled, c.Indexes[p])
		}
	}
	return proof
}

// counts returns the tasks that run, in slots and uploads, and that wait.
func (h *holdings) counts() (running, waiting int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.running, h.waiting
}
