package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// misdeeds are what the program misbehave does when its input begins so, how a
// run ends then, and words that must say why.
var misdeeds = []struct {
	input, name string
	status      int
	words       string
}{
	{"t\n", "traps", 134, "unreachable"},
	{"e\n", "exits with 3", 3, "a last word"},
	{"l\n", "runs for ever", 124, "1s"},
	{"f\n", "floods its output", 137, "output"},
	{"m\n", "eats memory", 137, "memory"},
}

func TestATaskThatMisbehavesFailsAlone(t *testing.T) {
	t.Parallel()
	nodes := swarm(t, 1, "--slots", "2")
	n := nodes[0]
	program := testProgram(t, "misbehave")
	bounds := []string{"--timeout", "1s", "--memory", "32", "--max-output", "1"}

	t.Run("in a map", func(t *testing.T) {
		const good = 20
		var input, want strings.Builder
		for i, m := range misdeeds {
			for j := range good {
				line := fmt.Sprintf("ok %d %d\n", i, j)
				input.WriteString(line)
				want.WriteString(line)
			}
			input.WriteString(m.input)
		}
		r := n.try(strings.NewReader(input.String()), append([]string{"map", program, "--keep-going", "--retries", "1"}, bounds...)...)
		if r.status != 3 {
			t.Errorf("the status is %d, want 3: %v", r.status, r)
		}
		if r.out != want.String() {
			t.Errorf("the outputs of the others are %q, want %q", r.out, want.String())
		}
		for i, m := range misdeeds {
			prefix := fmt.Sprintf("task %d: ", (i+1)*good+i)
			found := false
			for line := range strings.Lines(r.err) {
				found = found || strings.HasPrefix(line, prefix) && strings.Contains(line, m.words)
			}
			if !found {
				t.Errorf("no line of stderr begins with %q and says %q of a task that %s:\n%s", prefix, m.words, m.name, r.err)
			}
		}
	})
	for _, m := range misdeeds {
		t.Run("in a run that "+m.name, func(t *testing.T) {
			r := n.try(strings.NewReader(m.input), append([]string{"run", program}, bounds...)...)
			if r.status != m.status || !strings.Contains(r.err, m.words) {
				t.Errorf("%v; want status %d and the word %q on stderr", r, m.status, m.words)
			}
		})
	}
	t.Run("in a map without --keep-going, which ends", func(t *testing.T) {
		r := n.try(strings.NewReader("e\nok\n"), append([]string{"map", program, "--retries", "0"}, bounds...)...)
		if r.status != 3 {
			t.Errorf("%v; want status 3", r)
		}
	})
	if got := n.do(strings.NewReader("good\n"), "run", program); got != "good\n" {
		t.Errorf("a run after all that gives %q", got)
	}
	if got := n.try(nil, "run", testProgram(t, "exit"), "--", "77"); got.status != 77 {
		t.Errorf("a run of a program that ends with status 77 gives %v", got)
	}
}

func TestAMapThatNoDeviceCanRunSaysSoonWhatItWaitsFor(t *testing.T) {
	t.Parallel()
	n := swarm(t, 1)[0]
	r := n.begin("map", "builtin:upper", "--range", "1..2", "--require", "room=none")
	eventually(t, 7*time.Second, "it says what it waits for", func() bool {
		return strings.Contains(r.err.String(), "waiting: a device with the label room=none")
	})
	if err := r.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	r.await(130)
}
