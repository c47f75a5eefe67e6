package gobrowser

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/ice/v2"
	"github.com/pion/logging"
	"github.com/pion/transport/v2"
	"github.com/pion/transport/v2/stdnet"
	"github.com/pion/webrtc/v3"

	"github.com/ostrich-legs/ostrich/browserbridge"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// Browser is connected with a bridge.
type Browser struct {
	// Admitted is set when it joined with this connection.
	Admitted *wire.AdmitResponse
	// Bridges are public listeners of members.
	Bridges []string

	pc      *webrtc.PeerConnection
	network *cuttable
	once    sync.Once

	mu    sync.Mutex
	first *webrtc.DataChannel // made with the connection, not taken yet
}

// Connect connects with a bridge, joining first where need be. Its sockets are
// open then, its first channel may not be: see Open. A refusal is a *Refused.
func Connect(ctx context.Context, c Config) (*Browser, error) {
	challenge, err := c.Challenge(ctx)
	if err != nil {
		return nil, err
	}
	b, offer, err := start(c)
	if err != nil {
		return nil, err
	}
	if err := b.negotiate(ctx, c, challenge, offer); err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

// Offer returns what a browser would offer, for tests of what bridges refuse.
func Offer() (string, error) {
	b, offer, err := start(Config{})
	if err != nil {
		return "", err
	}
	b.Close()
	return offer, nil
}

// start makes a connection with its first channel, and the offer of it.
func start(c Config) (*Browser, string, error) {
	settings := webrtc.SettingEngine{LoggerFactory: &logging.DefaultLoggerFactory{
		Writer: io.Discard, DefaultLogLevel: logging.LogLevelDisabled, ScopeLevels: map[string]logging.LogLevel{}}}
	settings.DetachDataChannels()
	settings.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	settings.SetIncludeLoopbackCandidate(true)
	settings.DisableMediaEngineCopy(true)
	network, err := newCuttable()
	if err != nil {
		return nil, "", err
	}
	settings.SetNet(network)
	settings.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4, webrtc.NetworkTypeUDP6})
	if c.TCP {
		settings.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeTCP4})
	}
	pc, err := webrtc.NewAPI(webrtc.WithSettingEngine(settings)).NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		return nil, "", err
	}
	b := &Browser{pc: pc, network: network}
	offer, err := b.offer()
	if err != nil {
		b.Close()
		return nil, "", err
	}
	return b, offer, nil
}

func (b *Browser) offer() (string, error) {
	var err error
	if b.first, err = b.pc.CreateDataChannel("session", nil); err != nil {
		return "", err
	}
	offer, err := b.pc.CreateOffer(nil)
	if err != nil {
		return "", err
	}
	return offer.SDP, b.pc.SetLocalDescription(offer)
}

func (b *Browser) negotiate(ctx context.Context, c Config, challenge *wire.SignalChallenge, offer string) error {
	request, err := c.Request(challenge, offer)
	if err != nil {
		return err
	}
	response, err := c.Post(ctx, request)
	if err != nil {
		return err
	}
	if err := verify(challenge, request, response); err != nil {
		return err
	}
	b.Admitted, b.Bridges = response.GetAdmitted(), response.GetBridges()
	return b.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: response.GetAnswer()})
}

// Open opens a channel for the next session. The one before should be closed.
func (b *Browser) Open(ctx context.Context) (*browserbridge.Channel, error) {
	raw, err := b.Raw(ctx)
	if err != nil {
		return nil, err
	}
	return browserbridge.NewChannel(raw), nil
}

// Raw is Open without the bounds of a Channel, for tests that break them.
func (b *Browser) Raw(ctx context.Context) (browserbridge.DataChannel, error) {
	b.mu.Lock()
	dc := b.first
	b.first = nil
	b.mu.Unlock()
	if dc == nil {
		var err error
		if dc, err = b.pc.CreateDataChannel("session", nil); err != nil {
			return nil, fmt.Errorf("making a data channel: %w", err)
		}
	}
	return b.OpenRaw(ctx, dc)
}

// OpenRaw waits until a channel of PeerConnection is open.
func (b *Browser) OpenRaw(ctx context.Context, dc *webrtc.DataChannel) (browserbridge.DataChannel, error) {
	opened, lost := make(chan struct{}), make(chan struct{})
	var once sync.Once
	dc.OnOpen(func() { close(opened) })
	b.pc.OnConnectionStateChange(func(s webrtc.PeerConnectionState) {
		if s == webrtc.PeerConnectionStateFailed || s == webrtc.PeerConnectionStateClosed {
			once.Do(func() { close(lost) })
		}
	})
	select {
	case <-opened:
	case <-lost:
		return nil, errors.New("the connection with the bridge is lost")
	case <-ctx.Done():
		return nil, fmt.Errorf("opening a data channel: %w", ctx.Err())
	}
	detached, err := dc.Detach()
	if err != nil {
		return nil, err
	}
	raw, ok := detached.(browserbridge.DataChannel)
	if !ok {
		return nil, errors.New("the stack's channel lacks a part")
	}
	return raw, nil
}

// PeerConnection is the connection, for tests.
func (b *Browser) PeerConnection() *webrtc.PeerConnection { return b.pc }

// Vanish makes the browser say nothing more, as a phone that loses its network.
// It must still be closed.
func (b *Browser) Vanish() { b.network.cut.Store(true) }

// cuttable is this machine's network until it is cut: what is sent then is lost.
type cuttable struct {
	*stdnet.Net
	cut atomic.Bool
}

func newCuttable() (*cuttable, error) {
	network, err := stdnet.NewNet()
	if err != nil {
		return nil, err
	}
	return &cuttable{Net: network}, nil
}

// ListenUDP implements transport.Net.
func (c *cuttable) ListenUDP(network string, address *net.UDPAddr) (transport.UDPConn, error) {
	conn, err := c.Net.ListenUDP(network, address)
	if err != nil {
		return nil, err
	}
	return cuttableConn{conn, c}, nil
}

type cuttableConn struct {
	transport.UDPConn
	network *cuttable
}

func (c cuttableConn) WriteTo(b []byte, to net.Addr) (int, error) {
	if c.network.cut.Load() {
		return len(b), nil
	}
	return c.UDPConn.WriteTo(b, to)
}

// Close closes the connection, as a tab that is closed does.
func (b *Browser) Close() {
	b.once.Do(func() {
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = b.pc.GracefulClose() // what it says is that parts were closed already
		}()
		select {
		case <-done:
		case <-time.After(5 * time.Second):
		}
	})
}
