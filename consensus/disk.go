package consensus

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// stallTimeout is how long an operation on the log may take while this node
	// leads, and for how long reading it may fail.
	stallTimeout = 5 * time.Second
	// firstRetry and lastRetry bound the pauses between tries of what raft cannot
	// be told has failed.
	firstRetry = 10 * time.Millisecond
	lastRetry  = time.Second
)

// ErrStalled is in the error of Run when an operation on the log took a leader
// too long: the node has left the group, and should end without waiting for its
// disk.
var ErrStalled = errors.New("the disk does not answer")

// ErrDamaged is in the error of Open, and of Run, when a file of the folder
// cannot be what was written.
var ErrDamaged = errors.New("damaged")

// disk is the log store and the stable store of a running group, watched.
//
// A leader whose disk hangs keeps leading: raft's heartbeats go on without it.
// And some errors of a store make raft panic: those of writing the term and of
// reading an entry. Where the end of a log was cut off, because the leader has
// something else there, and that cannot be stored, raft takes the log to be as
// long as before, and never gets over it. So an operation that takes too long is
// told to the group, and what raft cannot take is tried again until it works or
// the group closes.
type disk struct {
	logs    raft.LogStore
	stable  raft.StableStore
	log     *slog.Logger
	closing <-chan struct{}
	// late is told of each operation that takes longer than stallTimeout, failed
	// of what could not be read for so long.
	late   func()
	failed func(error)
	// live is set once raft runs: before, it takes errors as they are.
	live atomic.Bool
	// shorter is set from when the end of the log was cut off until entries are
	// stored in its place.
	shorter atomic.Bool

	mu     sync.Mutex
	number uint64
	began  map[uint64]time.Time // operations under way
}

var (
	_ raft.LogStore    = (*disk)(nil)
	_ raft.StableStore = (*disk)(nil)
)

func newDisk(g *Group, st *stores) *disk {
	return &disk{
		logs: st.logs, stable: st.stable, log: g.log, closing: g.closing,
		late:   g.diskIsLate,
		failed: func(err error) { g.leave(damaged(g.dir, err)) },
		began:  make(map[uint64]time.Time),
	}
}

// do runs one operation. What bbolt does with a damaged file becomes an error.
func (d *disk) do(op func() error) error {
	d.mu.Lock()
	d.number++
	n := d.number
	d.began[n] = time.Now()
	d.mu.Unlock()
	stop := afterRunning(stallTimeout, d.late)
	defer func() {
		stop()
		d.mu.Lock()
		delete(d.began, n)
		d.mu.Unlock()
	}()
	return guard(op)
}

// parts is into how many afterRunning cuts a time.
const parts = 10

// afterRunning calls f when this process has run for a time, unless stop is
// called before. A process that is stopped for a while, by a lid or a hypervisor,
// wakes up to timers that are all due: of the time it was stopped for, at most a
// tenth of the whole counts.
func afterRunning(limit time.Duration, f func()) (stop func()) {
	var mu sync.Mutex
	var timer *time.Timer
	left, stopped := parts, false
	var next func()
	next = func() {
		mu.Lock()
		defer mu.Unlock()
		if stopped {
			return
		}
		if left--; left > 0 {
			timer = time.AfterFunc(limit/parts, next)
			return
		}
		go f()
	}
	mu.Lock()
	defer mu.Unlock()
	timer = time.AfterFunc(limit/parts, next)
	return func() {
		mu.Lock()
		defer mu.Unlock()
		stopped = true
		timer.Stop()
	}
}

// stuck returns how long the oldest operation has been under way.
func (d *disk) stuck() (longest time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, began := range d.began {
		longest = max(longest, time.Since(began))
	}
	return longest
}

// insist runs an operation whose error raft does not survive until it succeeds.
// When the group closes it ends the goroutine, one of raft's.
func (d *disk) insist(what string, op func() error, outlasts func(error)) error {
	start := time.Now()
	for pause := firstRetry; ; pause = min(2*pause, lastRetry) {
		err := d.do(op)
		if err == nil || errors.Is(err, raft.ErrLogNotFound) || !d.live.Load() {
			return err
		}
		if pause == firstRetry {
			d.log.Warn("the disk refuses; trying again", "operation", what, "error", err)
		}
		if time.Since(start) >= stallTimeout && outlasts != nil {
			outlasts(fmt.Errorf("%s: %w", what, err))
			outlasts = nil
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-d.closing:
			timer.Stop()
			runtime.Goexit()
		}
	}
}

// FirstIndex implements raft.LogStore.
func (d *disk) FirstIndex() (index uint64, err error) {
	err = d.do(func() (err error) { index, err = d.logs.FirstIndex(); return err })
	return index, err
}

// LastIndex implements raft.LogStore.
func (d *disk) LastIndex() (index uint64, err error) {
	err = d.do(func() (err error) { index, err = d.logs.LastIndex(); return err })
	return index, err
}

// GetLog implements raft.LogStore.
func (d *disk) GetLog(index uint64, l *raft.Log) error {
	return d.insist(fmt.Sprintf("reading entry %d", index), func() error { return d.logs.GetLog(index, l) }, d.failed)
}

// StoreLog implements raft.LogStore.
func (d *disk) StoreLog(l *raft.Log) error { return d.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements raft.LogStore.
func (d *disk) StoreLogs(l []*raft.Log) error {
	store := func() error { return d.logs.StoreLogs(l) }
	if !d.shorter.Load() {
		return d.do(store)
	}
	err := d.insist("storing entries in the place of others", store, nil)
	if err == nil {
		d.shorter.Store(false)
	}
	return err
}

// DeleteRange implements raft.LogStore.
func (d *disk) DeleteRange(first, last uint64) error {
	return d.do(func() error {
		end, err := d.logs.LastIndex()
		if err == nil {
			err = d.logs.DeleteRange(first, last)
		}
		if err == nil && last >= end { // else it is old entries that a snapshot has
			d.shorter.Store(true)
		}
		return err
	})
}

// Set implements raft.StableStore.
func (d *disk) Set(key, value []byte) error {
	return d.do(func() error { return d.stable.Set(key, value) })
}

// Get implements raft.StableStore.
func (d *disk) Get(key []byte) (value []byte, err error) {
	err = d.do(func() (err error) { value, err = d.stable.Get(key); return err })
	return value, err
}

// SetUint64 implements raft.StableStore.
func (d *disk) SetUint64(key []byte, value uint64) error {
	set := func() error { return d.stable.SetUint64(key, value) }
	if string(key) == termKey {
		return d.insist("writing the term", set, nil)
	}
	return d.do(set)
}

// GetUint64 implements raft.StableStore.
func (d *disk) GetUint64(key []byte) (value uint64, err error) {
	err = d.do(func() (err error) { value, err = d.stable.GetUint64(key); return err })
	return value, err
}

// termKey is where raft keeps its term.
const termKey = "CurrentTerm"

// diskIsLate is called when an operation on the log has taken stallTimeout.
func (g *Group) diskIsLate() {
	if g.disk.live.Load() && g.raft.State() == raft.Leader {
		g.leave(fmt.Errorf("%w: an operation on %s has taken over %v while this node coordinated; it has left the group so that another can", ErrStalled, g.dir, stallTimeout))
	}
}

// leave ends this node's part in the group, for a reason that Run returns.
func (g *Group) leave(why error) {
	if g.fence.fault.CompareAndSwap(nil, &why) {
		g.log.Error("this node leaves the group", "error", why)
		g.cut()
	}
}
