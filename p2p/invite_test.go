package p2p

import (
	"crypto/ed25519"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// fixedInvite is an invite whose forms are known.
func fixedInvite() Invite {
	i := Invite{Swarm: testSwarm, PublicURL: "http://192.168.1.5:7777"}
	copy(i.Secret[:], "0123456789abcdef")
	key := ed25519.NewKeyFromSeed(make([]byte, 32)).Public().(ed25519.PublicKey)
	i.Peers = []*wire.Peer{{Id: string(wire.NewDeviceID(key)),
		Addresses: []string{"/ip4/192.168.1.5/tcp/7776", "/ip4/192.168.1.5/udp/7776/quic-v1", "/ip6/fd00::5/tcp/7776"}}}
	return i
}

func TestInviteFormsAreReadAsTheyWereMade(t *testing.T) {
	i := fixedInvite()
	text, err := ParseInvite(i.Text())
	if err != nil {
		t.Fatal(err)
	}
	if text.Swarm != i.Swarm || text.Secret != i.Secret || len(text.Peers) != 1 || !proto.Equal(text.Peers[0], i.Peers[0]) {
		t.Errorf("text gave %+v", text)
	}
	link, err := ParseInvite(i.Link())
	if err != nil {
		t.Fatal(err)
	}
	if link.Swarm != i.Swarm || link.Secret != i.Secret || link.PublicURL != i.PublicURL {
		t.Errorf("link gave %+v", link)
	}
	if !text.Key().Equal(link.Key()) {
		t.Error("text and link give different keys")
	}
	_, code := NewSecrets()
	got, err := ParseInvite(code + "@192.168.1.5:7777")
	if err != nil || got.Code != code || got.PublicURL != i.PublicURL {
		t.Errorf("code gave %+v, %v", got, err)
	}
}

func TestInvitesArePastedFromAnywhere(t *testing.T) {
	i := fixedInvite()
	text := i.Text()
	for _, s := range []string{strings.ToUpper(text), "  " + text + "\n", text[:40] + "\n  " + text[40:], "\t" + text[:9] + "\r\n" + text[9:]} {
		if got, err := ParseInvite(s); err != nil || got.Secret != i.Secret {
			t.Errorf("%q: %v", s, err)
		}
	}
	if strings.ContainsAny(text, " \n+/=_@") || len(text) > 300 {
		t.Errorf("the text does not copy well: %s", text)
	}
	for _, s := range []string{"HTTP" + i.Link()[4:], i.Link() + "\n", strings.Replace(i.Link(), "/join#", "/join/#", 1)} {
		if got, err := ParseInvite(s); err != nil || got.Secret != i.Secret {
			t.Errorf("%q: %v", s, err)
		}
	}
	for _, s := range []string{"ABCDE-01234@h:1", "abcde01234@h:1", "abcdeoI234@h:1", "ABCDE-Ol2-34@h:1"} {
		if got, err := ParseInvite(s); err != nil || got.Code != "ABCDE01234" {
			t.Errorf("%q: %q, %v", s, got.Code, err)
		}
	}
	if got, err := ParseInvite("ABCDE01234@[fd00::5]:7777"); err != nil || got.PublicURL != "http://[fd00::5]:7777" {
		t.Errorf("an IPv6 address: %+v, %v", got, err)
	}
}

func TestAMangledInviteIsNamedAsMangled(t *testing.T) {
	i := fixedInvite()
	text, link := i.Text(), i.Link()
	cases := []string{text[:len(text)-1], text[:20], "ostrich-", text + "a", link[:len(link)-1], link + "A", link[:len(link)-4] + "!!!!"}
	for at := len(textPrefix); at < len(text); at += 7 {
		swap := byte('a')
		if text[at] == 'a' {
			swap = 'b'
		}
		cases = append(cases, text[:at]+string(swap)+text[at+1:], text[:at]+text[at+1:], text[:at]+"0"+text[at+1:])
	}
	for _, s := range cases {
		if _, err := ParseInvite(s); wire.CodeOf(err) != wire.Code_CODE_INVALID || !strings.Contains(err.Error(), "mangled") {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func TestWhatIsNoInviteIsToldSo(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", "empty"}, {" \n", "empty"},
		{"hello", "no invite"}, {"ftp://host/join#x", "no invite"},
		{"ABCDE01234", "CODE@HOST:PORT"}, {"abcde-01234", "CODE@HOST:PORT"},
		{"ABCDE0123@h:1", "short code"}, {"ABCDE012345@h:1", "short code"}, {"ABCDEU1234@h:1", "short code"},
		{"ABCDE01234@", "HOST:PORT"}, {"ABCDE01234@host", "HOST:PORT"}, {"ABCDE01234@:7777", "HOST:PORT"},
		{"ABCDE01234@host:http", "HOST:PORT"}, {"ABCDE01234@host:0", "HOST:PORT"}, {"ABCDE01234@a/b:1", "HOST:PORT"},
		{"http://host:1/", "/join#"}, {"http://host:1/join", "/join#"}, {"http:///join#x", "mangled"},
		{strings.Repeat("a", maxInviteText+1), "at most"},
	} {
		_, err := ParseInvite(c.in)
		if wire.CodeOf(err) != wire.Code_CODE_INVALID || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.40q: %v, want %q in it", c.in, err, c.want)
		}
	}
	none := fixedInvite()
	none.Peers = nil
	if _, err := ParseInvite(none.Text()); wire.CodeOf(err) != wire.Code_CODE_INVALID {
		t.Errorf("a text without members: %v", err)
	}
}

// Browsers and older nodes derive the same keys: these values may not change.
func TestInviteKeysStayWhatTheyAre(t *testing.T) {
	i := fixedInvite()
	for _, c := range []struct {
		name string
		key  ed25519.PrivateKey
		want string
	}{
		{"link", LinkKey(i.Secret, testSwarm), "a14118adef6667dfb55ab6777cac8e4fbf174e7742a46130fb3931d81e86f646"},
		{"code", CodeKey("ABCDE01234", testSwarm), "1fecb2f32a6c558cd741e6e06f338acb1d67d7215a1541515fe6d5d65b6c488f"},
	} {
		if got := hex.EncodeToString(c.key.Seed()); got != c.want {
			t.Errorf("%s key has seed %s, want %s", c.name, got, c.want)
		}
	}
	if !CodeKey("abcde-ol234", testSwarm).Equal(CodeKey("ABCDE01234", testSwarm)) {
		t.Error("two spellings of a code give two keys")
	}
	if LinkKey(i.Secret, testSwarm).Equal(LinkKey(i.Secret, "ffeeddccbbaa99887766554433221100")) {
		t.Error("one secret gives one key in two swarms")
	}
	if got, want := i.Text(), "ostrich-aeabcirtirkwm54itgvlxtg5537tamjsgm2dknrxha4wcytdmrswmaj3nit3ztvwuqwwfi5i2avg6dltmuzbk5y54jb2mowajcqywwo2febqqbgavaaqkbq6mafqjqfiaeczcaq6mdgqgfbj7uaaaaaaaaaaaaaaaaaaaaaaaudb4yecr2sw2"; got != want {
		t.Errorf("text %s, want %s", got, want)
	}
	if got, want := i.Link(), "http://192.168.1.5:7777/join#MDEyMzQ1Njc4OWFiY2RlZgARIjNEVWZ3iJmqu8zd7v8"; got != want {
		t.Errorf("link %s, want %s", got, want)
	}
}

func TestSecretsDiffer(t *testing.T) {
	seen := map[string]bool{}
	for range 100 {
		link, code := NewSecrets()
		if canonical, err := canonicalCode(code); err != nil || canonical != code {
			t.Errorf("code %q is not canonical: %v", code, err)
		}
		seen[code], seen[string(link[:])] = true, true
	}
	if len(seen) != 200 {
		t.Errorf("%d different secrets of 200", len(seen))
	}
}

func TestTextCarriesABoundedNumberOfMembersAndAddresses(t *testing.T) {
	i := fixedInvite()
	for range 20 {
		p := &wire.Peer{Id: string(wire.NewDeviceID(newKey(t).Public().(ed25519.PublicKey)))}
		for port := range 30 {
			p.Addresses = append(p.Addresses, fmt.Sprintf("/ip4/192.0.2.1/tcp/%d", port+1))
		}
		i.Peers = append(i.Peers, p, &wire.Peer{Id: "junk"})
	}
	got, err := ParseInvite(i.Text())
	if err != nil || len(got.Peers) != maxInvitePeers || len(got.Peers[1].Addresses) != 4 {
		t.Errorf("%d members, %v", len(got.Peers), err)
	}
}

// healthServer answers /health with a status and a body.
func healthServer(t *testing.T, status int, body string) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/elsewhere" {
			w.Write([]byte(`{}`))
			return
		}
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(status)
		w.Write([]byte(body))
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func TestLinkAndCodeAreResolvedAtThePublicListener(t *testing.T) {
	peer := fixedInvite().Peers[0]
	body, err := protojson.Marshal(&wire.Health{SwarmId: string(testSwarm), SwarmName: "flock", Peer: &wire.Peer{
		Id: peer.Id, Addresses: append(slices.Clone(peer.Addresses), "/dns4/evil/tcp/1", "junk")}})
	if err != nil {
		t.Fatal(err)
	}
	url := healthServer(t, 200, string(body))
	for _, i := range []Invite{{Swarm: testSwarm, PublicURL: url}, {Code: "ABCDE01234", PublicURL: url}} {
		got, err := i.Resolve(t.Context())
		if err != nil || got.Swarm != testSwarm || len(got.Peers) != 1 || !proto.Equal(got.Peers[0], peer) {
			t.Errorf("resolved to %+v, %v", got, err)
		}
	}
	other := Invite{Swarm: "ffeeddccbbaa99887766554433221100", PublicURL: url}
	if _, err := other.Resolve(t.Context()); wire.CodeOf(err) != wire.Code_CODE_WRONG_SWARM {
		t.Errorf("a link to another swarm: %v", err)
	}
	if got, err := fixedInvite().Resolve(t.Context()); err != nil || len(got.Peers) != 1 {
		t.Errorf("a text needs no listener: %v", err)
	}
}

func TestAStrangeHealthPageIsRefused(t *testing.T) {
	for _, c := range []struct {
		name   string
		status int
		body   string
	}{
		{"an error", 500, `{}`}, {"a redirect", 302, `{}`}, {"no JSON", 200, `<html>`}, {"an empty object", 200, `{}`},
		{"no peer", 200, `{"swarmId":"` + string(testSwarm) + `"}`},
		{"a long page", 200, `{"swarmId":"` + strings.Repeat("x", maxHealth) + `"}`},
	} {
		if _, err := FetchHealth(t.Context(), healthServer(t, c.status, c.body)); wire.CodeOf(err) != wire.Code_CODE_INVALID {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	_, err := FetchHealth(t.Context(), "http://127.0.0.1:9")
	if wire.CodeOf(err) != wire.Code_CODE_UNAVAILABLE || !strings.Contains(err.Error(), "127.0.0.1:9") {
		t.Errorf("nobody there: %v", err)
	}
}

func FuzzParseInvite(f *testing.F) {
	i := fixedInvite()
	for _, s := range []string{i.Text(), i.Link(), "ABCDE-01234@192.168.1.5:7777", "ostrich-", "http://h/join#", "@", "İstrich-a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		i, err := ParseInvite(s)
		if err != nil {
			if c := wire.CodeOf(err); c != wire.Code_CODE_INVALID && c != wire.Code_CODE_VERSION {
				t.Errorf("error of code %v: %v", c, err)
			}
			return
		}
		if len(i.Peers) == 0 && i.PublicURL == "" {
			t.Errorf("an invite that leads nowhere: %+v", i)
		}
		if len(i.Peers) == 0 {
			return
		}
		again, err := ParseInvite(i.Text())
		if err != nil || again.Secret != i.Secret || again.Swarm != i.Swarm || len(again.Peers) != len(i.Peers) {
			t.Errorf("what was read cannot be written and read again: %v", err)
		}
	})
}

func FuzzHealth(f *testing.F) {
	f.Add([]byte(`{"swarmId":"00112233445566778899aabbccddeeff","peer":{"id":"12D3KooWCMg3sqr7ECddGNgsKnvUyAf1NXYbKEu3yH9oh3KpP1h7","addresses":["/ip4/192.0.2.1/tcp/1"]}}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := decodeHealth(data, "http://h:1")
		if err == nil && (wire.SwarmID(h.GetSwarmId()).Bytes() == nil || len(h.GetPeer().GetAddresses()) > maxAddresses) {
			t.Errorf("accepted %v", h)
		}
	})
}
