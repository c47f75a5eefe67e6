package browserbridge

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/pion/dtls/v2"
	"github.com/pion/ice/v2"
	"github.com/pion/transport/v2"
	"github.com/pion/transport/v2/stdnet"
)

// This file, and peer.go and stackmux.go beside it, are all that know which WebRTC
// stack there is: another version takes its place by providing stack and peer.
// The stack's parts are put together here, and not by its own PeerConnection, so
// that what DTLS has decrypted can be looked at before SCTP is.

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
	// answerLimit bounds the making of an answer, and connectLimit all handshakes.
	answerLimit  = 3 * time.Second
	connectLimit = handshakeLimit
	// closeLimit bounds how long the end of a connection is waited for.
	closeLimit = 5 * time.Second
	// certificateLife is how long a certificate is used.
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
	cert     *tls.Certificate
	madeAt   time.Time
	net      transport.Net // this machine's interfaces, as they were at netAt
	netAt    time.Time
	closed   bool
}

func newStack(cfg stackConfig) *stack {
	return &stack{cfg: cfg, udp: make(map[netip.Addr]*ice.UDPMuxDefault)}
}

// accept answers an offer that reached the node at its address local. The peer
// must be closed.
func (s *stack) accept(o offer, local netip.Addr, events peerEvents) (*peer, string, error) {
	config, certificate, err := s.settings(local, &traffic{limit: s.cfg.records, worn: events.Worn})
	if err != nil {
		return nil, "", err
	}
	p, err := newPeer(config, events)
	if err != nil {
		return nil, "", err
	}
	answer, err := p.answer(o, fingerprintOf(certificate.Certificate[0]))
	if err != nil {
		p.close()
		return nil, "", err
	}
	p.start(o, &dtls.Config{
		Certificates: []tls.Certificate{certificate},
		// The fingerprint in the offer says which certificate is the browser's.
		InsecureSkipVerify: true,
		// Nothing is sent by SRTP, but some browsers want its keys negotiated.
		SRTPProtectionProfiles: []dtls.SRTPProtectionProfile{dtls.SRTP_AEAD_AES_128_GCM, dtls.SRTP_AES128_CM_HMAC_SHA1_80},
		LoggerFactory:          silence{},
	})
	return p, answer, nil
}

// settings returns those of one peer, whose sent records t counts, and the
// certificate that all share.
func (s *stack) settings(local netip.Addr, t *traffic) (*ice.AgentConfig, tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, tls.Certificate{}, errClosed
	}
	addresses := s.addresses(local)
	mux, err := s.openUDP(addresses, t)
	if err != nil {
		return nil, tls.Certificate{}, err
	}
	s.openTCP()
	if err := s.refresh(time.Now()); err != nil {
		return nil, tls.Certificate{}, err
	}
	suspect, gone, keepAlive := iceSuspect, iceGone, iceKeepAlive
	config := &ice.AgentConfig{
		MulticastDNSMode:    ice.MulticastDNSModeDisabled,
		CandidateTypes:      []ice.CandidateType{ice.CandidateTypeHost},
		NetworkTypes:        []ice.NetworkType{ice.NetworkTypeUDP4, ice.NetworkTypeUDP6},
		DisconnectedTimeout: &suspect,
		FailedTimeout:       &gone,
		KeepaliveInterval:   &keepAlive,
		LoggerFactory:       silence{},
		Net:                 s.net,
		UDPMux:              mux,
		IncludeLoopback:     true,
		DisableActiveTCP:    true,
	}
	if s.tcp != nil {
		config.NetworkTypes = append(config.NetworkTypes, ice.NetworkTypeTCP4, ice.NetworkTypeTCP6)
		config.TCPMux = peerTCP{s.tcp, t}
		config.IPFilter = func(ip net.IP) bool {
			a, ok := netip.AddrFromSlice(ip)
			return ok && a.Unmap() == addresses[0]
		}
	}
	return config, *s.cert, nil
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
	serial := make([]byte, 16)
	rand.Read(serial)
	template := &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(serial), Subject: pkix.Name{CommonName: "ostrich"},
		NotBefore: now.Add(-24 * time.Hour), NotAfter: now.Add(2 * certificateLife),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return fmt.Errorf("making a certificate for browsers: %w", err)
	}
	s.cert, s.madeAt = &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, now
	return nil
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
