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
	// handshakeLimit is how long a browser may take from the answer to its first
	// channel.
	handshakeLimit = 15 * time.Second
	// idleLimit is how long a connection may be without a channel.
	idleLimit = 5 * time.Second
	// channelRate and channelBurst bound the channels that one connection opens,
	// and maxChannels them in all: the stack remembers each until the end.
	channelRate  = 5
	channelBurst = 10
	maxChannels  = 256
)

// connection is one of a browser, in the process of the stack, from the answer to
// its end.
//
//	answered ──channel──▶ in session ──either side ends──▶ idle ──channel──▶ …
//	   │15 s                  │lost, worn, not draining      │5 s
//	   └──────────────────────┴──────────▶ closed ◀──────────┘
type connection struct {
	server *stackServer
	number uint64        // by which the node knows it
	node   *yamux.Stream // what the node is told of it, and its end
	peer   *peer

	channels chan DataChannel // capacity 1: opened, and not yet in session
	closed   chan struct{}    // capacity 1: by the browser
	over     context.Context  // ends with the connection, the reason as its cause
	end      context.CancelCauseFunc
}

// newConnection reads the node's offer and answers it. The connection must be
// run. Without one the node was told why.
func newConnection(s *stackServer, node *yamux.Stream) *connection {
	x := &connection{server: s, node: node, channels: make(chan DataChannel, 1), closed: make(chan struct{}, 1)}
	x.over, x.end = context.WithCancelCause(s.ctx)
	answer, err := x.begin()
	if err != nil {
		x.end(err)
		if x.peer != nil {
			x.peer.close()
		}
		x.tell(&wire.StackEvent{Kind: &wire.StackEvent_Ended{Ended: err.Error()}})
		node.Close()
		return nil
	}
	x.tell(&wire.StackEvent{Kind: &wire.StackEvent_Answer{Answer: answer}})
	return x
}

// begin answers the offer. What the stack makes of it is not trusted.
func (x *connection) begin() (answer string, err error) {
	defer func() {
		if err == nil && x.over.Err() != nil {
			err = context.Cause(x.over)
		}
	}()
	defer x.contain("the answer")
	request := &wire.StackOffer{}
	if err := wire.ReadMessage(x.node, maxStackMessage, request); err != nil {
		return "", fmt.Errorf("reading an offer: %w", err)
	}
	x.number = request.GetConnection()
	o, err := parseOffer(request.GetOffer())
	if err != nil {
		return "", err
	}
	local, err := netip.ParseAddr(request.GetLocalAddress())
	if err != nil {
		return "", fmt.Errorf("an offer's local address: %w", err)
	}
	x.peer, answer, err = x.server.stack.accept(o, local, x.events())
	return answer, err
}

// tell tells the node of something. Without a node there is nobody to tell.
func (x *connection) tell(e *wire.StackEvent) {
	if err := wire.WriteMessage(x.node, maxStackMessage, e); err != nil {
		x.end(fmt.Errorf("the node is gone: %w", err))
	}
}

// events is what the stack is told to call.
func (x *connection) events() peerEvents {
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

// run serves sessions until the connection ends, closes it, and tells the node.
func (x *connection) run() {
	x.server.running.Go(func() { // ends with the stream, which this side closes below
		x.node.Read(make([]byte, 1))
		x.end(errClosed)
	})
	x.serve()
	x.peer.close()
	x.tell(&wire.StackEvent{Kind: &wire.StackEvent_Ended{Ended: context.Cause(x.over).Error()}})
	x.node.Close()
}

func (x *connection) serve() {
	defer x.contain("a connection")
	age := time.AfterFunc(x.server.timing.age, func() { x.end(errors.New("it is old: it has to connect anew")) })
	defer age.Stop()
	wait, why := x.server.timing.handshake, "it did not open a channel in time"
	var rate bucket
	for n := 0; x.over.Err() == nil; n++ {
		limit := time.NewTimer(wait)
		select {
		case <-x.over.Done():
		case <-limit.C:
			x.end(errors.New(why))
		case <-x.closed:
			x.end(errors.New("it has closed the connection"))
		case raw := <-x.channels:
			if n == 0 {
				x.tell(&wire.StackEvent{Kind: &wire.StackEvent_Established{Established: true}})
			}
			if n == maxChannels || !rate.take(time.Now(), 1, channelRate, channelBurst) {
				x.end(errors.New("it opens one channel after another"))
				break
			}
			x.session(raw)
		}
		limit.Stop()
		wait, why = x.server.timing.idle, "it has no channel"
	}
}

// session splices one channel to the node, until either ends.
func (x *connection) session(raw DataChannel) {
	channel := NewChannel(raw)
	channel.stall, channel.look = x.server.timing.drain, x.server.timing.drain/10
	defer channel.Close()
	stream, err := x.server.open(x.number)
	if err != nil {
		x.end(fmt.Errorf("the node takes no channel: %w", err))
		return
	}
	err = splice(x.over, channel, parting{stream}, x.panicked)
	if err == nil {
		x.passedOn(stream)
	}
	stream.Close()
	if errors.Is(err, ErrNotDraining) || errors.Is(err, ErrBadMessage) {
		x.tell(&wire.StackEvent{Kind: &wire.StackEvent_Refused{Refused: err.Error()}})
		x.end(err)
	}
}

// parting is a stream whose end is that of its writing side.
type parting struct{ *yamux.Stream }

// Close ends what this side says.
func (p parting) Close() error { return p.CloseWrite() }

// passedOn waits until the node has passed on what the browser sent before its
// goodbye: the next session begins after that, and the connection ends after that.
func (x *connection) passedOn(stream *yamux.Stream) {
	defer context.AfterFunc(x.over, func() { stream.Reset() })()
	io.Copy(io.Discard, stream) // it ends when the node's side does, however
}

// contain keeps a panic of what serves one connection from ending all.
func (x *connection) contain(what string) {
	if r := recover(); r != nil {
		x.panicked(what, r)
	}
}

func (x *connection) panicked(what string, r any) {
	x.server.warn(fmt.Sprintf("a browser's connection is closed, for %s of it panicked: %v\n%s", what, r, debug.Stack()))
	x.end(fmt.Errorf("a panic: %v", r))
}
