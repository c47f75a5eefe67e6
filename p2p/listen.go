package p2p

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// DefaultListen is where a node listens unless told otherwise: every address,
// TCP and QUIC on the same number.
const DefaultListen = ":7776"

// freePortTries bounds the search for a number that is free for both TCP and
// UDP.
const freePortTries = 20

// listenPlan is a HOST:PORT, resolved.
type listenPlan struct {
	text string
	ips  []netip.Addr
	port uint16
}

// CheckListen reports why s cannot be the HOST:PORT of Config.Listen. It looks
// at the form only: host names are resolved by New.
func CheckListen(s string) error {
	_, _, err := splitListen(s)
	return err
}

func splitListen(s string) (host string, port uint16, err error) {
	host, portText, err := net.SplitHostPort(s)
	if err != nil {
		return "", 0, wire.Errorf(wire.Code_CODE_INVALID,
			"%q is not HOST:PORT: write it like 192.168.1.5:7776, [fd00::5]:7776 or :7776", s)
	}
	n, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return "", 0, wire.Errorf(wire.Code_CODE_INVALID,
			"%q has no port: it is a number from 0 (any free port) to 65535", s)
	}
	if strings.ContainsAny(host, "/ %@") {
		return "", 0, wire.Errorf(wire.Code_CODE_INVALID, "%q has no host: it is an IP address, a host name or nothing", s)
	}
	return host, uint16(n), nil
}

func resolveListen(s string) (listenPlan, error) {
	host, port, err := splitListen(s)
	if err != nil {
		return listenPlan{}, err
	}
	plan := listenPlan{text: s, port: port}
	if host == "" {
		plan.ips = []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
		return plan, nil
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		plan.ips = []netip.Addr{ip.Unmap()}
		return plan, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return listenPlan{}, wire.Errorf(wire.Code_CODE_INVALID, "cannot listen on %s: %v; give an IP address of this machine with --p2p", s, err)
	}
	for _, ip := range ips {
		if ip = ip.Unmap(); ip.Zone() == "" && !slices.Contains(plan.ips, ip) {
			plan.ips = append(plan.ips, ip)
		}
	}
	return plan, nil
}

// everywhere reports whether the plan is the one of an empty host, whose IPv6
// half may be missing on this machine.
func (p listenPlan) everywhere() bool {
	return len(p.ips) == 2 && p.ips[0].IsUnspecified() && p.ips[1].IsUnspecified()
}

// listen opens the plan's sockets: TCP and QUIC on one number for each address.
// Where the plan leaves that open it is the one before, if that is free.
func (s *stack) listen(plan listenPlan, before uint16) error {
	if plan.port != 0 {
		return s.listenOn(plan, plan.port)
	}
	if before != 0 {
		if s.listenOn(plan, before) == nil {
			return nil
		}
		s.swarm.ListenClose(s.swarm.ListenAddresses()...)
	}
	var last error
	for range freePortTries {
		port, err := freePort(plan)
		if err != nil {
			last = err
			continue
		}
		if last = s.listenOn(plan, port); last == nil {
			return nil
		}
		s.swarm.ListenClose(s.swarm.ListenAddresses()...)
	}
	return fmt.Errorf("no port is free for both TCP and UDP on %s: %w", plan.text, last)
}

func (s *stack) listenOn(plan listenPlan, port uint16) error {
	for i, ip := range plan.ips {
		for _, addr := range listenAddrs(ip, port) {
			err := s.swarm.AddListenAddr(addr)
			if err == nil {
				continue
			}
			if plan.everywhere() && i > 0 && !inUse(err) {
				continue // no IPv6 on this machine
			}
			return listenError(addr, err)
		}
	}
	return nil
}

// inUse reports whether err says that an address is taken; Windows has a number
// of its own for it, WSAEADDRINUSE.
func inUse(err error) bool {
	return errors.Is(err, syscall.EADDRINUSE) || runtime.GOOS == "windows" && errors.Is(err, syscall.Errno(10048))
}

func listenError(addr ma.Multiaddr, err error) error {
	switch {
	case inUse(err):
		return wire.Errorf(wire.Code_CODE_CONFLICT,
			"cannot listen on %s: another program uses this port; stop it, or choose another port with --p2p HOST:PORT", hostPort(addr))
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return wire.Errorf(wire.Code_CODE_INVALID,
			"cannot listen on %s: this machine does not have that address; choose another with --p2p HOST:PORT", hostPort(addr))
	case errors.Is(err, syscall.EACCES):
		return wire.Errorf(wire.Code_CODE_DENIED,
			"cannot listen on %s: the system does not allow it; choose a port above 1023 with --p2p HOST:PORT", hostPort(addr))
	}
	return fmt.Errorf("cannot listen on %s: %w; choose another address with --p2p HOST:PORT", hostPort(addr), err)
}

// listenAddrs returns the TCP and the QUIC address of an IP and port.
func listenAddrs(ip netip.Addr, port uint16) []ma.Multiaddr {
	family := "ip4"
	if ip.Is6() {
		family = "ip6"
	}
	return []ma.Multiaddr{
		ma.StringCast(fmt.Sprintf("/%s/%s/tcp/%d", family, ip, port)),
		ma.StringCast(fmt.Sprintf("/%s/%s/udp/%d/quic-v1", family, ip, port)),
	}
}

// freePort returns a number that was free a moment ago for TCP and UDP on the
// plan's first address.
func freePort(plan listenPlan) (uint16, error) {
	tcp, err := net.Listen("tcp", netip.AddrPortFrom(plan.ips[0], 0).String())
	if err != nil {
		return 0, err
	}
	defer tcp.Close()
	port := tcp.Addr().(*net.TCPAddr).AddrPort().Port()
	udp, err := net.ListenPacket("udp", netip.AddrPortFrom(plan.ips[0], port).String())
	if err != nil {
		return 0, err
	}
	return port, udp.Close()
}

// Port returns the number that this host listens on, for TCP and QUIC.
func (h *Host) Port() uint16 {
	for _, addr := range h.stack.swarm.ListenAddresses() {
		if text, err := addr.ValueForProtocol(ma.P_TCP); err == nil {
			port, _ := strconv.ParseUint(text, 10, 16) // a multiaddr holds no other
			return uint16(port)
		}
	}
	return 0
}

// Addresses returns the multiaddrs, /p2p/ID at their end, under which others
// reach this host: those of real interfaces, loopback only if it listens on
// nothing else.
func (h *Host) Addresses() []string {
	var out []string
	for _, a := range h.dialable() {
		out = append(out, a.String()+"/p2p/"+string(h.id))
	}
	return out
}

// dialable returns this host's addresses for others, without /p2p.
func (h *Host) dialable() []ma.Multiaddr {
	all, err := h.stack.swarm.InterfaceListenAddresses()
	if err != nil {
		all = h.stack.swarm.ListenAddresses()
	}
	var far, near []ma.Multiaddr
	for _, a := range all {
		ip, ok := ipOf(a)
		switch {
		case !ok || ip.IsUnspecified() || ip.IsLinkLocalUnicast():
		case ip.IsLoopback():
			near = append(near, a)
		default:
			far = append(far, a)
		}
	}
	if len(far) == 0 {
		far = near
	}
	slices.SortStableFunc(far, func(a, b ma.Multiaddr) int { return dialRank(a) - dialRank(b) })
	return far[:min(len(far), maxAddresses)]
}
