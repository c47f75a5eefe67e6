//go:build !ostrich_format1

package consensus

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ostrich-legs/ostrich/consensus/state"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// recover makes n, whose others are lost, the group in a new generation.
func (n *node) recover(generation uint64) (kept string) {
	n.t.Helper()
	n.kill()
	kept, err := Recover(n.dir, n.self.id, generation, nil)
	if err != nil {
		n.t.Fatalf("recovering: %v", err)
	}
	n.open()
	return kept
}

// rejoin does what package node does when a newer generation was met.
func (n *node) rejoin(nodes []*node) {
	n.t.Helper()
	newer := n.superseded()
	n.kill()
	if _, err := SetAside(n.dir, "superseded"); err != nil {
		n.t.Fatal(err)
	}
	n.more = func(o *Options) { o.Generation = newer[len(newer)-1] }
	n.open()
	n.report(nodes)
}

func (n *node) stateGeneration() (generation uint64) {
	n.Read(func(s *state.State) { generation = s.Generation() })
	return generation
}

func TestASurvivorRecoversAndTheOthersRejoin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, nodes := swarm(t, 3)
		propose(t, nodes, rename(nodes[0].self.id, nodes[0].self.id, "kept"))
		agree(t, nodes)
		survivor, lost := nodes[0], nodes[1:]
		for _, n := range lost {
			n.kill()
		}
		before, old := survivor.hash(), survivor.Replica()
		remains := survivor.Remains()
		if remains.Generation != 1 || remains.Last == 0 || remains.Committed > remains.Last || remains.TimeMS == 0 || len(remains.Servers) != 3 {
			t.Errorf("what remains: %+v", remains)
		}
		kept := survivor.recover(2)
		if _, err := os.Stat(filepath.Join(kept, logFile)); err != nil || !strings.Contains(kept, ".generation-1.") {
			t.Errorf("the old files are not in %s (%v)", kept, err)
		}
		survivor.until("it leads in the new generation", func() bool {
			return len(survivor.seenTerms()) > 0 && survivor.stateGeneration() == 2
		})
		if survivor.Generation() != 2 || survivor.Replica() == old || survivor.hash() == before {
			t.Errorf("generation %d, replica %q (before: %q)", survivor.Generation(), survivor.Replica(), old)
		}
		if got := survivor.name(survivor.self.id); got != "kept" {
			t.Errorf("what was committed is %q, want %q", got, "kept")
		}
		survivor.report(nodes[:1])

		// Two old members come back together: they are a majority of the old group.
		for _, n := range lost {
			n.open()
		}
		propose(t, nodes[:1], rename(survivor.self.id, survivor.self.id, "new generation"))
		eventually(t, "both have met the new generation", func() bool {
			return len(lost[0].superseded()) > 0 && len(lost[1].superseded()) > 0
		})
		for _, n := range lost {
			if got := n.superseded(); !slices.Equal(got, []uint64{2}) {
				t.Errorf("it was told of generations %v, want 2 once", got)
			}
			if _, ok := n.leading(); ok {
				t.Error("a member of the old generation leads on")
			}
		}
		for _, n := range lost {
			n.rejoin(nodes[:1])
		}
		eventually(t, "all three vote again", func() bool { return len(survivor.Voters()) == 3 })
		propose(t, nodes, rename(survivor.self.id, survivor.self.id, "together"))
		agree(t, nodes)
	})
}

func TestTermsAfterARecoveryAreNew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, newNetwork(), "founder").found()
		_, before := n.Leader()
		n.recover(2)
		n.until("it leads again", func() bool { return len(n.seenTerms()) > 1 })
		if _, after := n.Leader(); after < before+recoveredTerms {
			t.Errorf("term %d after the recovery, and %d before", after, before)
		}
	})
}

func TestARecoveryIsRefusedWithoutALogOrAHigherGeneration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, newNetwork(), "founder")
		n.kill()
		_, err := Recover(n.dir, n.self.id, 2, nil)
		wantCode(t, err, wire.Code_CODE_PRECONDITION)
		n.open()
		n.found()
		n.kill()
		_, err = Recover(n.dir, n.self.id, 1, nil)
		wantCode(t, err, wire.Code_CODE_PRECONDITION)
		if _, err := Recover(filepath.Join(n.dir, "nothing"), n.self.id, 2, nil); err == nil {
			t.Error("a folder that is not there was recovered")
		}
		if left, _ := filepath.Glob(n.dir + ".*"); len(left) != 0 {
			t.Errorf("refusals left %v", left)
		}
		n.open()
	})
}

// A recovery that was interrupted after any of its steps leaves the old folder
// or the new one, whole.
func TestAnInterruptedRecoveryIsFinishedOrUndone(t *testing.T) {
	tests := []struct {
		name string
		// interrupt arranges the folders as after the crash; done is a folder that
		// was recovered.
		interrupt func(dir, done string) error
		want      uint64
	}{
		{"while the copy was made", func(dir, done string) error {
			if err := os.Rename(done, dir+recoveringSuffix); err != nil {
				return err
			}
			return os.Truncate(filepath.Join(dir+recoveringSuffix, logFile), 100)
		}, 1},
		{"before the old folder gave way", func(dir, done string) error {
			return os.Rename(done, dir+recoveredSuffix)
		}, 1},
		{"before the new folder took its place", func(dir, done string) error {
			return errors.Join(os.Rename(done, dir+recoveredSuffix), os.Rename(dir, dir+".generation-1.x"))
		}, 2},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNode(t, newNetwork(), "founder").found()
				n.kill()
				done := n.dir + "-copy"
				if err := copyFolder(n.dir, done); err != nil {
					t.Fatal(err)
				}
				if _, err := recoverFolder(Options{Self: n.self.id, Dir: done, Generation: 2}); err != nil {
					t.Fatal(err)
				}
				if err := test.interrupt(n.dir, done); err != nil {
					t.Fatal(err)
				}
				n.open()
				if got := n.Generation(); got != test.want {
					t.Errorf("generation %d, want %d", got, test.want)
				}
				n.until("it leads with what it had", func() bool {
					return len(n.seenTerms()) > 1 && n.name(n.self.id) == "founder"
				})
				for _, suffix := range []string{recoveringSuffix, recoveredSuffix} {
					if _, err := os.Stat(n.dir + suffix); err == nil {
						t.Errorf("%s is left", n.dir+suffix)
					}
				}
			})
		})
	}
}

func TestALogOfAnOlderGenerationIsSetAside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, newNetwork(), "founder").found()
		n.kill()
		n.more = func(o *Options) { o.Generation = 3 }
		n.open()
		if n.HasState() || n.Generation() != 3 {
			t.Errorf("it has state: %v, in generation %d", n.HasState(), n.Generation())
		}
		if kept, _ := filepath.Glob(n.dir + ".generation-1.*"); len(kept) != 1 {
			t.Errorf("the old log is kept in %v, want one folder", kept)
		}
		n.kill()
		n.more = nil
		n.open()
		if n.Generation() != 3 {
			t.Errorf("the folder is of generation %d after all, want 3", n.Generation())
		}
	})
}

func TestSetAsideKeepsEachFolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // the clock stands still
		dir := filepath.Join(t.TempDir(), "raft")
		var kept []string
		for range 3 {
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			name, err := SetAside(dir, "damaged")
			if err != nil || slices.Contains(kept, name) || !strings.HasPrefix(name, dir+".damaged.") {
				t.Fatalf("set aside as %s (%v), after %v", name, err, kept)
			}
			kept = append(kept, name)
		}
		if _, err := SetAside(dir, "damaged"); err == nil {
			t.Error("a folder that is not there was set aside")
		}
	})
}

// unpackFolder1 unpacks a folder that was written by a program of format 1,
// before replicas had names.
func unpackFolder1(t *testing.T, to string) {
	t.Helper()
	packed, err := os.Open(filepath.Join("testdata", "folder-1.tar.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer packed.Close()
	unzipped, err := gzip.NewReader(packed)
	if err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(unzipped); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(to, filepath.FromSlash(h.Name))
		if h.FileInfo().IsDir() {
			err = os.MkdirAll(path, 0o700)
		} else {
			var data []byte
			if data, err = io.ReadAll(r); err == nil {
				err = os.WriteFile(path, data, 0o600)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// golden opens a copy of yesterday's folder.
func golden(t *testing.T, net *network) *node {
	t.Helper()
	dir := t.TempDir()
	unpackFolder1(t, dir)
	n := &node{t: t, net: net, dir: filepath.Join(dir, "raft"), tune: defaultTuning()}
	// Who wrote it is in it.
	g, err := Open(Options{Self: "unknown", Dir: n.dir, Streams: net.listen("unknown")})
	if err != nil {
		t.Fatal(err)
	}
	n.self.id = g.Voters()[0]
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	return startNode(n)
}

func TestAFolderOfFormat1OpensWithoutAReplicaAndWorks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := golden(t, newNetwork())
		n.until("it leads", func() bool { return len(n.seenTerms()) > 0 })
		if !n.HasState() || n.Replica() != "" || n.Generation() != 1 {
			t.Errorf("state %v, replica %q, generation %d", n.HasState(), n.Replica(), n.Generation())
		}
		if got := n.name(n.self.id); got != "alpha the first" {
			t.Errorf("the device's name is %q, want %q", got, "alpha the first")
		}
		propose(t, []*node{n}, rename(n.self.id, n.self.id, "goes on"))
		n.kill()
		n.open()
		n.until("it has what was added", func() bool { return n.name(n.self.id) == "goes on" })
		if n.Replica() != "" {
			t.Errorf("the replica is %q after a restart, want none", n.Replica())
		}
	})
}

func TestAFolderOfFormat1GrowsIntoASwarmOfReplicas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := newNetwork()
		n := golden(t, net)
		n.until("it leads", func() bool { return len(n.seenTerms()) > 0 })
		nodes := []*node{n}
		for _, name := range []string{"second", "third"} {
			joiner := newNode(t, net, name)
			admit(t, nodes, n.self.id, joiner.self)
			joiner.report(nodes)
			nodes = append(nodes, joiner)
		}
		// The last vote may be in the first one's log alone: without it the others
		// would have no quorum.
		eventually(t, "three vote, and know it", func() bool {
			return !slices.ContainsFunc(nodes, func(n *node) bool { return len(n.Voters()) != 3 })
		})
		n.kill()
		propose(t, nodes[1:], rename(n.self.id, n.self.id, "without the first"))
		n.open()
		agree(t, nodes)
		time.Sleep(time.Second)
		if got := n.Replica(); got != "" {
			t.Errorf("the replica is %q, want none", got)
		}
	})
}

func TestAFolderOfFormat1IsRecovered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := golden(t, newNetwork())
		n.until("it leads", func() bool { return len(n.seenTerms()) > 0 })
		n.recover(2)
		n.until("it leads in the new generation", func() bool { return n.stateGeneration() == 2 })
		if n.Replica() == "" {
			t.Error("a recovered log has no name")
		}
	})
}

func TestAPreviewShowsWhatARecoveryWouldBring(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, nodes := swarm(t, 3)
		survivor := nodes[0]
		for _, name := range []string{"in a snapshot", "in the log"} {
			propose(t, nodes, rename(survivor.self.id, survivor.self.id, name))
			agree(t, nodes)
			if name == "in a snapshot" {
				if err := survivor.raft.Snapshot().Error(); err != nil {
					t.Fatal(err)
				}
			}
		}
		before := survivor.hash()
		for _, n := range nodes {
			n.kill()
		}
		survivor.open()
		if got := survivor.name(survivor.self.id); got == "in the log" {
			t.Fatal("without a quorum nothing of the log is known to be committed")
		}
		var seen string
		var hash [32]byte
		err := survivor.Preview(func(s *state.State) { seen, hash = s.Device(survivor.self.id).Name, s.Hash() })
		if err != nil || seen != "in the log" || hash != before {
			t.Errorf("the preview has the name %q (%v), and another state: %v", seen, err, hash != before)
		}
	})
}
