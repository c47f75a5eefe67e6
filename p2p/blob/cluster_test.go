package blob

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fault is how a node behaves when it is dialled.
type fault int32

const (
	healthy  fault = iota
	refusing       // the dial is an error
	hanging        // the dial does not end by itself
	mute           // the stream opens and nothing is read from it
)

var errRefused = errors.New("connection refused")

// cluster is nodes in one process, joined by net.Pipe.
type cluster struct {
	t       testing.TB
	nodes   []*node
	voters  []wire.DeviceID
	members []wire.DeviceID

	mu     sync.Mutex
	named  map[wire.Hash]bool
	serves sync.WaitGroup
	ctx    context.Context
	stop   context.CancelFunc
}

type node struct {
	*Exchange
	id    wire.DeviceID
	store *Store
	keep  atomic.Bool
	fault atomic.Int32
	free  atomic.Uint64
	stale atomic.Bool // the state is not current
	dials atomic.Int32
}

// newCluster starts so many nodes; the first voters of them vote and keep.
func newCluster(t testing.TB, nodes, voters int) *cluster {
	t.Helper()
	c := &cluster{t: t, named: map[wire.Hash]bool{}}
	c.ctx, c.stop = context.WithCancel(context.Background())
	for i := range nodes {
		store, err := Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		n := &node{id: wire.DeviceID(fmt.Sprintf("node-%d", i)), store: store}
		n.free.Store(1 << 40)
		n.keep.Store(i < voters)
		c.nodes = append(c.nodes, n)
		c.members = append(c.members, n.id)
		if i < voters {
			c.voters = append(c.voters, n.id)
		}
	}
	for _, n := range c.nodes {
		n.Exchange = NewExchange(Config{
			Self: n.id, Store: n.store, Keep: n.keep.Load,
			Voters:  func() []wire.DeviceID { return c.voters },
			Members: func() []wire.DeviceID { return c.members },
			Dial: func(ctx context.Context, id wire.DeviceID) (net.Conn, error) {
				return c.dial(ctx, n.id, id)
			},
			Names: c.names, Named: c.allNamed,
			Current:   func() bool { return !n.stale.Load() },
			FreeSpace: func() (uint64, error) { return n.free.Load(), nil },
		})
	}
	t.Cleanup(c.close)
	return c
}

func (c *cluster) close() {
	c.stop()
	for _, n := range c.nodes {
		if err := errors.Join(n.Close(), n.Close()); err != nil {
			c.t.Error(err)
		}
	}
	c.serves.Wait()
}

func (c *cluster) dial(ctx context.Context, from, to wire.DeviceID) (net.Conn, error) {
	for _, n := range c.nodes {
		if n.id != to {
			continue
		}
		n.dials.Add(1)
		switch fault(n.fault.Load()) {
		case refusing:
			return nil, errRefused
		case hanging:
			<-ctx.Done()
			return nil, ctx.Err()
		case mute:
			near, _ := net.Pipe()
			return near, nil
		}
		near, far := net.Pipe()
		c.serves.Go(func() { n.Serve(c.ctx, from, far) })
		return near, nil
	}
	return nil, fmt.Errorf("nobody is called %s", to)
}

func (c *cluster) names(h wire.Hash) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.named[h]
}

func (c *cluster) allNamed() []wire.Hash {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]wire.Hash, 0, len(c.named))
	for h := range c.named {
		all = append(all, h)
	}
	return all
}

// setNamed changes what the state names, and tells nobody.
func (c *cluster) setNamed(named bool, pages ...wire.Hash) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, h := range pages {
		if named {
			c.named[h] = true
		} else {
			delete(c.named, h)
		}
	}
}

// restart is the end of the node's process and the beginning of another: only the
// store is the same.
func (n *node) restart() {
	config := n.cfg
	n.Close()
	n.Exchange = NewExchange(config)
}

// run runs the node's loops until the function that it returns is called.
func (n *node) run(t testing.TB) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// eventually waits until ok, and fails the test if that takes longer than any
// healthy machine needs.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never came about: %s", what)
		}
	}
}

// randomPage returns bytes that no other call returns.
func randomPage(size int) []byte {
	var seed [32]byte
	for i := 0; i < len(seed); i += 8 {
		v := rand.Uint64()
		for j := range 8 {
			seed[i+j] = byte(v >> (8 * j))
		}
	}
	data := make([]byte, size)
	_, _ = rand.NewChaCha8(seed).Read(data)
	return data
}

func mustPut(t testing.TB, s *Store, data []byte) wire.Hash {
	t.Helper()
	h, err := s.Put(data)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func mustHave(t testing.TB, s *Store, h wire.Hash, want []byte) {
	t.Helper()
	got, err := s.Get(h)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("the page has %d bytes, error %v; want the %d that were put", len(got), err, len(want))
	}
}

// age makes the page look as if it had last been put at that time.
func age(t testing.TB, s *Store, h wire.Hash, put time.Time) {
	t.Helper()
	if err := os.Chtimes(s.path(h), put, put); err != nil {
		t.Fatal(err)
	}
}
