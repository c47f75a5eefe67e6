package consensus

import (
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// badDisk is a log store and a stable store that fail, or hang, on demand.
type badDisk struct {
	raft.LogStore
	raft.StableStore
	refuse atomic.Bool // writes and reads of entries fail
	full   atomic.Bool // no entry is stored
	mu     sync.Mutex
	freed  chan struct{} // nil while nothing hangs
}

var errDisk = syscall.ENOSPC

// bad opens a member over a disk that a test can break.
func bad(t testing.TB, net *network, name string) (*node, *badDisk) {
	t.Helper()
	n := newNode(t, net, name)
	n.kill()
	d := new(badDisk)
	n.more = func(o *Options) {
		o.Wrap = func(logs raft.LogStore, stable raft.StableStore) (raft.LogStore, raft.StableStore) {
			d.LogStore, d.StableStore = logs, stable
			return d, d
		}
	}
	n.loseDisk()
	return n, d
}

// hang makes all writes wait until the returned function is called.
func (d *badDisk) hang() (free func()) {
	freed := make(chan struct{})
	d.mu.Lock()
	d.freed = freed
	d.mu.Unlock()
	return sync.OnceFunc(func() {
		d.mu.Lock()
		d.freed = nil
		d.mu.Unlock()
		close(freed)
	})
}

func (d *badDisk) work(write bool) error {
	d.mu.Lock()
	freed := d.freed
	d.mu.Unlock()
	if write && freed != nil {
		<-freed
	}
	if d.refuse.Load() {
		return errDisk
	}
	return nil
}

func (d *badDisk) GetLog(index uint64, l *raft.Log) error {
	if err := d.work(false); err != nil {
		return err
	}
	return d.LogStore.GetLog(index, l)
}

func (d *badDisk) StoreLog(l *raft.Log) error { return d.StoreLogs([]*raft.Log{l}) }

func (d *badDisk) StoreLogs(l []*raft.Log) error {
	if err := d.work(true); err != nil {
		return err
	}
	if d.full.Load() {
		return errDisk
	}
	return d.LogStore.StoreLogs(l)
}

func (d *badDisk) SetUint64(key []byte, value uint64) error {
	if err := d.work(true); err != nil {
		return err
	}
	return d.StableStore.SetUint64(key, value)
}

func (d *badDisk) Set(key, value []byte) error {
	if err := d.work(true); err != nil {
		return err
	}
	return d.StableStore.Set(key, value)
}

// badSwarm makes a swarm of three whose disks can be broken.
func badSwarm(t *testing.T) (net *network, nodes []*node, disks map[*node]*badDisk) {
	t.Helper()
	disks = make(map[*node]*badDisk)
	net, nodes = swarmOf(t, 3, func(t testing.TB, net *network, name string) *node {
		n, d := bad(t, net, name)
		disks[n] = d
		return n
	})
	return net, nodes, disks
}

// badLeader makes a swarm of three whose leader's disk can be broken.
func badLeader(t *testing.T) (nodes []*node, disk *badDisk) {
	t.Helper()
	_, nodes, disks := badSwarm(t)
	agree(t, nodes)
	first := leader(nodes)
	return append([]*node{first}, others(nodes, first)...), disks[first]
}

func TestALeaderWhoseDiskHangsLeavesTheGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes, disk := badLeader(t)
		first, rest := nodes[0], nodes[1:]
		free := disk.hang()
		defer free()
		start := time.Now()
		term, _ := first.leading()
		go first.Propose(t.Context(), term, rename(first.self.id, first.self.id, "stuck"))
		err := <-first.ran
		first.ran = nil
		if !errors.Is(err, ErrStalled) || !strings.Contains(err.Error(), first.dir) {
			t.Errorf("Run returned %v, want that the disk of %s does not answer", err, first.dir)
		}
		if took := time.Since(start); took < stallTimeout || took > stallTimeout+time.Second {
			t.Errorf("Run returned after %v, want about %v", took, stallTimeout)
		}
		propose(t, rest, rename(rest[0].self.id, rest[0].self.id, "successor"))
		if took := time.Since(start); took > stallTimeout+5*time.Second {
			t.Errorf("a successor committed after %v", took)
		}
		start = time.Now()
		if err := first.Close(); !errors.Is(err, ErrStalled) {
			t.Errorf("Close: %v, want %v", err, ErrStalled)
		}
		if took := time.Since(start); took > closeTimeout+time.Second {
			t.Errorf("Close took %v with a disk that hangs", took)
		}
		free()
		time.Sleep(time.Second) // what waited for the disk ends
		first.stop()
		first.open()
		agree(t, nodes)
	})
}

func TestAFollowerWhoseDiskHangsForAWhileCatchesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, nodes, disks := badSwarm(t)
		first := leader(nodes)
		slow := others(nodes, first)[0]
		free := disks[slow].hang()
		defer free()
		for range 20 {
			propose(t, nodes, rename(first.self.id, first.self.id, "meanwhile"))
			time.Sleep(500 * time.Millisecond)
		}
		if _, ok := first.leading(); !ok {
			t.Error("the leader was lost over a follower's disk")
		}
		free()
		agree(t, nodes)
	})
}

// Raft cuts the end of a follower's log off, which the leader does not have, and
// then stores what it has instead. Where that fails, raft takes the log to be as
// long as before, and looks for what is not there for ever.
func TestAFollowerWhoseLogIsCutOffOnAFullDiskGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net, nodes, disks := badSwarm(t)
		old := leader(nodes)
		rest := others(nodes, old)
		term, _ := old.leading()
		net.isolate(old.self.id, true)
		for range 5 { // what it stores and nobody else has
			go old.Propose(t.Context(), term, rename(old.self.id, old.self.id, "alone"))
			time.Sleep(10 * time.Millisecond)
		}
		for range 3 {
			propose(t, rest, rename(rest[0].self.id, rest[0].self.id, "together"))
		}
		disks[old].full.Store(true)
		net.isolate(old.self.id, false)
		time.Sleep(3 * time.Second)
		disks[old].full.Store(false)
		next := leader(rest)
		others(rest, next)[0].kill() // so that each entry needs the one whose disk was full
		propose(t, []*node{next}, rename(next.self.id, next.self.id, "by two"))
		agree(t, []*node{next, old})
	})
}

func TestALeaderWhoseDiskRefusesLosesLeadership(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes, disk := badLeader(t)
		first, rest := nodes[0], nodes[1:]
		disk.refuse.Store(true)
		term, _ := first.leading()
		_, err := first.Propose(t.Context(), term, rename(first.self.id, first.self.id, "no room"))
		if err == nil {
			t.Error("an operation was acknowledged that the disk refused")
		}
		propose(t, rest, rename(rest[0].self.id, rest[0].self.id, "successor"))
		time.Sleep(time.Minute) // it cannot write its term: it must neither panic nor vote
		propose(t, rest, rename(rest[0].self.id, rest[0].self.id, "and on"))

		disk.refuse.Store(false)
		agree(t, nodes)
	})
}

func TestAGroupWhoseDiskRefusesCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes, disk := badLeader(t)
		disk.refuse.Store(true)
		for _, n := range nodes[1:] {
			n.kill()
		}
		time.Sleep(10 * time.Second) // it tries to write the term of an election
		start := time.Now()
		if err := nodes[0].Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("Close took %v", took)
		}
		<-nodes[0].ran
		nodes[0].ran = nil
		disk.refuse.Store(false)
		nodes[0].stop()
	})
}

func TestAnEntryThatCannotBeReadEndsTheNodeWithAName(t *testing.T) {
	d := &disk{
		logs: &badDisk{LogStore: raft.NewInmemStore()}, closing: make(chan struct{}), late: func() {},
		log: loggerOf(Options{}), began: make(map[uint64]time.Time),
	}
	d.logs.(*badDisk).refuse.Store(true)
	if err := d.GetLog(1, new(raft.Log)); !errors.Is(err, errDisk) {
		t.Errorf("before raft runs the error is %v, want %v", err, errDisk)
	}
	synctest.Test(t, func(t *testing.T) {
		closing, failed := make(chan struct{}), make(chan error, 1)
		d := &disk{logs: d.logs, closing: closing, late: func() {}, failed: func(err error) { failed <- err },
			log: loggerOf(Options{}), began: make(map[uint64]time.Time)}
		d.live.Store(true)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			d.GetLog(7, new(raft.Log))
			t.Error("GetLog returned to raft, which would panic")
		}()
		start := time.Now()
		err := <-failed
		if took := time.Since(start); took < stallTimeout || !strings.Contains(err.Error(), "entry 7") {
			t.Errorf("after %v it says: %v", took, err)
		}
		close(closing)
		<-ended
	})
}
