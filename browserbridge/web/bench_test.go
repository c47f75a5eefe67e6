package web_test

import (
	"encoding/binary"
	"os"
	"testing"
	"time"
)

// BenchmarkMillisecondTasks compares tasks of a millisecond, over a swarm, with
// the same tasks in the same browser without one, in one slot each.
func BenchmarkMillisecondTasks(b *testing.B) {
	const rounds, batch, batches = "400", 250, 8
	browser := startBrowser(b)
	parts := open(b, browser, partsPage(b)+"/parts")
	s := newSwarm(b)
	for b.Loop() {
		bare := eval[float64](parts, `parts.tasksASecond($0, $1, $2)`, "/sandbox/programs/spin.wasm", []string{"spin", rounds}, batch*batches)
		page := open(b, browser, s.bridge("bridge").link())
		d := s.session()
		spec := s.spec("programs/spin.wasm")
		spec.Args = []string{rounds}
		slots := float64(d.hello.GetSlots())
		d.lease(b, 1, spec, 0, lines(0, batch)...)
		d.take(b, batch, true) // the program is here, and the machine warm
		begun := time.Now()
		for i := range batches {
			d.lease(b, uint64(i+2), spec, uint32((i+1)*batch), lines(0, batch)...)
		}
		d.take(b, batch*batches, true)
		rate := batch * batches / time.Since(begun).Seconds() / slots
		b.ReportMetric(bare, "bare/s")
		b.ReportMetric(rate, "swarm/s")
		b.ReportMetric(100*rate/bare, "%")
		page.close()
	}
}

// BenchmarkJoin measures the way from the click to the first finished task, and
// to the first of a program of 5 MB.
func BenchmarkJoin(b *testing.B) {
	browser := startBrowser(b)
	s := newSwarm(b)
	spec := s.spec("programs/upper.wasm")
	for b.Loop() {
		bridge := s.bridge("bridge")
		page := open(b, browser, "about:blank") // a person's browser has its window open
		begun := time.Now()
		loaded := make(chan bool)
		go func() { defer close(loaded); page.navigate(bridge.link()) }()
		d := s.session()
		session := time.Since(begun)
		d.lease(b, 1, spec, 0, lines(0, 1)...)
		d.take(b, 1, true)
		first := time.Since(begun)
		large := s.spec("programs/upper.wasm")
		large.Program.Blob = s.store(largeProgram(b))
		begun = time.Now()
		d.lease(b, 2, large, 10, lines(0, 1)...)
		d.take(b, 1, true)
		b.ReportMetric(session.Seconds()*1000, "ms/session")
		b.ReportMetric(first.Seconds()*1000, "ms/first-task")
		b.ReportMetric(time.Since(begun).Seconds()*1000, "ms/5MB-program")
		<-loaded
		page.close()
	}
}

// largeProgram is upper with some 5 MB of code that nothing calls.
func largeProgram(b *testing.B) []byte {
	b.Helper()
	upper, err := os.ReadFile("../../node/sandbox/programs/upper.wasm")
	if err != nil {
		b.Fatal(err)
	}
	code, err := os.ReadFile("../../node/sandbox/testdata/wordcount-go.wasm")
	if err != nil {
		b.Fatal(err)
	}
	for len(code) < 5_000_000 {
		code = append(code, code...)
	}
	custom := append([]byte("\x04code"), code[:5_000_000]...)
	return append(binary.AppendUvarint(append(upper, 0), uint64(len(custom))), custom...)
}
