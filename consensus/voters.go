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
	self    wire.DeviceID
	servers []serverView
	members []memberView
	// absentAfter is the constant, save in tests.
	absentAfter time.Duration
}

type serverView struct {
	id    wire.DeviceID
	voter bool
	// silent is how long it has not answered; 0 for the leader itself.
	silent time.Duration
	// caughtUp says that its log holds what the leader's held one look ago.
	caughtUp bool
}

func (s serverView) alive() bool { return s.silent < aliveWithin }

type memberView struct {
	id         wire.DeviceID
	online     bool
	joinedAtMS int64
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
	verb verb
	id   wire.DeviceID
}

// nextChange returns the next change that brings the servers closer to what the
// package documentation says; false when there is none to make now.
func nextChange(v view) (change, bool) {
	steps := []func(view) (wire.DeviceID, verb){
		removeStranger, demoteVoter, promoteStandby, removeStandby, addMember,
	}
	for _, step := range steps {
		if id, verb := step(v); id != "" {
			return change{verb, id}, true
		}
	}
	return change{}, false
}

func removeStranger(v view) (wire.DeviceID, verb) {
	for _, s := range v.servers {
		if s.id == v.self || v.isMember(s.id) || s.voter && !v.commits(s.id, 0) {
			continue
		}
		return s.id, remove
	}
	return "", ""
}

// demoteVoter takes a vote that is too many, or from an even number the vote of
// one that has been absent for long.
func demoteVoter(v view) (wire.DeviceID, verb) {
	voters := v.pick(func(s serverView) bool { return s.voter })
	others := slices.DeleteFunc(slices.Clone(voters), func(s serverView) bool { return s.id == v.self })
	if len(others) == 0 {
		return "", ""
	}
	worst := mostSilent(others)
	tooMany := len(voters) > TargetVoters(len(v.members))
	replaced := len(voters)%2 == 0 && worst.silent >= v.absentAfter
	if (tooMany || replaced) && v.commits(worst.id, 0) {
		return worst.id, demote
	}
	return "", ""
}

func promoteStandby(v view) (wire.DeviceID, verb) {
	voters := v.pick(func(s serverView) bool { return s.voter })
	ready := v.pick(func(s serverView) bool {
		return !s.voter && s.caughtUp && s.alive() && v.isMember(s.id)
	})
	absent := slices.ContainsFunc(voters, func(s serverView) bool { return s.silent >= v.absentAfter })
	wanted := len(voters) < TargetVoters(len(v.members))
	need := 1
	if len(voters)%2 == 1 && !absent {
		need = 2
	}
	if !(wanted || absent) || len(ready) < need || !v.commits("", 1) {
		return "", ""
	}
	return ready[0].id, promote
}

// removeStandby makes room: for the bound, or for a member that is there in the
// place of one that is not.
func removeStandby(v view) (wire.DeviceID, verb) {
	standbys := v.pick(func(s serverView) bool { return !s.voter })
	if len(standbys) < maxStandbys {
		return "", ""
	}
	worst := mostSilent(standbys)
	next, ok := v.outsider()
	if len(standbys) > maxStandbys || ok && next.online && worst.silent >= v.absentAfter {
		return worst.id, remove
	}
	return "", ""
}

func addMember(v view) (wire.DeviceID, verb) {
	standbys := v.pick(func(s serverView) bool { return !s.voter })
	if next, ok := v.outsider(); ok && len(standbys) < maxStandbys {
		return next.id, addStandby
	}
	return "", ""
}

// commits reports whether the voters that answer could commit a configuration
// without one voter (if not "") and with so many more that answer.
func (v view) commits(without wire.DeviceID, more int) bool {
	voters, alive := more, more
	for _, s := range v.servers {
		if !s.voter || s.id == without {
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

func (v view) isMember(id wire.DeviceID) bool {
	return slices.ContainsFunc(v.members, func(m memberView) bool { return m.id == id })
}

// outsider returns the member that should be the next server: those that are
// online first, then the oldest.
func (v view) outsider() (memberView, bool) {
	var out []memberView
	for _, m := range v.members {
		if !slices.ContainsFunc(v.servers, func(s serverView) bool { return s.id == m.id }) {
			out = append(out, m)
		}
	}
	if len(out) == 0 {
		return memberView{}, false
	}
	return slices.MinFunc(out, func(a, b memberView) int {
		if a.online != b.online {
			if a.online {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(a.joinedAtMS, b.joinedAtMS), cmp.Compare(a.id, b.id))
	}), true
}

func mostSilent(servers []serverView) serverView {
	return slices.MaxFunc(servers, func(a, b serverView) int { return cmp.Compare(a.silent, b.silent) })
}
