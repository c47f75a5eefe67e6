package gobrowser

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/ostrich-legs/ostrich/browserbridge"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// maxReply bounds what a bridge may answer.
const maxReply = 1 << 20

// Config says who a Browser is, and where it goes.
type Config struct {
	// URL is a member's public listener, as http(s)://HOST:PORT.
	URL string
	// Key is the device's.
	Key ed25519.PrivateKey
	// Invite is the key of an invite; nil for a device that belongs already.
	Invite ed25519.PrivateKey
	// Profile is what it says of itself; nil for that of some browser.
	Profile *wire.DeviceProfile
	// TCP makes it use the fallback alone.
	TCP bool
	// Client makes the HTTP requests; nil for http.DefaultClient.
	Client *http.Client
}

// Refused is a bridge's refusal.
type Refused struct {
	// Status is the HTTP status.
	Status int
	// Err has the code and the text.
	Err error
}

// Error returns the refusal's text.
func (r *Refused) Error() string { return r.Err.Error() }

// Unwrap returns the error with its code.
func (r *Refused) Unwrap() error { return r.Err }

func (c Config) client() *http.Client {
	if c.Client != nil {
		return c.Client
	}
	return http.DefaultClient
}

// Challenge asks a bridge for a challenge.
func (c Config) Challenge(ctx context.Context) (*wire.SignalChallenge, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.URL+"/signal", nil)
	if err != nil {
		return nil, err
	}
	challenge := &wire.SignalChallenge{}
	status, err := c.do(request, challenge)
	if err == nil && status != http.StatusOK {
		err = &Refused{status, wire.Errorf(wire.Code_CODE_UNAVAILABLE, "no challenge: HTTP status %d", status)}
	}
	return challenge, err
}

// Request returns the signed request for an offer.
func (c Config) Request(challenge *wire.SignalChallenge, offer string) (*wire.SignalRequest, error) {
	swarm, err := wire.SwarmIDFromBytes(challenge.GetSwarmId())
	if err != nil {
		return nil, err
	}
	id := wire.NewDeviceID(c.Key.Public().(ed25519.PublicKey))
	r := &wire.SignalRequest{Version: browserbridge.Version, Nonce: challenge.GetNonce(), DeviceId: string(id), Offer: offer}
	if c.Invite != nil {
		r.Join = c.join(challenge, r)
	}
	r.Signature = ed25519.Sign(c.Key, wire.OfferStatement(swarm, wire.DeviceID(challenge.GetBridgeId()), r))
	return r, nil
}

func (c Config) join(challenge *wire.SignalChallenge, r *wire.SignalRequest) *wire.JoinRequest {
	profile := c.Profile
	if profile == nil {
		profile = Profile("a browser in Go")
	}
	hash := sha256.Sum256([]byte(r.GetOffer()))
	join := &wire.JoinRequest{
		SwarmId: challenge.GetSwarmId(), InviteKey: c.Invite.Public().(ed25519.PublicKey), DeviceId: r.GetDeviceId(),
		Nonce: challenge.GetNonce(), Profile: profile, OfferHash: hash[:],
	}
	statement := wire.JoinStatement(join)
	join.InviteSignature = ed25519.Sign(c.Invite, statement)
	join.DeviceSignature = ed25519.Sign(c.Key, statement)
	return join
}

// Profile is that of a browser of one core.
func Profile(name string) *wire.DeviceProfile {
	return &wire.DeviceProfile{
		Name: name, Type: wire.DeviceType_DEVICE_TYPE_BROWSER, Format: 1,
		Capabilities: &wire.Capabilities{CpuCores: 1, MemoryGb: 1, Runtime: "gobrowser"},
	}
}

// Post makes an offer. A refusal is a *Refused.
func (c Config) Post(ctx context.Context, r *wire.SignalRequest) (*wire.SignalResponse, error) {
	body, err := protojson.Marshal(r)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.URL+"/signal", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	response := &wire.SignalResponse{}
	status, err := c.do(request, response)
	if err != nil {
		return nil, err
	}
	if err := wire.DecodeError(response.GetError()); err != nil {
		return response, &Refused{status, err}
	}
	return response, nil
}

func (c Config) do(request *http.Request, into proto.Message) (status int, err error) {
	response, err := c.client().Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxReply))
	if err != nil {
		return 0, err
	}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(body, into); err != nil {
		return response.StatusCode, fmt.Errorf("HTTP status %d with %.100q", response.StatusCode, body)
	}
	return response.StatusCode, nil
}

// verify checks that the bridge has signed both descriptions.
func verify(challenge *wire.SignalChallenge, r *wire.SignalRequest, response *wire.SignalResponse) error {
	swarm, err := wire.SwarmIDFromBytes(challenge.GetSwarmId())
	if err != nil {
		return err
	}
	bridge := wire.DeviceID(challenge.GetBridgeId())
	key, err := bridge.PublicKey()
	if err != nil {
		return err
	}
	if !ed25519.Verify(key, wire.AnswerStatement(swarm, bridge, r, response.GetAnswer()), response.GetSignature()) {
		return wire.Errorf(wire.Code_CODE_BAD_PROOF, "the answer is not signed by the bridge")
	}
	return nil
}
