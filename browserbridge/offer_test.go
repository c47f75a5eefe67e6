package browserbridge

import (
	"strings"
	"testing"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const digest = "0E:8B:23:5A:71:0E:8B:23:5A:71:0E:8B:23:5A:71:0E:8B:23:5A:71:0E:8B:23:5A:71:0E:8B:23:5A:71:0E:8B"

// chromium is an offer as Chromium writes it.
const chromium = "v=0\r\no=- 4611731400430051336 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\na=extmap-allow-mixed\r\n" +
	"a=msid-semantic: WMS\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\n" +
	"a=candidate:1 1 udp 2113937151 0c1a.local 51234 typ host\r\n" +
	"a=ice-ufrag:Bx4e\r\na=ice-pwd:+ZqgCM0e3cqVtpVaeJd1Qcwh\r\na=ice-options:trickle\r\na=fingerprint:sha-256 " + digest + "\r\n" +
	"a=setup:actpass\r\na=mid:0\r\na=sctp-port:5000\r\na=max-message-size:262144\r\n"

func TestAnOfferIsReadIntoWhatAnAnswerNeeds(t *testing.T) {
	want := offer{ufrag: "Bx4e", password: "+ZqgCM0e3cqVtpVaeJd1Qcwh", fingerprint: digest, mid: "0"}
	for name, text := range map[string]string{
		"Chromium's":           chromium,
		"with bare line ends":  strings.ReplaceAll(chromium, "\r\n", "\n"),
		"with small digits":    strings.Replace(chromium, digest, strings.ToLower(digest), 1),
		"said twice and alike": "a=fingerprint:sha-256 " + digest + "\r\n" + chromium,
	} {
		if got, err := parseOffer(text); err != nil || got != want {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
}

func TestOffersThatAreNoneAreRefused(t *testing.T) {
	change := func(old, new string) string { return strings.Replace(chromium, old, new, 1) }
	for name, text := range map[string]string{
		"nothing":                    "",
		"not a description":          "hello",
		"too long":                   chromium + strings.Repeat("a=x:y\r\n", maxOffer/7),
		"a line too long":            chromium + "a=" + strings.Repeat("x", maxOfferLine),
		"no section":                 strings.Split(chromium, "m=")[0],
		"two sections":               chromium + "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n",
		"video":                      change("m=application 9 UDP/DTLS/SCTP webrtc-datachannel", "m=video 9 UDP/TLS/RTP/SAVPF 96"),
		"a port that is none":        change("m=application 9 ", "m=application x "),
		"no fingerprint":             change("a=fingerprint:sha-256 "+digest+"\r\n", ""),
		"a fingerprint by SHA-1":     change("sha-256", "sha-1"),
		"a short fingerprint":        change(digest, digest[:92]),
		"a fingerprint of no digits": change(digest, strings.ReplaceAll(digest, "0E", "XX")),
		"two fingerprints":           chromium + "a=fingerprint:sha-256 " + strings.ReplaceAll(digest, "0E", "1E") + "\r\n",
		"a short password":           change("+ZqgCM0e3cqVtpVaeJd1Qcwh", "short"),
		"a name with a line end":     change("Bx4e", "Bx4e\ra=b"),
		"no name":                    change("a=ice-ufrag:Bx4e\r\n", ""),
		"a DTLS role of its own":     change("actpass", "passive"),
		"a strange name of the part": change("a=mid:0", "a=mid:0 1"),
	} {
		if got, err := parseOffer(text); wire.CodeOf(err) != wire.Code_CODE_INVALID {
			t.Errorf("%s: got %+v, %v; want CODE_INVALID", name, got, err)
		}
	}
}

func FuzzAnOfferThatIsTakenAddsNoLinesToItsAnswer(f *testing.F) {
	f.Add(chromium)
	f.Add("m=application 9 UDP/DTLS/SCTP webrtc-datachannel\na=mid:x")
	f.Fuzz(func(t *testing.T, text string) {
		o, err := parseOffer(text)
		if err == nil && (strings.ContainsAny(o.ufrag+o.password+o.mid, "\r\n ") || !sha256Digits(o.fingerprint)) {
			t.Errorf("it is read as %+v", o)
		}
	})
}
