package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"connectrpc.com/connect"

	"github.com/ostrich-legs/ostrich/p2p/wire"
	"github.com/ostrich-legs/ostrich/p2p/wire/wireconnect"
)

// DefaultListen is the TCP address of the control listener.
const DefaultListen = "127.0.0.1:7778"

const (
	// stopGrace is how long Close lets calls end by themselves; stopLimit is
	// how long it waits for them once their contexts have ended.
	stopGrace = 300 * time.Millisecond
	stopLimit = 2 * time.Second
)

// ServerConfig is what a Server needs.
type ServerConfig struct {
	// Service answers the calls. Its errors cross with the code that
	// wire.CodeOf finds.
	Service wireconnect.ControlHandler
	// DataDir holds the file control.token; without it the TCP listener
	// refuses every call.
	DataDir string
	// Socket is the path of the Unix socket; "" means SocketPath(DataDir).
	Socket string
	// Listen is the HOST:PORT of the TCP listener; "" means DefaultListen.
	Listen string
	// Hosts returns names and addresses, without a port, by which the TCP
	// listener may be called besides localhost, 127.0.0.1 and ::1. May be nil;
	// called for each request, concurrently.
	Hosts func() []string
	Log   *slog.Logger
}

// Server serves the control API on a Unix socket and on TCP.
type Server struct {
	config  ServerConfig
	socket  net.Listener
	tcp     net.Listener
	servers []*http.Server
	stop    context.CancelFunc
	serving sync.WaitGroup
	calls   sync.WaitGroup
	once    sync.Once
}

// NewServer returns a server that does not listen yet.
func NewServer(c ServerConfig) *Server {
	if c.Socket == "" {
		c.Socket = SocketPath(c.DataDir)
	}
	if c.Listen == "" {
		c.Listen = DefaultListen
	}
	if c.Hosts == nil {
		c.Hosts = func() []string { return nil }
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Server{config: c}
}

// Start listens and begins to serve. A live node on the socket, or a port in
// use, is CODE_CONFLICT. It is called once.
func (s *Server) Start() error {
	token, err := s.token()
	if err != nil {
		return err
	}
	if s.tcp, err = listenTCP(s.config.Listen); err != nil {
		return err
	}
	if s.socket, err = listenSocket(s.config.Socket); err != nil {
		s.tcp.Close()
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	_, port, _ := net.SplitHostPort(s.tcp.Addr().String())
	local := func() []string { return []string{"localhost", "127.0.0.1", "ostrich"} }
	named := func() []string {
		return append([]string{"localhost", "127.0.0.1", "::1"}, s.config.Hosts()...)
	}
	s.serve(ctx, s.socket, door{hosts: local, open: true})
	s.serve(ctx, s.tcp, door{hosts: named, port: port, token: token})
	return nil
}

// Address returns the TCP listener's "http://HOST:PORT". Valid after Start.
func (s *Server) Address() string { return "http://" + s.tcp.Addr().String() }

// Socket returns the path of the Unix socket.
func (s *Server) Socket() string { return s.config.Socket }

// Close stops listening, gives open calls a moment, ends the contexts of those
// that remain and waits for them. It may be called twice.
func (s *Server) Close() error {
	s.once.Do(s.close)
	return nil
}

func (s *Server) close() {
	if s.stop == nil {
		return
	}
	os.Remove(s.config.Socket)
	s.shutdown(stopGrace)
	s.stop()
	s.shutdown(stopLimit)
	for _, srv := range s.servers {
		srv.Close()
	}
	s.serving.Wait()
	s.calls.Wait()
}

func (s *Server) shutdown(limit time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	var wait sync.WaitGroup
	for _, srv := range s.servers {
		wait.Go(func() { srv.Shutdown(ctx) })
	}
	wait.Wait()
}

// serve answers on l until Close.
func (s *Server) serve(ctx context.Context, l net.Listener, d door) {
	mux := http.NewServeMux()
	mux.Handle(wireconnect.NewControlHandler(s.config.Service,
		connect.WithInterceptors(codeInterceptor{}),
		connect.WithReadMaxBytes(maxBody),
		// Everything is local: compression would only cost, and be a bomb.
		connect.WithCompression("gzip", nil, nil)))
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	srv := &http.Server{
		Handler:           d.guard(s.counted(mux)),
		Protocols:         &protocols,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: 256, MaxReceiveBufferPerConnection: 16 << 20, MaxReceiveBufferPerStream: 1 << 20},
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ErrorLog:          slog.NewLogLogger(s.config.Log.Handler(), slog.LevelDebug),
	}
	s.servers = append(s.servers, srv)
	s.serving.Go(func() {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			s.config.Log.Warn("the control listener ended", "address", l.Addr().String(), "error", err)
		}
	})
}

// counted lets Close wait for the handlers, which http.Server does not.
func (s *Server) counted(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.calls.Add(1)
		defer s.calls.Done()
		next.ServeHTTP(w, r)
	})
}

func (s *Server) token() (string, error) {
	if s.config.DataDir == "" {
		return "", nil
	}
	return loadToken(filepath.Join(s.config.DataDir, "control.token"))
}

func listenTCP(address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, wire.Errorf(wire.Code_CODE_CONFLICT, "the control address %s is in use; give another with --control HOST:PORT (port 0 means any free one)", address)
	}
	if err != nil {
		return nil, fmt.Errorf("listening on the control address %s (set it with --control): %w", address, err)
	}
	return l, nil
}
