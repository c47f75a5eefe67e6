package state

import (
	"bytes"
	"crypto/ed25519"
	"slices"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// Device is the registry's record of a device.
type Device struct {
	ID      wire.DeviceID
	Profile *wire.DeviceProfile
	Role    wire.Role
	// JoinedAtMS is when it was first admitted.
	JoinedAtMS int64
	// InvitedBy is the ID of the invite that gave it its role; "" for the
	// founder.
	InvitedBy string
	// Name is the name to show: the one it was given, else its profile's.
	Name string
	// Online is its last recorded presence, as of PresenceAtMS.
	Online       bool
	PresenceAtMS int64
	// Mode says whether it is given work. It is never unspecified.
	Mode wire.DeviceMode
	// TasksCompleted counts its results that were recorded as OK.
	TasksCompleted uint64
	// renamed is the name given by UpdateDevice, which outlives profiles.
	renamed string
}

// Replica says which memory of the replicated log the device has, as its
// profile has it; "" where the profile has none, or none that can be one.
func (d *Device) Replica() string {
	if r := d.Profile.GetReplica(); checkReplica(r) == nil {
		return r
	}
	return ""
}

// settleName derives the name to show.
func (d *Device) settleName() {
	d.Name = d.renamed
	if d.Name == "" {
		d.Name = d.Profile.GetName()
	}
}

// foundSwarm makes the swarm and its first device. Repeated with the same keys
// it changes nothing.
func (s *State) foundSwarm(op *wire.FoundSwarm) error {
	if len(op.GetRootKey()) != ed25519.PublicKeySize || len(op.GetLeaseKey()) != 32 {
		return invalid("a swarm's root key and lease key have 32 bytes each")
	}
	if s.Founded() {
		if bytes.Equal(op.GetRootKey(), s.rootKey) && bytes.Equal(op.GetLeaseKey(), s.leaseKey) && op.GetFounder() == string(s.founder) {
			return nil
		}
		return wire.Errorf(wire.Code_CODE_CONFLICT, "the swarm %s is founded already", s.SwarmID())
	}
	if err := checkDeviceID(op.GetFounder()); err != nil {
		return err
	}
	if err := checkText("a swarm's name", op.GetSwarmName(), 0, wire.MaxName); err != nil {
		return err
	}
	if err := checkProfile(op.GetProfile()); err != nil {
		return err
	}
	if isBrowser(op.GetProfile()) {
		return invalid("a browser cannot found a swarm")
	}
	if !ed25519.Verify(op.GetRootKey(), wire.FoundingStatement(op), op.GetSignature()) {
		return wire.Errorf(wire.Code_CODE_BAD_PROOF, "the founding of the swarm is not signed by its root key")
	}
	s.rootKey, s.leaseKey, s.name = op.GetRootKey(), op.GetLeaseKey(), op.GetSwarmName()
	s.founder, s.generation = wire.DeviceID(op.GetFounder()), 1
	s.addDevice(&Device{ID: s.founder, Profile: op.GetProfile(), Role: wire.Role_ROLE_ADMIN, JoinedAtMS: s.nowMS})
	return nil
}

func isBrowser(p *wire.DeviceProfile) bool {
	return p.GetType() == wire.DeviceType_DEVICE_TYPE_BROWSER
}

func (s *State) addDevice(d *Device) {
	d.PresenceAtMS = s.nowMS
	d.Mode = wire.DeviceMode_DEVICE_MODE_ENABLED
	d.settleName()
	at, _ := s.findDevice(d.ID)
	s.deviceOrder = slices.Insert(s.deviceOrder, at, d)
	s.devices[d.ID] = d
}

// updateDevice replaces what a device says of itself, or its name. A profile's
// replica is read since format 2. Programs before kept it unread, and so must
// we where a command of theirs has one: it came from a device newer than they.
func (s *State) updateDevice(format uint32, op *wire.UpdateDevice) error {
	d := s.devices[wire.DeviceID(op.GetDeviceId())]
	if d == nil {
		return unknownDevice()
	}
	if op.GetProfile() == nil && op.GetName() == "" {
		return invalid("an update of a device that says nothing")
	}
	if err := checkText("a device's name", op.GetName(), 0, wire.MaxName); err != nil {
		return err
	}
	if p := op.GetProfile(); p != nil {
		if err := checkProfile(p); err != nil {
			return err
		}
		if format >= 2 {
			if err := checkReplica(p.GetReplica()); err != nil {
				return err
			}
		}
		if isBrowser(p) && d.Role > wire.Role_ROLE_WORKER {
			return invalid("a device with more than the role of a worker cannot become a browser")
		}
		d.Profile = p
	}
	if op.GetName() != "" {
		d.renamed = op.GetName()
	}
	d.settleName()
	return nil
}

// setPresence records that a device went offline or came back.
func (s *State) setPresence(op *wire.SetPresence) error {
	d := s.devices[wire.DeviceID(op.GetDeviceId())]
	if d == nil {
		return unknownDevice()
	}
	if d.Online != op.GetOnline() {
		d.Online, d.PresenceAtMS = op.GetOnline(), s.nowMS
	}
	return nil
}

// setDeviceMode says whether a device is given work.
func (s *State) setDeviceMode(op *wire.SetDeviceMode) error {
	d := s.devices[wire.DeviceID(op.GetDeviceId())]
	if d == nil {
		return unknownDevice()
	}
	if err := checkMode(op.GetMode()); err != nil {
		return err
	}
	d.Mode = op.GetMode()
	return nil
}

// raiseGeneration notes a recovery, by the member from which the swarm goes on.
// It becomes an admin, since all who were may be lost. Repeated it changes
// nothing.
func (s *State) raiseGeneration(actor wire.DeviceID, op *wire.RaiseGeneration) error {
	if g := op.GetGeneration(); g < s.generation || g > wire.MaxGeneration {
		return invalid("generation %d cannot follow generation %d", g, s.generation)
	}
	if op.GetGeneration() == s.generation {
		return nil
	}
	s.generation = op.GetGeneration()
	if d := s.devices[actor]; d != nil && d.Role == wire.Role_ROLE_MEMBER {
		d.Role = wire.Role_ROLE_ADMIN
	}
	return nil
}

// removeDevice forgets a device and remembers that its key may not come back.
func (s *State) removeDevice(op *wire.RemoveDevice) error {
	id := wire.DeviceID(op.GetDeviceId())
	if s.Removed(id) {
		return nil
	}
	at, ok := s.findDevice(id)
	if !ok {
		return unknownDevice()
	}
	s.deviceOrder = slices.Delete(s.deviceOrder, at, at+1)
	delete(s.devices, id)
	s.removed[id] = struct{}{}
	return nil
}

func unknownDevice() error {
	return wire.Errorf(wire.Code_CODE_NOT_FOUND, "no device of that ID belongs to the swarm")
}
