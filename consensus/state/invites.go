package state

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// Bounds of invites.
const (
	maxInviteTTLMS = 3660 * dayMS
	// inviteGraceMS is how long an expired invite is still listed.
	inviteGraceMS = dayMS
	maxNonce      = 64
)

// Invite is the registry's record of an invite.
type Invite struct {
	ID string
	// LinkKey and CodeKey are the Ed25519 public keys of its two secrets;
	// CodeKey is nil if it has no code.
	LinkKey, CodeKey []byte
	Role             wire.Role
	// MaxUses is 0 for any number.
	MaxUses, Uses            uint32
	CreatedAtMS, ExpiresAtMS int64
	CreatedBy                wire.DeviceID
	Revoked                  bool
}

// inviteID derives an invite's ID from its link key, so that every node gives
// it the same.
func inviteID(linkKey []byte) string {
	sum := wire.HashOf(append([]byte("ostrich invite 1\n"), linkKey...))
	return hex.EncodeToString(sum[:8])
}

// issueInvite adds an invite. Repeated with the same keys and terms it changes
// nothing: the expiry stays the first one's, for who asks again because the
// outcome is not known counts from a later now.
func (s *State) issueInvite(actor wire.DeviceID, op *wire.IssueInvite) (OpResult, error) {
	if err := s.checkInvite(op); err != nil {
		return OpResult{}, err
	}
	inv := &Invite{
		ID: inviteID(op.GetLinkKey()), LinkKey: op.GetLinkKey(), Role: op.GetRole(), MaxUses: op.GetMaxUses(),
		CreatedAtMS: s.nowMS, ExpiresAtMS: op.GetExpiresAtMs(), CreatedBy: actor,
	}
	if len(op.GetCodeKey()) > 0 {
		inv.CodeKey = op.GetCodeKey()
	}
	if old := s.InviteByKey(inv.LinkKey); old != nil && sameTerms(old, inv) {
		return OpResult{ID: old.ID}, nil
	}
	if s.inviteByID(inv.ID) != nil || s.InviteByKey(inv.LinkKey) != nil || s.InviteByKey(inv.CodeKey) != nil {
		return OpResult{}, wire.Errorf(wire.Code_CODE_CONFLICT, "there is an invite of these keys with other terms")
	}
	if inv.ExpiresAtMS <= s.nowMS || inv.ExpiresAtMS-s.nowMS > maxInviteTTLMS {
		return OpResult{}, invalid("an invite must expire in the future, within ten years")
	}
	if len(s.invites) >= maxInvites {
		return OpResult{}, wire.Errorf(wire.Code_CODE_EXHAUSTED, "the swarm holds %d invites, as many as it can; they go a day after they expire", maxInvites)
	}
	s.addInvite(inv)
	return OpResult{ID: inv.ID}, nil
}

func (s *State) checkInvite(op *wire.IssueInvite) error {
	if len(op.GetLinkKey()) != ed25519.PublicKeySize {
		return invalid("an invite's link key has 32 bytes")
	}
	if n := len(op.GetCodeKey()); n != 0 && n != ed25519.PublicKeySize || bytes.Equal(op.GetCodeKey(), op.GetLinkKey()) {
		return invalid("an invite's code key has 32 bytes and is not its link key")
	}
	return checkRole(op.GetRole())
}

func sameTerms(a, b *Invite) bool {
	return bytes.Equal(a.CodeKey, b.CodeKey) && bytes.Equal(a.LinkKey, b.LinkKey) && a.Role == b.Role &&
		a.MaxUses == b.MaxUses && a.CreatedBy == b.CreatedBy
}

func (s *State) addInvite(inv *Invite) {
	s.invites = append(s.invites, inv)
	s.inviteKeys[[32]byte(inv.LinkKey)] = inv
	if inv.CodeKey != nil {
		s.inviteKeys[[32]byte(inv.CodeKey)] = inv
	}
}

func (s *State) inviteByID(id string) *Invite {
	for _, inv := range s.invites {
		if inv.ID == id {
			return inv
		}
	}
	return nil
}

func (s *State) revokeInvite(op *wire.RevokeInvite) error {
	inv := s.inviteByID(op.GetInviteId())
	if inv == nil {
		return wire.Errorf(wire.Code_CODE_NOT_FOUND, "there is no invite %.40q; see: ostrich invite ls", op.GetInviteId())
	}
	inv.Revoked = true
	return nil
}

// forgetInvites drops the invites whose expiry is long past.
func (s *State) forgetInvites() {
	kept := s.invites[:0]
	for _, inv := range s.invites {
		if s.nowMS-inv.ExpiresAtMS <= inviteGraceMS {
			kept = append(kept, inv)
			continue
		}
		delete(s.inviteKeys, [32]byte(inv.LinkKey))
		if inv.CodeKey != nil {
			delete(s.inviteKeys, [32]byte(inv.CodeKey))
		}
	}
	clear(s.invites[len(kept):])
	s.invites = kept
}

// admitDevice lets the bearer of an invite in, or raises the role of a device
// that is in. A device that gains nothing is told its role and costs no use.
func (s *State) admitDevice(op *wire.AdmitDevice) (OpResult, error) {
	join := op.GetJoin()
	inv, err := s.checkJoin(join)
	if err != nil {
		return OpResult{}, err
	}
	role, err := grantedRole(join, inv)
	if err != nil {
		return OpResult{}, err
	}
	d := s.devices[wire.DeviceID(join.GetDeviceId())]
	if d != nil && role <= d.Role {
		return OpResult{Role: d.Role}, nil
	}
	if err := s.checkUsable(inv); err != nil {
		return OpResult{}, err
	}
	if d == nil && (len(s.devices) >= wire.MaxDevices || len(s.devices)+len(s.removed) >= maxKnown) {
		return OpResult{}, wire.Errorf(wire.Code_CODE_EXHAUSTED, "the swarm has as many devices as it can: remove some that are gone")
	}
	inv.Uses++
	if d != nil {
		d.Role, d.InvitedBy, d.Profile = role, inv.ID, join.GetProfile()
		d.settleName()
		return OpResult{Role: role}, nil
	}
	s.addDevice(&Device{
		ID: wire.DeviceID(join.GetDeviceId()), Profile: join.GetProfile(), Role: role,
		JoinedAtMS: s.nowMS, InvitedBy: inv.ID,
	})
	return OpResult{Role: role}, nil
}

// checkJoin returns the invite of a request that is well formed, meant for this
// swarm and signed by both keys, from a device that was not removed.
func (s *State) checkJoin(join *wire.JoinRequest) (*Invite, error) {
	if id, err := wire.SwarmIDFromBytes(join.GetSwarmId()); err != nil || id != s.SwarmID() {
		return nil, wire.Errorf(wire.Code_CODE_WRONG_SWARM, "the invite is for another swarm")
	}
	key, err := wire.DeviceID(join.GetDeviceId()).PublicKey()
	if err != nil || len(join.GetDeviceId()) > maxActor {
		return nil, invalid("the ID of the joining device is not one of an Ed25519 key")
	}
	if n := len(join.GetNonce()); n > maxNonce || len(join.GetOfferHash()) > maxNonce {
		return nil, invalid("a join request with a nonce of %d bytes: at most %d are allowed", n, maxNonce)
	}
	if err := checkProfile(join.GetProfile()); err != nil {
		return nil, err
	}
	inv := s.InviteByKey(join.GetInviteKey())
	if inv == nil {
		return nil, wire.Errorf(wire.Code_CODE_NOT_FOUND, "the swarm knows no such invite: it may have expired; ask for a new one")
	}
	statement := wire.JoinStatement(join)
	if !ed25519.Verify(join.GetInviteKey(), statement, join.GetInviteSignature()) ||
		!ed25519.Verify(key, statement, join.GetDeviceSignature()) {
		return nil, wire.Errorf(wire.Code_CODE_BAD_PROOF, "the join request is not signed by the invite and the device")
	}
	if s.Removed(wire.DeviceID(join.GetDeviceId())) {
		return nil, wire.Errorf(wire.Code_CODE_REMOVED, "this device was removed from the swarm: it can only come back with a new key")
	}
	return inv, nil
}

// grantedRole returns the role that a request gets: the one it asks for, else
// the invite's, and never more than worker for a browser.
func grantedRole(join *wire.JoinRequest, inv *Invite) (wire.Role, error) {
	if isBrowser(join.GetProfile()) {
		return wire.Role_ROLE_WORKER, nil
	}
	role := join.GetRole()
	if role == wire.Role_ROLE_UNSPECIFIED {
		return inv.Role, nil
	}
	if err := checkRole(role); err != nil {
		return 0, err
	}
	if role > inv.Role {
		return 0, wire.Errorf(wire.Code_CODE_DENIED, "the invite does not give so high a role")
	}
	return role, nil
}

// checkUsable says why an invite admits nobody now.
func (s *State) checkUsable(inv *Invite) error {
	switch {
	case inv.Revoked:
		return wire.Errorf(wire.Code_CODE_DENIED, "the invite was revoked: ask for a new one")
	case s.nowMS >= inv.ExpiresAtMS:
		return wire.Errorf(wire.Code_CODE_DENIED, "the invite has expired: ask for a new one")
	case inv.MaxUses > 0 && inv.Uses >= inv.MaxUses:
		return wire.Errorf(wire.Code_CODE_DENIED, "the invite is used up: ask for a new one")
	}
	return nil
}
