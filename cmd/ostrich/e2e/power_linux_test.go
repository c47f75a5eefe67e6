package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The call that ends a mounted ext4 file system at once, without writing what is
// only in memory, as a power cut does.
const (
	ext4Shutdown   = 0x8004587d // EXT4_IOC_SHUTDOWN
	withoutJournal = 2          // EXT4_GOING_FLAGS_NOLOGFLUSH: the journal's memory is lost too
)

// diskSize is what each node's disk holds: enough above the reserve. The image
// is sparse.
const diskSize = 1 << 30

// disk is an ext4 file system in a file. What is not synced is lost when its
// power is cut.
type disk struct {
	t     *testing.T
	image string
	dir   string
}

// newDisk makes and mounts a disk.
func newDisk(t *testing.T) *disk {
	t.Helper()
	needRoot(t)
	d := &disk{t: t, image: filepath.Join(folder(t), "image"), dir: folder(t)}
	if err := os.WriteFile(d.image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(d.image, diskSize); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", "-m", "0", d.image).CombinedOutput(); err != nil {
		skipDevice(t, fmt.Sprintf("a disk cannot be made: %v: %s", err, out))
	}
	if out, err := d.mount(); err != nil {
		skipDevice(t, fmt.Sprintf("a disk cannot be mounted by a loop device: %v: %s", err, out))
	}
	t.Cleanup(d.unmount)
	return d
}

func (d *disk) mount() ([]byte, error) {
	return exec.Command("mount", "-o", "loop", d.image, d.dir).CombinedOutput()
}

// unmount waits until nobody uses the disk: a node's children die a moment after
// it.
func (d *disk) unmount() {
	eventually(d.t, patience, "the disk can be unmounted", func() bool {
		return exec.Command("umount", d.dir).Run() == nil
	})
}

// canary is a file that is written and never synced.
const canary = "canary"

// cut ends the disk as a power cut does: its file has what was synced, and what
// happened to be written.
func (d *disk) cut() {
	if err := os.WriteFile(filepath.Join(d.dir, canary), bytes.Repeat([]byte("tweet"), 10_000), 0o600); err != nil {
		d.t.Fatal(err)
	}
	root, err := os.Open(d.dir)
	if err != nil {
		d.t.Fatal(err)
	}
	defer root.Close()
	if err := unix.IoctlSetPointerInt(int(root.Fd()), ext4Shutdown, withoutJournal); err != nil {
		d.t.Fatalf("shutting the disk down: %v", err)
	}
}

// restore mounts the disk again, and wants the canary dead: or else no power was
// cut.
func (d *disk) restore() {
	d.t.Helper()
	d.unmount()
	if out, err := d.mount(); err != nil {
		d.t.Fatalf("after a power cut the disk cannot be mounted: %v: %s", err, out)
	}
	song, err := os.ReadFile(filepath.Join(d.dir, canary))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.t.Fatal(err)
	}
	if bytes.Contains(song, []byte("tweet")) {
		d.t.Fatal("a file that was not synced has survived: the test cuts no power")
	}
}

// cutPower has nodes lose their power, one to all at once, and come back with
// what their disks have.
func cutPower(o *ordeal) {
	p := &power{ordeal: o, disks: map[*node]*disk{}, receipts: map[string]string{}}
	for i := range 3 {
		d := newDisk(o.t)
		n := newNode(o.t, string(rune('a'+i)), "--slots", "1")
		n.dir = filepath.Join(d.dir, "data")
		p.disks[n] = d
		if i == 0 {
			o.nodes = append(o.nodes, n.up())
			continue
		}
		o.nodes = append(o.nodes, n.up("--join", o.nodes[0].invite("member")))
	}
	o.nodes[0].online(3)
	o.nodes[0].voters(3)
	o.work()
	for o.done < o.size {
		for _, round := range []func(leader *node, others []*node) harm{
			func(l *node, _ []*node) harm { return p.off(l) },
			func(_ *node, _ []*node) harm { return p.off(o.nodes...) },
			func(_ *node, f []*node) harm { return p.off(o.any(f)) },
			func(l *node, f []*node) harm { return p.off(l, o.any(f)) },
			func(_ *node, _ []*node) harm { return p.off(o.nodes...) },
		} {
			if o.done < o.size {
				o.suffer(round(o.agree()))
				p.check()
			}
		}
	}
	o.account()
}

// power is an ordeal of machines whose power is cut.
type power struct {
	*ordeal
	disks    map[*node]*disk
	receipts map[string]string // what jobs that were acknowledged have to print
	before   map[*stream]int   // results that were seen before the cut
}

// off is a harm: at one moment machines lose power, and with it what was not
// synced.
func (p *power) off(victims ...*node) harm {
	return harm{
		name: fmt.Sprintf("power cut of %d", len(victims)), victims: victims,
		lasts: p.between(500*time.Millisecond, 3*time.Second),
		prepare: func() {
			p.promise()
			time.Sleep(p.between(0, 300*time.Millisecond)) // the moment is the test's input
		},
		begin: func() {
			p.before = map[*stream]int{}
			for _, s := range p.streams {
				p.before[s] = s.seen()
			}
			for _, n := range victims {
				_ = n.cmd.Process.Signal(syscall.SIGSTOP)
			}
			for _, n := range victims {
				p.disks[n].cut()
			}
			for _, n := range victims {
				n.kill()
			}
		},
		end: func() {
			for _, n := range victims {
				p.disks[n].restore()
				n.launch()
			}
			for _, n := range victims {
				n.awaitReady()
			}
		},
	}
}

// promise has the swarm acknowledge a job, and some pages, right before the cut.
func (p *power) promise() {
	p.t.Helper()
	id := fmt.Sprintf("promised-%d", p.done)
	var in strings.Builder
	for i := range 40 {
		fmt.Fprintf(&in, "%s %d %s\n", id, i, strings.Repeat("x", 5000*(i%4/3)))
	}
	p.any(p.nodes).do(strings.NewReader(in.String()), "map", "builtin:upper", "--detach", "--id", id)
	p.receipts[id] = strings.ToUpper(in.String())
}

// check wants all that was acknowledged before the cut to be there.
func (p *power) check() {
	p.t.Helper()
	for s, seen := range p.before {
		if j := p.any(p.nodes).job(s.id); j.Tasks.Completed < uint64(seen) {
			p.t.Errorf("the map through %s has %d results, and its client had %d before the cut", s.on.name, j.Tasks.Completed, seen)
		}
	}
	ids := make([]string, 0, len(p.receipts))
	for id := range p.receipts {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		on := p.any(p.nodes)
		if got := on.do(nil, "job", "results", "-f", id); got != p.receipts[id] {
			p.t.Errorf("%s gives %d bytes of results of %s, which was acknowledged before a cut, want %d", on.name, len(got), id, len(p.receipts[id]))
		}
		if p.done%harmsPerMap == 0 {
			on.do(nil, "job", "rm", id)
			delete(p.receipts, id)
		}
	}
	if p.t.Failed() {
		p.t.FailNow()
	}
}

// TestAPowerCutShowsAMissingSync shows that the cut is one: a program whose log
// is not synced loses what it has acknowledged, and one whose log is does not.
func TestAPowerCutShowsAMissingSync(t *testing.T) {
	t.Parallel()
	for _, synced := range []bool{true, false} {
		d := newDisk(t)
		n := newNode(t, "a")
		n.dir, n.program = filepath.Join(d.dir, "data"), variant(t, "ostrich_faults")
		n.up().stop()
		if !synced {
			if err := os.WriteFile(filepath.Join(n.dir, "faults"), []byte("nosync"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		// What was written at the start is on the disk, synced or not.
		unix.Sync()
		n.up()
		n.do(strings.NewReader("x\ny\n"), "map", "builtin:upper", "--detach", "--id", "acknowledged")
		_ = n.cmd.Process.Signal(syscall.SIGSTOP)
		d.cut()
		n.kill()
		d.restore()
		n.launch()
		kept := false
		select {
		case <-n.out.seen:
			kept = n.try(nil, "job", "show", "acknowledged").status == 0
		case <-n.ended:
		case <-time.After(readyTime):
		}
		if kept != synced {
			t.Errorf("with a log that is synced: %v, a job that was acknowledged is kept: %v; the node says:\n%s", synced, kept, tail(n.errors.String(), 10))
		}
		n.kill()
	}
}
