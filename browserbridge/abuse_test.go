package browserbridge_test

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/pion/webrtc/v3"

	"github.com/ostrich-legs/ostrich/browserbridge"
	"github.com/ostrich-legs/ostrich/browserbridge/gobrowser"
)

// gone waits until the bridge has let go of all browsers.
func (h *harness) gone(t *testing.T) {
	t.Helper()
	eventually(t, "the browser is dropped", func() bool { s := h.Status(); return s.Browsers+s.Handshakes == 0 })
}

// raw opens the browser's channel without the bounds of a Channel.
func raw(t *testing.T, b *gobrowser.Browser, label string, init *webrtc.DataChannelInit) browserbridge.DataChannel {
	t.Helper()
	dc, err := b.PeerConnection().CreateDataChannel(label, init)
	if err != nil {
		t.Fatal(err)
	}
	channel, err := b.OpenRaw(within(t), dc)
	if err != nil {
		t.Fatal(err)
	}
	return channel
}

func TestABrowserThatNeverReadsIsDropped(t *testing.T) {
	h := newHarness(t)
	h.Shorten(browserbridge.Timing{Drain: 300 * time.Millisecond})
	_, stream := h.session(t, h.connect(t, "browser"))
	_, other := h.session(t, h.connect(t, "another"))
	accepted, block := 0, make([]byte, 64<<10)
	for {
		n, err := stream.Write(block)
		if accepted += n; err != nil {
			break
		}
		if accepted > 16<<20 {
			t.Fatal("the bridge takes data without end")
		}
	}
	// What the browser's own stack buffers, the bridge's queue, and what is
	// between.
	if limit := 1<<20 + 1<<20 + 512<<10; accepted > limit {
		t.Errorf("the bridge took %d bytes for it, want at most %d", accepted, limit)
	}
	eventually(t, "it is dropped, and nobody else", func() bool { s := h.Status(); return s.Browsers == 1 && s.Refused == 1 })
	if _, err := other.Write([]byte("x")); err != nil {
		t.Errorf("another browser: %v", err)
	}
}

func TestACoordinatorThatNeverReadsHoldsTheBrowserBack(t *testing.T) {
	h := newHarness(t)
	channel, stream := h.session(t, h.connect(t, "browser"))
	channel.SetDrain(300 * time.Millisecond)
	sent, block := 0, make([]byte, 64<<10)
	var err error
	for err == nil && sent < 16<<20 {
		var n int
		n, err = channel.Write(block)
		sent += n
	}
	if !errors.Is(err, browserbridge.ErrNotDraining) || sent > 1<<20+512<<10 {
		t.Errorf("the browser sent %d bytes, %v; want it to be held back after its own queue and 512 KiB", sent, err)
	}
	channel.SetDrain(30 * time.Second) // its stack looks for room after a second
	go io.Copy(io.Discard, stream)
	if _, err := channel.Write(block); err != nil {
		t.Errorf("when the coordinator reads again: %v", err)
	}
}

func TestMessagesOfASessionAreBinaryAndBounded(t *testing.T) {
	for _, tt := range []struct {
		what string
		send func(browserbridge.DataChannel) error
		kept bool
	}{
		{"64 KiB", func(c browserbridge.DataChannel) error { _, err := c.Write(make([]byte, 64<<10)); return err }, true},
		{"nothing", func(c browserbridge.DataChannel) error {
			c.Write(nil)
			_, err := c.Write(make([]byte, 64<<10))
			return err
		}, true},
		{"text", func(c browserbridge.DataChannel) error {
			_, err := c.(interface {
				WriteDataChannel([]byte, bool) (int, error)
			}).WriteDataChannel([]byte("hello"), true)
			return err
		}, false},
	} {
		t.Run(tt.what, func(t *testing.T) {
			h := newHarness(t)
			browser := h.connect(t, "browser")
			channel, err := browser.Raw(within(t))
			if err != nil {
				t.Fatal(err)
			}
			stream := h.stream(t)
			if err := tt.send(channel); err != nil {
				t.Fatal(err)
			}
			_, err = io.ReadFull(stream, make([]byte, 64<<10))
			if kept := err == nil; kept != tt.kept {
				t.Errorf("the coordinator reads %v", err)
			}
			if !tt.kept {
				h.gone(t)
			}
		})
	}
}

func TestOtherChannelsEndTheConnection(t *testing.T) {
	no, none := false, uint16(0)
	for _, tt := range []struct {
		what, label string
		init        *webrtc.DataChannelInit
	}{
		{"of another label", "chat", nil},
		{"out of order", "session", &webrtc.DataChannelInit{Ordered: &no}},
		{"that loses messages", "session", &webrtc.DataChannelInit{MaxRetransmits: &none}},
	} {
		t.Run(tt.what, func(t *testing.T) {
			h := newHarness(t)
			browser := h.connect(t, "browser")
			h.session(t, browser)
			raw(t, browser, tt.label, tt.init)
			h.gone(t)
		})
	}
}

func TestOneChannelAfterAnotherIsBounded(t *testing.T) {
	h := newHarness(t)
	browser := h.connect(t, "browser")
	opened := 0
	for ; opened < 100; opened++ {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		channel, err := browser.Open(ctx)
		cancel()
		if err != nil {
			break
		}
		select {
		case s := <-h.streams:
			s.Close()
		case <-time.After(100 * time.Millisecond):
		}
		channel.Close()
		if s := h.Status(); s.Browsers == 0 {
			break
		}
	}
	if opened == 100 {
		t.Error("it opened a hundred channels in a moment")
	}
	h.gone(t)
}

func TestAConnectionWithoutAChannelEnds(t *testing.T) {
	h := newHarness(t)
	h.Shorten(browserbridge.Timing{Idle: 50 * time.Millisecond})
	channel, stream := h.session(t, h.connect(t, "browser"))
	stream.Close()
	io.Copy(io.Discard, channel)
	h.gone(t)
}

func TestAKeyIsUsedForSoManyRecordsAndNoMore(t *testing.T) {
	h := newHarness(t)
	h.SetMaxRecords(200)
	channel, stream := h.session(t, h.connect(t, "browser"))
	go io.Copy(io.Discard, channel)
	block, sent := make([]byte, 16<<10), 0
	for {
		n, err := stream.Write(block)
		if sent += n; err != nil {
			break
		}
		if sent > 16<<20 {
			t.Fatal("the connection goes on")
		}
	}
	if _, err := stream.Read(block); err == io.EOF {
		t.Error("the coordinator takes it for a goodbye, and the leases are lost")
	}
	h.gone(t)
	h.SetMaxRecords(1 << 19)
	h.session(t, h.connect(t, "browser")) // it may come again at once
}

func TestAnOldConnectionIsRenewed(t *testing.T) {
	h := newHarness(t)
	h.Shorten(browserbridge.Timing{Age: 100 * time.Millisecond})
	h.session(t, h.connect(t, "browser"))
	h.gone(t)
}

func TestABridgeThatStopsBreaksItsSessionsOff(t *testing.T) {
	h := newHarness(t)
	_, stream := h.session(t, h.connect(t, "browser"))
	closed := make(chan struct{})
	go func() { h.Close(); close(closed) }()
	if _, err := io.Copy(io.Discard, stream); err == nil {
		t.Error("the coordinator takes it for a goodbye, and the leases are lost")
	}
	<-closed
	h.Close()
	c := gobrowser.Config{URL: h.url, Key: testKey("browser")}
	if _, err := gobrowser.Connect(within(t), c); err == nil {
		t.Error("it takes browsers still")
	}
}

func TestRubbishAtTheSocketsHarmsNobody(t *testing.T) {
	h := newHarness(t)
	channel, stream := h.session(t, h.connect(t, "browser"))
	rubbish := [][]byte{{}, {0}, make([]byte, 20), make([]byte, 60_000)}
	for range 200 {
		b := make([]byte, 64)
		rand.Read(b)
		b[0] &= 0x3f
		rubbish = append(rubbish, b)
	}
	for _, address := range h.inside.Sockets() {
		conn, err := net.Dial("udp", address.String())
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range rubbish {
			conn.Write(b) // one that is too large for this system is not sent
		}
		conn.Close()
	}
	for _, b := range rubbish {
		conn, err := net.Dial("tcp", h.inside.Fallback().String())
		if err != nil {
			t.Fatal(err)
		}
		conn.Write(append([]byte{0, byte(len(b))}, b...))
		conn.Close()
	}
	if _, err := channel.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(stream, make([]byte, 1)); err != nil {
		t.Errorf("the browser's session: %v", err)
	}
}
