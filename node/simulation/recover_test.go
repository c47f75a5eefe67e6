package simulation

import (
	"cmp"
	"context"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/ostrich-legs/ostrich/consensus"
	"github.com/ostrich-legs/ostrich/consensus/state"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// generationService tells who asks of which generation a member is, as package
// node does it.
const generationService = "generation"

// askLimit bounds how long a starting member asks the others.
const askLimit = time.Second

// raftFolder is the folder of the replicated log, where it is in files.
func (m *machine) raftFolder() string { return filepath.Join(m.dir, "raft") }

// tellGeneration answers who asks for this member's generation.
func (p *member) tellGeneration(_ wire.DeviceID, c net.Conn) {
	if !p.begin(func() {
		defer c.Close()
		c.Write(binary.BigEndian.AppendUint64(nil, p.machine.generation.Load())) // who asks notices an error
	}) {
		c.Close()
	}
}

// newestGeneration asks the other members that can be reached.
func (m *machine) newestGeneration() uint64 {
	ctx, cancel := context.WithTimeout(context.Background(), askLimit)
	defer cancel()
	var mu sync.Mutex
	newest := m.generation.Load()
	if m.swarm.options.asksNobody {
		return newest
	}
	var all sync.WaitGroup
	for _, other := range m.swarm.members {
		if other == m {
			continue
		}
		all.Go(func() {
			c, err := m.swarm.net.dial(ctx, m.id.ID, other.id.ID, generationService)
			if err != nil {
				return
			}
			defer c.Close()
			deadline, _ := ctx.Deadline()
			c.SetDeadline(deadline) // it has no error
			var b [8]byte
			if _, err := io.ReadFull(c, b[:]); err == nil {
				mu.Lock()
				newest = max(newest, binary.BigEndian.Uint64(b[:]))
				mu.Unlock()
			}
		})
	}
	all.Wait()
	return newest
}

// joinGeneration sets the log aside if the swarm is of a newer generation than
// it. The process does not run.
func (m *machine) joinGeneration(newest uint64) error {
	if newest <= m.generation.Load() {
		return nil
	}
	m.generation.Store(newest)
	m.disk.empty()
	_, err := consensus.SetAside(m.raftFolder(), "old")
	return err
}

// superseded starts the process anew, as a standby of the newer generation.
func (m *machine) superseded(generation uint64) {
	m.swarm.later.Go(func() {
		m.crash(false)
		if err := m.joinGeneration(generation); err != nil {
			m.swarm.ledger.red("%s cannot set its log aside: %v", m.name, err)
		}
		m.up()
	})
}

// mostAreLost lets most of the voters be lost for ever, makes one that is left
// the swarm, and lets those that were lost come back all the same, together.
func mostAreLost(s *swarm, c *client) {
	ctx := s.t.Context()
	c.begin(ctx, s.coordinator())
	time.Sleep(2 * time.Second) // all hold it
	lost := len(s.members)/2 + 1
	gone, survivor := s.members[:lost], s.members[lost]
	for _, m := range gone {
		m.losePower()
	}
	survivor.crash(false)
	if _, err := consensus.Recover(survivor.raftFolder(), survivor.id.ID, 2, nil); err != nil {
		s.t.Fatal(err)
	}
	survivor.generation.Store(2)
	s.ledger.generation.Store(2)
	survivor.up()
	s.eventually(30*time.Second, "the survivor coordinates", func() bool { return s.coordinator() == survivor })
	after := c.slowJob("after", "after", 5)
	if s.random.IntN(2) == 0 {
		time.Sleep(s.duration(0, 5*time.Second))
	}
	for _, m := range gone {
		s.later.Go(m.up)
	}
	if err := c.read(ctx, nil, after); err != nil {
		s.ledger.red("job %s: %v", after.name, err)
	}
	s.eventually(3*time.Minute, "all members are of one swarm again, and vote", func() bool { return s.agree() && s.allVote() })
	for _, m := range s.members {
		m.member().group.Read(func(st *state.State) {
			if st.Generation() != 2 {
				s.ledger.red("%s is of generation %d", m.name, st.Generation())
			}
		})
	}
}

func TestOldMembersThatComeBackMakeNoSecondSwarm(t *testing.T) {
	recoveries := uint64(20)
	if testing.Short() {
		recoveries = 4
	}
	first := cmp.Or(*seedFlag, rand.Uint64N(1<<32))
	t.Logf("%d recoveries, seeds from %d on", recoveries, first)
	for seed := first; seed < first+recoveries; seed++ {
		o := options{seed: seed, members: 3 + 2*int(seed&1), devices: 1, realDisks: true, asksNobody: seed&2 == 0}
		scenario(t, o, mostAreLost).mustBeRight(t)
		if t.Failed() {
			t.Fatalf("seed %d, members ask of generations: %v", seed, !o.asksNobody)
		}
	}
}
