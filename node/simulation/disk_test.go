package simulation

import (
	"cmp"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
)

// writeback is how long after a write the system has written it by itself,
// where nothing asked for that.
const writeback = 5 * time.Second

// errPower is what a process gets whose machine has no power any more.
var errPower = errors.New("the power has failed")

// disk is where a machine has its log and its vote. It outlives processes. A
// process that dies takes nothing with it; when the power fails, what was
// written and not synced is lost, or the last writes of that are: how many, the
// seed says.
//
// A store is of one boot of the machine. What that of an earlier boot still
// writes goes nowhere.
type disk struct {
	turn chan struct{} // cap 1: one write at a time, as bbolt has it

	mu       sync.Mutex
	random   *rand.Rand
	boot     int
	entries  map[uint64]*raft.Log
	lo, hi   uint64 // of entries
	stable   map[string][]byte
	unsynced []change // the oldest first

	// lies makes a sync do nothing; see sabotage_test.go.
	lies bool
	// alter, if not nil, changes entries before they are written.
	alter func(*raft.Log)
}

// change can be taken back.
type change struct {
	at   time.Time
	undo func()
}

func newDisk(seed uint64) *disk {
	d := &disk{turn: make(chan struct{}, 1), random: rand.New(rand.NewPCG(seed, 2))}
	d.empty()
	return d
}

// empty makes a new disk of it.
func (d *disk) empty() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.boot++
	d.entries, d.stable = make(map[uint64]*raft.Log), make(map[string][]byte)
	d.lo, d.hi, d.unsynced = 0, 0, nil
}

// fail is a failure of the power. It returns how many writes were lost.
func (d *disk) fail() (lost int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.boot++
	d.settle(time.Now().Add(-writeback))
	if n := len(d.unsynced); n > 0 {
		lost = 1 + d.random.IntN(n)
		if d.lies {
			lost = n
		}
	}
	for range lost {
		last := len(d.unsynced) - 1
		d.unsynced[last].undo()
		d.unsynced = d.unsynced[:last]
	}
	d.unsynced = nil
	return lost
}

// settle forgets how to take back what was written before a time. The caller
// holds mu.
func (d *disk) settle(before time.Time) {
	kept := 0
	for kept < len(d.unsynced) && d.unsynced[kept].at.Before(before) {
		kept++
	}
	d.unsynced = d.unsynced[kept:]
}

// open returns the stores of a process that starts now.
func (d *disk) open(raft.LogStore, raft.StableStore) (raft.LogStore, raft.StableStore) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := &stores{disk: d, boot: d.boot}
	return s, s
}

// stores are a process's raft.LogStore and raft.StableStore.
type stores struct {
	disk *disk
	boot int
}

// write does f, which returns how to take it back, and syncs: it returns when
// the disk says that it will not be lost.
func (s *stores) write(f func() (undo func())) error {
	d := s.disk
	d.turn <- struct{}{}
	defer func() { <-d.turn }()
	took, ok := s.put(f)
	if !ok {
		return errPower
	}
	time.Sleep(took)
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case s.boot != d.boot:
		return errPower
	case d.lies:
		d.settle(time.Now().Add(-writeback))
	default:
		d.unsynced = d.unsynced[:0]
	}
	return nil
}

// put does f if the machine still runs, and returns how long the sync takes.
func (s *stores) put(f func() (undo func())) (took time.Duration, ok bool) {
	d := s.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	if s.boot != d.boot {
		return 0, false
	}
	d.unsynced = append(d.unsynced, change{time.Now(), f()})
	took = time.Duration(200+d.random.IntN(800)) * time.Microsecond
	if d.random.IntN(200) == 0 {
		took += time.Duration(d.random.IntN(20)) * time.Millisecond
	}
	return took, true
}

func (s *stores) FirstIndex() (uint64, error) {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	return s.disk.lo, nil
}

func (s *stores) LastIndex() (uint64, error) {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	return s.disk.hi, nil
}

func (s *stores) GetLog(index uint64, log *raft.Log) error {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	l := s.disk.entries[index]
	if l == nil {
		return raft.ErrLogNotFound
	}
	*log = *l
	return nil
}

func (s *stores) StoreLog(log *raft.Log) error { return s.StoreLogs([]*raft.Log{log}) }

func (s *stores) StoreLogs(logs []*raft.Log) error {
	return s.write(func() func() { return s.disk.store(logs) })
}

// store writes entries, and returns how to take them back. The caller holds mu.
func (d *disk) store(logs []*raft.Log) (undo func()) {
	lo, hi := d.lo, d.hi
	old := make([]*raft.Log, len(logs))
	for i, l := range logs {
		if d.alter != nil {
			d.alter(l)
		}
		own := new(raft.Log)
		*own = *l
		old[i] = d.entries[l.Index]
		d.entries[l.Index] = own
		d.lo, d.hi = min(cmp.Or(d.lo, l.Index), l.Index), max(d.hi, l.Index)
	}
	first := logs[0].Index
	return func() {
		for i, l := range old {
			if d.entries[first+uint64(i)] = l; l == nil {
				delete(d.entries, first+uint64(i))
			}
		}
		d.lo, d.hi = lo, hi
	}
}

func (s *stores) DeleteRange(from, to uint64) error {
	return s.write(func() func() { return s.disk.drop(from, to) })
}

// drop takes entries out, and returns how to put them back. The caller holds mu.
func (d *disk) drop(from, to uint64) (undo func()) {
	lo, hi := d.lo, d.hi
	old := make(map[uint64]*raft.Log)
	for i := max(from, d.lo); i <= min(to, d.hi); i++ {
		if l := d.entries[i]; l != nil {
			old[i] = l
			delete(d.entries, i)
		}
	}
	for d.lo < d.hi && d.entries[d.lo] == nil {
		d.lo++
	}
	for d.hi > d.lo && d.entries[d.hi] == nil {
		d.hi--
	}
	if len(d.entries) == 0 {
		d.lo, d.hi = 0, 0
	}
	return func() {
		for i, l := range old {
			d.entries[i] = l
		}
		d.lo, d.hi = lo, hi
	}
}

// Set keeps a value. Raft panics when its vote cannot be written, and so would
// a dead process: it is told that all is well, and nobody hears what it says.
func (s *stores) Set(key, value []byte) error {
	d, name, own := s.disk, string(key), append([]byte(nil), value...)
	err := s.write(func() func() {
		old, had := d.stable[name]
		d.stable[name] = own
		return func() {
			if d.stable[name] = old; !had {
				delete(d.stable, name)
			}
		}
	})
	if err == errPower {
		return nil
	}
	return err
}

func (s *stores) Get(key []byte) ([]byte, error) {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	value, ok := s.disk.stable[string(key)]
	if !ok {
		return nil, raftboltdb.ErrKeyNotFound
	}
	return value, nil
}

func (s *stores) SetUint64(key []byte, value uint64) error {
	return s.Set(key, binary.BigEndian.AppendUint64(nil, value))
}

func (s *stores) GetUint64(key []byte) (uint64, error) {
	value, err := s.Get(key)
	if err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint64(value), nil
}
