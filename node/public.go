package node

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// maxPublicBody bounds a request to the public listener: section 11 of the
// design.
const maxPublicBody = 1 << 20

// publicServer is the listener that anybody on the network may reach: health,
// which also tells a joiner where the swarm is, and on members the join page and
// the signalling of the bridge.
type publicServer struct {
	node     *node
	listener net.Listener
	cert     *certificate // nil without TLS
	http     *http.Server
	refusals *rate.Limiter // how often they are told of
	done     chan struct{}
}

// newPublicServer listens on the configured address and serves.
func newPublicServer(n *node) (*publicServer, error) {
	address := n.cfg.Public
	if address == "" {
		address = DefaultPublic
	}
	var cert *certificate
	if n.cfg.TLSCert != "" {
		var err error
		if cert, err = loadCertificate(n.cfg.TLSCert, n.cfg.TLSKey); err != nil {
			return nil, err
		}
	}
	listener, err := listenAgain(address, n.folder.ports().Public)
	if err != nil {
		return nil, wire.Errorf(wire.Code_CODE_CONFLICT,
			"the public address %s cannot be used (%v); name another with --public HOST:PORT, port 0 for any free one", address, rootCause(err))
	}
	p := &publicServer{node: n, listener: listener, cert: cert, refusals: rate.NewLimiter(1, 10), done: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", p.health)
	for _, pattern := range []string{signalPath, "GET /{$}", "GET /join", "GET /web/", "GET /favicon.ico"} {
		mux.HandleFunc(pattern, p.serveBrowsers)
	}
	p.http = &http.Server{
		Handler:           p.guard(mux),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      10 * time.Second,
		IdleTimeout:       30 * time.Second,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(n.log.Handler(), slog.LevelDebug),
	}
	if cert != nil {
		p.http.TLSConfig = &tls.Config{GetCertificate: cert.get, MinVersion: tls.VersionTLS12}
	}
	go func() {
		defer close(p.done)
		if cert != nil {
			_ = p.http.ServeTLS(listener, "", "") // it ends with close
			return
		}
		_ = p.http.Serve(listener)
	}()
	return p, nil
}

func (p *publicServer) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := p.http.Shutdown(ctx); err != nil {
		p.http.Close()
	}
	<-p.done
}

// guard checks the Host first: a name that is not ours would let a page from
// elsewhere read what this listener says (DNS rebinding).
func (p *publicServer) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("Content-Security-Policy", "default-src 'none'")
		w.Header().Set("Referrer-Policy", "no-referrer")
		if !p.knownHost(r.Host) {
			p.refuse(w, r, http.StatusMisdirectedRequest, "this host is not known by that name")
			return
		}
		if r.URL.Path != signalPath && !sameSite(r) {
			p.refuse(w, r, http.StatusForbidden, "requests from other origins are refused")
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxPublicBody)
		next.ServeHTTP(w, r)
	})
}

// refuse answers a request that is not let through, and has people told of it.
func (p *publicServer) refuse(w http.ResponseWriter, r *http.Request, status int, why string) {
	http.Error(w, why, status)
	if p.refusals.Allow() {
		p.node.logs.publish(&wire.LogLine{
			TimeMs: time.Now().UnixMilli(), Level: "warn", Source: "public", Audit: true,
			Message: shown("refused a request from " + r.RemoteAddr + " to " + r.Host + ": " + why),
		})
	}
}

// sameSite reports whether a request comes from no page, from one of ours, or
// is somebody who follows a link.
func sameSite(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "none", "same-origin":
	default:
		if r.Header.Get("Sec-Fetch-Mode") != "navigate" {
			return false
		}
	}
	scheme := "http://"
	if r.TLS != nil {
		scheme = "https://"
	}
	origin := r.Header.Get("Origin")
	return origin == "" || origin == scheme+r.Host
}

// knownHost accepts addresses, which no stranger's DNS can point elsewhere, and
// the names that this node goes by.
func (p *publicServer) knownHost(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.ToLower(strings.Trim(host, "[]"))
	configured, _, _ := net.SplitHostPort(p.node.cfg.Public)
	name := strings.ToLower(defaultName())
	switch host {
	case "":
		return false
	case "localhost", name, name + ".local", strings.ToLower(configured):
		return true
	}
	return net.ParseIP(host) != nil || slices.Contains(p.cert.names(), host)
}

// health says which swarm this is and where its node can be reached.
func (p *publicServer) health(w http.ResponseWriter, _ *http.Request) {
	h := &wire.Health{Version: p.node.cfg.Version, Peer: &wire.Peer{Id: string(p.node.id.ID)}}
	if m := p.node.swarm.Load(); m != nil {
		h.SwarmId, h.SwarmName = string(m.SwarmID), m.SwarmName
	}
	for _, peer := range p.node.host.Peers([]wire.DeviceID{p.node.id.ID}) {
		h.Peer = peer
	}
	b, err := protojson.MarshalOptions{EmitUnpopulated: true}.Marshal(h)
	if err != nil {
		http.Error(w, "health cannot be told", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(b, '\n'))
}

// address is the listener's URL as others on the network may use it.
func (p *publicServer) address() string {
	host, port, _ := net.SplitHostPort(p.listener.Addr().String())
	if configured, _, err := net.SplitHostPort(p.node.cfg.Public); err == nil && configured != "" && net.ParseIP(configured) == nil {
		host = configured
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = lanAddress()
	}
	if p.cert == nil {
		return "http://" + net.JoinHostPort(host, port)
	}
	if !p.cert.covers(host) {
		for _, name := range p.cert.names() {
			if !strings.HasPrefix(name, "*") {
				host = name
				break
			}
		}
	}
	return "https://" + net.JoinHostPort(host, port)
}

// rootCause is the last error of a chain: what the system said.
func rootCause(err error) error {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err
		}
		err = next
	}
}
