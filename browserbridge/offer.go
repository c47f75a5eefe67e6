package browserbridge

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const (
	// maxOffer bounds an offer: section 11 of the design.
	maxOffer = 16 << 10
	// maxOfferLine bounds a line of an offer; credentials have at most 256
	// characters (RFC 8839).
	maxOfferLine = 1 << 10
	// sdpMedia is how the one media section of an offer ends.
	sdpMedia = "UDP/DTLS/SCTP webrtc-datachannel"
)

// offer is all that an answer needs of a browser's session description. The
// rest of it never reaches the WebRTC stack; candidates least of all, so that an
// offer cannot make the node send to addresses of its choice.
type offer struct {
	ufrag, password string
	// fingerprint is SHA-256 of the browser's certificate, as pairs of upper-case
	// digits with colons between.
	fingerprint string
	// mid names the media section.
	mid string
}

// parseOffer reads a session description with one section, a data channel's. An
// error has CODE_INVALID.
func parseOffer(text string) (offer, error) {
	if len(text) > maxOffer {
		return offer{}, badOffer("it has %d bytes: at most %d are allowed", len(text), maxOffer)
	}
	p := offerParser{}
	for line := range strings.Lines(text) {
		if err := p.line(strings.TrimRight(line, "\r\n")); err != nil {
			return offer{}, err
		}
	}
	return p.done()
}

func badOffer(format string, args ...any) error {
	return wire.Errorf(wire.Code_CODE_INVALID, "the offer is refused: %s", fmt.Sprintf(format, args...))
}

// offerParser reads an offer line by line.
type offerParser struct {
	offer
	sections int
	setup    string
}

func (p *offerParser) line(line string) error {
	if line == "" {
		return nil
	}
	if len(line) > maxOfferLine {
		return badOffer("a line has %d bytes: at most %d are allowed", len(line), maxOfferLine)
	}
	if len(line) < 2 || line[1] != '=' {
		return badOffer("a line is not of the form x=value")
	}
	switch line[0] {
	case 'm':
		return p.media(line[2:])
	case 'a':
		name, value, _ := strings.Cut(line[2:], ":")
		return p.attribute(name, value)
	}
	return nil
}

func (p *offerParser) media(value string) error {
	if p.sections++; p.sections > 1 {
		return badOffer("it has more than one section: one data channel is all that is taken")
	}
	fields := strings.SplitN(value, " ", 3)
	if len(fields) != 3 || fields[0] != "application" || fields[2] != sdpMedia {
		return badOffer("its section is not one of data channels (m=application … %s)", sdpMedia)
	}
	if _, err := strconv.ParseUint(fields[1], 10, 16); err != nil {
		return badOffer("the port of its section is none")
	}
	return nil
}

func (p *offerParser) attribute(name, value string) error {
	switch name {
	case "ice-ufrag":
		return set(&p.ufrag, value, "ICE user name", iceText(value, 4))
	case "ice-pwd":
		return set(&p.password, value, "ICE password", iceText(value, 22))
	case "setup":
		return set(&p.setup, value, "DTLS role", value == "actpass")
	case "mid":
		return set(&p.mid, value, "name of a section", token(value))
	case "fingerprint":
		algorithm, digest, _ := strings.Cut(value, " ")
		digest = strings.ToUpper(digest)
		return set(&p.fingerprint, digest, "fingerprint by SHA-256", strings.EqualFold(algorithm, "sha-256") && sha256Digits(digest))
	}
	return nil
}

// set gives a field its value, which must be good, and the only one.
func set(field *string, value, what string, good bool) error {
	switch {
	case !good:
		return badOffer("%q is no %s", value[:min(len(value), 40)], what)
	case *field != "" && *field != value:
		return badOffer("it says more than one %s", what)
	}
	*field = value
	return nil
}

func (p *offerParser) done() (offer, error) {
	for _, field := range []struct{ value, what string }{
		{p.ufrag, "ICE user name"}, {p.password, "ICE password"}, {p.setup, "DTLS role"}, {p.mid, "name of its section"}, {p.fingerprint, "fingerprint"},
	} {
		if field.value == "" {
			return offer{}, badOffer("it says no %s", field.what)
		}
	}
	if p.sections == 0 {
		return offer{}, badOffer("it has no section")
	}
	return p.offer, nil
}

// iceText reports whether s is made of ICE's characters, at least so many and
// at most 256: RFC 8839, section 5.4.
func iceText(s string, least int) bool {
	for i := range len(s) {
		if c := s[i]; !alphanumeric(c) && c != '+' && c != '/' {
			return false
		}
	}
	return len(s) >= least && len(s) <= 256
}

func token(s string) bool {
	for i := range len(s) {
		if c := s[i]; !alphanumeric(c) && c != '-' && c != '_' {
			return false
		}
	}
	return len(s) >= 1 && len(s) <= 32
}

func alphanumeric(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// sha256Digits reports whether s is 32 pairs of hex digits with colons between.
func sha256Digits(s string) bool {
	pairs := strings.Split(s, ":")
	for _, pair := range pairs {
		if b, err := hex.DecodeString(pair); err != nil || len(b) != 1 {
			return false
		}
	}
	return len(pairs) == 32
}
