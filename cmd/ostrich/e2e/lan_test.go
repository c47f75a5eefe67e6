package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestALANOfMachinesCountsTheWordsOfTheStandardLibrary(t *testing.T) {
	if testing.Short() {
		t.Skip("it reads all of Go's sources")
	}
	l := newLAN(t, 4)
	var nodes []*node
	for i := range 4 {
		l.address(i, "10.77.1")
		nodes = append(nodes, l.node(i, string(rune('a'+i))))
	}
	began := time.Now()
	nodes[0].up()
	for _, n := range nodes[1:3] {
		n.up("--join", nodes[0].invite("member"))
	}
	nodes[0].online(3)
	nodes[0].voters(3)
	t.Logf("three machines are a swarm with three voters after %v", time.Since(began))

	src := goSources(t)
	want, files := countDirectly(t, src)
	got := mapWithAccidents(t, src, files, nodes)
	compareCounts(t, got, want)

	moveEverything(t, l, nodes)
}

// mapWithAccidents counts the words of all files below src by the swarm of the
// first three nodes. On the way one that does not coordinate dies, and the
// fourth comes.
func mapWithAccidents(t *testing.T, src string, files int, nodes []*node) map[string]uint64 {
	t.Helper()
	began := time.Now()
	on, added := nodes[0], nodes[3]
	r := on.begin("map", "builtin:wordcount", "--files", src)
	_ = r.stdin.Close()
	counts := map[string]uint64{}
	read := make(chan error, 1)
	go func() { read <- mergeCounts(counts, r.stdout) }()
	reached := func(share float64) {
		t.Helper()
		eventually(t, 2*time.Minute, fmt.Sprintf("%.0f %% of the files are counted", share*100), func() bool {
			all := on.jobs()
			return len(all) == 1 && float64(all[0].Tasks.Completed) > share*float64(files)
		})
	}
	reached(0.1)
	// The founder is the admin, who lets the fourth in.
	killed := nodes[2]
	if s := on.status(); s.Coordinator == killed.status().DeviceID {
		killed = nodes[1]
	}
	killed.kill()
	t.Logf("killed %s after %v", killed.name, time.Since(began))
	reached(0.2)
	added.up("--join", on.invite("member"))
	t.Logf("added %s after %v", added.name, time.Since(began))
	if err := <-read; err != nil {
		t.Fatal(err)
	}
	r.await(0)
	t.Logf("%d files are counted after %v", files, time.Since(began))
	if d := on.device(added.name); d.TotalTasksCompleted == 0 {
		t.Errorf("the machine that was added on the way has counted nothing")
	}
	return counts
}

// moveEverything stops all machines, gives them other addresses, and wants the
// swarm back without an invite.
func moveEverything(t *testing.T, l *lan, nodes []*node) {
	t.Helper()
	before := nodes[0].status()
	for _, n := range nodes {
		select {
		case <-n.ended: // killed on the way
		default:
			n.stop()
		}
	}
	for i, n := range nodes {
		l.address(i, "10.88.2")
		n.launch()
	}
	began := time.Now()
	for _, n := range nodes {
		n.awaitReady()
	}
	t.Logf("all are ready at new addresses after %v", time.Since(began))
	nodes[0].online(len(nodes))
	t.Logf("all are online again after %v", time.Since(began))
	after := nodes[0].status()
	if after.SwarmID != before.SwarmID || len(after.Members) != len(nodes) {
		t.Errorf("swarm %s has members %v after the move, swarm %s had %v before", after.SwarmID, after.Members, before.SwarmID, before.Members)
	}
	for _, addr := range after.Addresses.P2P {
		if strings.Contains(addr, "10.77.1.") {
			t.Errorf("%s still tells its old address %s", nodes[0].name, addr)
		}
	}
	for _, n := range nodes {
		if got, want := n.do(strings.NewReader("x\ny\n"), "map", "builtin:upper"), "X\nY\n"; got != want {
			t.Errorf("a map on %s after the move gives %q, want %q", n.name, got, want)
		}
	}
	t.Logf("a small map from each is done %v after the start", time.Since(began))
}

// goSources is the folder of the standard library's sources.
func goSources(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(strings.TrimSpace(string(out)), "src")
}

// countDirectly counts the words of all files below a folder.
func countDirectly(t *testing.T, root string) (counts map[string]uint64, files int) {
	t.Helper()
	counts = map[string]uint64{}
	root, err := filepath.EvalSymlinks(root)
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		files++
		// A word is what stands between ASCII white space, whatever its bytes.
		isSpace := func(c byte) bool { return c == ' ' || '\t' <= c && c <= '\r' }
		for i := 0; i < len(data); {
			j := i
			for j < len(data) && !isSpace(data[j]) {
				j++
			}
			if j > i {
				counts[string(data[i:j])]++
			}
			i = j + 1
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return counts, files
}

// mergeCounts adds what lines "COUNT WORD" say. The output of an empty file is
// an empty line.
func mergeCounts(counts map[string]uint64, r io.Reader) error {
	in := bufio.NewReaderSize(r, 1<<20)
	for {
		line, err := in.ReadBytes('\n')
		if err == io.EOF && len(line) == 0 {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading the outputs: %w", err)
		}
		line = line[:len(line)-1]
		if len(line) == 0 {
			continue
		}
		number, word, ok := bytes.Cut(line, []byte(" "))
		n, err := strconv.ParseUint(string(number), 10, 64)
		if !ok || err != nil {
			return fmt.Errorf("an output has the line %q", line)
		}
		counts[string(word)] += n
	}
}

func compareCounts(t *testing.T, got, want map[string]uint64) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("the swarm found %d words, a direct count %d", len(got), len(want))
	}
	wrong := 0
	for word, n := range want {
		if got[word] != n {
			if wrong++; wrong <= 5 {
				t.Errorf("the swarm counted %d × %q, a direct count %d", got[word], word, n)
			}
		}
	}
	if wrong > 0 {
		t.Errorf("%d of %d words have a wrong count", wrong, len(want))
	}
}
