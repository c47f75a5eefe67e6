package e2e

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// mtu of the router's links, and maxDelayed how many packets it holds back at
// most: what is above is dropped, as routers do.
const (
	mtu        = 1400
	maxDelayed = 20_000
)

// rule is what becomes of packets from one machine to another. The zero rule
// passes them on.
type rule struct {
	loss      float64 // share that is dropped
	reset     float64 // share of TCP segments that become resets
	noUDP     bool
	low, high time.Duration // each is held back for a time between these
}

// cut drops everything.
var cut = rule{loss: 1}

// router is a network in user space: machines have a network namespace and a
// tun device each, and the test's process carries the packets between them, as
// well or as badly as its rules say. The product needs nothing for it.
type router struct {
	t       *testing.T
	lan     *lan
	devices []*os.File

	mu     sync.Mutex
	rules  [][]rule // from, to
	random *rand.Rand

	delayed atomic.Int64
	passed  atomic.Int64
	dropped atomic.Int64
	resets  atomic.Int64
}

// newRouter makes machines with a network between them that loses nothing yet.
func newRouter(t *testing.T, machines int, random *rand.Rand) *router {
	t.Helper()
	r := &router{t: t, random: random, lan: newSpaces(t, machines), rules: make([][]rule, machines)}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		skipDevice(t, "this needs /dev/net/tun")
	}
	var carriers sync.WaitGroup
	t.Cleanup(func() {
		for _, d := range r.devices {
			_ = d.Close()
		}
		carriers.Wait()
		t.Logf("the router has passed %d packets on, dropped %d and made %d resets", r.passed.Load(), r.dropped.Load(), r.resets.Load())
	})
	for i := range machines {
		r.rules[i] = make([]rule, machines)
		ns := r.lan.machine(i)
		r.devices = append(r.devices, openTun(t, ns))
		r.lan.ip("-n", ns, "link", "set", "lo", "up")
		r.lan.ip("-n", ns, "link", "set", "tun0", "up", "mtu", fmt.Sprint(mtu))
		r.lan.ip("-n", ns, "addr", "add", r.address(i)+"/24", "dev", "tun0")
	}
	for i := range machines {
		carriers.Go(func() { r.carry(i) })
	}
	return r
}

func (r *router) address(i int) string { return fmt.Sprintf("10.99.4.%d", 11+i) }

// openTun makes the device tun0 in a namespace. It is gone when it is closed.
func openTun(t *testing.T, ns string) *os.File {
	t.Helper()
	type opened struct {
		file *os.File
		err  error
	}
	answer := make(chan opened)
	go func() {
		// The thread has changed its namespace, and ends with this goroutine.
		runtime.LockOSThread()
		f, err := openTunHere(ns)
		answer <- opened{f, err}
	}()
	got := <-answer
	if got.err != nil {
		skipDevice(t, fmt.Sprintf("a tun device in %s: %v", ns, got.err))
	}
	return got.file
}

func openTunHere(ns string) (*os.File, error) {
	space, err := os.Open("/run/netns/" + ns)
	if err != nil {
		return nil, err
	}
	defer space.Close()
	if err := unix.Setns(int(space.Fd()), unix.CLONE_NEWNET); err != nil {
		return nil, fmt.Errorf("entering the namespace: %w", err)
	}
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	request, err := unix.NewIfreq("tun0")
	if err == nil {
		request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "tun0 in "+ns), nil
}

// carry takes the packets of a machine until its device is closed.
func (r *router) carry(from int) {
	for {
		packet := make([]byte, mtu)
		n, err := r.devices[from].Read(packet)
		if err != nil {
			return
		}
		r.route(from, packet[:n])
	}
}

// route does with a packet what the rules say.
func (r *router) route(from int, p []byte) {
	if len(p) < 20 || p[0]>>4 != 4 {
		return // IPv6 looks for routers that are not there
	}
	to := int(p[19]) - 11
	if got, _ := netip.AddrFromSlice(p[16:20]); to < 0 || to >= len(r.devices) || to == from || got.String() != r.address(to) {
		return
	}
	r.mu.Lock()
	rule, luck := r.rules[from][to], r.random.Float64()
	wait := rule.low
	if rule.high > rule.low {
		wait += time.Duration(r.random.Int64N(int64(rule.high - rule.low)))
	}
	resets := rule.reset > r.random.Float64()
	r.mu.Unlock()
	if luck < rule.loss || rule.noUDP && p[9] == unix.IPPROTO_UDP {
		r.dropped.Add(1)
		return
	}
	if resets && p[9] == unix.IPPROTO_TCP {
		p = resetOf(p)
		r.resets.Add(1)
	}
	if wait == 0 {
		r.deliver(to, p)
		return
	}
	if r.delayed.Add(1) > maxDelayed {
		r.delayed.Add(-1)
		r.dropped.Add(1)
		return
	}
	time.AfterFunc(wait, func() {
		r.delayed.Add(-1)
		r.deliver(to, p)
	})
}

// deliver hands a packet over. A device that is closed, or a machine that is
// down, takes none: so it is with networks.
func (r *router) deliver(to int, p []byte) {
	if _, err := r.devices[to].Write(p); err == nil {
		r.passed.Add(1)
	}
}

// set sets the rule from one machine to another.
func (r *router) set(from, to int, now rule) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rules[from][to] = now
}

// resetOf makes a TCP segment the reset of its connection: at its place in the
// stream, or the receiver would not believe it.
func resetOf(p []byte) []byte {
	header := int(p[0]&15) * 4
	if len(p) < header+20 {
		return p
	}
	const length = 20
	p = p[:header+length]
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	binary.BigEndian.PutUint16(p[10:], 0)
	binary.BigEndian.PutUint16(p[10:], ^sum(0, p[:header]))
	tcp := p[header:]
	tcp[12], tcp[13] = length/4<<4, 0x14 // no options; RST and ACK
	binary.BigEndian.PutUint16(tcp[16:], 0)
	pseudo := sum(uint32(unix.IPPROTO_TCP)+length, p[12:20])
	binary.BigEndian.PutUint16(tcp[16:], ^sum(uint32(pseudo), tcp))
	return p
}

// sum is the Internet's sum of an even number of bytes.
func sum(s uint32, p []byte) uint16 {
	for i := 0; i+1 < len(p); i += 2 {
		s += uint32(binary.BigEndian.Uint16(p[i:]))
	}
	for s>>16 != 0 {
		s = s&0xffff + s>>16
	}
	return uint16(s)
}
