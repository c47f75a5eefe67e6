package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/ostrich-legs/ostrich/node/control"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const (
	// drawEvery is how often the bar is drawn, barWidth its length.
	drawEvery = 200 * time.Millisecond
	barWidth  = 24
	// rateOver is the time over which the rate is measured.
	rateOver = 5 * time.Second
)

// progress says on stderr how a job goes: a bar on a terminal, elsewhere only
// what it waits for. Its methods may be called concurrently.
type progress struct {
	w      io.Writer
	bar    bool // draw
	shares bool // the results go to the same terminal
	stop   chan struct{}
	done   sync.WaitGroup

	// screen is held while something is written, which may take long; mu is
	// taken after it, never the other way round.
	screen sync.Mutex
	drawn  bool

	mu      sync.Mutex
	sent    uint64
	tasks   *wire.TaskCounts
	closed  bool // the total is final
	waiting string
	got     uint64 // results put out
	samples []sample
}

// sample is the number of results at a time.
type sample struct {
	at time.Time
	n  uint64
}

// newProgress returns the progress of one job; end must be called.
func (a *app) newProgress() *progress {
	p := &progress{w: a.err, bar: isTerminal(a.err), stop: make(chan struct{})}
	p.shares = p.bar && isTerminal(a.out)
	if !p.bar {
		return p
	}
	p.done.Go(func() {
		tick := time.NewTicker(drawEvery)
		defer tick.Stop()
		for {
			select {
			case <-p.stop:
				return
			case now := <-tick.C:
				p.draw(now)
			}
		}
	})
	return p
}

// end takes the bar away.
func (p *progress) end() {
	close(p.stop)
	p.done.Wait()
	p.screen.Lock()
	defer p.screen.Unlock()
	p.erase()
}

// options makes a map tell the progress how it goes.
func (p *progress) options(o *control.MapOptions) {
	o.Sent = func(total uint32) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.sent = max(p.sent, uint64(total))
	}
	o.Progress = p.job
	o.Patience.Waiting = p.wait
}

func (p *progress) job(j *wire.Job) {
	p.mu.Lock()
	p.tasks, p.closed = j.GetTasks(), j.GetInputsClosed()
	p.mu.Unlock()
	p.say(j.GetWaitingFor())
}

// wait says what a call waits for; nil that it waits no more.
func (p *progress) wait(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	p.say(text)
}

func (p *progress) say(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if text == p.waiting {
		return
	}
	p.waiting = text
	if text != "" && !p.bar {
		fmt.Fprintf(p.w, "ostrich: waiting: %s\n", text)
	}
}

// around puts a result out, with the bar out of its way.
func (p *progress) around(f func() error) error {
	p.screen.Lock()
	defer p.screen.Unlock()
	p.mu.Lock()
	p.got++
	p.mu.Unlock()
	if p.shares {
		p.erase()
	}
	return f()
}

// note says something that happened, with the bar out of its way.
func (p *progress) note(format string, args ...any) {
	p.screen.Lock()
	defer p.screen.Unlock()
	p.erase()
	fmt.Fprintf(p.w, format+"\n", args...)
}

func (p *progress) erase() {
	if p.drawn {
		io.WriteString(p.w, "\r\x1b[K")
	}
	p.drawn = false
}

func (p *progress) draw(now time.Time) {
	p.screen.Lock()
	defer p.screen.Unlock()
	io.WriteString(p.w, "\r\x1b[K"+p.line(now))
	p.drawn = true
}

// line is the bar as it stands.
func (p *progress) line(now time.Time) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	done := max(p.got, p.tasks.GetCompleted()+p.tasks.GetFailed())
	total := max(p.tasks.GetTotal(), p.sent, done)
	rate := p.rate(now, done)
	var b strings.Builder
	full := 0
	if total > 0 {
		full = int(done * barWidth / total)
	}
	fmt.Fprintf(&b, "[%s%s] %d/%d", strings.Repeat("=", full), strings.Repeat(" ", barWidth-full), done, total)
	if !p.closed {
		b.WriteString("+")
	}
	if rate > 0 {
		fmt.Fprintf(&b, "  %.*f/s", precision(rate), rate)
		if p.closed && total > done {
			left := time.Duration(float64(total-done) / rate * float64(time.Second))
			fmt.Fprintf(&b, "  ETA %s", left.Round(time.Second))
		}
	}
	if failed := p.tasks.GetFailed(); failed > 0 {
		fmt.Fprintf(&b, "  %d failed", failed)
	}
	if p.waiting != "" {
		fmt.Fprintf(&b, "  waiting: %s", p.waiting)
	}
	return b.String()
}

func precision(rate float64) int {
	if rate < 10 {
		return 1
	}
	return 0
}

// rate is the results a second of the last seconds.
func (p *progress) rate(now time.Time, done uint64) float64 {
	p.samples = append(p.samples, sample{now, done})
	for len(p.samples) > 2 && now.Sub(p.samples[0].at) > rateOver {
		p.samples = p.samples[1:]
	}
	first := p.samples[0]
	took := now.Sub(first.at).Seconds()
	if took <= 0 {
		return 0
	}
	return float64(done-first.n) / took
}
