package browserbridge

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"io"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const (
	// Version is the version of the signalling that this program speaks.
	Version = 1
	// maxSignal bounds the body of a request.
	maxSignal = 32 << 10
	// signalLimit bounds the handling of one.
	signalLimit = 8 * time.Second
)

// ServeHTTP serves /signal: GET gives a challenge, POST takes an offer. It
// answers every origin, without credentials: the messages prove themselves, and
// a page whose bridge has died must reach another. The Host was checked before.
func (b *Bridge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Cross-Origin-Resource-Policy", "cross-origin")
	switch r.Method {
	case http.MethodOptions:
		h.Set("Access-Control-Allow-Methods", "GET, POST")
		h.Set("Access-Control-Allow-Headers", "Content-Type")
		h.Set("Access-Control-Allow-Private-Network", "true")
		h.Set("Access-Control-Max-Age", "600")
		w.WriteHeader(http.StatusNoContent)
	case http.MethodGet, http.MethodHead, http.MethodPost:
		from := group(r.RemoteAddr)
		if !b.gate.request(from, time.Now()) {
			b.answer(w, nil, errFlood("requests"))
			return
		}
		if r.Method == http.MethodPost {
			response, err := b.offered(r, from)
			b.answer(w, response, err)
			return
		}
		b.prepare()
		writeJSON(w, http.StatusOK, b.challenge())
	default:
		h.Set("Allow", "GET, POST, OPTIONS")
		writeJSON(w, http.StatusMethodNotAllowed, &wire.SignalResponse{Error: wire.EncodeError(invalid("GET a challenge, then POST an offer"))})
	}
}

func invalid(format string, args ...any) error {
	return wire.Errorf(wire.Code_CODE_INVALID, format, args...)
}

func errFlood(what string) error {
	return &statusError{http.StatusTooManyRequests, wire.Errorf(wire.Code_CODE_EXHAUSTED, "too many %s come from this address, or to this node: wait a minute", what)}
}

// statusError is an error that has an HTTP status of its own.
type statusError struct {
	status int
	error
}

func (e *statusError) Unwrap() error { return e.error }

// challenge is what a page needs to make an offer.
func (b *Bridge) challenge() *wire.SignalChallenge {
	return &wire.SignalChallenge{
		Version: Version, SwarmId: b.cfg.Swarm.Bytes(), SwarmName: b.cfg.SwarmName(), BridgeId: string(b.cfg.ID),
		Nonce: b.nonces.issue(time.Now()), Bridges: b.cfg.Bridges(),
	}
}

// answer writes what became of an offer. What people meet is an answer like
// another; what only a broken or hostile page does has a status of its own.
func (b *Bridge) answer(w http.ResponseWriter, response *wire.SignalResponse, err error) {
	status := http.StatusOK
	if err != nil {
		response = &wire.SignalResponse{Error: wire.EncodeError(err)}
		var own *statusError
		switch code := wire.CodeOf(err); {
		case errors.As(err, &own):
			status = own.status
		case code == wire.Code_CODE_INVALID:
			status = http.StatusBadRequest
		case code == wire.Code_CODE_BAD_PROOF:
			status = http.StatusForbidden
		}
		if status == http.StatusTooManyRequests {
			w.Header().Set("Retry-After", "10")
		}
	}
	response.Bridges = b.cfg.Bridges()
	writeJSON(w, status, response)
}

func writeJSON(w http.ResponseWriter, status int, m proto.Message) {
	body, err := protojson.MarshalOptions{EmitUnpopulated: true}.Marshal(m)
	if err != nil {
		http.Error(w, "the answer cannot be told", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body) // a browser that has gone does not matter
}

// offered takes an offer within the limits of its address.
func (b *Bridge) offered(r *http.Request, from netip.Prefix) (*wire.SignalResponse, error) {
	request, err := readOffer(r)
	if err != nil {
		b.refuse("an offer from %s: %v", r.RemoteAddr, err)
		return nil, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), signalLimit)
	defer cancel()
	role, _ := b.cfg.Role(wire.DeviceID(request.GetDeviceId()))
	guessing := request.GetJoin() != nil && role == wire.Role_ROLE_UNSPECIFIED
	if !b.gate.begin(ctx, from, guessing) {
		b.refuse("an offer from %s: too many come, or failed, from there", r.RemoteAddr)
		return nil, errFlood("offers, or failed ones,")
	}
	failed := false
	defer func() { b.gate.end(from, guessing, failed) }()
	a := arrival{bridge: b, request: request, from: from, local: localAddress(r)}
	response, err := a.admit(ctx)
	if failed = err != nil && a.counts(err); failed {
		b.refuse("device %s, from %s: %v", wire.DeviceID(request.GetDeviceId()).Short(), r.RemoteAddr, err)
	}
	return response, err
}

// readOffer reads the body of an offer.
func readOffer(r *http.Request) (*wire.SignalRequest, error) {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return nil, &statusError{http.StatusUnsupportedMediaType, invalid("an offer is sent as application/json")}
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxSignal+1))
	if err != nil {
		return nil, invalid("the request broke off")
	}
	if len(body) > maxSignal {
		return nil, &statusError{http.StatusRequestEntityTooLarge, invalid("a request of more than %d bytes", maxSignal)}
	}
	request := &wire.SignalRequest{}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(body, request); err != nil {
		return nil, invalid("the request is not a SignalRequest in JSON")
	}
	return request, nil
}

// localAddress is the address of this machine that a request came to.
func localAddress(r *http.Request) netip.Addr {
	if a, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr); ok {
		return a.AddrPort().Addr().Unmap()
	}
	return netip.AddrFrom4([4]byte{127, 0, 0, 1})
}

// arrival is an offer that is being looked at.
type arrival struct {
	bridge  *Bridge
	request *wire.SignalRequest
	from    netip.Prefix
	local   netip.Addr
	joining bool // an invite was shown
}

// counts reports whether a refusal counts against the address: not if the swarm
// could not decide, and only if something was tried that could be guessed or
// forged.
func (a *arrival) counts(err error) bool {
	switch wire.CodeOf(err) {
	case wire.Code_CODE_INVALID, wire.Code_CODE_BAD_PROOF, wire.Code_CODE_WRONG_SWARM, wire.Code_CODE_REMOVED:
		return true
	case wire.Code_CODE_NOT_FOUND, wire.Code_CODE_DENIED, wire.Code_CODE_CONFLICT:
		return a.joining
	}
	return false
}

// admit checks an offer, lets its device in if need be, and answers it.
func (a *arrival) admit(ctx context.Context) (*wire.SignalResponse, error) {
	if err := a.check(); err != nil {
		return nil, err
	}
	admitted, err := a.join(ctx)
	if err != nil {
		return nil, err
	}
	answer, err := a.connect(ctx)
	if err != nil {
		return nil, err
	}
	c := a.bridge.cfg
	return &wire.SignalResponse{
		Answer:    answer,
		Signature: ed25519.Sign(c.Key, wire.AnswerStatement(c.Swarm, c.ID, a.request, answer)),
		Admitted:  admitted,
	}, nil
}

// check verifies all that needs no knowledge of the swarm, cheapest first, and
// uses the challenge up.
func (a *arrival) check() error {
	b, r := a.bridge, a.request
	now := time.Now()
	if r.GetVersion() != Version {
		return wire.Errorf(wire.Code_CODE_VERSION, "the page speaks version %d of the signalling, this node version %d: load the page again", r.GetVersion(), Version)
	}
	if err := b.nonces.check(r.GetNonce(), now); err != nil {
		return err
	}
	if _, err := parseOffer(r.GetOffer()); err != nil {
		return err
	}
	key, err := wire.DeviceID(r.GetDeviceId()).PublicKey()
	if err != nil {
		return wire.Errorf(wire.Code_CODE_BAD_PROOF, "%v", err)
	}
	if !ed25519.Verify(key, wire.OfferStatement(b.cfg.Swarm, b.cfg.ID, r), r.GetSignature()) {
		return wire.Errorf(wire.Code_CODE_BAD_PROOF, "the offer is not signed by the device that it names, for this node and swarm")
	}
	return b.nonces.use(r.GetNonce(), now)
}

// join makes sure that the device belongs to the swarm; nil if it did before.
func (a *arrival) join(ctx context.Context) (*wire.AdmitResponse, error) {
	b, join := a.bridge, a.request.GetJoin()
	role, removed := b.cfg.Role(wire.DeviceID(a.request.GetDeviceId()))
	switch {
	case removed:
		return nil, wire.Errorf(wire.Code_CODE_REMOVED, "this device was removed from the swarm: it can only come back with a new key")
	case role > wire.Role_ROLE_WORKER:
		return nil, wire.Errorf(wire.Code_CODE_DENIED, "the device is more than a worker: it connects without a bridge")
	case role == wire.Role_ROLE_WORKER:
		return nil, nil
	case join == nil:
		return nil, wire.Errorf(wire.Code_CODE_NOT_FOUND, "this device does not belong to the swarm: open the link of an invite")
	}
	a.joining = true
	if err := a.checkJoin(join); err != nil {
		return nil, err
	}
	return b.cfg.Admit(ctx, join)
}

// checkJoin verifies all of a proof that needs no knowledge of invites.
func (a *arrival) checkJoin(join *wire.JoinRequest) error {
	offer := sha256.Sum256([]byte(a.request.GetOffer()))
	switch {
	case !bytes.Equal(join.GetSwarmId(), a.bridge.cfg.Swarm.Bytes()):
		return wire.Errorf(wire.Code_CODE_WRONG_SWARM, "the invite is for another swarm than this node's")
	case !bytes.Equal(join.GetNonce(), a.request.GetNonce()), join.GetDeviceId() != a.request.GetDeviceId(), !bytes.Equal(join.GetOfferHash(), offer[:]):
		return wire.Errorf(wire.Code_CODE_BAD_PROOF, "the join request is for another offer than the one it came with")
	case join.GetProfile().GetType() != wire.DeviceType_DEVICE_TYPE_BROWSER:
		return invalid("a device that joins by the page is a browser")
	case len(join.GetInviteKey()) != ed25519.PublicKeySize:
		return invalid("an invite's key has %d bytes, not %d", ed25519.PublicKeySize, len(join.GetInviteKey()))
	}
	if err := wire.CheckProfile(join.GetProfile()); err != nil {
		return err
	}
	key, err := wire.DeviceID(join.GetDeviceId()).PublicKey()
	if err != nil {
		return wire.Errorf(wire.Code_CODE_BAD_PROOF, "%v", err)
	}
	statement := wire.JoinStatement(join)
	if !ed25519.Verify(join.GetInviteKey(), statement, join.GetInviteSignature()) || !ed25519.Verify(key, statement, join.GetDeviceSignature()) {
		return wire.Errorf(wire.Code_CODE_BAD_PROOF, "the join request is not signed by the invite and the device")
	}
	return nil
}

// connect gives the browser a place and answers its offer.
func (a *arrival) connect(ctx context.Context) (string, error) {
	b := a.bridge
	x := newBrowser(b, wire.DeviceID(a.request.GetDeviceId()), a.from)
	if err := b.enter(x); err != nil {
		x.end(err)
		return "", err
	}
	answer, err := x.begin(ctx, a.request.GetOffer(), a.local)
	if err != nil {
		b.leave(x)
		return "", err
	}
	go x.run() // leave, which Close waits for, is the last that it does
	return answer, nil
}
