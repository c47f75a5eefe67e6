package session_test

import (
	"context"
	"io"
	"net"
	"testing"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/ostrich-legs/ostrich/node/session/sessiontest"
	"go.uber.org/goleak"
)

func pipe(*testing.T) (a, b io.ReadWriteCloser) { return net.Pipe() }

func TestSessionsWorkOverAPipe(t *testing.T) {
	defer goleak.VerifyNone(t)
	sessiontest.Run(t, pipe)
}

func TestSessionsWorkOverLibp2pStreams(t *testing.T) {
	for name, address := range map[string]string{"tcp": "/ip4/127.0.0.1/tcp/0", "quic": "/ip4/127.0.0.1/udp/0/quic-v1"} {
		t.Run(name, func(t *testing.T) {
			h1, h2 := newHost(t, address), newHost(t, address)
			accepted := make(chan network.Stream)
			h2.SetStreamHandler("/test", func(s network.Stream) { accepted <- s })
			err := h1.Connect(t.Context(), peer.AddrInfo{ID: h2.ID(), Addrs: h2.Addrs()})
			if err != nil {
				t.Fatal(err)
			}
			sessiontest.Run(t, func(t *testing.T) (a, b io.ReadWriteCloser) {
				s, err := h1.NewStream(context.Background(), h2.ID(), "/test")
				if err != nil {
					t.Fatal(err)
				}
				// libp2p opens a stream with its first byte.
				if _, err := s.Write([]byte{0}); err != nil {
					t.Fatal(err)
				}
				other := <-accepted
				if _, err := io.ReadFull(other, make([]byte, 1)); err != nil {
					t.Fatal(err)
				}
				return s, other
			})
		})
	}
}

func newHost(t *testing.T, address string) host.Host {
	h, err := libp2p.New(libp2p.ListenAddrStrings(address), libp2p.DisableRelay())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}
