package session

import (
	"io"
	"sync/atomic"
	"time"
)

const (
	// pingIdle and pingBusy are how long the other side may be silent before it
	// is pinged, with and without leases out.
	pingIdle = 10 * time.Second
	pingBusy = time.Second
	// pingLimit is how long it may then go on being silent.
	pingLimit = 3 * time.Second
	// stallLimit is how long one write of at most writeSize may take.
	stallLimit = 10 * time.Second
)

// pulse is what is known of the other side's life. Times are nanoseconds since
// start.
type pulse struct {
	start   time.Time
	heard   atomic.Int64 // the last byte arrived
	writing atomic.Int64 // the write under way began; 0 if none is
	serving atomic.Bool  // the reader is in a handler, so cannot hear
	busy    atomic.Bool
	changed chan struct{} // capacity 1: busy has been set
}

func newPulse() *pulse {
	return &pulse{start: time.Now(), changed: make(chan struct{}, 1)}
}

// now is never 0.
func (p *pulse) now() time.Duration { return max(1, time.Since(p.start)) }

func (p *pulse) setBusy(busy bool) {
	if p.busy.Swap(busy) == busy {
		return
	}
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// reader returns r, with each read a sign of life.
func (p *pulse) reader(r io.Reader) io.Reader { return lifeReader{r, p} }

type lifeReader struct {
	r io.Reader
	p *pulse
}

func (l lifeReader) Read(b []byte) (int, error) {
	n, err := l.r.Read(b)
	if n > 0 {
		l.p.heard.Store(int64(l.p.now()))
	}
	return n, err
}

// write writes b to w in pieces that are timed each.
func (p *pulse) write(w io.Writer, b []byte) error {
	defer p.writing.Store(0)
	for len(b) > 0 {
		n := min(len(b), writeSize)
		p.writing.Store(int64(p.now()))
		if _, err := w.Write(b[:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// serve runs f, during which silence is not the other side's.
func (p *pulse) serve(f func() error) error {
	p.serving.Store(true)
	err := f()
	p.heard.Store(int64(p.now()))
	p.serving.Store(false)
	return err
}

// watch pings when the other side is silent, until done. It returns why the
// link counts as broken, or nil.
func (p *pulse) watch(done <-chan struct{}, ping, quiet func()) error {
	timer := time.NewTimer(pingIdle)
	defer timer.Stop()
	var pinged time.Duration // 0 if no ping is unanswered
	for {
		now, heard := p.now(), time.Duration(p.heard.Load())
		if p.serving.Load() {
			heard = now
		}
		if w := time.Duration(p.writing.Load()); w != 0 && now-w >= stallLimit {
			return ErrStalled
		}
		if heard >= pinged {
			pinged = 0
		}
		limit := pingIdle
		if p.busy.Load() {
			limit = pingBusy
		}
		switch {
		case pinged != 0 && now-pinged >= pingLimit:
			return ErrSilent
		case pinged != 0:
			timer.Reset(pingLimit - (now - pinged))
		case now-heard >= limit:
			pinged = now
			ping()
			quiet()
			timer.Reset(pingLimit)
		default:
			timer.Reset(limit - (now - heard))
		}
		select {
		case <-done:
			return nil
		case <-p.changed:
		case <-timer.C:
		}
	}
}
