package browserbridge_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/ostrich-legs/ostrich/browserbridge"
	"github.com/ostrich-legs/ostrich/browserbridge/gobrowser"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// post sends a body as an offer, and returns the status and the refusal's code.
func (h *harness) post(t *testing.T, kind, body string) (int, wire.Code) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, h.url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", kind)
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.Header.Get("Access-Control-Allow-Origin") != "*" {
		t.Error("a page of another origin could not read why it is refused")
	}
	answer := &wire.SignalResponse{}
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := protojson.Unmarshal(text, answer); err != nil {
		t.Errorf("status %d with %q, which is no answer", response.StatusCode, text)
	}
	if answer.GetAnswer() != "" {
		t.Error("it is answered")
	}
	return response.StatusCode, answer.GetError().GetCode()
}

func TestRequestsThatAreNoneAreRefused(t *testing.T) {
	h := newHarness(t)
	for _, tt := range []struct {
		what, kind, body string
		status           int
		code             wire.Code
	}{
		{"a form", "application/x-www-form-urlencoded", "a=b", 415, wire.Code_CODE_INVALID},
		{"no type", "", "{}", 415, wire.Code_CODE_INVALID},
		{"no JSON", "application/json", "v=0", 400, wire.Code_CODE_INVALID},
		{"JSON of another kind", "application/json", `{"nonce": 7}`, 400, wire.Code_CODE_INVALID},
		{"a huge one", "application/json", `{"offer": "` + strings.Repeat("x", 40<<10) + `"}`, 413, wire.Code_CODE_INVALID},
		{"a deep one", "application/json", strings.Repeat(`{"join":`, 4000), 400, wire.Code_CODE_INVALID},
		{"another version", "application/json", `{"version": 9}`, 200, wire.Code_CODE_VERSION},
		{"no challenge", "application/json", `{"version": 1}`, 403, wire.Code_CODE_BAD_PROOF},
	} {
		if status, code := h.post(t, tt.kind, tt.body); status != tt.status || code != tt.code {
			t.Errorf("%s: got %d %v, want %d %v", tt.what, status, code, tt.status, tt.code)
		}
	}
	if got := h.Status(); got.Browsers+got.Handshakes != 0 || got.Refused == 0 {
		t.Errorf("the bridge has %+v", got)
	}
}

// attempt is an offer on its way to be refused.
type attempt struct {
	h         *harness
	config    gobrowser.Config
	challenge *wire.SignalChallenge
	request   *wire.SignalRequest
}

// sign signs the request again, after a change.
func (a *attempt) sign(key ed25519.PrivateKey) {
	swarm, _ := wire.SwarmIDFromBytes(a.challenge.GetSwarmId())
	a.request.Signature = ed25519.Sign(key, wire.OfferStatement(swarm, wire.DeviceID(a.challenge.GetBridgeId()), a.request))
}

// signJoin signs the proof again, after a change.
func (a *attempt) signJoin() {
	statement := wire.JoinStatement(a.request.GetJoin())
	a.request.Join.InviteSignature = ed25519.Sign(a.config.Invite, statement)
	a.request.Join.DeviceSignature = ed25519.Sign(a.config.Key, statement)
}

func newAttempt(t *testing.T, h *harness, offer string) *attempt {
	a := &attempt{h: h, config: gobrowser.Config{URL: h.url, Key: testKey(t.Name()), Invite: testKey("an invite")}}
	var err error
	if a.challenge, err = a.config.Challenge(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a.request, err = a.config.Request(a.challenge, offer); err != nil {
		t.Fatal(err)
	}
	return a
}

func TestOffersThatAreNotProvenAreRefused(t *testing.T) {
	offer, err := gobrowser.Offer()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		what   string
		change func(*attempt)
		status int
		code   wire.Code
	}{
		{"an offer that is none", func(a *attempt) { a.request.Offer = "v=0"; a.sign(a.config.Key) }, 400, wire.Code_CODE_INVALID},
		{"an offer that was changed", func(a *attempt) { a.request.Offer = strings.Replace(offer, "mid:0", "mid:1", 1) }, 403, wire.Code_CODE_BAD_PROOF},
		{"another's challenge", func(a *attempt) { a.request.Nonce[3] ^= 1; a.sign(a.config.Key) }, 403, wire.Code_CODE_BAD_PROOF},
		{"another's signature", func(a *attempt) { a.sign(testKey("another")) }, 403, wire.Code_CODE_BAD_PROOF},
		{"for another bridge", func(a *attempt) { a.challenge.BridgeId = string(testID(testKey("x"))); a.sign(a.config.Key) }, 403, wire.Code_CODE_BAD_PROOF},
		{"for another swarm", func(a *attempt) { a.challenge.SwarmId = make([]byte, 16); a.sign(a.config.Key) }, 403, wire.Code_CODE_BAD_PROOF},
		{"no device", func(a *attempt) { a.request.DeviceId = "x" }, 403, wire.Code_CODE_BAD_PROOF},
		{"a stranger without an invite", func(a *attempt) { a.request.Join = nil }, 200, wire.Code_CODE_NOT_FOUND},
		{"an invite of another swarm", func(a *attempt) { a.request.Join.SwarmId = make([]byte, 16); a.signJoin() }, 200, wire.Code_CODE_WRONG_SWARM},
		{"a proof for another offer", func(a *attempt) { a.request.Join.OfferHash[0] ^= 1; a.signJoin() }, 403, wire.Code_CODE_BAD_PROOF},
		{"a proof for another challenge", func(a *attempt) { a.request.Join.Nonce = make([]byte, 32); a.signJoin() }, 403, wire.Code_CODE_BAD_PROOF},
		{"a proof for another device", func(a *attempt) { a.request.Join.DeviceId = string(testID(testKey("x"))); a.signJoin() }, 403, wire.Code_CODE_BAD_PROOF},
		{"a proof by another invite", func(a *attempt) { a.request.Join.InviteKey = testID2(testKey("x")) }, 403, wire.Code_CODE_BAD_PROOF},
		{"a machine", func(a *attempt) { a.request.Join.Profile.Type = wire.DeviceType_DEVICE_TYPE_SERVER; a.signJoin() }, 400, wire.Code_CODE_INVALID},
		{"a profile that is none", func(a *attempt) { a.request.Join.Profile.Name = strings.Repeat("x", 200); a.signJoin() }, 400, wire.Code_CODE_INVALID},
		{"a removed device", func(a *attempt) { a.h.removed[testID(a.config.Key)] = true }, 200, wire.Code_CODE_REMOVED},
		{"a member", func(a *attempt) { a.h.roles[testID(a.config.Key)] = wire.Role_ROLE_MEMBER }, 200, wire.Code_CODE_DENIED},
		{"an invite that is used up", func(a *attempt) {
			a.h.admit = func(*wire.JoinRequest) error { return wire.Errorf(wire.Code_CODE_DENIED, "the invite is used up") }
		}, 200, wire.Code_CODE_DENIED},
		{"a swarm without quorum", func(a *attempt) {
			a.h.admit = func(*wire.JoinRequest) error { return wire.Errorf(wire.Code_CODE_UNAVAILABLE, "no quorum") }
		}, 200, wire.Code_CODE_UNAVAILABLE},
	} {
		t.Run(tt.what, func(t *testing.T) {
			h := newHarness(t)
			a := newAttempt(t, h, offer)
			tt.change(a)
			_, err := a.config.Post(t.Context(), a.request)
			var refused *gobrowser.Refused
			if !errors.As(err, &refused) || refused.Status != tt.status || wire.CodeOf(err) != tt.code {
				t.Errorf("got %v, want status %d and %v", err, tt.status, tt.code)
			}
			if got := h.Status(); got.Browsers+got.Handshakes != 0 {
				t.Errorf("the bridge has %+v", got)
			}
		})
	}
}

func testID2(key ed25519.PrivateKey) []byte { return key.Public().(ed25519.PublicKey) }

func TestAnOfferIsAnsweredOnce(t *testing.T) {
	offer, err := gobrowser.Offer()
	if err != nil {
		t.Fatal(err)
	}
	h := newHarness(t)
	a := newAttempt(t, h, offer)
	if _, err := a.config.Post(t.Context(), a.request); err != nil {
		t.Fatal(err)
	}
	if _, err := a.config.Post(t.Context(), a.request); wire.CodeOf(err) != wire.Code_CODE_PRECONDITION {
		t.Errorf("the second time: got %v, want CODE_PRECONDITION", err)
	}
	if got := h.Status().Handshakes; got != 1 {
		t.Errorf("%d connections, want 1", got)
	}
}

func TestGuessersAreStopped(t *testing.T) {
	offer, err := gobrowser.Offer()
	if err != nil {
		t.Fatal(err)
	}
	h := newHarness(t)
	asked := 0
	h.admit = func(*wire.JoinRequest) error { asked++; return wire.Errorf(wire.Code_CODE_NOT_FOUND, "no such invite") }
	var refused *gobrowser.Refused
	for range 15 {
		a := newAttempt(t, h, offer)
		_, err = a.config.Post(t.Context(), a.request)
	}
	if !errors.As(err, &refused) || refused.Status != http.StatusTooManyRequests || asked != 10 {
		t.Errorf("after %d guesses: %v; want status 429 after 10", asked, err)
	}
	if len(h.audits) == 0 || !strings.Contains(h.audits[0], "no such invite") {
		t.Errorf("people are told %q", h.audits)
	}
}

func TestAFloodOfRequestsIsRefused(t *testing.T) {
	h := newHarness(t, func(c *browserbridge.Config) { c.Limits.Requests, c.Limits.RequestSeconds = 0.001, 20_000 })
	refused := 0
	for range 30 {
		response, err := http.Get(h.url)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode == http.StatusTooManyRequests && response.Header.Get("Retry-After") != "" {
			refused++
		}
	}
	if refused != 10 {
		t.Errorf("%d of 30 requests are refused, where 20 may come: want 10", refused)
	}
}

func TestTheBridgeTakesSoManyBrowsersAndNoMore(t *testing.T) {
	h := newHarness(t, func(c *browserbridge.Config) { c.Limits.Browsers = 2 })
	first := h.connect(t, "first")
	h.session(t, first)
	h.session(t, h.connect(t, "second"))
	third := gobrowser.Config{URL: h.url, Key: testKey("third")}
	h.belongs(third.Key, wire.Role_ROLE_WORKER)
	if _, err := gobrowser.Connect(within(t), third); wire.CodeOf(err) != wire.Code_CODE_EXHAUSTED {
		t.Errorf("the third: got %v, want CODE_EXHAUSTED", err)
	}
	first.Close()
	eventually(t, "a place is free", func() bool { return h.Status().Browsers == 1 })
	h.session(t, h.connect(t, "third"))
}

func TestAThirdConnectionOfADeviceEndsItsFirst(t *testing.T) {
	h := newHarness(t)
	_, stream := h.session(t, h.connect(t, "one device"))
	h.session(t, h.connect(t, "one device"))
	h.session(t, h.connect(t, "one device"))
	if _, err := io.Copy(io.Discard, stream); err == nil {
		t.Error("the first session ended as by a goodbye, which frees its leases")
	}
	eventually(t, "two are left", func() bool { return h.Status().Browsers == 2 })
}

func TestHandshakesThatGoNowhereAreForgotten(t *testing.T) {
	offer, err := gobrowser.Offer()
	if err != nil {
		t.Fatal(err)
	}
	h := newHarness(t)
	a := newAttempt(t, h, offer)
	if _, err := a.config.Post(t.Context(), a.request); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is forgotten", func() bool { return h.Status() == (browserbridge.Status{}) })
}

func TestAPanicOfOneConnectionIsItsOwn(t *testing.T) {
	h := newHarness(t, func(c *browserbridge.Config) {
		dial, first := c.Dial, true
		c.Dial = func(ctx context.Context) (io.ReadWriteCloser, error) {
			if first {
				first = false
				panic("a test")
			}
			return dial(ctx)
		}
	})
	channel, err := h.connect(t, "unlucky").Open(within(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := channel.Read(make([]byte, 1)); err == nil {
		t.Error("the connection goes on")
	}
	channel, stream := h.session(t, h.connect(t, "lucky"))
	if _, err := channel.Write([]byte("x")); err != nil {
		t.Error(err)
	}
	if _, err := io.ReadFull(stream, make([]byte, 1)); err != nil {
		t.Error(err)
	}
}
