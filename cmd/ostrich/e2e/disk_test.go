package e2e

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// smallDisk mounts an empty disk of so many MiB and returns its folder.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	needRoot(t)
	dir := folder(t)
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size="+size, "ostrich-e2e", dir).CombinedOutput(); err != nil {
		skipNamespace(t, "a small disk cannot be mounted: "+string(out))
	}
	t.Cleanup(func() {
		// A node's children die a moment after it.
		eventually(t, patience, "the small disk can be unmounted", func() bool {
			return exec.Command("umount", dir).Run() == nil
		})
	})
	return dir
}

// fill takes space on a disk: size bytes, or all that there is if size is 0.
// It returns what gives the space back.
func fill(t *testing.T, dir string, size int64) func() {
	t.Helper()
	path := filepath.Join(dir, "filler")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, 1<<20)
	for n := int64(0); size == 0 || n < size; n += int64(len(block)) {
		if _, err := f.Write(block); err != nil {
			if size == 0 {
				break
			}
			t.Fatal(err)
		}
	}
	return func() {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAFullDiskRefusesWorkAndLosesNone(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t, "700m")
	n := newNode(t, "a")
	n.dir = filepath.Join(disk, "data")
	n.up()
	lines := strings.Repeat("before\n", 1000)
	id := strings.TrimSpace(n.do(strings.NewReader(lines), "map", "builtin:upper", "--detach"))
	want := strings.ToUpper(lines)
	kept := func() {
		t.Helper()
		if got := n.do(nil, "job", "results", "-f", id); got != want {
			t.Errorf("the results of the job from before have %d bytes, want %d", len(got), len(want))
		}
	}
	kept()
	large := func() io.Reader { return strings.NewReader(strings.Repeat("a line of some length\n", 100_000)) }

	t.Run("less than the reserve is left", func(t *testing.T) {
		free := fill(t, disk, 300<<20)
		for _, in := range []io.Reader{large(), strings.NewReader("small\n")} {
			complaint(t, n.try(in, "map", "builtin:noop", "--chunk", "1M"), 1, "free", "reserve")
		}
		kept()
		free()
	})
	works(t, n)
	t.Run("nothing is left", func(t *testing.T) {
		begun := begunMaps(t, n, 50)
		free := fill(t, disk, 0)
		r := n.try(large(), "map", "builtin:noop", "--chunk", "1M")
		complaint(t, r, r.status, "free")
		if r.status != 1 && r.status != 4 {
			t.Errorf("%v", r)
		}
		finish := untilOneWaits(t, begun)
		if s := n.do(nil, "status"); !strings.Contains(s, "are free on the disk") {
			t.Errorf("status does not say that the disk is full:\n%s", s)
		}
		free()
		finish()
	})
	kept()
	works(t, n)
	n.kill()
	n.up()
	kept()
	works(t, n)
}

func TestAFullDiskStopsANewNodeWithAWord(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t, "1m")
	n := newNode(t, "a")
	n.dir = filepath.Join(disk, "data")
	free := fill(t, disk, 0)
	r := n.tryUp()
	complaint(t, r, 1, "no space")
	free()
}

// begunMaps begins maps that need no pages, each with one input that is done.
func begunMaps(t *testing.T, n *node, count int) (all []*running) {
	t.Helper()
	for range count {
		r := n.begin("map", "builtin:upper")
		io.WriteString(r.stdin, "x\n")
		if _, err := io.ReadFull(r.stdout, make([]byte, len("X\n"))); err != nil {
			t.Fatalf("a map gives nothing: %v\n%s", err, r.err)
		}
		all = append(all, r)
	}
	return all
}

// untilOneWaits gives each map one more input, its last. They go on until the
// log finds no space, and then wait. It returns what waits for the first of
// those, and for the others, which have not got theirs.
func untilOneWaits(t *testing.T, begun []*running) (finish func()) {
	t.Helper()
	end := func(r *running, out string) {
		t.Helper()
		if out != "Y\n" {
			t.Errorf("a map on a full disk gives %q: %s", out, r.err)
		}
		r.await(0)
	}
	for i, r := range begun {
		got := lastOutput(r)
		select {
		case out := <-got:
			end(r, out)
		case <-time.After(3 * time.Second):
			t.Logf("a map waits for space: %s", r.err)
			return func() {
				end(r, <-got)
				for _, r := range begun[i+1:] {
					end(r, <-lastOutput(r))
				}
			}
		}
	}
	return func() {}
}

// lastOutput gives a map its last input, and returns what it puts out then.
func lastOutput(r *running) <-chan string {
	r.feed("y\n")
	got := make(chan string, 1)
	go func() {
		all, _ := io.ReadAll(r.stdout)
		got <- string(all)
	}()
	return got
}
