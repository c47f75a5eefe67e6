package sandbox

import (
	"encoding/hex"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestTimeAndRandomnessAreThoseOfTheVectors(t *testing.T) {
	const golden = "testdata/vectors.txt"
	p := testPool(t, Options{})
	tasks := []Task{{Seed: Seed("job", 0)}, {Seed: Seed("job", 1)}, {Seed: Seed("job", 0)}}
	r := runAll(t, p, testProgram(t, "vectors"), tasks...)
	for _, r := range r {
		if r.Error != "" {
			t.Fatal(r.Error)
		}
	}
	if string(r[0].Stdout) != string(r[2].Stdout) || string(r[0].Stdout) == string(r[1].Stdout) {
		t.Error("equal seeds must give equal outputs, others must not")
	}
	got := "seed of job \"job\", task 0: " + hex.EncodeToString(tasks[0].Seed[:]) + "\n" + string(r[0].Stdout)
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestSleepTakesNoTime(t *testing.T) {
	p := testPool(t, Options{})
	wantOK(t, runAll(t, p, testProgram(t, "sleep"), Task{})[0], "86400 s\n")
}

func TestFloatsAreTheSameUpToNaN(t *testing.T) {
	p := testPool(t, Options{})
	r := runAll(t, p, testProgram(t, "nan"), Task{})[0]
	lines := strings.Split(string(r.Stdout), "\n")
	if len(lines) != 7 || lines[4] != "1/3 3fd5555555555555" || lines[5] != "sin(1) 3feaed548f090cee" {
		t.Fatalf("got %q", lines)
	}
	for _, line := range lines[:4] {
		if !strings.HasSuffix(line, " nan") {
			t.Errorf("got %q", line)
		}
	}
}

func TestSeedsDiffer(t *testing.T) {
	seen := map[[32]byte]bool{}
	for _, job := range []wire.JobID{"a", "b", "a0"} {
		for index := range uint32(10) {
			seen[Seed(job, index)] = true
		}
	}
	if len(seen) != 30 {
		t.Errorf("%d different seeds, want 30", len(seen))
	}
}

func TestTheClockNeverOverflows(t *testing.T) {
	var c clock
	for range 4 {
		c.advance(1<<64 - 1)
	}
	if c.now(0) < clockEpoch || c.now(1) != clockEnd {
		t.Errorf("got %d, %d", c.now(0), c.now(1))
	}
}
