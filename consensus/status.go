package consensus

import (
	"time"

	"github.com/hashicorp/raft"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// Status is what the group says of itself; it may be taken at any time, quorum
// or not.
type Status struct {
	// Term is the newest term that this node knows of.
	Term uint64
	// Leader is who leads in it; "" if that is not known.
	Leader wire.DeviceID
	// Role is this node's part: "leader", "follower", "candidate", "stopped".
	Role string
	// Last is the end of this node's log, Committed what it knows to be
	// committed, Applied what its state holds.
	Last, Committed, Applied uint64
	// Lag is how many committed entries the state lacks.
	Lag uint64
	// Voters and Standbys are the servers of the newest configuration, in its
	// order.
	Voters, Standbys []wire.DeviceID
	// SinceContact is how long the leader has not been heard: 0 on the leader,
	// negative when it never was.
	SinceContact time.Duration
	// Fault is why this node has stopped applying; nil while it works.
	Fault error
}

// Status returns what the group says of itself.
func (g *Group) Status() Status {
	leader, term := g.Leader()
	s := Status{
		Term:      term,
		Leader:    leader,
		Role:      roleWord(g.raft.State()),
		Last:      g.raft.LastIndex(),
		Committed: g.raft.CommitIndex(),
		Applied:   g.inState(),
		Fault:     g.fault(),
	}
	s.Lag = s.Committed - min(s.Committed, s.Applied)
	for _, server := range g.Servers() {
		if server.Voter {
			s.Voters = append(s.Voters, server.ID)
		} else {
			s.Standbys = append(s.Standbys, server.ID)
		}
	}
	if contact := g.raft.LastContact(); leader != g.me.ID {
		s.SinceContact = -1
		if !contact.IsZero() {
			s.SinceContact = time.Since(contact)
		}
	}
	return s
}

func roleWord(s raft.RaftState) string {
	switch s {
	case raft.Leader:
		return "leader"
	case raft.Candidate:
		return "candidate"
	case raft.Follower:
		return "follower"
	}
	return "stopped"
}

// Leader returns who leads the group, "" if that is not known, and the newest
// term that this node knows of. It is a hint: Verify makes sure.
func (g *Group) Leader() (id wire.DeviceID, term uint64) {
	if g.fence.isCut() {
		return "", g.raft.CurrentTerm()
	}
	_, leader := g.raft.LeaderWithID()
	return serverOf(leader).ID, g.raft.CurrentTerm()
}

// Servers returns the group's servers by this node's newest configuration, which
// may not be committed yet; none before it has one.
func (g *Group) Servers() []Server {
	// Raft answers from memory; the future never blocks nor fails.
	configuration := g.raft.GetConfiguration().Configuration()
	servers := make([]Server, 0, len(configuration.Servers))
	for _, s := range configuration.Servers {
		server := serverOf(s.ID)
		server.Voter = s.Suffrage == raft.Voter
		servers = append(servers, server)
	}
	return servers
}

// Voters returns the servers that vote.
func (g *Group) Voters() []wire.DeviceID {
	var voters []wire.DeviceID
	for _, s := range g.Servers() {
		if s.Voter {
			voters = append(voters, s.ID)
		}
	}
	return voters
}
