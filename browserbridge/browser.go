package browserbridge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"runtime/debug"
	"sync"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const (
	// handshakeLimit is how long a browser may take from the answer to its first
	// channel.
	handshakeLimit = 15 * time.Second
	// idleLimit is how long a connection may be without a channel.
	idleLimit = 5 * time.Second
	// dialLimit is how long a channel waits for a coordinator, who is asked again
	// every dialAgain.
	dialLimit = 5 * time.Second
	dialAgain = 200 * time.Millisecond
	// channelRate and channelBurst bound the channels that one connection opens,
	// and maxChannels them in all: the stack remembers each until the end.
	channelRate  = 5
	channelBurst = 10
	maxChannels  = 256
	// A splice reads into a buffer of smallBuffer to largeBuffer in each direction:
	// a thousand browsers have two of them each.
	smallBuffer = 2 << 10
	largeBuffer = 16 << 10
	// quietReads is after how many short reads a buffer becomes smaller again.
	quietReads = 256
)

// browser is one connection, from the answer to its end.
//
//	answered ──channel──▶ in session ──either side ends──▶ idle ──channel──▶ …
//	   │15 s                  │lost, worn, not draining      │5 s
//	   └──────────────────────┴──────────▶ closed ◀──────────┘
type browser struct {
	bridge *Bridge
	device wire.DeviceID
	from   netip.Prefix
	peer   *peer

	channels chan DataChannel // capacity 1: opened, and not yet in session
	closed   chan struct{}    // capacity 1: by the browser
	over     context.Context  // ends with the connection, the reason as its cause
	end      context.CancelCauseFunc
}

func newBrowser(b *Bridge, device wire.DeviceID, from netip.Prefix) *browser {
	x := &browser{bridge: b, device: device, from: from, channels: make(chan DataChannel, 1), closed: make(chan struct{}, 1)}
	x.over, x.end = context.WithCancelCause(b.ctx)
	return x
}

// events is what the stack is told to call.
func (x *browser) events() peerEvents {
	return peerEvents{
		Channel: func(c DataChannel) {
			select {
			case x.channels <- c:
			default:
				x.end(errors.New("it has more than one channel waiting"))
			}
		},
		Lost: func(why string) { x.end(errors.New(why)) },
		Closed: func() {
			select {
			case x.closed <- struct{}{}:
			default:
			}
		},
		Worn: func() { x.end(errors.New("its key has encrypted enough: it has to connect anew")) },
	}
}

// begin answers the offer. What the stack makes of it is not trusted.
func (x *browser) begin(o offer, local netip.Addr) (answer string, err error) {
	defer func() {
		if x.over.Err() != nil && err == nil {
			err = context.Cause(x.over)
		}
	}()
	defer x.contain("the answer")
	x.peer, answer, err = x.bridge.stack.accept(o, local, x.events())
	return answer, err
}

// run serves sessions until the connection ends, and closes it.
func (x *browser) run() {
	defer x.bridge.leave(x)
	defer x.peer.close()
	defer x.contain("a connection")
	age := time.AfterFunc(x.bridge.timing.age, func() { x.end(errors.New("it is old: it has to connect anew")) })
	defer age.Stop()
	wait, why := x.bridge.timing.handshake, "it did not open a channel in time"
	var rate bucket
	for n := 0; ; n++ {
		limit := time.NewTimer(wait)
		select {
		case <-x.over.Done():
		case <-limit.C:
			x.end(errors.New(why))
		case <-x.closed:
			x.end(errors.New("it has closed the connection"))
		case raw := <-x.channels:
			x.bridge.established(x)
			if n == maxChannels || !rate.take(time.Now(), 1, channelRate, channelBurst) {
				x.end(errors.New("it opens one channel after another"))
				break
			}
			x.session(raw)
		}
		limit.Stop()
		if x.over.Err() != nil {
			x.bridge.cfg.Log.Debug("a browser's connection ended", "device", x.device, "why", context.Cause(x.over))
			return
		}
		wait, why = x.bridge.timing.idle, "it has no channel"
	}
}

// contain keeps a panic of what serves one browser from ending the node.
func (x *browser) contain(what string) {
	if r := recover(); r != nil {
		x.bridge.cfg.Log.Error("a browser's connection is closed, for "+what+" of it panicked", "device", x.device, "panic", r, "stack", string(debug.Stack()))
		x.end(fmt.Errorf("a panic: %v", r))
	}
}

// session splices one channel to the coordinator, until either ends.
func (x *browser) session(raw DataChannel) {
	channel := NewChannel(raw)
	channel.stall, channel.look = x.bridge.timing.drain, x.bridge.timing.drain/10
	defer channel.Close()
	stream, err := x.dial()
	if err != nil {
		x.bridge.cfg.Log.Debug("a browser has to wait for a coordinator", "device", x.device, "err", err)
		return
	}
	x.splice(channel, stream)
}

// dial opens a stream to the coordinator, of whom there may be none for a moment.
func (x *browser) dial() (io.ReadWriteCloser, error) {
	ctx, cancel := context.WithTimeout(x.over, x.bridge.timing.dial)
	defer cancel()
	for {
		stream, err := x.bridge.cfg.Dial(ctx)
		if err == nil {
			return stream, nil
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(dialAgain):
		}
	}
}

// splice copies both ways until one side ends, then ends the other: in good
// order if the browser has closed the channel, else at once.
func (x *browser) splice(channel *Channel, stream io.ReadWriteCloser) {
	var both sync.WaitGroup
	defer both.Wait()
	up, down := make(chan error, 1), make(chan error, 1)
	both.Go(func() {
		defer x.contain("the way up")
		up <- transfer(stream, channel)
	})
	both.Go(func() {
		defer x.contain("the way down")
		down <- transfer(channel, stream)
	})
	var err error
	select {
	case err = <-up:
		if err == nil {
			stream.Close() // the browser's goodbye
			channel.Close()
			return
		}
	case err = <-down: // the session's end, unless the browser takes nothing
	case <-x.over.Done():
	}
	if errors.Is(err, ErrNotDraining) || errors.Is(err, ErrBadMessage) {
		x.bridge.refuse("the connection of device %s: %v", x.device.Short(), err)
		x.end(err)
	}
	abort(stream)
	channel.Close()
}

// transfer copies from one side to the other; nil after a clean end.
func transfer(to io.Writer, from io.Reader) error {
	buf, quiet := make([]byte, smallBuffer), 0
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return err
			}
			buf, quiet = fitting(buf, n, quiet)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// fitting returns a buffer for the next read after one of n bytes into buf, and
// how many reads in a row have left most of it empty.
func fitting(buf []byte, n, quiet int) ([]byte, int) {
	switch size := len(buf); {
	case n == size && size < largeBuffer:
		return make([]byte, 2*size), 0
	case n > size/4 || size == smallBuffer:
		return buf, 0
	case quiet < quietReads:
		return buf, quiet + 1
	default:
		return make([]byte, size/2), 0
	}
}

// abort ends a stream so that the coordinator takes it for a broken link, whose
// leases it keeps for a while.
func abort(stream io.ReadWriteCloser) {
	if s, ok := stream.(interface{ Reset() error }); ok {
		s.Reset()
		return
	}
	stream.Close()
}
