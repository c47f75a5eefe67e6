package p2p

import (
	"context"
	"crypto/ed25519"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/gologshim"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// Protocols that run over streams between devices.
const (
	// ProtocolSession carries sessions; see node/session.
	ProtocolSession = "/ostrich/session/1"
	// ProtocolPage carries pages; see p2p/blob.
	ProtocolPage = "/ostrich/page/1"
	// ProtocolJoin admits new devices; the only one that strangers reach.
	ProtocolJoin = "/ostrich/join/1"
	// ProtocolRaft carries the Raft group's RPCs; see Host.RaftStreams.
	ProtocolRaft = "/ostrich/raft/1"
)

// SetLibraryLog sends what libp2p itself logs to a handler instead of to stderr.
// It holds for the whole process and must come before the first host: main calls
// it, once.
func SetLibraryLog(handler slog.Handler) { gologshim.SetDefaultHandler(handler) }

// Config says what a Host is.
type Config struct {
	// Key is the device's key; see LoadOrCreateKey.
	Key ed25519.PrivateKey
	// Listen is the HOST:PORT of TCP and QUIC; "" means DefaultListen.
	Listen string
	// LastPort is tried first where Listen leaves the port open; 0 for none.
	LastPort uint16
	// MDNS announces this node on the LAN and looks for members there.
	MDNS bool
	// Swarm may be set here or given to Start.
	Swarm wire.SwarmID
	// Role returns a device's registered role, ROLE_UNSPECIFIED for a stranger
	// and for a removed device. It is called often and from many goroutines,
	// and must answer from memory. Nil means that all are strangers.
	Role func(wire.DeviceID) wire.Role
	// Removed reports whether a device was taken out of the swarm: it is told
	// so when it opens a stream, where strangers learn nothing. Like Role in all
	// else; nil means that none was.
	Removed func(wire.DeviceID) bool
	// PeersFile keeps the members and their addresses across restarts; ""
	// keeps nothing.
	PeersFile string
	// Log gets what an operator would act on; nil discards it.
	Log *slog.Logger
}

// timing holds the periods that tests shorten.
type timing struct {
	stranger  time.Duration // a stranger's connection without a join
	vouched   time.Duration // from a successful join until the role must be known
	sweep     time.Duration // how often connections are checked
	join      time.Duration // all of one join
	dial      time.Duration // one attempt to connect
	redialMin time.Duration // wait before the second attempt; doubles
	redialMax time.Duration
	announce  time.Duration // how often gossip peers are announced again
	unknown   time.Duration // how long a gossip stream waits for its device's role
	replaced  time.Duration // a connection older than a new one by that is dead
}

func defaultTiming() timing {
	return timing{
		stranger: 10 * time.Second, vouched: time.Minute, sweep: time.Second,
		join: 10 * time.Second, dial: 5 * time.Second,
		redialMin: 250 * time.Millisecond, redialMax: 10 * time.Second,
		announce: 30 * time.Second, unknown: 5 * time.Second, replaced: 2 * time.Second,
	}
}

// Host is this device on the network. All methods may be called concurrently.
type Host struct {
	cfg    Config
	timing timing
	log    *slog.Logger
	id     wire.DeviceID
	self   peer.ID
	stack  *stack
	book   *book
	gate   *gate
	joins  *joinLimits
	redial *redial
	gossip gossip
	raft   raftDoor

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	started bool
	mdns    *lanDiscovery
}

// New makes a host that listens and serves the protocols given to Handle. It
// dials nobody by itself until Start. Close it.
func New(cfg Config) (*Host, error) {
	return newHost(cfg, defaultTiming())
}

func newHost(cfg Config, t timing) (*Host, error) {
	if len(cfg.Key) != ed25519.PrivateKeySize {
		return nil, errors.New("a host needs an Ed25519 key")
	}
	if cfg.Listen == "" {
		cfg.Listen = DefaultListen
	}
	if cfg.Role == nil {
		cfg.Role = func(wire.DeviceID) wire.Role { return wire.Role_ROLE_UNSPECIFIED }
	}
	if cfg.Removed == nil {
		cfg.Removed = func(wire.DeviceID) bool { return false }
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	plan, err := resolveListen(cfg.Listen)
	if err != nil {
		return nil, err
	}
	h := &Host{cfg: cfg, timing: t, log: cfg.Log, id: wire.NewDeviceID(cfg.Key.Public().(ed25519.PublicKey))}
	h.book, err = openBook(cfg.PeersFile, h.id, h.log)
	if err != nil {
		return nil, err
	}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	h.gate = newGate(h)
	h.joins = newJoinLimits()
	h.redial = newRedial()
	h.stack, err = newStack(cfg.Key, h.gate)
	if err != nil {
		h.cancel()
		return nil, err
	}
	h.self = h.stack.swarm.LocalPeer()
	if err := h.stack.listen(plan, cfg.LastPort); err != nil {
		h.cancel()
		h.stack.close()
		return nil, err
	}
	h.run()
	return h, nil
}

// run starts the loops that a host has from its beginning to its end.
func (h *Host) run() {
	h.stack.swarm.Notify(&network.NotifyBundle{ConnectedF: h.connected, DisconnectedF: h.disconnected})
	h.Handle(ProtocolRaft, wire.Role_ROLE_MEMBER, h.raft.accept)
	h.stack.host.Start()
	h.wg.Go(h.watchIdentified)
	h.wg.Go(h.sweepLoop)
	h.wg.Go(func() { h.book.keep(h.ctx) })
}

// Start begins what needs the swarm's ID: it dials the members and keeps
// dialling those that are missing, announces this node by mDNS, and joins the
// gossip. It returns at once; what it started lasts until Close. ctx bounds the
// call only. A second call is an error.
func (h *Host) Start(ctx context.Context, swarm wire.SwarmID) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if swarm.Bytes() == nil {
		return wire.Errorf(wire.Code_CODE_INVALID, "%q is not a swarm's ID", string(swarm))
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return errClosed
	}
	if h.started {
		return errors.New("the host has been started before")
	}
	h.cfg.Swarm = swarm
	if err := h.gossip.start(h, swarm); err != nil {
		return err
	}
	h.started = true
	h.wg.Go(h.redialLoop)
	if h.cfg.MDNS {
		h.mdns = &lanDiscovery{host: h, service: mdnsService(swarm)}
		h.wg.Go(h.mdns.run)
	}
	return nil
}

// Close ends all connections and waits for handlers and loops. It may be called
// more than once.
func (h *Host) Close() error {
	h.mu.Lock()
	first := !h.closed
	h.closed = true
	h.mu.Unlock()
	if first {
		h.cancel()
		h.raft.closeAll()
		h.stack.close()
	}
	h.wg.Wait()
	if !first {
		return nil
	}
	return h.book.save()
}

var errClosed = wire.Errorf(wire.Code_CODE_UNAVAILABLE, "this node's network is closed")

// begin reports whether work may start; if so the caller owes h.wg.Done.
func (h *Host) begin() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return false
	}
	h.wg.Add(1)
	return true
}

// ID returns the device's ID.
func (h *Host) ID() wire.DeviceID { return h.id }

// Connected reports whether there is a connection with the device now. A
// connection that was cut silently counts until keep-alives miss it (15 s).
func (h *Host) Connected(id wire.DeviceID) bool {
	pid, err := peerID(id)
	return err == nil && h.stack.swarm.Connectedness(pid) == network.Connected
}

// Kick closes all connections with the device: it was removed, or its link is
// known to be dead. One that is still a member is dialled again.
func (h *Host) Kick(id wire.DeviceID) {
	if pid, err := peerID(id); err == nil {
		h.stack.swarm.ClosePeer(pid)
	}
}

// Status is what a host has to say of itself.
type Status struct {
	// Connections counts open connections, strangers' among them.
	Connections int
	// Strangers counts connections of devices without a role.
	Strangers int
	// Refused counts streams and connections that the gate refused.
	Refused uint64
	// JoinsFailed counts joins that were refused.
	JoinsFailed uint64
	// MembersConnected and Members count the others of the member list.
	MembersConnected, Members int
}

// Status returns the state of the moment.
func (h *Host) Status() Status {
	s := Status{Refused: h.gate.refused.Load(), JoinsFailed: h.joins.failed.Load()}
	for _, c := range h.stack.swarm.Conns() {
		s.Connections++
		if !h.registered(c.RemotePeer()) {
			s.Strangers++
		}
	}
	for _, id := range h.book.memberList() {
		s.Members++
		if h.Connected(id) {
			s.MembersConnected++
		}
	}
	return s
}

// role returns the registered role of a peer.
func (h *Host) role(p peer.ID) wire.Role { return h.cfg.Role(deviceID(p)) }

func (h *Host) registered(p peer.ID) bool {
	return h.role(p) > wire.Role_ROLE_UNSPECIFIED
}

func deviceID(p peer.ID) wire.DeviceID { return wire.DeviceID(p.String()) }

func peerID(id wire.DeviceID) (peer.ID, error) {
	if _, err := id.PublicKey(); err != nil {
		return "", wire.Errorf(wire.Code_CODE_INVALID, "%s", err)
	}
	return peer.Decode(string(id))
}
