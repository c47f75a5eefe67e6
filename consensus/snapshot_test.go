package consensus

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

func snapshots(t *testing.T, n *node) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(n.dir, "snapshots", "*", "state.bin"))
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// fill commits operations until a snapshot has been taken after them.
func fill(t *testing.T, nodes []*node, of *node) {
	t.Helper()
	had := len(snapshots(t, of))
	for i := 0; len(snapshots(t, of)) == had || i < 50; i++ {
		if i > 1000 {
			t.Fatal("no snapshot after 1,000 operations")
		}
		propose(t, nodes, rename(of.self.id, of.self.id, fmt.Sprintf("%d %s", i, strings.Repeat("name ", 15))))
	}
}

// smallLog makes a node take snapshots every few entries.
func (n *node) smallLog() *node {
	n.kill()
	n.tune.snapshotBytes, n.tune.trailingEntries = 2<<10, 4
	n.open()
	return n
}

func TestASnapshotIsTakenByBytesAndRestored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, newNetwork(), "founder").smallLog().found()
		fill(t, []*node{n}, n)
		before := n.hash()
		n.kill()
		if first, err := n.stores.logs.FirstIndex(); err == nil && first == 1 {
			t.Error("the log was not cut")
		}
		n.open()
		n.until("the state is as it was", func() bool { return n.hash() == before })
	})
}

func TestAFollowerFarBehindRestoresASnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, nodes := swarm(t, 3)
		for _, n := range nodes {
			n.smallLog()
		}
		eventually(t, "someone leads", func() bool { return leader(nodes) != nil })
		late := others(nodes, leader(nodes))[0]
		late.kill()
		rest := others(nodes, late)
		for _, n := range rest {
			fill(t, rest, n)
		}
		late.open()
		agree(t, nodes)
		if len(snapshots(t, late)) == 0 {
			t.Error("it agrees without a snapshot: the test shows nothing")
		}
		// Its log has a gap now, up to the snapshot: that is no damage.
		propose(t, nodes, rename(rest[0].self.id, rest[0].self.id, "behind the snapshot"))
		agree(t, nodes)
		late.kill()
		late.open()
		propose(t, nodes, rename(rest[0].self.id, rest[0].self.id, "after the restart"))
		agree(t, nodes)
	})
}

func TestADamagedSnapshotIsNotUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, newNetwork(), "founder").smallLog().found()
		fill(t, []*node{n}, n)
		n.kill()
		for _, path := range snapshots(t, n) {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			data[len(data)/2] ^= 1
			if err := os.WriteFile(path, bytes.Clone(data), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		g, err := Open(n.options())
		if err == nil {
			g.Close()
			t.Fatal("it was opened")
		}
		wantCode(t, err, wire.Code_CODE_INTERNAL)
		if !strings.Contains(err.Error(), n.dir) {
			t.Errorf("the error %q does not name the folder", err)
		}
	})
}
