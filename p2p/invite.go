package p2p

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"encoding/binary"
	"strings"

	"golang.org/x/crypto/argon2"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const (
	secretSize = 16
	// textPrefix opens the text form of an invite.
	textPrefix = "ostrich-"
	// textVersion is the version of the bytes in the text form.
	textVersion = 1
	// checksumSize is what the text form carries against mangling.
	checksumSize = 4
	// maxInviteText bounds an invite in any form.
	maxInviteText = 16 << 10
	// maxInvitePeers bounds the members in an invite.
	maxInvitePeers = 8
	// codeLength is the length of a short code: 50 bits.
	codeLength = 10
	// crockford is Crockford's base 32, without the letters that look like
	// others.
	crockford = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
	// Cost of stretching a code: OWASP's second choice for argon2id, small
	// enough for a node of 64 MiB.
	codePasses    = 2
	codeMemoryKiB = 19 << 10
)

var textEncoding = base32.StdEncoding.WithPadding(base32.NoPadding)

// Invite is an invite in the hands of its maker or its bearer. Made by
// ParseInvite it has what its form carries: a text Swarm, Secret and Peers; a
// link Swarm, Secret and PublicURL; a code Code and PublicURL. Resolve fills in
// the rest.
type Invite struct {
	Swarm  wire.SwarmID
	Secret [secretSize]byte
	// Code is the short code, 10 characters in upper case; with it there is no
	// Secret.
	Code string
	// Peers are members to ask.
	Peers []*wire.Peer
	// PublicURL is http(s)://HOST:PORT of a member's public listener.
	PublicURL string
}

// NewSecrets makes the two secrets of a new invite: that of the link and text,
// 128 bits, and the short code.
func NewSecrets() (link [secretSize]byte, code string) {
	rand.Read(link[:])
	var raw [codeLength]byte
	rand.Read(raw[:])
	for i := range raw {
		raw[i] = crockford[raw[i]%32]
	}
	return link, string(raw[:])
}

// LinkKey is the key that a link's secret seeds in a swarm: Ed25519 of the seed
// SHA-256("ostrich invite link 1\n" ‖ secret ‖ the swarm ID's 16 bytes).
func LinkKey(secret [secretSize]byte, swarm wire.SwarmID) ed25519.PrivateKey {
	h := sha256.New()
	h.Write([]byte("ostrich invite link 1\n"))
	h.Write(secret[:])
	h.Write(swarm.Bytes())
	return ed25519.NewKeyFromSeed(h.Sum(nil))
}

// CodeKey is the key that a short code seeds in a swarm: Ed25519 of the seed
// argon2id(code in canonical form, salt "ostrich invite code 1\n" ‖ the swarm
// ID's 16 bytes, 2 passes, 19 MiB, 1 lane, 32 bytes). It takes some 30 ms and,
// for so long, the memory.
func CodeKey(code string, swarm wire.SwarmID) ed25519.PrivateKey {
	canonical, err := canonicalCode(code)
	if err != nil {
		canonical = code
	}
	salt := append([]byte("ostrich invite code 1\n"), swarm.Bytes()...)
	return ed25519.NewKeyFromSeed(argon2.IDKey([]byte(canonical), salt, codePasses, codeMemoryKiB, 1, ed25519.SeedSize))
}

// Key returns the key that the bearer signs with. The invite's Swarm must be
// known.
func (i Invite) Key() ed25519.PrivateKey {
	if i.Code != "" {
		return CodeKey(i.Code, i.Swarm)
	}
	return LinkKey(i.Secret, i.Swarm)
}

// Text returns the form that carries everything a machine needs to join, on one
// line: "ostrich-" and, in base 32, version, swarm, secret, members with their
// addresses, and a checksum. At most 8 members, 4 addresses each.
func (i Invite) Text() string {
	b := []byte{textVersion}
	b = append(b, i.Swarm.Bytes()...)
	b = append(b, i.Secret[:]...)
	var count byte
	var members []byte
	for _, p := range i.Peers {
		key, err := wire.DeviceID(p.GetId()).PublicKey()
		if err != nil || count == maxInvitePeers {
			continue
		}
		count++
		addrs := parseAddrs(p.GetAddresses())
		addrs = addrs[:min(len(addrs), 4)]
		members = append(append(members, key...), byte(len(addrs)))
		for _, a := range addrs {
			members = binary.AppendUvarint(members, uint64(len(a.Bytes())))
			members = append(members, a.Bytes()...)
		}
	}
	b = append(append(b, count), members...)
	b = append(b, checksum(b)...)
	return textPrefix + strings.ToLower(textEncoding.EncodeToString(b))
}

func checksum(b []byte) []byte {
	sum := sha256.Sum256(append([]byte("ostrich invite text 1\n"), b...))
	return sum[:checksumSize]
}

// Link returns the form for a browser: PublicURL/join# and, in base64url, secret
// and swarm. The fragment never leaves the browser.
func (i Invite) Link() string {
	return i.PublicURL + "/join#" + base64.RawURLEncoding.EncodeToString(append(i.Secret[:], i.Swarm.Bytes()...))
}

// Resolve returns the invite with its swarm and members filled in: those of a
// link or code are asked of its public listener. A listener of another swarm
// than the link's is an error with CODE_WRONG_SWARM.
func (i Invite) Resolve(ctx context.Context) (Invite, error) {
	if len(i.Peers) > 0 {
		return i, nil
	}
	health, err := FetchHealth(ctx, i.PublicURL)
	if err != nil {
		return i, err
	}
	swarm := wire.SwarmID(health.GetSwarmId())
	if i.Swarm != "" && i.Swarm != swarm {
		return i, wire.Errorf(wire.Code_CODE_WRONG_SWARM, "the node at %s belongs to another swarm than the invite is for: ask for a new invite", i.PublicURL)
	}
	i.Swarm = swarm
	i.Peers = []*wire.Peer{health.GetPeer()}
	return i, nil
}
