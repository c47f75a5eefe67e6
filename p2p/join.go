package p2p

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peerstore"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// nonceSize is the length of the acceptor's nonce.
const nonceSize = 32

// ServeJoin serves the join protocol for a swarm: strangers may ask to be
// admitted, within the limits of section 9 of the design. What reaches admit is
// well formed, for this swarm, of the device at the other end, fresh (it carries
// a nonce of ours), and signed by the device's and the invite's key; whether the
// invite is good is admit's to say, and its error goes back with its code.
func (h *Host) ServeJoin(swarm wire.SwarmID, admit func(context.Context, *wire.JoinRequest) (*wire.AdmitResponse, error)) {
	h.Handle(ProtocolJoin, wire.Role_ROLE_UNSPECIFIED, func(ctx context.Context, s *Stream) {
		defer s.Close()
		from := addressGroup(s.raw.Conn().RemoteMultiaddr())
		wait, ok := h.joins.begin(from, time.Now())
		if !ok {
			h.gate.refuse(s.raw.Conn().RemotePeer(), s.raw.Conn().RemoteMultiaddr(), "to join: too many have tried, or failed, from there")
			s.raw.ResetWithError(network.StreamRateLimited)
			return
		}
		failed := false
		defer func() { h.joins.end(from, failed, time.Now()) }()
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
		ctx, cancel := context.WithTimeout(ctx, h.timing.join)
		defer cancel()
		s.SetDeadline(time.Now().Add(h.timing.join))
		admitted, err := acceptJoin(ctx, s, swarm, admit)
		failed = joinFailed(err)
		if failed {
			h.gate.refuse(s.raw.Conn().RemotePeer(), s.raw.Conn().RemoteMultiaddr(), "to join: "+err.Error())
		}
		if err == nil {
			h.gate.vouch(s.raw.Conn().RemotePeer())
		}
		answer := &wire.JoinAnswer{Error: wire.EncodeError(err), Admitted: admitted}
		if err := wire.WriteMessage(s, wire.MaxJoinMessage, answer); err != nil {
			s.Reset()
		}
	})
}

// joinFailed reports whether a join's end counts against its address: not if
// the swarm could not decide, or the joiner went away.
func joinFailed(err error) bool {
	switch wire.CodeOf(err) {
	case wire.Code_CODE_INVALID, wire.Code_CODE_NOT_FOUND, wire.Code_CODE_DENIED, wire.Code_CODE_CONFLICT,
		wire.Code_CODE_WRONG_SWARM, wire.Code_CODE_VERSION, wire.Code_CODE_BAD_PROOF,
		wire.Code_CODE_PRECONDITION, wire.Code_CODE_REMOVED:
		return true
	}
	return false
}

// acceptJoin is the acceptor's side of one join, up to the answer.
func acceptJoin(ctx context.Context, s *Stream, swarm wire.SwarmID,
	admit func(context.Context, *wire.JoinRequest) (*wire.AdmitResponse, error)) (*wire.AdmitResponse, error) {
	nonce := make([]byte, nonceSize)
	rand.Read(nonce)
	challenge := &wire.JoinChallenge{Version: wire.JoinVersion, SwarmId: swarm.Bytes(), Nonce: nonce}
	if err := wire.WriteMessage(s, wire.MaxJoinMessage, challenge); err != nil {
		return nil, brokenJoin(s, err)
	}
	req := &wire.JoinRequest{}
	if err := wire.ReadMessage(s, wire.MaxJoinMessage, req); err != nil {
		return nil, brokenJoin(s, err)
	}
	if err := checkJoin(req, challenge, s.Remote()); err != nil {
		return nil, err
	}
	admitted, err := admit(ctx, req)
	if err != nil {
		return nil, err
	}
	return fitAdmitted(admitted), nil
}

// checkJoin verifies all of a request that needs no knowledge of invites.
func checkJoin(req *wire.JoinRequest, challenge *wire.JoinChallenge, remote wire.DeviceID) error {
	if !bytes.Equal(req.GetSwarmId(), challenge.GetSwarmId()) {
		return wire.Errorf(wire.Code_CODE_WRONG_SWARM, "the invite is for another swarm than this node's")
	}
	if !bytes.Equal(req.GetNonce(), challenge.GetNonce()) {
		return wire.Errorf(wire.Code_CODE_BAD_PROOF, "the join request answers another challenge than the one sent")
	}
	if wire.DeviceID(req.GetDeviceId()) != remote {
		return wire.Errorf(wire.Code_CODE_BAD_PROOF, "the join request names device %s but comes from %s",
			wire.DeviceID(req.GetDeviceId()).Short(), remote.Short())
	}
	key, err := remote.PublicKey()
	if err != nil {
		return wire.Errorf(wire.Code_CODE_BAD_PROOF, "%v", err)
	}
	if len(req.GetInviteKey()) != ed25519.PublicKeySize {
		return wire.Errorf(wire.Code_CODE_INVALID, "an invite's key has %d bytes, not %d", ed25519.PublicKeySize, len(req.GetInviteKey()))
	}
	statement := wire.JoinStatement(req)
	if !ed25519.Verify(req.GetInviteKey(), statement, req.GetInviteSignature()) {
		return wire.Errorf(wire.Code_CODE_BAD_PROOF, "the join request is not signed with the invite's key")
	}
	if !ed25519.Verify(key, statement, req.GetDeviceSignature()) {
		return wire.Errorf(wire.Code_CODE_BAD_PROOF, "the join request is not signed with the device's key")
	}
	return nil
}

// fitAdmitted leaves out members beyond what one message holds: a few are
// enough to find the others.
func fitAdmitted(a *wire.AdmitResponse) *wire.AdmitResponse {
	const slack = 64 // of the message around it
	out := &wire.AdmitResponse{Role: a.GetRole(), Generation: a.GetGeneration(), SwarmName: a.GetSwarmName()}
	for _, m := range a.GetMembers() {
		out.Members = append(out.Members, m)
		if _, err := wire.AppendMessage(nil, wire.MaxJoinMessage-slack, out); err != nil {
			out.Members = out.Members[:len(out.Members)-1]
			break
		}
	}
	return out
}

// Join asks one member to admit this device. sign gets the member's nonce and
// returns the request, signed by both keys (see SignJoin). At most 10 s. An
// error says what was tried, and has CODE_UNAVAILABLE when the member could not
// be reached or could not decide, CODE_EXHAUSTED when it takes no more joins for
// now, CODE_WRONG_SWARM, CODE_VERSION, or the code of the refusal. The answer's
// members are known to this host then.
func (h *Host) Join(ctx context.Context, p *wire.Peer, sign func(nonce []byte) (*wire.JoinRequest, error)) (*wire.AdmitResponse, error) {
	id := wire.DeviceID(p.GetId())
	pid, err := peerID(id)
	if err != nil {
		return nil, err
	}
	if id == h.id {
		return nil, wire.Errorf(wire.Code_CODE_INVALID, "the invite leads to this very node: use it on another machine or with another data folder")
	}
	ctx, cancel := context.WithTimeout(ctx, h.timing.join)
	defer cancel()
	defer h.gate.expect(pid)()
	addrs := mergeAddrs(parseAddrs(p.GetAddresses()), h.book.addresses(id))
	sw := h.stack.swarm
	sw.Backoff().Clear(pid)
	sw.Peerstore().AddAddrs(pid, addrs, peerstore.TempAddrTTL)
	if _, err := sw.DialPeer(ctx, pid); err != nil {
		return nil, joinHint(unreachable(id, addrs, err))
	}
	s, err := h.openOn(ctx, pid, ProtocolJoin)
	if err == nil {
		defer s.Close()
		defer context.AfterFunc(ctx, func() { s.Reset() })()
		var admitted *wire.AdmitResponse
		if admitted, err = requestJoin(s, sign); err == nil {
			h.gate.vouch(pid)
			h.book.learn(id, addrs)
			h.Learn(admitted.GetMembers())
			return admitted, nil
		}
	}
	if !h.registered(pid) && !h.book.isMember(id) {
		defer sw.ClosePeer(pid)
	}
	if ctx.Err() != nil {
		return nil, wire.Errorf(wire.Code_CODE_UNAVAILABLE, "device %s did not answer the request to join in time; try again", id.Short())
	}
	return nil, err
}

func joinHint(err error) error {
	return wire.Errorf(wire.CodeOf(err), "%v; check that a member runs there, that this machine is in the same network, "+
		"and that no firewall stops TCP and UDP on that port, then try again or make a new invite", err)
}

// requestJoin is the joiner's side of the exchange.
func requestJoin(s *Stream, sign func(nonce []byte) (*wire.JoinRequest, error)) (*wire.AdmitResponse, error) {
	challenge := &wire.JoinChallenge{}
	if err := wire.ReadMessage(s, wire.MaxJoinMessage, challenge); err != nil {
		return nil, brokenJoin(s, err)
	}
	if challenge.GetVersion() != wire.JoinVersion {
		return nil, wire.Errorf(wire.Code_CODE_VERSION, "device %s speaks version %d of the join protocol, this program version %d: "+
			"use the same version of ostrich on both", s.Remote().Short(), challenge.GetVersion(), wire.JoinVersion)
	}
	req, err := sign(challenge.GetNonce())
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(req.GetSwarmId(), challenge.GetSwarmId()) {
		return nil, wire.Errorf(wire.Code_CODE_WRONG_SWARM, "device %s belongs to another swarm than the invite is for: ask for a new invite", s.Remote().Short())
	}
	if err := wire.WriteMessage(s, wire.MaxJoinMessage, req); err != nil {
		return nil, brokenJoin(s, err)
	}
	answer := &wire.JoinAnswer{}
	if err := wire.ReadMessage(s, wire.MaxJoinMessage, answer); err != nil {
		return nil, brokenJoin(s, err)
	}
	if answer.GetError() != nil {
		return nil, wire.DecodeError(answer.GetError())
	}
	if answer.GetAdmitted() == nil {
		return nil, wire.Errorf(wire.Code_CODE_INVALID, "device %s gave no answer to the request to join", s.Remote().Short())
	}
	return answer.GetAdmitted(), nil
}

// brokenJoin classes an error of the stream: what is not a refusal is the other
// side gone, or too slow.
func brokenJoin(s *Stream, err error) error {
	var coded *wire.CodedError
	if errors.As(err, &coded) {
		return err
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return wire.Errorf(wire.Code_CODE_UNAVAILABLE, "device %s broke off the request to join (%v); try again", s.Remote().Short(), err)
}

// JoinAny tries the peers in turn until one has decided: an answer, or a refusal
// that the others would repeat. When none has, the error tells of each.
func (h *Host) JoinAny(ctx context.Context, peers []*wire.Peer, sign func(nonce []byte) (*wire.JoinRequest, error)) (*wire.AdmitResponse, error) {
	undecided := []wire.Code{wire.Code_CODE_UNAVAILABLE, wire.Code_CODE_EXHAUSTED, wire.Code_CODE_NOT_COORDINATOR,
		wire.Code_CODE_UNKNOWN_OUTCOME, wire.Code_CODE_INTERNAL, wire.Code_CODE_WRONG_SWARM}
	var all error
	for _, p := range peers {
		admitted, err := h.Join(ctx, p, sign)
		if err == nil || !slices.Contains(undecided, wire.CodeOf(err)) {
			return admitted, err
		}
		if all == nil {
			all = err
		} else {
			all = wire.Errorf(wire.CodeOf(err), "%v; %v", all, err)
		}
		if ctx.Err() != nil {
			break
		}
	}
	if all == nil {
		return nil, wire.Errorf(wire.Code_CODE_INVALID, "the invite names no member to ask: make a new one with: ostrich invite")
	}
	return nil, all
}

// SignJoin returns a signed request: the bearer of an invite's key asks that the
// device be admitted to a swarm.
func SignJoin(req *wire.JoinRequest, invite, device ed25519.PrivateKey) (*wire.JoinRequest, error) {
	public, ok := device.Public().(ed25519.PublicKey)
	if !ok || len(invite) != ed25519.PrivateKeySize {
		return nil, fmt.Errorf("a join request needs the invite's and the device's key")
	}
	req.InviteKey = invite.Public().(ed25519.PublicKey)
	req.DeviceId = string(wire.NewDeviceID(public))
	statement := wire.JoinStatement(req)
	req.InviteSignature = ed25519.Sign(invite, statement)
	req.DeviceSignature = ed25519.Sign(device, statement)
	return req, nil
}
