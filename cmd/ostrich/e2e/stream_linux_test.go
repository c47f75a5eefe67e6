package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// streamTick is how often a stream sends an input. A task of builtin:upper takes
// less than a millisecond: what matters is when its result comes.
const streamTick = 40 * time.Millisecond

// streamLimit bounds a takeover, and all else that a stream waits for, on a
// machine however busy: what is usual is in the log.
const streamLimit = 45 * time.Second

// stream is a map that goes on for as long as the test wants: an input now and
// then, and each result checked as it comes. Its client may die and be begun
// again: the job's ID is the same, and so are the inputs.
type stream struct {
	t   *testing.T
	on  *node
	id  string
	r   *running
	end chan struct{} // closed when the client's stdout has ended
	hup chan struct{} // closed to end the inputs, or the client's life
	fed chan struct{} // closed when no more inputs are sent

	mu      sync.Mutex
	sent    []time.Time       // when each input was first written
	results map[uint32]uint32 // the number of each that has come, by index
	arrived []time.Time       // when each came first; zero if it did not
	wrong   []string          // what must not be
}

// newStream begins a map through a node.
func newStream(on *node, id string) *stream {
	on.t.Helper()
	s := &stream{t: on.t, on: on, id: id, results: map[uint32]uint32{}}
	s.begin()
	s.t.Cleanup(s.cut)
	return s
}

// input and output of a task.
func (s *stream) input(i int) string  { return fmt.Sprintf("%s number %d\n", s.id, i) }
func (s *stream) output(i int) string { return strings.ToUpper(s.input(i)) }

// begin starts the client: inputs that were sent before are sent again at once,
// then new ones come.
func (s *stream) begin() {
	s.t.Helper()
	s.r = s.on.begin("map", "builtin:upper", "--unordered", "--json", "--id", s.id)
	s.end, s.hup, s.fed = make(chan struct{}), make(chan struct{}), make(chan struct{})
	go s.feed(s.r.stdin, s.hup, s.fed)
	go s.read(s.r.stdout, s.end)
}

// feed writes inputs until hup closes, or the client is gone. It leaves stdin
// open: a job whose inputs have not ended stays.
func (s *stream) feed(in io.Writer, hup <-chan struct{}, fed chan<- struct{}) {
	defer close(fed)
	tick := time.NewTicker(streamTick)
	defer tick.Stop()
	s.mu.Lock()
	known := len(s.sent)
	s.mu.Unlock()
	for i := 0; ; i++ {
		if i >= known {
			select {
			case <-hup:
				return
			case <-tick.C:
			}
			s.mu.Lock()
			s.sent, s.arrived = append(s.sent, time.Now()), append(s.arrived, time.Time{})
			s.mu.Unlock()
		}
		if _, err := io.WriteString(in, s.input(i)); err != nil {
			return
		}
	}
}

// read notes the results until the client is gone.
func (s *stream) read(out io.Reader, end chan<- struct{}) {
	defer close(end)
	d := json.NewDecoder(out)
	for {
		var r taskResult
		if d.Decode(&r) != nil {
			return
		}
		s.note(r, time.Now())
	}
}

func (s *stream) note(r taskResult, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := int(r.Index)
	if i >= len(s.sent) {
		s.wrong = append(s.wrong, fmt.Sprintf("a result of task %d, of %d", i, len(s.sent)))
		return
	}
	if want := s.output(i); r.Status != "ok" || string(r.Output) != want {
		s.wrong = append(s.wrong, fmt.Sprintf("task %d is %s %q %s, want %q", i, r.Status, r.Output, r.Error, want))
	}
	number, again := s.results[r.Index]
	switch {
	case !again:
		s.results[r.Index], s.arrived[i] = r.Number, now
	case number != r.Number:
		s.wrong = append(s.wrong, fmt.Sprintf("task %d was recorded as number %d, and now is number %d", i, number, r.Number))
	}
}

// mark returns the index of the next input.
func (s *stream) mark() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.sent)
}

// first returns when the first result came of the inputs from mark on.
func (s *stream) first(mark int) (at time.Time, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.arrived[min(mark, len(s.arrived)):] {
		if !t.IsZero() && (!ok || t.Before(at)) {
			at, ok = t, true
		}
	}
	return at, ok
}

// silence returns the longest time since a moment in which no result came.
func (s *stream) silence(since time.Time) (longest time.Duration) {
	s.mu.Lock()
	all := []time.Time{since, time.Now()}
	for _, t := range s.arrived {
		if t.After(since) {
			all = append(all, t)
		}
	}
	s.mu.Unlock()
	slices.SortFunc(all, time.Time.Compare)
	for i := range all[1:] {
		longest = max(longest, all[i+1].Sub(all[i]))
	}
	return longest
}

// open counts the inputs that were sent before a moment and have no result.
func (s *stream) open(before time.Time) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, at := range s.sent {
		if at.Before(before) && s.arrived[i].IsZero() {
			n++
		}
	}
	return n
}

// seen counts the results that have come.
func (s *stream) seen() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.results)
}

// died reports whether the client is gone.
func (s *stream) died() bool {
	select {
	case <-s.end:
		return true
	default:
		return false
	}
}

// revive begins the client again if it is gone: that of a node that was away for
// longer than a client waits is.
func (s *stream) revive() {
	s.t.Helper()
	if !s.died() {
		return
	}
	close(s.hup)
	_ = s.r.stdin.Close()
	_ = s.r.cmd.Wait()
	s.t.Logf("the client of %s is begun again; it ended with %v", s.on.name, s.r.cmd.ProcessState)
	s.begin()
}

// cut ends the client as it is.
func (s *stream) cut() {
	_ = s.r.cmd.Process.Kill()
	<-s.end
}

// complaints wants nothing wrong to have come.
func (s *stream) complaints() {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.wrong[:min(5, len(s.wrong))] {
		s.t.Errorf("the map on %s: %s", s.on.name, w)
	}
	if len(s.wrong) > 0 {
		s.t.FailNow()
	}
}

// drain sends no more and waits for the result of each input that was sent. It
// returns how many there were.
func (s *stream) drain() int {
	s.t.Helper()
	close(s.hup)
	select {
	case <-s.fed: // one more input may have been on its way
	case <-time.After(streamLimit):
		s.t.Fatalf("the client of the map on %s takes no input", s.on.name)
	}
	for end := time.Now().Add(2 * streamLimit); s.seen() < s.mark(); time.Sleep(20 * time.Millisecond) {
		if s.died() || time.Now().After(end) {
			s.t.Fatalf("of the map on %s %d of %d results have come, its client is gone: %v\n%s",
				s.on.name, s.seen(), s.mark(), s.died(), tail(s.r.err.String(), 20))
		}
	}
	s.complaints()
	return s.mark()
}

// compare wants a node to have the results that the client has, under the same
// numbers.
func (s *stream) compare(on *node) {
	s.t.Helper()
	all := results(s.t, strings.NewReader(on.do(nil, "job", "results", "--unordered", "--json", s.id)))
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(all) != len(s.results) {
		s.t.Errorf("%s has %d results of the map through %s, its client %d", on.name, len(all), s.on.name, len(s.results))
	}
	for _, r := range all {
		if want, ok := s.results[r.Index]; !ok || want != r.Number || string(r.Output) != s.output(int(r.Index)) {
			s.t.Errorf("%s has task %d of the map through %s as number %d with output %q, its client as number %d",
				on.name, r.Index, s.on.name, r.Number, r.Output, want)
			return
		}
	}
}

// finish ends a map that was drained, and wants a result of each input and no
// more.
func (s *stream) finish() {
	s.t.Helper()
	_ = s.r.stdin.Close()
	select {
	case <-s.end:
	case <-time.After(2 * streamLimit):
		s.t.Fatalf("the map on %s does not end:\n%s", s.on.name, tail(s.r.err.String(), 20))
	}
	s.r.await(0)
	s.complaints()
	numbers := map[uint32]bool{}
	for _, number := range s.results {
		numbers[number] = true
	}
	if sent := len(s.sent); len(s.results) != sent || len(numbers) != sent {
		s.t.Errorf("the map on %s has %d results with %d numbers, want %d", s.on.name, len(s.results), len(numbers), sent)
	}
}
