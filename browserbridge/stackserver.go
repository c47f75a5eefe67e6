package browserbridge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/libp2p/go-yamux/v5"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const (
	// stackVersion is the version of what a node and its stack's process say to
	// each other.
	stackVersion = 1
	// maxStackMessage bounds one message of theirs.
	maxStackMessage = 64 << 10
	// gcPercent is how much garbage the process lets be, of what lives: the stack
	// makes little, and what lives are a thousand connections.
	gcPercent = 50
)

// ChildMain is the whole life of the process that holds a bridge's WebRTC stack:
// it serves the node at the other end of in and out, until in ends, and returns
// an exit status.
func ChildMain(in io.Reader, out io.Writer) int {
	// What a terminal or a service manager sends to all processes of a group is
	// for the node, which ends this one when it wants to.
	signal.Ignore(os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	os.Stdout = os.Stderr // what a library prints is no message
	debug.SetGCPercent(gcPercent)
	s, err := newStackServer(pipes{Reader: in, Writer: out})
	if err != nil {
		fmt.Fprintln(os.Stderr, "this process serves a node and was not started by one:", err)
		return 1
	}
	<-s.session.CloseChan()
	return 0 // what still runs has nobody to work for
}

// stackServer is the stack's side of the way between it and the node.
type stackServer struct {
	session *yamux.Session
	stack   *stack
	timing  timing
	ctx     context.Context // ends with the session
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu      sync.Mutex
	notices *yamux.Stream
}

// newStackServer serves a node until the session ends.
func newStackServer(conn net.Conn) (*stackServer, error) {
	session, err := yamux.Server(conn, yamuxConfig(), nil)
	if err != nil {
		return nil, err
	}
	s := &stackServer{session: session}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	context.AfterFunc(s.ctx, func() { session.Close() })
	if err := s.settle(); err != nil {
		s.cancel()
		return nil, err
	}
	s.running.Go(s.serve)
	return s, nil
}

// settle takes the node's settings.
func (s *stackServer) settle() error {
	var err error
	if s.notices, err = s.session.AcceptStream(); err != nil {
		return err
	}
	settings := &wire.StackSettings{}
	if err := wire.ReadMessage(s.notices, maxStackMessage, settings); err != nil {
		return err
	}
	address, err := netip.ParseAddrPort(settings.GetAddress())
	if err == nil && settings.GetVersion() != stackVersion {
		err = fmt.Errorf("the program on the disk is another than the one that runs (version %d of the stack, not %d): restart the node", stackVersion, settings.GetVersion())
	}
	if err != nil {
		s.notify(&wire.StackNotice{Kind: &wire.StackNotice_Failed{Failed: err.Error()}})
		s.notices.Close()
		<-s.session.CloseChan()
		return err
	}
	s.timing = timing{
		handshake: time.Duration(settings.GetHandshakeMs()) * time.Millisecond,
		idle:      time.Duration(settings.GetIdleMs()) * time.Millisecond,
		drain:     time.Duration(settings.GetDrainMs()) * time.Millisecond,
		age:       time.Duration(settings.GetAgeMs()) * time.Millisecond,
	}
	s.stack = newStack(stackConfig{address: address, records: settings.GetMaxRecords(), warn: s.warn})
	return s.notify(&wire.StackNotice{Kind: &wire.StackNotice_Ready{Ready: stackVersion}})
}

// warn has the node tell people of something.
func (s *stackServer) warn(text string) {
	_ = s.notify(&wire.StackNotice{Kind: &wire.StackNotice_Warning{Warning: cut(text, maxStackMessage/2)}}) // without a node there are no people
}

func (s *stackServer) notify(n *wire.StackNotice) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return wire.WriteMessage(s.notices, maxStackMessage, n)
}

// serve serves connections until the session ends, and closes them.
func (s *stackServer) serve() {
	defer s.cancel()
	for {
		stream, err := s.session.AcceptStream()
		if err != nil {
			return
		}
		s.running.Go(func() {
			if x := newConnection(s, stream); x != nil {
				x.run()
			}
		})
	}
}

// open opens a stream for a channel of a connection.
func (s *stackServer) open(connection uint64) (*yamux.Stream, error) {
	stream, err := s.session.OpenStream(s.ctx) // one that ends while it opens leaks the stream
	if err != nil {
		return nil, err
	}
	if err := wire.WriteMessage(stream, maxStackMessage, &wire.StackChannel{Connection: connection}); err != nil {
		stream.Reset()
		return nil, err
	}
	return stream, nil
}

// close ends everything, and waits for it.
func (s *stackServer) close() {
	s.cancel()
	s.running.Wait()
	s.stack.close()
}

// yamuxConfig is that of both sides. A side that does not answer for so long is
// not there any more, or stopped: browsers are better served elsewhere.
func yamuxConfig() *yamux.Config {
	c := yamux.DefaultConfig()
	c.LogOutput = io.Discard
	c.EnableKeepAlive, c.KeepAliveInterval, c.ConnectionWriteTimeout = true, 2*time.Second, 10*time.Second
	c.MaxIncomingStreams, c.AcceptBacklog = 1<<14, 1<<10
	c.MaxStreamWindowSize = c.InitialStreamWindowSize
	c.ReadBufSize = 64 << 10
	c.WriteCoalesceDelay = 0
	return c
}

// pipes is a process's input and output as one connection.
type pipes struct {
	io.Reader
	io.Writer
	closing func() error // nil where the process ends with it
}

// Close implements net.Conn.
func (p pipes) Close() error {
	if p.closing == nil {
		return nil
	}
	return p.closing()
}

// LocalAddr implements net.Conn.
func (pipes) LocalAddr() net.Addr { return pipeAddr{} }

// RemoteAddr implements net.Conn.
func (pipes) RemoteAddr() net.Addr { return pipeAddr{} }

// SetDeadline implements net.Conn. There are none: the session's keep-alive does
// their work.
func (pipes) SetDeadline(time.Time) error { return errNoDeadline }

// SetReadDeadline implements net.Conn, see SetDeadline.
func (pipes) SetReadDeadline(time.Time) error { return errNoDeadline }

// SetWriteDeadline implements net.Conn. The session calls it all the time.
func (pipes) SetWriteDeadline(time.Time) error { return nil }

var errNoDeadline = errors.New("a pipe has no deadlines")

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "the stack's process" }

// cut shortens a text.
func cut(text string, most int) string {
	if len(text) > most {
		return text[:most] + "…"
	}
	return text
}
