package browserbridge

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/ice/v2"
	"github.com/pion/sctp"
	"github.com/pion/transport/v2"
	"github.com/pion/transport/v2/stdnet"
	"github.com/pion/webrtc/v3"
)

// This file, and stackmux.go beside it, is all that knows which WebRTC stack
// there is: another version takes its place by providing stack and peer.

const (
	// maxMessage bounds a message of a data channel that is accepted.
	maxMessage = 64 << 10
	// receiveBuffer bounds what the stack holds of a browser that sends faster
	// than the coordinator takes.
	receiveBuffer = 256 << 10
	// A browser is suspected after iceSuspect without a sign of life, and gone
	// after iceGone more. Measured: fewer than four keepalives in either flap
	// under load.
	iceSuspect   = 2 * time.Second
	iceGone      = 4 * time.Second
	iceKeepAlive = 500 * time.Millisecond
	// answerLimit bounds the making of an answer, and dtlsLimit the DTLS
	// handshake.
	answerLimit = 3 * time.Second
	dtlsLimit   = 10 * time.Second
	// closeLimit bounds how long the end of a connection is waited for.
	closeLimit = 5 * time.Second
	// certificateLife is how long a certificate is used; the stack makes them
	// valid for a month.
	certificateLife = 7 * 24 * time.Hour
	// interfacesLife is how long a list of this machine's interfaces is used.
	interfacesLife = 5 * time.Second
	// maxRecords is how many DTLS records are sent under one key. Their AES-GCM
	// nonces are 64 random bits (CVE-2026-26014): two are equal among so many
	// with a chance of 1 in 2^27.
	maxRecords = 1 << 19
	// maxAge bounds a connection in time, whatever it sends.
	maxAge = 24 * time.Hour
)

// stackConfig says where a stack listens.
type stackConfig struct {
	// address is the public listener's: its port is the UDP port, and when its
	// host is one address, no other is used.
	address netip.AddrPort
	// records bounds the records sent under one key.
	records uint64
	// warn tells a person that a port was not to be had.
	warn func(string)
}

// stack answers offers. Sockets are opened when the first offer needs them.
type stack struct {
	cfg stackConfig

	mu       sync.Mutex
	udp      map[netip.Addr]*ice.UDPMuxDefault
	tcp      *ice.TCPMuxDefault // nil when there is no port for it
	tcpTried bool
	cert     *webrtc.Certificate
	madeAt   time.Time
	net      transport.Net // this machine's interfaces, as they were at netAt
	netAt    time.Time
	closed   bool
}

func newStack(cfg stackConfig) *stack {
	return &stack{cfg: cfg, udp: make(map[netip.Addr]*ice.UDPMuxDefault)}
}

// peer is a connection with a browser.
type peer struct {
	pc      *webrtc.PeerConnection
	traffic *traffic
	once    sync.Once
}

// peerEvents is what a peer tells. All may be called from any goroutine and
// must not block.
type peerEvents struct {
	// Channel brings a channel that the browser has opened.
	Channel func(DataChannel)
	// Lost says that the browser is gone without a word, or never came.
	Lost func(why string)
	// Closed says that the browser has closed the connection, whose channel then
	// reads io.EOF.
	Closed func()
	// Worn says that the connection has sent what one key may.
	Worn func()
}

// accept answers an offer that reached the node at its address local. The peer
// must be closed.
func (s *stack) accept(o offer, local netip.Addr, events peerEvents) (*peer, string, error) {
	t := &traffic{limit: s.cfg.records, worn: events.Worn}
	api, certificate, err := s.api(local, t)
	if err != nil {
		return nil, "", err
	}
	pc, err := api.NewPeerConnection(webrtc.Configuration{Certificates: []webrtc.Certificate{certificate}})
	if err != nil {
		return nil, "", fmt.Errorf("making a connection: %w", err)
	}
	p := &peer{pc: pc, traffic: t}
	p.listen(events)
	answer, err := p.answer(o)
	if err != nil {
		p.close()
		return nil, "", err
	}
	return p, answer, nil
}

// api returns the stack's settings for one peer, whose sent records t counts.
func (s *stack) api(local netip.Addr, t *traffic) (*webrtc.API, webrtc.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, webrtc.Certificate{}, errClosed
	}
	addresses := s.addresses(local)
	mux, err := s.openUDP(addresses, t)
	if err != nil {
		return nil, webrtc.Certificate{}, err
	}
	s.openTCP()
	if err := s.refresh(time.Now()); err != nil {
		return nil, webrtc.Certificate{}, err
	}
	settings := webrtc.SettingEngine{LoggerFactory: silence{}}
	settings.DetachDataChannels()
	settings.DisableMediaEngineCopy(true)
	settings.DisableActiveTCP(true)
	settings.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	settings.SetICETimeouts(iceSuspect, iceGone, iceKeepAlive)
	settings.SetIncludeLoopbackCandidate(true)
	settings.SetNet(s.net)
	settings.SetSCTPMaxReceiveBufferSize(receiveBuffer)
	settings.SetDTLSConnectContextMaker(func() (context.Context, func()) {
		return context.WithTimeout(context.Background(), dtlsLimit)
	})
	settings.SetICEUDPMux(mux)
	types := []webrtc.NetworkType{webrtc.NetworkTypeUDP4, webrtc.NetworkTypeUDP6}
	if s.tcp != nil {
		types = append(types, webrtc.NetworkTypeTCP4, webrtc.NetworkTypeTCP6)
		settings.SetICETCPMux(peerTCP{s.tcp, t})
		settings.SetIPFilter(func(ip net.IP) bool {
			a, ok := netip.AddrFromSlice(ip)
			return ok && a.Unmap() == addresses[0]
		})
	}
	settings.SetNetworkTypes(types)
	return webrtc.NewAPI(webrtc.WithSettingEngine(settings)), *s.cert, nil
}

// refresh makes anew what all peers share and has got old.
func (s *stack) refresh(now time.Time) error {
	if s.net == nil || now.Sub(s.netAt) > interfacesLife {
		network, err := stdnet.NewNet()
		if err != nil {
			return fmt.Errorf("this machine's interfaces: %w", err)
		}
		s.net, s.netAt = network, now
	}
	return s.certify(now)
}

// certify makes the certificate that all peers share, anew when it gets old.
func (s *stack) certify(now time.Time) error {
	if s.cert != nil && now.Sub(s.madeAt) < certificateLife {
		return nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("making a key for browsers: %w", err)
	}
	s.cert, err = webrtc.GenerateCertificate(key)
	if err != nil {
		return fmt.Errorf("making a certificate for browsers: %w", err)
	}
	s.madeAt = now
	return nil
}

// answer makes the answer with all candidates in it.
func (p *peer) answer(o offer) (string, error) {
	if err := p.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: o.text()}); err != nil {
		return "", badOffer("%v", err)
	}
	answer, err := p.pc.CreateAnswer(nil)
	if err != nil {
		return "", badOffer("%v", err)
	}
	gathered := webrtc.GatheringCompletePromise(p.pc)
	if err := p.pc.SetLocalDescription(answer); err != nil {
		return "", fmt.Errorf("answering an offer: %w", err)
	}
	select {
	case <-gathered:
	case <-time.After(answerLimit):
		return "", fmt.Errorf("answering an offer: this machine's addresses were not found in %v", answerLimit)
	}
	// The section of the data channel is the last, and the stack does not say
	// what it takes.
	return fmt.Sprintf("%sa=max-message-size:%d\r\n", p.pc.LocalDescription().SDP, maxMessage), nil
}

// listen passes on what the stack tells.
func (p *peer) listen(events peerEvents) {
	p.pc.OnConnectionStateChange(func(state webrtc.PeerConnectionState) {
		// One that the browser closes ends its channel first, in good order.
		if state == webrtc.PeerConnectionStateFailed {
			events.Lost("it answers no more")
		}
	})
	p.pc.OnDataChannel(func(c *webrtc.DataChannel) {
		if c.Label() != channelLabel || !c.Ordered() || c.MaxRetransmits() != nil || c.MaxPacketLifeTime() != nil {
			events.Lost("it opened a channel that is not a session's")
			return
		}
		c.OnOpen(func() {
			detached, err := c.Detach()
			if err != nil {
				events.Lost(err.Error())
				return
			}
			raw, ok := detached.(DataChannel)
			if !ok {
				events.Lost("the stack's channel lacks a part")
				return
			}
			events.Channel(endingChannel{raw})
		})
	})
	p.pc.SCTP().OnClose(func(error) { events.Closed() })
}

// endingChannel reads io.EOF when the browser has closed the whole connection:
// the stack makes errors of that.
type endingChannel struct{ DataChannel }

func (c endingChannel) ReadDataChannel(b []byte) (int, bool, error) {
	n, text, err := c.DataChannel.ReadDataChannel(b)
	if errors.Is(err, sctp.ErrResetPacketInStateNotExist) || errors.Is(err, sctp.ErrChunk) {
		err = io.EOF
	}
	return n, text, err
}

// close ends the connection and waits, for a bounded time, until nothing of it
// runs. It may be called more than once.
func (p *peer) close() {
	p.once.Do(func() {
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = p.pc.GracefulClose() // what it says is that parts were closed already
		}()
		select {
		case <-done:
		case <-time.After(closeLimit):
		}
	})
}

// close ends what all peers share. Peers are closed before.
func (s *stack) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, mux := range s.udp {
		_ = mux.Close() // it says nothing of use
	}
	if s.tcp != nil {
		_ = s.tcp.Close()
	}
}

// addresses returns where a browser that came to local may find the node: there,
// and at one more address: of the same interface, or, for a browser on this very
// machine, one that others use, since browsers avoid loopback. Each costs buffers
// for each browser, so they are few.
func (s *stack) addresses(local netip.Addr) []netip.Addr {
	const few = 2
	local = local.Unmap()
	if host := s.cfg.address.Addr().Unmap(); host.IsValid() && !host.IsUnspecified() {
		return []netip.Addr{host.WithZone("")}
	}
	all := []netip.Addr{local}
	var far []netip.Addr
	interfaces, _ := net.Interfaces() // without the list the one address has to do
	for _, i := range interfaces {
		here := interfaceAddresses(i)
		switch {
		case i.Flags&net.FlagUp == 0 || i.Flags&net.FlagLoopback != 0:
		case slices.Contains(here, local):
			all = append(all, here...)
		default:
			far = append(far, here...)
		}
	}
	if local.IsLoopback() || local.IsLinkLocalUnicast() {
		all = append(all, far...)
	}
	var chosen []netip.Addr
	for _, a := range all {
		if !a.IsLinkLocalUnicast() && !slices.Contains(chosen, a) && len(chosen) < few {
			chosen = append(chosen, a)
		}
	}
	return chosen
}

func interfaceAddresses(i net.Interface) (all []netip.Addr) {
	list, _ := i.Addrs()
	for _, a := range list {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok {
				ip = ip.Unmap()
				if ip.IsLinkLocalUnicast() {
					ip = ip.WithZone(i.Name)
				}
				all = append(all, ip)
			}
		}
	}
	return all
}

// traffic counts the DTLS records that are sent to a peer.
type traffic struct {
	limit   uint64
	worn    func()
	records atomic.Uint64
}

// sent takes note of a datagram.
func (t *traffic) sent(b []byte) {
	if len(b) > 0 && b[0] >= 20 && b[0] <= 63 && t.records.Add(1) == t.limit {
		t.worn()
	}
}
