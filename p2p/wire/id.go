package wire

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/mr-tron/base58"
)

// DeviceID names a device: the libp2p peer ID of its Ed25519 key, in base 58.
type DeviceID string

// peerIDPrefix opens every peer ID of an Ed25519 key: an identity multihash of
// 36 bytes (0x00 0x24) over the protobuf {Type: Ed25519 (0x08 0x01), Data: 32
// bytes (0x12 0x20)}. Source: the libp2p peer ID specification.
var peerIDPrefix = []byte{0x00, 0x24, 0x08, 0x01, 0x12, 0x20}

// NewDeviceID returns the ID of the device that holds the private half of key.
func NewDeviceID(key ed25519.PublicKey) DeviceID {
	return DeviceID(base58.Encode(append(bytes.Clone(peerIDPrefix), key...)))
}

// deviceIDSize is the length of every ID: the prefix's leading bytes leave no
// other.
const deviceIDSize = 52

// PublicKey returns the key that the ID names, or an error if it names none.
func (id DeviceID) PublicKey() (ed25519.PublicKey, error) {
	if len(id) != deviceIDSize { // decoding takes time that grows with the square
		return nil, fmt.Errorf("%.60q is not the ID of an Ed25519 key", string(id))
	}
	raw, err := base58.Decode(string(id))
	if err != nil || len(raw) != len(peerIDPrefix)+ed25519.PublicKeySize || !bytes.HasPrefix(raw, peerIDPrefix) {
		return nil, fmt.Errorf("%q is not the ID of an Ed25519 key", string(id))
	}
	return ed25519.PublicKey(raw[len(peerIDPrefix):]), nil
}

// Short returns the last 8 characters, as lists show it.
func (id DeviceID) Short() string {
	return string(id[max(0, len(id)-8):])
}

// JobID names a job. Clients make it: see NewJobID.
type JobID string

// NewJobID returns a new random ID.
func NewJobID() JobID {
	var b [15]byte
	rand.Read(b[:])
	return JobID(strings.ToLower(base32.StdEncoding.EncodeToString(b[:])))
}

// Check reports why the ID cannot be a job's: it has 1 to 64 letters, digits,
// dots, hyphens and underscores, and does not begin with a dot, so that it can
// name a file.
func (id JobID) Check() error {
	if len(id) < 1 || len(id) > 64 {
		return errors.New("a job's ID has 1 to 64 characters")
	}
	if id[0] == '.' {
		return errors.New("a job's ID does not begin with a dot")
	}
	for _, r := range id {
		if !strings.ContainsRune("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-", r) {
			return fmt.Errorf("a job's ID has letters, digits, '.', '-' and '_' only, not %q", r)
		}
	}
	return nil
}

// Short returns the last 8 characters, as lists show it.
func (id JobID) Short() string {
	return string(id[max(0, len(id)-8):])
}

// SwarmID names a swarm: the SHA-256 of its founder's root public key, cut to
// 16 bytes, in hexadecimal.
type SwarmID string

// NewSwarmID returns the ID of the swarm that root founded.
func NewSwarmID(root ed25519.PublicKey) SwarmID {
	sum := sha256.Sum256(append([]byte("ostrich swarm 1\n"), root...))
	return SwarmID(hex.EncodeToString(sum[:16]))
}

// SwarmIDFromBytes returns the ID whose 16 bytes are b.
func SwarmIDFromBytes(b []byte) (SwarmID, error) {
	if len(b) != 16 {
		return "", fmt.Errorf("a swarm's ID has 16 bytes, not %d", len(b))
	}
	return SwarmID(hex.EncodeToString(b)), nil
}

// Bytes returns the ID's 16 bytes; nil if it is not an ID.
func (id SwarmID) Bytes() []byte {
	b, err := hex.DecodeString(string(id))
	if err != nil || len(b) != 16 {
		return nil
	}
	return b
}

// Hash is the SHA-256 of a page or a program.
type Hash [sha256.Size]byte

// HashOf returns the hash of b.
func HashOf(b []byte) Hash { return sha256.Sum256(b) }

// HashFromBytes returns the hash whose 32 bytes are b.
func HashFromBytes(b []byte) (Hash, error) {
	if len(b) != sha256.Size {
		return Hash{}, fmt.Errorf("a SHA-256 has 32 bytes, not %d", len(b))
	}
	return Hash(b), nil
}

// HashesFromBytes is HashFromBytes of each of a list.
func HashesFromBytes(list [][]byte) ([]Hash, error) {
	hashes := make([]Hash, len(list))
	for i, b := range list {
		h, err := HashFromBytes(b)
		if err != nil {
			return nil, fmt.Errorf("page %d: %w", i, err)
		}
		hashes[i] = h
	}
	return hashes, nil
}

// ParseHash reads what String wrote.
func ParseHash(s string) (Hash, error) {
	b, err := hex.DecodeString(s)
	if err != nil {
		return Hash{}, fmt.Errorf("%q is not a SHA-256 in hexadecimal", s)
	}
	return HashFromBytes(b)
}

// HoldID names a hold: pages that were put for one command, and stay until it is
// applied. The first eight bytes are the term of the coordinator that is going to
// propose the command, big endian, or 0 if any may; the others are random. The
// zero value is that of a put by a version without holds.
type HoldID [16]byte

// NewHoldID returns the ID of a hold that nobody else has, for a command that any
// coordinator may propose.
func NewHoldID() HoldID { return NewTermHoldID(0) }

// NewTermHoldID returns the ID of a hold for a command of that term only.
func NewTermHoldID(term uint64) HoldID {
	var id HoldID
	binary.BigEndian.PutUint64(id[:8], term)
	rand.Read(id[8:]) // never fails: see crypto/rand
	return id
}

// Term returns the term of the command; 0 if it may be of any.
func (id HoldID) Term() uint64 { return binary.BigEndian.Uint64(id[:8]) }

// HoldIDFromBytes returns the ID whose 16 bytes are b; the zero value of none.
func HoldIDFromBytes(b []byte) (HoldID, error) {
	switch len(b) {
	case 0:
		return HoldID{}, nil
	case len(HoldID{}):
		return HoldID(b), nil
	}
	return HoldID{}, fmt.Errorf("a hold's ID has %d bytes, not %d", len(HoldID{}), len(b))
}

// String returns the hash in hexadecimal.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }
