package browserbridge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"runtime/debug"
	"time"

	"github.com/libp2p/go-yamux/v5"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const (
	// dialLimit is how long a channel waits for a coordinator, who is asked again
	// every dialAgain.
	dialLimit = 5 * time.Second
	dialAgain = 200 * time.Millisecond
	// answerWait bounds the wait for the stack's answer, and endWait that for its
	// last word of a connection.
	answerWait = answerLimit + 2*time.Second
	endWait    = closeLimit + 2*time.Second
)

// browser is one connection as the node knows it: who it is of, and the stream on
// which the stack's process tells of it.
type browser struct {
	bridge *Bridge
	number uint64
	device wire.DeviceID
	from   netip.Prefix
	link   *stackLink
	stack  *yamux.Stream

	over context.Context // ends with the connection, the reason as its cause
	end  context.CancelCauseFunc
}

func newBrowser(b *Bridge, device wire.DeviceID, from netip.Prefix) *browser {
	x := &browser{bridge: b, number: b.lastNumber.Add(1), device: device, from: from}
	x.over, x.end = context.WithCancelCause(b.ctx)
	return x
}

// begin has the stack answer the offer.
func (x *browser) begin(ctx context.Context, offer string, local netip.Addr) (answer string, err error) {
	x.link, err = x.bridge.stack.enter(ctx)
	if err != nil {
		return "", err
	}
	if answer, err = x.ask(ctx, offer, local); err != nil {
		x.leaveStack()
	}
	return answer, err
}

func (x *browser) ask(request context.Context, offer string, local netip.Addr) (answer string, err error) {
	ctx, cancel := context.WithTimeout(x.over, answerWait)
	defer cancel()
	defer context.AfterFunc(request, cancel)()
	if ctx.Err() != nil {
		return "", stackGone()
	}
	x.link.add(x)
	if x.stack, err = x.link.session.OpenStream(x.bridge.ctx); err != nil { // one that ends while it opens leaks the stream
		return "", stackGone()
	}
	forget := context.AfterFunc(ctx, func() { x.stack.Reset() })
	e := &wire.StackEvent{}
	if err = wire.WriteMessage(x.stack, maxStackMessage, &wire.StackOffer{Connection: x.number, Offer: offer, LocalAddress: local.String()}); err == nil {
		err = wire.ReadMessage(x.stack, maxStackMessage, e)
	}
	if !forget() || err != nil {
		return "", stackGone()
	}
	if answer = e.GetAnswer(); answer == "" {
		return "", wire.Errorf(wire.Code_CODE_INTERNAL, "the offer cannot be answered: %s", e.GetEnded())
	}
	return answer, nil
}

// stackGone is what a page is told when the stack's process is not there.
func stackGone() error {
	return wire.Errorf(wire.Code_CODE_UNAVAILABLE, "the part of this node that holds browsers' connections does not answer: try again, or another node")
}

// run follows the connection to its end.
func (x *browser) run() {
	defer x.bridge.leave(x)
	defer x.leaveStack()
	defer context.AfterFunc(x.over, func() {
		x.stack.SetReadDeadline(time.Now().Add(endWait))
		x.stack.CloseWrite()
	})()
	for {
		e := &wire.StackEvent{}
		if err := wire.ReadMessage(x.stack, maxStackMessage, e); err != nil {
			x.end(fmt.Errorf("the stack tells of it no more: %w", err))
			return
		}
		switch kind := e.GetKind().(type) {
		case *wire.StackEvent_Established:
			x.bridge.established(x)
		case *wire.StackEvent_Refused:
			x.bridge.refuse("the connection of device %s: %s", x.device.Short(), kind.Refused)
		case *wire.StackEvent_Ended:
			x.end(errors.New(kind.Ended))
			x.bridge.cfg.Log.Debug("a browser's connection ended", "device", x.device, "why", context.Cause(x.over))
			return
		}
	}
}

// leaveStack gives up what the stack's process holds of the connection.
func (x *browser) leaveStack() {
	x.link.remove(x)
	if x.stack != nil {
		x.stack.Reset()
	}
	x.bridge.stack.leave(x.link)
}

// session splices a channel to the coordinator, until either ends.
func (x *browser) session(channel *yamux.Stream) {
	defer func() {
		if r := recover(); r != nil {
			x.panicked("a channel", r)
			channel.Reset()
		}
	}()
	stream, err := x.dial()
	if err != nil {
		x.bridge.cfg.Log.Debug("a browser has to wait for a coordinator", "device", x.device, "err", err)
		channel.Reset()
		return
	}
	_ = splice(x.over, channel, stream, x.panicked) // why it ended, the stack's process knows better
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

// panicked ends the one connection whose part has panicked.
func (x *browser) panicked(what string, r any) {
	x.bridge.cfg.Log.Error("a browser's connection is closed, for "+what+" of it panicked", "device", x.device, "panic", r, "stack", string(debug.Stack()))
	x.end(fmt.Errorf("a panic: %v", r))
}
