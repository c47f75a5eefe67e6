package consensus

import (
	"strings"
	"time"

	"github.com/ostrich-legs/ostrich/consensus/state"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// FollowerStatus is what a leader knows of another server.
type FollowerStatus struct {
	ID    wire.DeviceID
	Voter bool
	// Matched is the last index up to which its log is known to be the leader's;
	// 0 before its first answer in this term.
	Matched uint64
	// Lag is how many committed entries its log lacked at its last answer.
	Lag uint64
	// Silent is how long it has not answered; negative when it has given no answer
	// in this term.
	Silent time.Duration
}

// Followers returns what this node knows of the other servers, in the order of
// the configuration; nil where this node does not lead.
func (g *Group) Followers() []FollowerStatus {
	term, ok := g.leading()
	if !ok {
		return nil
	}
	committed := g.raft.CommitIndex()
	var all []FollowerStatus
	for _, s := range g.Servers() {
		if s.id() == g.me.id() {
			continue
		}
		f := g.transport.follower(s, term)
		status := FollowerStatus{
			ID: s.ID, Voter: s.Voter, Matched: f.matched,
			Lag: committed - min(committed, f.matched), Silent: -1,
		}
		if !f.contact.IsZero() {
			status.Silent = max(0, time.Since(f.contact))
		}
		all = append(all, status)
	}
	return all
}

// CanLose says whether the group could go on committing without a device, by
// what answers now: nil if so, CODE_PRECONDITION with the reason if not. A device
// that has no vote can always be lost. Only the leader can tell; elsewhere it is
// CODE_UNAVAILABLE.
func (g *Group) CanLose(id wire.DeviceID) error {
	term, ok := g.leading()
	if !ok {
		return errNotLeading
	}
	voters, alive, votes := 0, 0, false
	var silent []string
	for _, s := range g.Servers() {
		switch {
		case !s.Voter:
		case s.ID == id:
			votes = true
		default:
			voters++
			if s.id() == g.me.id() || time.Since(g.transport.follower(s, term).contact) < aliveWithin {
				alive++
			} else {
				silent = append(silent, g.nameOf(s.ID))
			}
		}
	}
	switch {
	case !votes || alive > voters/2:
		return nil
	case voters == 0:
		return wire.Errorf(wire.Code_CODE_PRECONDITION,
			"%s is the only voter: without it the swarm has no memory; where another member is, let that one take over first", g.nameOf(id))
	}
	return wire.Errorf(wire.Code_CODE_PRECONDITION,
		"without %s the swarm would have no quorum: of the %d other voters %d must answer, and only %d do (not there: %s)",
		g.nameOf(id), voters, voters/2+1, alive, joinWords(silent))
}

// nameOf returns a device as people know it.
func (g *Group) nameOf(id wire.DeviceID) (name string) {
	g.Read(func(s *state.State) {
		if d := s.Device(id); d != nil {
			name = d.Name
		}
	})
	if name == "" {
		return id.Short()
	}
	return name + " (" + id.Short() + ")"
}

// Format returns the newest command format that every voter understands, by what
// their profiles say; this node's own is what it is.
func (g *Group) Format() uint32 {
	format, _ := g.format()
	return format
}

// format also says which voter holds it back; "" when none does.
func (g *Group) format() (format uint32, holder wire.DeviceID) {
	format = state.Format
	voters := g.Voters()
	g.Read(func(s *state.State) {
		for _, id := range voters {
			d := s.Device(id)
			if d == nil || id == g.me.ID {
				continue
			}
			if f := max(1, d.Profile.GetFormat()); f < format {
				format, holder = f, id
			}
		}
	})
	return format, holder
}

func joinWords(words []string) string { return strings.Join(words, ", ") }
