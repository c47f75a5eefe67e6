package node

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ostrich-legs/ostrich/browserbridge"
	"github.com/ostrich-legs/ostrich/browserbridge/web"
	"github.com/ostrich-legs/ostrich/consensus/state"
	"github.com/ostrich-legs/ostrich/p2p"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const (
	// protocolPublic tells members where one's public listener is: its URL, then
	// the end of the stream.
	protocolPublic = "/ostrich/public/1"
	// maxURL bounds that.
	maxURL = 300
	// bridgesFor is how long what the others said is good for, and bridgesWait how
	// long a page waits when nothing is known yet.
	bridgesFor  = 10 * time.Second
	bridgesWait = 300 * time.Millisecond
	// maxBridges bounds the bridges that a page is told of.
	maxBridges = 32
)

// bridging is a member's part in which browsers are let in.
type bridging struct {
	node   *node
	bridge *browserbridge.Bridge
	pages  http.Handler

	mu      sync.Mutex
	spliced map[*splice]struct{} // the sessions of browsers with a coordinator elsewhere
	others  []string             // public listeners of other members
	asked   time.Time
	asking  chan struct{} // closes when the question under way is answered
	ended   bool
}

// openBridge lets browsers in, if this device is a member.
func (n *node) openBridge() {
	if n.group() == nil {
		return
	}
	address, _ := netip.ParseAddrPort(n.public.listener.Addr().String())
	g := &bridging{node: n, pages: web.Pages(), spliced: make(map[*splice]struct{})}
	g.bridge = browserbridge.New(browserbridge.Config{
		ID:        n.id.ID,
		Key:       n.id.Key,
		Swarm:     n.swarm.Load().SwarmID,
		SwarmName: func() string { return n.swarm.Load().SwarmName },
		Address:   address,
		Dial:      g.dial,
		Role:      n.registeredRole,
		Admit:     n.admit,
		Bridges:   g.bridges,
		Audit:     func(message string) { n.auditLine("bridge", message) },
		Log:       n.log.With("part", "bridge"),
	})
	n.host.Handle(protocolPublic, wire.Role_ROLE_MEMBER, func(_ context.Context, s *p2p.Stream) {
		defer s.Close()
		s.SetDeadline(time.Now().Add(bridgesFor))
		io.WriteString(s, n.public.address()) // one who does not listen has gone
	})
	n.bridging.Store(g)
}

func (n *node) closeBridge() {
	if g := n.bridging.Load(); g != nil {
		g.mu.Lock()
		g.ended = true
		g.mu.Unlock()
		g.bridge.Close()
	}
}

// splice is a browser's stream to the coordinator.
type splice struct {
	toCoordinator
	bridging *bridging
}

// dial opens a stream to the coordinator for a browser.
func (g *bridging) dial(ctx context.Context) (io.ReadWriteCloser, error) {
	s, err := g.node.dialCoordinator(ctx)
	elsewhere, ok := s.(toCoordinator)
	if err != nil || !ok {
		return s, err
	}
	x := &splice{elsewhere, g}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.spliced[x] = struct{}{}
	return x, nil
}

// Close ends the stream in good order.
func (x *splice) Close() error {
	x.forget()
	return x.toCoordinator.Close()
}

// Reset breaks the stream off.
func (x *splice) Reset() error {
	x.forget()
	return x.toCoordinator.Reset()
}

func (x *splice) forget() {
	x.bridging.mu.Lock()
	defer x.bridging.mu.Unlock()
	delete(x.bridging.spliced, x)
}

// follow breaks off the sessions with others than the coordinator, whose links
// may have been cut in silence: the pages begin new ones at once.
func (g *bridging) follow(coordinator wire.DeviceID) {
	g.mu.Lock()
	var old []*splice
	for x := range g.spliced {
		if x.Remote() != coordinator {
			old = append(old, x)
		}
	}
	g.mu.Unlock()
	for _, x := range old {
		if err := x.Reset(); err != nil {
			g.node.log.Debug("a browser's stream was not broken off in good order", "err", err)
		}
	}
}

// registeredRole is what the replicated state says of a device, and whether it
// was removed.
func (n *node) registeredRole(id wire.DeviceID) (role wire.Role, removed bool) {
	if g := n.group(); g != nil {
		g.Read(func(s *state.State) {
			removed = s.Removed(id)
			if d := s.Device(id); d != nil {
				role = d.Role
			}
		})
	}
	return role, removed
}

// auditLine tells people of something that was refused.
func (n *node) auditLine(source, message string) {
	n.logs.publish(&wire.LogLine{
		TimeMs: time.Now().UnixMilli(), Level: "warn", Source: source, Device: string(n.id.ID), Audit: true, Message: shown(message),
	})
}

// bridges lists the public listeners of members, this node's first. The others
// are asked now and then, in the background, and only while pages ask.
func (g *bridging) bridges() []string {
	g.mu.Lock()
	if time.Since(g.asked) > bridgesFor && g.asking == nil && !g.ended {
		g.asking = make(chan struct{})
		g.node.sessions.Go(g.ask)
	}
	asking, known := g.asking, !g.asked.IsZero()
	g.mu.Unlock()
	if asking != nil && !known {
		select {
		case <-asking:
		case <-time.After(bridgesWait):
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]string{g.node.public.address()}, g.others...)
}

// ask asks the members that are connected where their public listeners are.
func (g *bridging) ask() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	var mu sync.Mutex
	var found []string
	var all sync.WaitGroup
	for i, id := range g.node.host.Members() {
		if i == maxBridges {
			break
		}
		if id == g.node.id.ID || !g.node.host.Connected(id) {
			continue
		}
		all.Go(func() {
			if u, ok := g.askOne(ctx, id); ok {
				mu.Lock()
				defer mu.Unlock()
				found = append(found, u)
			}
		})
	}
	all.Wait()
	slices.Sort(found)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.others, g.asked = slices.Compact(found), time.Now()
	close(g.asking)
	g.asking = nil
}

func (g *bridging) askOne(ctx context.Context, id wire.DeviceID) (string, bool) {
	s, err := g.node.host.Open(ctx, id, protocolPublic)
	if err != nil {
		return "", false
	}
	defer s.Close()
	defer context.AfterFunc(ctx, func() { s.Reset() })()
	if err := s.CloseWrite(); err != nil {
		return "", false
	}
	b, err := io.ReadAll(io.LimitReader(s, maxURL+1))
	if err != nil || len(b) > maxURL {
		return "", false
	}
	u, err := url.Parse(string(b))
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.Port() == "" {
		return "", false
	}
	return u.Scheme + "://" + u.Host, true
}

// serveBrowsers hands a request to the bridge or its pages, where there are any.
func (p *publicServer) serveBrowsers(w http.ResponseWriter, r *http.Request) {
	g := p.node.bridging.Load()
	switch {
	case g == nil:
		http.Error(w, "this node is a worker, or is starting: browsers join at a member", http.StatusNotFound)
	case r.URL.Path == signalPath:
		g.bridge.ServeHTTP(w, r)
	default:
		g.pages.ServeHTTP(w, r)
	}
}

// signalPath is where pages of any origin make their offers.
const signalPath = "/signal"

// pipeEnd is one end of a pipe to ourselves, which can be broken as well as
// closed, as a stream to another device can.
type pipeEnd struct {
	net.Conn
	broken *atomic.Bool // shared by both ends
}

// newPipe returns the two ends of a pipe.
func newPipe() (ours, theirs pipeEnd) {
	a, b := net.Pipe()
	broken := new(atomic.Bool)
	return pipeEnd{a, broken}, pipeEnd{b, broken}
}

// Reset ends the pipe so that the other side does not take it for a goodbye.
func (p pipeEnd) Reset() error {
	p.broken.Store(true)
	return p.Close()
}

// Read implements io.Reader.
func (p pipeEnd) Read(b []byte) (int, error) {
	n, err := p.Conn.Read(b)
	if err == io.EOF && p.broken.Load() {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}
