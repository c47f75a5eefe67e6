package browserbridge

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/datachannel"
	"github.com/pion/dtls/v2"
	"github.com/pion/ice/v2"
	"github.com/pion/sctp"
)

// peer is a connection with a browser: ICE, DTLS, SCTP and the channels in it,
// one over the other.
//
//	ice.Conn ─▶ dtls.Conn ─▶ guardedConn ─▶ sctp.Association ─▶ events.Channel
type peer struct {
	agent   *ice.Agent
	tcp     ice.TCPMux // nil without the fallback
	events  peerEvents
	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup
	once    sync.Once

	mu     sync.Mutex
	closed bool
	layers []io.Closer // lowest first
}

// peerEvents is what a peer tells. All may be called from any goroutine and
// must not block.
type peerEvents struct {
	// Channel brings a channel that the browser has opened.
	Channel func(DataChannel)
	// Lost says that the browser is gone without a word, or never came, or did
	// what it may not.
	Lost func(why string)
	// Closed says that the browser has closed the connection, whose channel then
	// reads io.EOF.
	Closed func()
	// Worn says that the connection has sent what one key may.
	Worn func()
}

// newPeer gathers the candidates of a peer.
func newPeer(config *ice.AgentConfig, events peerEvents) (*peer, error) {
	agent, err := ice.NewAgent(config)
	if err != nil {
		return nil, fmt.Errorf("making a connection: %w", err)
	}
	p := &peer{agent: agent, tcp: config.TCPMux, events: events}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	if err := p.gather(); err != nil {
		p.close()
		return nil, fmt.Errorf("making a connection: %w", err)
	}
	return p, nil
}

func (p *peer) gather() error {
	gathered := make(chan struct{})
	if err := p.agent.OnCandidate(func(c ice.Candidate) {
		if c == nil {
			close(gathered)
		}
	}); err != nil {
		return err
	}
	if err := p.agent.OnConnectionStateChange(func(s ice.ConnectionState) {
		if s == ice.ConnectionStateFailed {
			p.events.Lost("it answers no more")
		}
	}); err != nil {
		return err
	}
	if err := p.agent.GatherCandidates(); err != nil {
		return err
	}
	select {
	case <-gathered:
		return nil
	case <-time.After(answerLimit):
		return fmt.Errorf("this machine's addresses were not found in %v", answerLimit)
	}
}

// answer is the session description that answers o, with all candidates in it.
func (p *peer) answer(o offer, fingerprint string) (string, error) {
	ufrag, password, err := p.agent.GetLocalUserCredentials()
	if err != nil {
		return "", fmt.Errorf("answering an offer: %w", err)
	}
	candidates, err := p.agent.GetLocalCandidates()
	if err != nil {
		return "", fmt.Errorf("answering an offer: %w", err)
	}
	lines := []string{
		"v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=-", "t=0 0",
		"a=group:BUNDLE " + o.mid,
		"m=application 9 " + sdpMedia,
		"c=IN IP4 0.0.0.0",
	}
	for _, c := range candidates {
		lines = append(lines, "a=candidate:"+c.Marshal())
	}
	return strings.Join(append(lines,
		"a=end-of-candidates",
		"a=ice-ufrag:"+ufrag,
		"a=ice-pwd:"+password,
		"a=fingerprint:sha-256 "+fingerprint,
		"a=setup:active",
		"a=mid:"+o.mid,
		"a=sctp-port:5000",
		fmt.Sprintf("a=max-message-size:%d", maxMessage),
		""), "\r\n"), nil
}

// start connects with the browser that made an offer, in the background.
func (p *peer) start(o offer, config *dtls.Config) {
	p.running.Go(func() {
		defer func() {
			if r := recover(); r != nil {
				p.events.Lost(fmt.Sprintf("a panic: %v", r))
			}
		}()
		association, err := p.connect(o, config)
		if err != nil {
			p.events.Lost(err.Error())
			return
		}
		p.accept(association)
		p.events.Closed()
	})
}

// connect builds the layers up.
func (p *peer) connect(o offer, config *dtls.Config) (*sctp.Association, error) {
	ctx, cancel := context.WithTimeout(p.ctx, connectLimit)
	defer cancel()
	conn, err := p.agent.Accept(ctx, o.ufrag, o.password)
	if err != nil {
		return nil, fmt.Errorf("it did not come: %w", err)
	}
	p.dropFallback()
	secure, err := dtls.ClientWithContext(ctx, conn, config)
	if err != nil {
		return nil, fmt.Errorf("the DTLS handshake: %w", err)
	}
	if err := p.own(secure); err != nil {
		return nil, err
	}
	certificates := secure.ConnectionState().PeerCertificates
	if len(certificates) == 0 || fingerprintOf(certificates[0]) != o.fingerprint {
		return nil, errors.New("its certificate is not the one of its offer")
	}
	// What is above DTLS has no time limit of its own: the end of what it stands
	// on ends it.
	defer context.AfterFunc(ctx, func() {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			secure.Close()
		}
	})()
	association, err := sctp.Client(sctp.Config{
		NetConn: guardedConn{secure}, MaxReceiveBufferSize: receiveBuffer, LoggerFactory: silence{},
	})
	if err != nil {
		return nil, fmt.Errorf("the SCTP handshake: %w", err)
	}
	return association, p.own(association)
}

// dropFallback gives the way by TCP up once UDP gets through: it costs buffers
// and goroutines for each browser. One whose UDP fails later connects anew.
func (p *peer) dropFallback() {
	pair, err := p.agent.GetSelectedCandidatePair()
	if err != nil || pair == nil || p.tcp == nil || !pair.Local.NetworkType().IsUDP() {
		return
	}
	if ufrag, _, err := p.agent.GetLocalUserCredentials(); err == nil {
		p.tcp.RemoveConnByUfrag(ufrag)
	}
}

// own keeps a layer, to close it with the peer.
func (p *peer) own(layer io.Closer) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		layer.Close()
		return errClosed
	}
	p.layers = append(p.layers, layer)
	return nil
}

// accept tells of channels until the association ends.
func (p *peer) accept(association *sctp.Association) {
	for {
		c, err := datachannel.Accept(association, &datachannel.Config{LoggerFactory: silence{}})
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			p.events.Lost(fmt.Sprintf("it opened a channel that is none: %v", err))
			return
		}
		if c.Label != channelLabel || c.ChannelType != datachannel.ChannelTypeReliable {
			p.events.Lost("it opened a channel that is not a session's")
			return
		}
		p.events.Channel(endingChannel{c, p.agent})
	}
}

// endingChannel reads io.EOF when the browser has closed the whole connection:
// the stack makes errors of that.
type endingChannel struct {
	DataChannel
	agent *ice.Agent
}

// RoundTrip implements distant. It is that of the last ICE check, which is made
// when little else is sent: SCTP measures how long browsers put their answers off.
func (c endingChannel) RoundTrip() time.Duration {
	pair, _ := c.agent.GetSelectedCandidatePairStats()
	return time.Duration(pair.CurrentRoundTripTime * float64(time.Second))
}

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
			p.cancel()
			p.mu.Lock()
			p.closed = true
			layers := p.layers
			p.mu.Unlock()
			for i := len(layers) - 1; i >= 0; i-- {
				_ = layers[i].Close() // what it says is that it was closed already
			}
			_ = p.agent.GracefulClose()
			p.running.Wait()
		}()
		select {
		case <-done:
		case <-time.After(closeLimit):
		}
	})
}

// fingerprintOf is the SHA-256 of a certificate, as session descriptions have it.
func fingerprintOf(certificate []byte) string {
	sum := sha256.Sum256(certificate)
	return strings.ReplaceAll(fmt.Sprintf("% X", sum[:]), " ", ":")
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
