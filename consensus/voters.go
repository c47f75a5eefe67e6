package consensus

import (
	"cmp"
	"slices"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const (
	// aliveWithin is how recently a server must have answered to count as there.
	aliveWithin = time.Second
	// absentAfter is how long a voter may be silent before it is replaced.
	absentAfter = 30 * time.Second
	// maxStandbys bounds the servers that receive the log and have no vote.
	maxStandbys = 2
)

// TargetVoters returns how many voters a swarm of so many members wants: one of
// one or two, three of three or four, five of five or more.
func TargetVoters(members int) int {
	switch {
	case members >= 5:
		return 5
	case members >= 3:
		return 3
	}
	return 1
}

// view is what a leader knows when it compares servers with members.
type view struct {
	self    Server // this node, as a server
	servers []serverView
	members []memberView
	// absentAfter is the constant, save in tests.
	absentAfter time.Duration
}

type serverView struct {
	id      wire.DeviceID
	replica string
	voter   bool
	// silent is how long it has not answered; 0 for the leader itself.
	silent time.Duration
	// caughtUp says that its log holds what the leader's held one look ago.
	caughtUp bool
}

func (s serverView) alive() bool { return s.silent < aliveWithin }

func (s serverView) server() Server {
	return Server{ID: s.id, Replica: s.replica, Voter: s.voter}
}

type memberView struct {
	id wire.DeviceID
	// replica is what it says it has; "" where it has said nothing.
	replica    string
	online     bool
	joinedAtMS int64
	// idle says that it is to do no work: it votes where nobody else can.
	idle bool
	// outdated says that it cannot understand what is in the log.
	outdated bool
	// complete says that it lacks no page.
	complete bool
	// unnamed says that its replica is not known yet, and has to be.
	unnamed bool
}

// verb is one kind of change to the group's configuration.
type verb string

const (
	addStandby verb = "add standby"
	promote    verb = "promote to voter"
	demote     verb = "demote to standby"
	remove     verb = "remove server"
)

type change struct {
	verb   verb
	server Server
}

// nextChange returns the next change that brings the servers closer to what the
// package documentation says; false when there is none to make now.
func nextChange(v view) (change, bool) {
	steps := []func(view) (Server, verb){
		removeStranger, demoteVoter, promoteStandby, removeStandby, addMember,
	}
	for _, step := range steps {
		if s, verb := step(v); s.ID != "" {
			return change{verb, s}, true
		}
	}
	return change{}, false
}

// removeStranger removes a device that is no member, and the memory that a
// member has lost.
func removeStranger(v view) (Server, verb) {
	for _, s := range v.servers {
		if v.isSelf(s) || !v.isStranger(s) || s.voter && !v.commits(s, 0) {
			continue
		}
		return s.server(), remove
	}
	return Server{}, ""
}

// demoteVoter takes a vote that is too many, or from an even number the vote of
// one that has been absent for long.
func demoteVoter(v view) (Server, verb) {
	voters := v.pick(func(s serverView) bool { return s.voter })
	others := slices.DeleteFunc(slices.Clone(voters), v.isSelf)
	if len(others) == 0 {
		return Server{}, ""
	}
	worst := v.leastWanted(others)
	tooMany := len(voters) > TargetVoters(len(v.members))
	replaced := len(voters)%2 == 0 && worst.silent >= v.absentAfter
	if (tooMany || replaced) && v.commits(worst, 0) {
		return worst.server(), demote
	}
	return Server{}, ""
}

// promoteStandby gives a vote to a standby that holds the log: because votes are
// wanted, or in the place of a voter that has been absent for long; then it has
// to hold all pages too. A device that is to do no work gets one only where no
// other can.
func promoteStandby(v view) (Server, verb) {
	voters := v.pick(func(s serverView) bool { return s.voter })
	absent := slices.ContainsFunc(voters, func(s serverView) bool { return s.silent >= v.absentAfter })
	wanted := len(voters) < TargetVoters(len(v.members))
	ready := v.pick(func(s serverView) bool {
		m, ok := v.member(s.id)
		return !s.voter && s.caughtUp && s.alive() && ok && !m.outdated && (wanted || m.complete)
	})
	need := 1
	if len(voters)%2 == 1 && !absent {
		need = 2
	}
	if !(wanted || absent) || len(ready) < need || !v.commits(serverView{}, 1) {
		return Server{}, ""
	}
	best := slices.MinFunc(ready, func(a, b serverView) int {
		return cmp.Or(v.compareIdle(a, b), v.compareComplete(a, b))
	})
	if v.isIdle(best) && v.othersMayVote() {
		return Server{}, ""
	}
	return best.server(), promote
}

// othersMayVote reports whether a device that does work is there and may become
// ready to vote: as a standby, or as one once a standby has made room.
func (v view) othersMayVote() bool {
	return slices.ContainsFunc(v.servers, func(s serverView) bool {
		m, ok := v.member(s.id)
		return !s.voter && s.alive() && ok && !m.idle && !m.outdated
	}) || v.betterOutsider()
}

// betterOutsider reports whether the member that should be the next server is
// there and does work.
func (v view) betterOutsider() bool {
	next, ok := v.outsider()
	return ok && next.online && !next.idle && !next.outdated
}

// removeStandby makes room: for the bound, or for a member that is there and
// works in the place of one that does not. Where votes are wanted, a member that
// is there does not wait long for one that is not.
func removeStandby(v view) (Server, verb) {
	standbys := v.pick(func(s serverView) bool { return !s.voter })
	if len(standbys) < maxStandbys {
		return Server{}, ""
	}
	patience := v.absentAfter
	if voters := len(v.servers) - len(standbys); voters < TargetVoters(len(v.members)) {
		patience = min(patience, newcomerGrace)
	}
	worst := v.leastWanted(standbys)
	next, ok := v.outsider()
	absent := ok && next.online && worst.silent >= patience
	idle := v.isIdle(worst) && v.betterOutsider()
	if len(standbys) > maxStandbys || absent || idle {
		return worst.server(), remove
	}
	return Server{}, ""
}

func addMember(v view) (Server, verb) {
	standbys := v.pick(func(s serverView) bool { return !s.voter })
	if next, ok := v.outsider(); ok && len(standbys) < maxStandbys {
		return Server{ID: next.id, Replica: next.replica}, addStandby
	}
	return Server{}, ""
}

// commits reports whether the voters that answer could commit a configuration
// without one voter (if not the zero one) and with so many more that answer.
func (v view) commits(without serverView, more int) bool {
	voters, alive := more, more
	for _, s := range v.servers {
		if !s.voter || s.id == without.id && s.replica == without.replica {
			continue
		}
		voters++
		if s.alive() {
			alive++
		}
	}
	return alive > voters/2
}

// pick returns the servers that match, in the order of their IDs.
func (v view) pick(match func(serverView) bool) []serverView {
	var out []serverView
	for _, s := range v.servers {
		if match(s) {
			out = append(out, s)
		}
	}
	slices.SortFunc(out, func(a, b serverView) int { return cmp.Compare(a.id, b.id) })
	return out
}

func (v view) isSelf(s serverView) bool { return s.id == v.self.ID && s.replica == v.self.Replica }

func (v view) member(id wire.DeviceID) (memberView, bool) {
	for _, m := range v.members {
		if m.id == id {
			return m, true
		}
	}
	return memberView{}, false
}

// isStranger reports whether a server is no member's memory: its device has gone,
// or has lost that memory and says that it has another.
func (v view) isStranger(s serverView) bool {
	m, ok := v.member(s.id)
	return !ok || m.replica != "" && m.replica != s.replica
}

func (v view) isIdle(s serverView) bool {
	m, _ := v.member(s.id)
	return m.idle
}

// compareIdle puts devices that do work first.
func (v view) compareIdle(a, b serverView) int {
	return cmp.Compare(ordinal(v.isIdle(a)), ordinal(v.isIdle(b)))
}

// compareComplete puts devices that hold all pages first.
func (v view) compareComplete(a, b serverView) int {
	x, _ := v.member(a.id)
	y, _ := v.member(b.id)
	return cmp.Compare(ordinal(y.complete), ordinal(x.complete))
}

func ordinal(b bool) int {
	if b {
		return 1
	}
	return 0
}

// namesReplicas reports whether replicas have names in this swarm.
func (v view) namesReplicas() bool {
	return v.self.Replica != "" ||
		slices.ContainsFunc(v.members, func(m memberView) bool { return m.replica != "" })
}

// outsider returns the member that should be the next server: those that are
// online first, of them those that do work, then the oldest.
func (v view) outsider() (memberView, bool) {
	var out []memberView
	for _, m := range v.members {
		if !m.unnamed && !slices.ContainsFunc(v.servers, func(s serverView) bool { return s.id == m.id }) {
			out = append(out, m)
		}
	}
	if len(out) == 0 {
		return memberView{}, false
	}
	rank := func(m memberView) int {
		switch {
		case !m.online:
			return 2
		case m.idle || m.outdated:
			return 1
		}
		return 0
	}
	return slices.MinFunc(out, func(a, b memberView) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.joinedAtMS, b.joinedAtMS), cmp.Compare(a.id, b.id))
	}), true
}

// leastWanted returns the server to do without: the most silent, and among those
// that answer one that is to do no work.
func (v view) leastWanted(servers []serverView) serverView {
	return slices.MaxFunc(servers, func(a, b serverView) int {
		if a.alive() && b.alive() {
			return cmp.Or(v.compareIdle(a, b), cmp.Compare(a.silent, b.silent))
		}
		return cmp.Compare(a.silent, b.silent)
	})
}
