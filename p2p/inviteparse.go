package p2p

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"net"
	"net/url"
	"strings"
	"unicode"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

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
