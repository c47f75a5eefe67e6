package browserbridge_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ostrich-legs/ostrich/browserbridge"
	"github.com/ostrich-legs/ostrich/browserbridge/gobrowser"
	"github.com/ostrich-legs/ostrich/node/session/sessiontest"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

func TestSessionsWorkOverABridge(t *testing.T) {
	for name, tcp := range map[string]bool{"udp": false, "tcp": true} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t)
			sessiontest.Run(t, func(t *testing.T) (a, b io.ReadWriteCloser) {
				key := testKey(t.Name())
				h.belongs(key, wire.Role_ROLE_WORKER)
				browser, err := gobrowser.Connect(within(t), gobrowser.Config{URL: h.url, Key: key, TCP: tcp})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(browser.Close)
				return h.session(t, browser)
			})
		})
	}
}

func TestBytesPassUnchangedBothWaysAtOnce(t *testing.T) {
	h := newHarness(t)
	channel, stream := h.session(t, h.connect(t, "browser"))
	data := make([]byte, 8<<20)
	rand.Read(data)
	var all sync.WaitGroup
	defer all.Wait()
	for _, way := range []struct {
		name     string
		from, to io.ReadWriter
	}{{"up", channel, stream}, {"down", stream, channel}} {
		all.Go(func() {
			if _, err := way.from.Write(data); err != nil {
				t.Errorf("%s: writing: %v", way.name, err)
			}
		})
		all.Go(func() {
			got := make([]byte, len(data))
			if _, err := io.ReadFull(way.to, got); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%s: the bytes differ, or %v", way.name, err)
			}
		})
	}
}

func TestAChannelThatTheBrowserClosesIsACleanEnd(t *testing.T) {
	h := newHarness(t)
	channel, stream := h.session(t, h.connect(t, "browser"))
	if _, err := channel.Write([]byte("last words")); err != nil {
		t.Fatal(err)
	}
	channel.Close()
	got, err := io.ReadAll(stream)
	if string(got) != "last words" || err != nil {
		t.Errorf("the coordinator reads %q, %v; want the last words and a clean end", got, err)
	}
}

func TestAClosedTabIsACleanEnd(t *testing.T) {
	h := newHarness(t)
	browser := h.connect(t, "browser")
	_, stream := h.session(t, browser)
	go browser.Close()
	if got, err := io.ReadAll(stream); len(got) != 0 || err != nil {
		t.Errorf("the coordinator reads %q, %v; want a clean end", got, err)
	}
	eventually(t, "the connection is forgotten", func() bool { return h.Status() == (browserbridge.Status{}) })
}

func TestTheNextSessionNeedsNoNewConnection(t *testing.T) {
	h := newHarness(t)
	browser := h.connect(t, "browser")
	for i := range 5 {
		channel, stream := h.session(t, browser)
		if _, err := stream.Write([]byte("the end")); err != nil {
			t.Fatal(err)
		}
		stream.Close() // the coordinator dies
		if got, err := io.ReadAll(channel); string(got) != "the end" || err != nil {
			t.Fatalf("session %d: the browser reads %q, %v; want all that was said and a clean end", i, got, err)
		}
		channel.Close()
	}
	if got := h.Status().Browsers; got != 1 {
		t.Errorf("%d connections, want the one", got)
	}
}

func TestAChannelWaitsForACoordinator(t *testing.T) {
	h := newHarness(t)
	h.mu.Lock()
	h.dialErr = errors.New("no coordinator is known yet")
	h.mu.Unlock()
	browser := h.connect(t, "browser")
	channel, err := browser.Open(within(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := channel.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	h.mu.Lock()
	h.dialErr = nil
	h.mu.Unlock()
	got := make([]byte, 5)
	if _, err := io.ReadFull(h.stream(t), got); err != nil || string(got) != "hello" {
		t.Errorf("the coordinator reads %q, %v", got, err)
	}
}

func TestWithoutACoordinatorTheChannelCloses(t *testing.T) {
	h := newHarness(t)
	h.Shorten(browserbridge.Timing{Dial: 50 * time.Millisecond})
	h.mu.Lock()
	h.dialErr = errors.New("no coordinator is known yet")
	h.mu.Unlock()
	channel, err := h.connect(t, "browser").Open(within(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := channel.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the browser reads %v, want the channel's end", err)
	}
}

func TestABrowserThatVanishesIsABrokenLink(t *testing.T) {
	h := newHarness(t)
	browser := h.connect(t, "browser")
	channel, stream := h.session(t, browser)
	channel.Write([]byte("x"))
	browser.Vanish()
	read := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, stream)
		read <- err
	}()
	select {
	case err := <-read:
		if err == nil {
			t.Error("the coordinator takes it for a goodbye")
		}
	case <-time.After(30 * time.Second):
		t.Error("not noticed within 30 s")
	}
	eventually(t, "the connection is forgotten", func() bool { return h.Status() == (browserbridge.Status{}) })
}

func TestSessionsWorkOverIPv6(t *testing.T) {
	listener, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Skipf("this machine has no IPv6: %v", err)
	}
	h := newHarnessAt(t, listener)
	channel, stream := h.session(t, h.connect(t, "browser"))
	if _, err := channel.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(stream, make([]byte, 1)); err != nil {
		t.Error(err)
	}
	for _, socket := range h.inside.Sockets() {
		if !socket.Addr().Is6() {
			t.Errorf("a socket at %s, where the listener has an IPv6 address", socket)
		}
	}
}

func TestBrowsersUseThePublicPortOfTheAddressTheyCameTo(t *testing.T) {
	h := newHarness(t, func(c *browserbridge.Config) {
		c.Address = netip.AddrPortFrom(netip.IPv4Unspecified(), c.Address.Port())
	})
	if got := h.inside.Sockets(); len(got) != 0 {
		t.Errorf("before a browser comes there are the sockets %v", got)
	}
	h.session(t, h.connect(t, "browser"))
	want, err := netip.ParseAddrPort(strings.TrimPrefix(h.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	if got := h.inside.Sockets(); !slices.Contains(got, want) || len(got) > 2 {
		t.Errorf("the sockets are %v, want %v and at most one more", got, want)
	}
}

func TestAPortThatIsTakenIsReplacedAndSaidSo(t *testing.T) {
	said := &sayings{}
	var taken net.PacketConn
	h := newHarness(t, func(c *browserbridge.Config) {
		c.Log = slog.New(slog.NewTextHandler(said, nil))
		var err error
		if taken, err = net.ListenPacket("udp", c.Address.String()); err != nil {
			t.Fatal(err)
		}
	})
	defer taken.Close()
	h.session(t, h.connect(t, "browser"))
	eventually(t, "people are told", func() bool { return said.has("is taken") })
}

func TestABrowserWithUDPCostsNoFallback(t *testing.T) {
	for _, way := range []struct {
		name string
		tcp  bool
		want int
	}{{"UDP", false, 0}, {"TCP alone", true, 1}} {
		t.Run(way.name, func(t *testing.T) {
			h := newHarness(t)
			key := testKey("browser")
			h.belongs(key, wire.Role_ROLE_WORKER)
			browser, err := gobrowser.Connect(within(t), gobrowser.Config{URL: h.url, Key: key, TCP: way.tcp})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(browser.Close)
			h.session(t, browser)
			eventually(t, "the fallback is there for those alone who need it", func() bool {
				stacks := make([]byte, 1<<20)
				stacks = stacks[:runtime.Stack(stacks, true)]
				return bytes.Count(stacks, []byte("tcpPacketConn).ReadFrom(")) == way.want
			})
		})
	}
}

func TestAGoodbyeWaitsForWhatWasSentBeforeIt(t *testing.T) {
	h := newHarness(t)
	browser := h.connect(t, "browser")
	channel, stream := h.session(t, browser)
	const size = 200 << 10
	if _, err := channel.Write(make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	first := make([]byte, 1)
	if _, err := io.ReadFull(stream, first); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all of it has left the browser", func() bool { return channel.Queued() == 0 })
	channel.Close()
	browser.Close()
	time.Sleep(100 * time.Millisecond) // in which a bridge that does not wait would give up
	if rest, err := io.ReadAll(stream); len(rest) != size-1 || err != nil {
		t.Errorf("the coordinator gets %d bytes more and %v, want %d and a clean end", len(rest), err, size-1)
	}
}

func TestSessionsOfAConnectionComeOneAfterTheOther(t *testing.T) {
	h := newHarness(t)
	browser := h.connect(t, "browser")
	first, stream := h.session(t, browser)
	if _, err := first.Write(make([]byte, 64<<10)); err != nil {
		t.Fatal(err)
	}
	first.Close()
	second, err := browser.Open(within(t))
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	select {
	case <-h.streams:
		t.Error("the second session begins before the coordinator has all of the first")
	case <-time.After(300 * time.Millisecond):
	}
	if _, err := io.Copy(io.Discard, stream); err != nil {
		t.Errorf("the first ends with %v, want in good order", err)
	}
	h.stream(t)
}
