package gobrowser

import (
	"context"
	"io"
	"sync"
	"time"
)

// reopenLimit is how long the next channel of a connection may take to open
// before the connection is given up.
const reopenLimit = 3 * time.Second

// Dialer opens one session's stream after another, as a page does: on the
// connection that it has, or on a new one.
type Dialer struct {
	Config Config

	mu      sync.Mutex
	browser *Browser
}

// Dial opens the next stream. The one before should be closed. It does not run
// beside itself.
func (d *Dialer) Dial(ctx context.Context) (io.ReadWriteCloser, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.browser != nil {
		limited, cancel := context.WithTimeout(ctx, reopenLimit)
		stream, err := d.browser.Open(limited)
		cancel()
		if err == nil {
			return stream, nil
		}
		d.browser.Close()
		d.browser = nil
	}
	browser, err := Connect(ctx, d.Config)
	if err != nil {
		return nil, err
	}
	stream, err := browser.Open(ctx)
	if err != nil {
		browser.Close()
		return nil, err
	}
	d.browser = browser
	return stream, nil
}

// Close closes the connection.
func (d *Dialer) Close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.browser != nil {
		d.browser.Close()
		d.browser = nil
	}
}
