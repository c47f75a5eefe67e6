package consensus

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// realSwarm is a swarm on the real clock, with files in the test's folder.
func realSwarm(b testing.TB, size int) []*node {
	b.Helper()
	_, nodes := swarm(b, size)
	eventually(b, "someone leads", func() bool { return leader(nodes) != nil })
	return nodes
}

func TestAGroupWorksOnTheRealClockAndLeavesNothingBehind(t *testing.T) {
	nodes := realSwarm(t, 3)
	first := leader(nodes)
	first.kill()
	rest := others(nodes, first)
	start := time.Now()
	propose(t, rest, rename(rest[0].self.id, rest[0].self.id, "survivor"))
	t.Logf("committed again after %v", time.Since(start))
	first.open()
	agree(t, nodes)
	leader(rest).quit()
	propose(t, nodes, rename(rest[0].self.id, rest[0].self.id, "again"))
}

// BenchmarkTakeover kills the leader of three members b.N times, on the real
// clock and with real files, and measures how long it takes until a successor has
// committed; "unwanted" are changes of the term in the second before each kill.
// Its figures mean something on the machine, and under the load, that they are
// taken: run it with -benchtime=60x.
func BenchmarkTakeover(b *testing.B) {
	for _, ms := range [][3]int{{500, 500, 250}, {500, 500, 400}, {500, 500, 500}, {700, 700, 350}, {800, 800, 400}} {
		b.Run(fmt.Sprintf("%d-%d-%d", ms[0], ms[1], ms[2]), func(b *testing.B) {
			open := func(t testing.TB, net *network, name string) *node {
				t.Helper()
				n := newNode(t, net, name)
				n.kill()
				n.tune.heartbeat = time.Duration(ms[0]) * time.Millisecond
				n.tune.election = time.Duration(ms[1]) * time.Millisecond
				n.tune.lease = time.Duration(ms[2]) * time.Millisecond
				n.open()
				return n
			}
			_, nodes := swarmOf(b, 3, open)
			var took []time.Duration
			unwanted := uint64(0)
			for range b.N {
				agree(b, nodes)
				eventually(b, "someone leads", func() bool { return leader(nodes) != nil })
				_, before := nodes[0].Leader()
				for range 20 {
					propose(b, nodes, rename(nodes[0].self.id, nodes[0].self.id, "calm"))
					time.Sleep(50 * time.Millisecond)
				}
				_, after := nodes[0].Leader()
				unwanted += after - before
				eventually(b, "someone leads", func() bool { return leader(nodes) != nil })
				first := leader(nodes)
				rest := others(nodes, first)
				start := time.Now()
				first.kill()
				propose(b, rest, rename(nodes[0].self.id, nodes[0].self.id, "successor"))
				took = append(took, time.Since(start))
				first.open()
			}
			slices.Sort(took)
			b.ReportMetric(took[len(took)/2].Seconds(), "s-median")
			b.ReportMetric(took[len(took)*95/100].Seconds(), "s-p95")
			b.ReportMetric(took[len(took)-1].Seconds(), "s-longest")
			b.ReportMetric(float64(unwanted), "unwanted")
		})
	}
}

// BenchmarkPropose measures operations a second of three voters in this process,
// with pipes between them and real files with fsync. The operation is about the
// size of a completed task's share.
func BenchmarkPropose(b *testing.B) {
	nodes := realSwarm(b, 3)
	first := leader(nodes)
	term, _ := first.leading()
	op := rename(first.self.id, first.self.id, "a name of a device that is about eighty characters long, as names go in here ..")
	for _, callers := range []int{1, 16, 256, 1024} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			before := first.Status().Last
			work := make(chan struct{}, b.N)
			for range b.N {
				work <- struct{}{}
			}
			close(work)
			var wait sync.WaitGroup
			for range callers {
				wait.Go(func() {
					for range work {
						if _, err := first.Propose(context.Background(), term, op); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wait.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ops/s")
			b.ReportMetric(float64(b.N)/float64(max(1, first.Status().Last-before)), "ops/entry")
		})
	}
}

// BenchmarkComplete measures the queue's own kind of operation: batches of 100
// results in one CompleteTasks, as the coordinator proposes them.
func BenchmarkComplete(b *testing.B) {
	const batch = 100
	nodes := realSwarm(b, 3)
	first := leader(nodes)
	term, _ := first.leading()
	for _, callers := range []int{1, 16} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			job := submit(b, nodes, first, callers, b.N)
			var wait sync.WaitGroup
			var next sync.Mutex
			index := uint32(0)
			b.ResetTimer()
			for range callers {
				wait.Go(func() {
					for {
						next.Lock()
						from := index
						index += batch
						next.Unlock()
						if int(from) >= b.N {
							return
						}
						if _, err := first.Propose(context.Background(), term, complete(job, first.self.id, from, batch)); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wait.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tasks/s")
		})
	}
}

// submit makes a job with at least n inputs, rounded up to whole batches.
func submit(b *testing.B, nodes []*node, first *node, callers, n int) wire.JobID {
	b.Helper()
	id := wire.NewJobID()
	hash := wire.HashOf([]byte(id))
	actor := string(first.self.id)
	propose(b, nodes, &wire.Op{Actor: actor, Kind: &wire.Op_SubmitJob{SubmitJob: &wire.SubmitJob{JobId: string(id), Spec: &wire.JobSpec{
		Program:   &wire.Program{Name: "p", Blob: &wire.Blob{Size: 1, Pages: [][]byte{hash[:]}, Hash: hash[:]}},
		TimeoutMs: 1000, MemoryMib: 64, MaxOutputBytes: 1 << 20,
	}}}})
	var digest wire.Digest
	for first := 0; first < n+100*callers; first += 1000 {
		items := make([][]byte, 1000)
		for i := range items {
			items[i] = []byte{}
		}
		before := digest
		for range items {
			digest = digest.Next(wire.HashOf(nil))
		}
		pack := wire.EncodePack(items)
		propose(b, nodes, &wire.Op{Actor: actor, Kind: &wire.Op_AppendInputs{AppendInputs: &wire.AppendInputs{
			JobId: string(id), DigestBefore: before[:], DigestAfter: digest[:],
			Segments: []*wire.Segment{{First: uint32(first), Count: 1000, Inline: pack}},
		}}})
	}
	return id
}

func complete(job wire.JobID, device wire.DeviceID, from, n uint32) *wire.Op {
	c := &wire.CompleteTasks{JobId: string(job), Outcomes: make([]byte, n), Devices: []string{string(device)},
		DeviceOf: make([]uint32, n), LeasedBelow: from + n}
	items := make([][]byte, n)
	for i := range n {
		c.Indexes = append(c.Indexes, from+i)
		items[i] = binary.BigEndian.AppendUint64(make([]byte, 0, 20), uint64(from+i))
	}
	pack := wire.EncodePack(items)
	c.Results = &wire.Segment{Count: n, Inline: pack, Bytes: uint64(8 * n)}
	return &wire.Op{Actor: string(device), Kind: &wire.Op_CompleteTasks{CompleteTasks: c}}
}
