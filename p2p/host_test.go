package p2p

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const testProtocol = "/ostrich/test/1"

// echo serves testProtocol by sending back what comes.
func echo(h *Host, least wire.Role) {
	h.Handle(testProtocol, least, func(_ context.Context, s *Stream) {
		io.Copy(s, s)
		s.Close()
	})
}

// roundTrip sends a line and reads it back.
func roundTrip(s net.Conn) error {
	s.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := s.Write([]byte("hello\n")); err != nil {
		return err
	}
	got := make([]byte, 6)
	if _, err := io.ReadFull(s, got); err != nil {
		return err
	}
	if string(got) != "hello\n" {
		return errors.New("got " + string(got))
	}
	return nil
}

func TestAStreamCarriesBytesBothWaysAndKnowsWhoIsThere(t *testing.T) {
	reg := newRegistry()
	a, b := device(t, reg, wire.Role_ROLE_MEMBER), device(t, reg, wire.Role_ROLE_MEMBER)
	from := make(chan wire.DeviceID, 1)
	b.Handle(testProtocol, wire.Role_ROLE_WORKER, func(_ context.Context, s *Stream) {
		from <- s.Remote()
		io.Copy(s, s)
		s.Close()
	})
	introduce(a, b)
	s, err := a.Open(t.Context(), b.ID(), testProtocol)
	if err != nil {
		t.Fatal(err)
	}
	data := bytes.Repeat([]byte("ostrich "), 1<<18)
	go func() {
		s.Write(data)
		s.CloseWrite()
	}()
	got, err := io.ReadAll(s)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("read %d bytes, %v; want the %d sent", len(got), err, len(data))
	}
	if err := s.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if got := <-from; got != a.ID() {
		t.Errorf("the handler saw %s, want %s", got, a.ID())
	}
	if s.Remote() != b.ID() || s.RemoteAddr().String() != string(b.ID()) || s.LocalAddr().String() != string(a.ID()) {
		t.Errorf("the stream's ends are %s and %s", s.LocalAddr(), s.RemoteAddr())
	}
}

func TestAHandlerThatSpeaksFirstIsHeard(t *testing.T) {
	reg := newRegistry()
	a, b := device(t, reg, wire.Role_ROLE_MEMBER), device(t, reg, wire.Role_ROLE_MEMBER)
	b.Handle(testProtocol, wire.Role_ROLE_WORKER, func(_ context.Context, s *Stream) {
		s.Write([]byte("welcome"))
		s.Close()
	})
	introduce(a, b)
	s, err := a.Open(t.Context(), b.ID(), testProtocol)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.SetReadDeadline(time.Now().Add(10 * time.Second))
	if got, err := io.ReadAll(s); err != nil || string(got) != "welcome" {
		t.Errorf("read %q, %v; want welcome", got, err)
	}
}

func TestAProtocolIsRefusedBelowItsRole(t *testing.T) {
	for _, c := range []struct {
		role, least wire.Role
		want        wire.Code
	}{
		{wire.Role_ROLE_WORKER, wire.Role_ROLE_MEMBER, wire.Code_CODE_DENIED},
		{wire.Role_ROLE_MEMBER, wire.Role_ROLE_ADMIN, wire.Code_CODE_DENIED},
		{wire.Role_ROLE_WORKER, wire.Role_ROLE_WORKER, wire.Code_CODE_UNSPECIFIED},
		{wire.Role_ROLE_ADMIN, wire.Role_ROLE_MEMBER, wire.Code_CODE_UNSPECIFIED},
	} {
		reg := newRegistry()
		a, b := device(t, reg, c.role), device(t, reg, wire.Role_ROLE_ADMIN)
		echo(b, c.least)
		introduce(a, b)
		s, err := a.Open(t.Context(), b.ID(), testProtocol)
		if err != nil {
			t.Fatal(err)
		}
		if got := wire.CodeOf(roundTrip(s)); got != c.want {
			t.Errorf("a %v at a protocol for %v: %v, want %v", c.role, c.least, got, c.want)
		}
		s.Close()
		a.Close()
		b.Close()
	}
}

func TestAnUnknownProtocolIsNamedAsAnotherVersion(t *testing.T) {
	reg := newRegistry()
	a, b := device(t, reg, wire.Role_ROLE_MEMBER), device(t, reg, wire.Role_ROLE_MEMBER)
	introduce(a, b)
	s, err := a.Open(t.Context(), b.ID(), "/ostrich/nonesuch/9")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := roundTrip(s); wire.CodeOf(err) != wire.Code_CODE_VERSION {
		t.Errorf("error %v, want CODE_VERSION", err)
	}
}

func TestAnUnreachableDeviceIsNamedWithWhatWasTried(t *testing.T) {
	reg := newRegistry()
	a := device(t, reg, wire.Role_ROLE_MEMBER)
	gone := wire.NewDeviceID(newKey(t).Public().(ed25519.PublicKey))
	reg.set(gone, wire.Role_ROLE_MEMBER)
	_, err := a.Open(t.Context(), gone, testProtocol)
	if wire.CodeOf(err) != wire.Code_CODE_UNAVAILABLE || !strings.Contains(err.Error(), "no address") {
		t.Errorf("without an address: %v", err)
	}
	a.Learn([]*wire.Peer{{Id: string(gone), Addresses: []string{"/ip4/127.0.0.1/tcp/9"}}})
	_, err = a.Open(t.Context(), gone, testProtocol)
	if wire.CodeOf(err) != wire.Code_CODE_UNAVAILABLE || !strings.Contains(err.Error(), "127.0.0.1:9 (TCP): connection refused") {
		t.Errorf("with a dead address: %v", err)
	}
	if _, err := a.Open(t.Context(), a.ID(), testProtocol); err == nil {
		t.Error("a stream to oneself was opened")
	}
	if _, err := a.Open(t.Context(), "nobody", testProtocol); wire.CodeOf(err) != wire.Code_CODE_INVALID {
		t.Errorf("a stream to nobody: %v", err)
	}
}

func TestCloseWaitsForHandlersAndMayBeRepeated(t *testing.T) {
	reg := newRegistry()
	a, b := device(t, reg, wire.Role_ROLE_MEMBER), device(t, reg, wire.Role_ROLE_MEMBER)
	entered, left := make(chan bool, 1), make(chan bool, 1)
	b.Handle(testProtocol, wire.Role_ROLE_WORKER, func(ctx context.Context, s *Stream) {
		entered <- true
		<-ctx.Done()
		left <- true
	})
	introduce(a, b)
	s, err := a.Open(t.Context(), b.ID(), testProtocol)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Reset()
	s.Write([]byte("x"))
	<-entered
	for range 2 {
		if err := b.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	select {
	case <-left:
	default:
		t.Error("Close returned while a handler ran")
	}
	if err := b.Start(t.Context(), testSwarm); err == nil {
		t.Error("a closed host was started")
	}
}

func TestWhereAnyPortWillDoTheLastOneIsTakenIfItIsFree(t *testing.T) {
	cfg := Config{Key: newKey(t), Listen: "127.0.0.1:0"}
	open := func() *Host {
		t.Helper()
		h, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { h.Close() })
		return h
	}
	first := open()
	cfg.LastPort = first.Port()
	if other := open(); other.Port() == first.Port() || other.Port() == 0 {
		t.Errorf("a host beside that on port %d is on %d", first.Port(), other.Port())
	}
	first.Close()
	if again := open(); again.Port() != cfg.LastPort {
		t.Errorf("the port was %d, and after a restart it is %d", cfg.LastPort, again.Port())
	}
}

func TestAPortInUseIsNamedWithTheWayOut(t *testing.T) {
	reg := newRegistry()
	a := testHost(t, reg)
	_, port, _ := net.SplitHostPort(listenText(a))
	_, err := New(Config{Key: newKey(t), Listen: "127.0.0.1:" + port})
	if wire.CodeOf(err) != wire.Code_CODE_CONFLICT || !strings.Contains(err.Error(), port) || !strings.Contains(err.Error(), "--p2p") {
		t.Errorf("a second host on the same port: %v", err)
	}
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	_, err = New(Config{Key: newKey(t), Listen: udp.LocalAddr().String()})
	if wire.CodeOf(err) != wire.Code_CODE_CONFLICT || !strings.Contains(err.Error(), "QUIC") {
		t.Errorf("a host on a port whose UDP half is taken: %v", err)
	}
	_, err = New(Config{Key: newKey(t), Listen: "192.0.2.1:0"})
	if err == nil || !strings.Contains(err.Error(), "192.0.2.1") {
		t.Errorf("a host on an address of another machine: %v", err)
	}
}

// listenText returns HOST:PORT of a host's TCP half.
func listenText(h *Host) string {
	for _, a := range h.stack.swarm.ListenAddresses() {
		if isTCP(a) {
			ip, _ := ipOf(a)
			return net.JoinHostPort(ip.String(), portOf(a))
		}
	}
	return ""
}

func TestPortZeroGivesTCPAndQUICOneNumber(t *testing.T) {
	for _, listen := range []string{"127.0.0.1:0", ":0", "localhost:0"} {
		h := testHost(t, newRegistry(), func(c *Config, _ *timing) { c.Listen = listen })
		ports := map[string]int{}
		kinds := map[bool]bool{}
		for _, a := range h.stack.swarm.ListenAddresses() {
			ports[portOf(a)]++
			kinds[isTCP(a)] = true
		}
		if len(ports) != 1 || len(kinds) != 2 {
			t.Errorf("%s listens on %v", listen, h.stack.swarm.ListenAddresses())
		}
		for _, a := range h.Addresses() {
			if strings.Contains(a, "0.0.0.0") || strings.Contains(a, "/ip6/::/") || !strings.HasSuffix(a, "/p2p/"+string(h.ID())) {
				t.Errorf("%s gives others the address %s", listen, a)
			}
		}
		if len(h.Addresses()) == 0 {
			t.Errorf("%s gives others no address", listen)
		}
	}
}

func TestListenAddressesAreChecked(t *testing.T) {
	for _, c := range []struct {
		text string
		ok   bool
	}{
		{":7776", true}, {"0.0.0.0:0", true}, {"192.168.1.5:7776", true}, {"[::]:7776", true},
		{"[fd00::5]:65535", true}, {"node.lan:7776", true},
		{"", false}, {"7776", false}, {"192.168.1.5", false}, {"[::1]", false}, {"::1:7776", false},
		{"host:65536", false}, {"host:-1", false}, {"host:http", false}, {"/ip4/127.0.0.1/tcp/7776", false}, {"a b:1", false},
	} {
		if err := CheckListen(c.text); (err == nil) != c.ok {
			t.Errorf("CheckListen(%q) = %v", c.text, err)
		}
	}
}

func TestTheKeyIsMadeOnceAndKeptPrivate(t *testing.T) {
	path := inFolder(t, "key")
	first, err := LoadOrCreateKey(path)
	if err != nil {
		t.Fatal(err)
	}
	second, err := LoadOrCreateKey(path)
	if err != nil || !first.Equal(second) {
		t.Errorf("the second key differs from the first (%v)", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("the key file has mode %v", info.Mode())
	}
	if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) != 1 {
		t.Errorf("files were left beside the key: %v", entries)
	}
}

func TestADamagedKeyFileIsNamedAndLeftAlone(t *testing.T) {
	for _, content := range []string{"", "junk", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"} {
		path := inFolder(t, "key")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadOrCreateKey(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%q: error %v does not name the file", content, err)
		}
		if got, _ := os.ReadFile(path); string(got) != content {
			t.Errorf("%q was overwritten", content)
		}
	}
}

func BenchmarkRoundTrip(b *testing.B) {
	reg := newRegistry()
	x, y := device(b, reg, wire.Role_ROLE_MEMBER), device(b, reg, wire.Role_ROLE_MEMBER)
	echo(y, wire.Role_ROLE_MEMBER)
	introduce(x, y)
	s, err := x.Open(b.Context(), y.ID(), testProtocol)
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	for b.Loop() {
		if err := roundTrip(s); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpenAndRoundTrip(b *testing.B) {
	reg := newRegistry()
	x, y := device(b, reg, wire.Role_ROLE_MEMBER), device(b, reg, wire.Role_ROLE_MEMBER)
	echo(y, wire.Role_ROLE_MEMBER)
	introduce(x, y)
	for b.Loop() {
		s, err := x.Open(b.Context(), y.ID(), testProtocol)
		if err == nil {
			err = roundTrip(s)
		}
		if err != nil {
			b.Fatal(err)
		}
		s.Close()
	}
}
