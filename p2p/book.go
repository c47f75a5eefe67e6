package p2p

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const (
	// maxHints bounds the devices that are not members whose addresses are kept.
	maxHints = 1024
	// maxPeersFile bounds the peers file: MaxDevices members with addresses.
	maxPeersFile = 32 << 20
	// saveEvery is the least time between two writes of the peers file: a node
	// that is killed knows nobody who joined since the last.
	saveEvery = 250 * time.Millisecond
	// peersVersion is the version of the peers file.
	peersVersion = 1
)

// book knows the members and the addresses of devices, newest first, and keeps
// what concerns members in the peers file.
type book struct {
	path string
	self wire.DeviceID
	log  *slog.Logger
	wake chan struct{}

	saving sync.Mutex // held over a write of the file

	mu      sync.Mutex
	members []wire.DeviceID
	isIn    map[wire.DeviceID]bool
	addrs   map[wire.DeviceID][]ma.Multiaddr
	dirty   bool
}

// openBook reads the peers file. One that is damaged is set aside under a name
// that says so, and logged.
func openBook(path string, self wire.DeviceID, log *slog.Logger) (*book, error) {
	b := &book{path: path, self: self, log: log, wake: make(chan struct{}, 1),
		isIn: make(map[wire.DeviceID]bool), addrs: make(map[wire.DeviceID][]ma.Multiaddr)}
	if path == "" {
		return b, nil
	}
	data, err := readFile(path, maxPeersFile)
	if errors.Is(err, fs.ErrNotExist) {
		return b, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the known members: %w", err)
	}
	peers, err := decodePeers(data)
	if err != nil {
		aside := path + ".damaged"
		if err := os.Rename(path, aside); err != nil {
			return nil, fmt.Errorf("%s is damaged and cannot be set aside: %w", path, err)
		}
		log.Warn("the file of known members is damaged and was set aside; members are found again by mDNS or when they call",
			"file", aside, "error", err)
		return b, nil
	}
	for _, p := range peers {
		id := wire.DeviceID(p.GetId())
		if id != self && !b.isIn[id] {
			b.members = append(b.members, id)
			b.isIn[id] = true
			b.addrs[id] = parseAddrs(p.GetAddresses())
		}
	}
	return b, nil
}

// peersFile is the layout of the peers file.
type peersFile struct {
	Version int         `json:"version"`
	Members []peerEntry `json:"members"`
}

type peerEntry struct {
	ID        string   `json:"id"`
	Addresses []string `json:"addresses"`
}

func encodePeers(peers []*wire.Peer) ([]byte, error) {
	file := peersFile{Version: peersVersion, Members: []peerEntry{}}
	for _, p := range peers {
		file.Members = append(file.Members, peerEntry{ID: p.GetId(), Addresses: p.GetAddresses()})
	}
	return Seal(file)
}

// decodePeers reads what encodePeers wrote. Entries that name no device are an
// error; addresses of kinds that this version does not know are left out.
func decodePeers(data []byte) ([]*wire.Peer, error) {
	var file peersFile
	if err := Unseal(data, &file); err != nil {
		return nil, err
	}
	if file.Version != peersVersion {
		return nil, fmt.Errorf("version %d of the file: this program reads version %d", file.Version, peersVersion)
	}
	if len(file.Members) > wire.MaxDevices {
		return nil, fmt.Errorf("%d members: at most %d are allowed", len(file.Members), wire.MaxDevices)
	}
	var out []*wire.Peer
	for _, m := range file.Members {
		p := cleanPeer(&wire.Peer{Id: m.ID, Addresses: m.Addresses})
		if p == nil {
			return nil, fmt.Errorf("%q is not a device's ID", m.ID)
		}
		out = append(out, p)
	}
	return out, nil
}

// keep writes the peers file soon after each change until ctx ends.
func (b *book) keep(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.wake:
		}
		if err := b.save(); err != nil {
			b.log.Warn("the known members could not be written", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(saveEvery):
		}
	}
}

// save writes the peers file if something has changed since the last time.
func (b *book) save() error {
	b.saving.Lock()
	defer b.saving.Unlock()
	b.mu.Lock()
	if !b.dirty || b.path == "" {
		b.mu.Unlock()
		return nil
	}
	b.dirty = false
	var peers []*wire.Peer
	for _, id := range b.members {
		peers = append(peers, &wire.Peer{Id: string(id), Addresses: addrTexts(b.addrs[id])})
	}
	b.mu.Unlock()
	data, err := encodePeers(peers)
	if err == nil {
		err = WriteFile(b.path, data)
	}
	if err != nil {
		b.mu.Lock()
		b.dirty = true
		b.mu.Unlock()
		return fmt.Errorf("cannot write %s: %w", b.path, err)
	}
	return nil
}

// changed is called with mu held.
func (b *book) changed() {
	b.dirty = true
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// setMembers replaces the member list and reports whether it differs. IDs that
// name no device, and this device's own, are left out.
func (b *book) setMembers(ids []wire.DeviceID) bool {
	members := make([]wire.DeviceID, 0, min(len(ids), wire.MaxDevices))
	isIn := make(map[wire.DeviceID]bool, cap(members))
	for _, id := range ids {
		if _, err := id.PublicKey(); err != nil || id == b.self || isIn[id] || len(members) == wire.MaxDevices {
			continue
		}
		isIn[id] = true
		members = append(members, id)
	}
	slices.Sort(members)
	b.mu.Lock()
	defer b.mu.Unlock()
	if slices.Equal(members, b.members) {
		return false
	}
	b.members, b.isIn = members, isIn
	b.changed()
	return true
}

func (b *book) memberList() []wire.DeviceID {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.members)
}

func (b *book) isMember(id wire.DeviceID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.isIn[id]
}

// learn puts addresses before those known of the device, and reports whether
// that changed anything.
func (b *book) learn(id wire.DeviceID, addrs []ma.Multiaddr) bool {
	if id == b.self || len(addrs) == 0 {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	old, known := b.addrs[id]
	if !known {
		b.makeRoom(id)
	}
	merged := mergeAddrs(addrs, old)
	if equalAddrs(merged, old) {
		return false
	}
	b.addrs[id] = merged
	if b.isIn[id] {
		b.changed()
	}
	return true
}

// makeRoom forgets one device that is no member when there are too many. It is
// called with mu held.
func (b *book) makeRoom(id wire.DeviceID) {
	if b.isIn[id] || len(b.addrs)-len(b.members) < maxHints {
		return
	}
	for other := range b.addrs {
		if !b.isIn[other] {
			delete(b.addrs, other)
			return
		}
	}
}

func (b *book) addresses(id wire.DeviceID) []ma.Multiaddr {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.addrs[id])
}

// SetMembers says whom to stay connected with; this device itself may be among
// them. The list is written to the peers file soon after, and at Close.
func (h *Host) SetMembers(ids []wire.DeviceID) {
	if h.book.setMembers(ids) {
		h.redial.poke()
	}
}

// Members returns the list that SetMembers set last, or that the peers file
// held, without this device.
func (h *Host) Members() []wire.DeviceID { return h.book.memberList() }

// Learn takes addresses that others told of members and other devices. They are
// hints: unusable ones are dropped, and a wrong one costs a failed dial.
func (h *Host) Learn(peers []*wire.Peer) {
	for _, p := range peers {
		if p = cleanPeer(p); p == nil {
			continue
		}
		id := wire.DeviceID(p.GetId())
		if h.book.learn(id, parseAddrs(p.GetAddresses())) {
			h.redial.soon(id)
		}
	}
}

// Peers returns what is known of where the devices are, this one included;
// devices of which nothing is known are left out.
func (h *Host) Peers(ids []wire.DeviceID) []*wire.Peer {
	var out []*wire.Peer
	for _, id := range ids {
		addrs := h.book.addresses(id)
		if id == h.id {
			addrs = h.dialable()
		}
		if len(addrs) > 0 {
			out = append(out, &wire.Peer{Id: string(id), Addresses: addrTexts(addrs)})
		}
	}
	return out
}
