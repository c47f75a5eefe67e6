package p2p

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"encoding/binary"
	"net"
	"net/url"
	"strings"
	"unicode"

	ma "github.com/multiformats/go-multiaddr"
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

// ParseInvite reads an invite in any of its forms: a text, a link, or
// CODE@HOST:PORT. White space in it, as mail programs add, does no harm. An
// error has CODE_INVALID and says what is wrong, never the secret.
func ParseInvite(s string) (Invite, error) {
	if len(s) > maxInviteText {
		return Invite{}, invalid("an invite of %d characters: at most %d are possible", len(s), maxInviteText)
	}
	s = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return -1
		}
		return r
	}, s)
	lower := strings.ToLower(s)
	switch {
	case s == "":
		return Invite{}, invalid("the invite is empty: copy the text, link or code that ostrich invite printed")
	case strings.HasPrefix(lower, textPrefix):
		return parseText(s[len(textPrefix):])
	case strings.HasPrefix(lower, "http://"), strings.HasPrefix(lower, "https://"):
		return parseLink(s)
	case strings.Contains(s, "@"):
		return parseCode(s)
	}
	if _, err := canonicalCode(s); err == nil {
		return Invite{}, invalid("a short code needs the address of a member: write it as CODE@HOST:PORT")
	}
	return Invite{}, invalid("that is no invite: it is a text that begins with %s, a link http://HOST:PORT/join#…, or CODE@HOST:PORT", textPrefix)
}

func invalid(format string, args ...any) error {
	return wire.Errorf(wire.Code_CODE_INVALID, format, args...)
}

func mangled() error {
	return invalid("the invite is mangled: a part is missing or changed; copy the whole line again")
}

func parseText(s string) (Invite, error) {
	b, err := textEncoding.DecodeString(strings.ToUpper(s))
	if err != nil || len(b) < checksumSize+1 {
		return Invite{}, mangled()
	}
	b, sum := b[:len(b)-checksumSize], b[len(b)-checksumSize:]
	if !bytes.Equal(checksum(b), sum) {
		return Invite{}, mangled()
	}
	if b[0] != textVersion {
		return Invite{}, wire.Errorf(wire.Code_CODE_VERSION, "the invite was made by a newer version of ostrich: use the same version here")
	}
	b = b[1:]
	if len(b) < 16+secretSize+1 {
		return Invite{}, mangled()
	}
	var i Invite
	if i.Swarm, err = wire.SwarmIDFromBytes(b[:16]); err != nil {
		return Invite{}, mangled()
	}
	copy(i.Secret[:], b[16:])
	i.Peers, err = parseTextPeers(b[16+secretSize:])
	if err != nil {
		return Invite{}, err
	}
	if len(i.Peers) == 0 {
		return Invite{}, invalid("the invite names no member to ask: make a new one with: ostrich invite")
	}
	return i, nil
}

func parseTextPeers(b []byte) ([]*wire.Peer, error) {
	count := int(b[0])
	b = b[1:]
	if count > maxInvitePeers {
		return nil, mangled()
	}
	var peers []*wire.Peer
	for range count {
		if len(b) < ed25519.PublicKeySize+1 {
			return nil, mangled()
		}
		p := &wire.Peer{Id: string(wire.NewDeviceID(b[:ed25519.PublicKeySize]))}
		n := int(b[ed25519.PublicKeySize])
		b = b[ed25519.PublicKeySize+1:]
		for range n {
			size, used := binary.Uvarint(b)
			if used <= 0 || size > uint64(len(b)-used) {
				return nil, mangled()
			}
			a, err := ma.NewMultiaddrBytes(b[used : used+int(size)])
			if err != nil {
				return nil, mangled()
			}
			if usable(a) && len(p.Addresses) < maxAddresses {
				p.Addresses = append(p.Addresses, a.String())
			}
			b = b[used+int(size):]
		}
		peers = append(peers, p)
	}
	if len(b) != 0 {
		return nil, mangled()
	}
	return peers, nil
}

func parseLink(s string) (Invite, error) {
	u, err := url.Parse(s)
	if err != nil || u.Hostname() == "" {
		return Invite{}, invalid("the invite's link is mangled: it looks like http://HOST:PORT/join#…")
	}
	if strings.TrimSuffix(u.Path, "/") != "/join" || u.Fragment == "" {
		return Invite{}, invalid("the link is no invite: it ends in /join# and a secret; copy it whole")
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(u.Fragment)
	if err != nil || len(raw) != secretSize+16 {
		return Invite{}, mangled()
	}
	i := Invite{PublicURL: strings.ToLower(u.Scheme) + "://" + u.Host}
	copy(i.Secret[:], raw)
	if i.Swarm, err = wire.SwarmIDFromBytes(raw[secretSize:]); err != nil {
		return Invite{}, mangled()
	}
	return i, nil
}

func parseCode(s string) (Invite, error) {
	code, address, _ := strings.Cut(s, "@")
	canonical, err := canonicalCode(code)
	if err != nil {
		return Invite{}, err
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil || host == "" || port == "" || port == "0" || strings.Trim(port, "0123456789") != "" || strings.ContainsAny(host, "/@#?\\") {
		return Invite{}, invalid("%q is not the HOST:PORT of a member's public listener: write the invite as CODE@HOST:PORT, as in ABCDEFGHJK@192.168.1.5:7777", address)
	}
	return Invite{Code: canonical, PublicURL: "http://" + net.JoinHostPort(host, port)}, nil
}

// canonicalCode returns a short code as it was made: letters in upper case,
// hyphens dropped, O read as 0, I and L as 1.
func canonicalCode(s string) (string, error) {
	var out []byte
	for _, r := range strings.ToUpper(s) {
		switch r {
		case '-':
			continue
		case 'O':
			r = '0'
		case 'I', 'L':
			r = '1'
		}
		if r > unicode.MaxASCII || strings.IndexByte(crockford, byte(r)) < 0 || len(out) == codeLength {
			return "", wrongCode()
		}
		out = append(out, byte(r))
	}
	if len(out) != codeLength {
		return "", wrongCode()
	}
	return string(out), nil
}

func wrongCode() error {
	return invalid("that is no short code: it has %d letters and digits, none of them U", codeLength)
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
