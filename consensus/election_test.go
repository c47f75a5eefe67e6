package consensus

import (
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// takeover kills the leader of three members, each of which has led before and
// so has streams to the others, and returns how long it took until a successor
// had committed an operation. disturb is called right before.
func takeover(t *testing.T, disturb func(net *network, rest []*node)) time.Duration {
	t.Helper()
	net, nodes := swarmOf(t, 3, newMemoryNode)
	for _, n := range nodes {
		for leader(nodes) != n {
			if first := leader(nodes); first != nil {
				_ = first.raft.LeadershipTransferToServer(n.me.raft().ID, n.me.raft().Address).Error()
			}
			time.Sleep(100 * time.Millisecond)
		}
		propose(t, nodes, rename(n.self.id, n.self.id, "led"))
		time.Sleep(time.Second)
	}
	first := leader(nodes)
	rest := others(nodes, first)
	disturb(net, rest)
	start := time.Now()
	first.kill()
	propose(t, rest, rename(rest[0].self.id, rest[0].self.id, "successor"))
	return time.Since(start)
}

// Members keep the streams of earlier leaderships. Where these lead to a process
// or a path that is gone, and nobody said so, a vote or an entry sent on one waits
// for its time-out. Elections and terms begin with
// new streams.
func TestATakeoverDoesNotWaitForStreamsThatLeadNowhere(t *testing.T) {
	for name, disturb := range map[string]func(*network, []*node){
		"undisturbed": func(*network, []*node) {},
		"old streams": func(net *network, rest []*node) { net.forget(rest[0].self.id, rest[1].self.id) },
	} {
		t.Run(name, func(t *testing.T) {
			var all []time.Duration
			for range 12 {
				synctest.Test(t, func(t *testing.T) { all = append(all, takeover(t, disturb)) })
			}
			slices.Sort(all)
			t.Logf("median %v, longest %v", all[len(all)/2], all[len(all)-1])
			if longest := all[len(all)-1]; longest > 4*time.Second {
				t.Errorf("the longest of %d takeovers took %v", len(all), longest)
			}
		})
	}
}

// A leader that is answered on a new stream gives up the entry that it has sent
// on one that leads nowhere.
func TestAnEntryDoesNotWaitForAStreamThatLeadsNowhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net, nodes := swarm(t, 3)
		first := leader(nodes)
		rest := others(nodes, first)
		net.forget(first.self.id, rest[0].self.id)
		time.Sleep(2500 * time.Millisecond)
		if leader(nodes) != first {
			t.Fatal("the leader was lost, though one follower answers as before")
		}
		net.isolate(rest[1].self.id, true)
		start := time.Now()
		propose(t, nodes, rename(first.self.id, first.self.id, "by the new stream"))
		if took := time.Since(start); took > time.Second {
			t.Errorf("it took %v to commit with the follower whose old streams are gone", took)
		}
	})
}

// Raft receives a snapshot on the goroutine that votes.
func TestAMessageThatStopsInTheMiddleIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		defer there.Close()
		c := &acceptedConn{Conn: here, card: card{me: Server{ID: "x"}, generation: 1}}
		defer c.Close()
		read := func(n int) error {
			_, err := io.ReadFull(c, make([]byte, n))
			return err
		}
		go there.Write([]byte{2, 1, 1})
		if err := read(3); err != nil {
			t.Fatalf("the first message: %v", err)
		}
		go io.ReadFull(there, make([]byte, 1))
		if _, err := c.Write([]byte{1}); err != nil {
			t.Fatalf("the answer: %v", err)
		}
		go func() {
			time.Sleep(time.Hour) // between messages there may be any pause
			there.Write([]byte{2})
		}()
		if err := read(1); err != nil {
			t.Fatalf("the next message, an hour later: %v", err)
		}
		start := time.Now()
		if err := read(1); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the rest of it: %v, want that the time is over", err)
		}
		if took := time.Since(start); took != messagePause {
			t.Errorf("it was given up after %v, want %v", took, messagePause)
		}
	})
}
