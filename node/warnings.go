package node

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ostrich-legs/ostrich/consensus"
	"github.com/ostrich-legs/ostrich/consensus/state"
	"github.com/ostrich-legs/ostrich/p2p/blob"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// ownWarnings says in words what people should know about this device.
func (n *node) ownWarnings() (out []string) {
	if why := n.waitsForLog(); why != "" {
		out = append(out, why+". It does not vote, and waits until the other members have brought it up to date; that needs most of the voters")
	}
	if why, _ := n.pool.Unwell(); why != "" {
		out = append(out, "this device runs nothing now, because its sandbox breaks, whatever the program: "+why+". It tries again every minute; ostrich doctor says more")
	}
	g := n.group()
	switch n.mode(g) {
	case wire.DeviceMode_DEVICE_MODE_DRAINING:
		out = append(out, "this device is draining: it is given no more work until \"ostrich device enable\"")
	case wire.DeviceMode_DEVICE_MODE_DISABLED:
		out = append(out, "this device is disabled: it is given no work until \"ostrich device enable\"")
	}
	if r := n.replica.Load(); r != nil {
		if lost := r.pages.Status().Lost; len(lost) > 0 {
			out = append(out, fmt.Sprintf("%d pages that jobs need are on no member's disk (%s): what lies in them cannot be read, unless a machine that has them comes back",
				len(lost), n.needers(lost)))
		}
	}
	if free, err := blob.FreeSpace(n.folder.dir); g != nil && err == nil && free < diskEnough {
		out = append(out, fmt.Sprintf("%d MiB are free on the disk of %s: below %d MiB this device takes no new input, below %d MiB it does not coordinate. Free some space, or remove jobs",
			free>>20, n.folder.dir, diskEnough>>20, diskLow>>20))
	}
	return out
}

// maxNeeders bounds the jobs that a sentence names.
const maxNeeders = 5

// needers names the jobs that need some of the pages.
func (n *node) needers(pages []wire.Hash) string {
	set := make(map[wire.Hash]struct{}, len(pages))
	for _, h := range pages {
		set[h] = struct{}{}
	}
	var names []string
	n.group().Read(func(s *state.State) {
		for _, j := range s.Jobs() {
			if j.Needs(set) {
				names = append(names, j.ID().Short())
			}
		}
	})
	switch {
	case len(names) == 0:
		return "programs of jobs that have ended"
	case len(names) > maxNeeders:
		return fmt.Sprintf("jobs %s and %d more", strings.Join(names[:maxNeeders], ", "), len(names)-maxNeeders)
	}
	return "jobs " + strings.Join(names, ", ")
}

// warnings says in words what people should know about a swarm that stands as
// this status shows: what the loss of a machine would cost, above all.
func warnings(st *wire.Status) []string {
	v := st.GetView()
	if !st.GetQuorum() {
		return []string{withoutQuorum(v)}
	}
	var out []string
	switch voters := v.GetVoters(); {
	case len(v.GetMembers()) == 1:
		out = append(out, "this swarm has one member: if that machine is lost, so are its jobs and its list of devices. Add members with: ostrich invite --role member")
	case len(v.GetMembers()) == 2 && len(voters) == 1:
		out = append(out, fmt.Sprintf("this swarm has two members, and %s alone votes: if that machine is lost, the swarm stops until it is back, or until \"ostrich recover\" on the other, which may lack the last moments. "+
			"With a third member any one machine may vanish: ostrich invite --role member", memberName(v, voters[0])))
	case len(v.GetMembers()) >= 3 && len(voters) < consensus.TargetVoters(len(v.GetMembers())):
		out = append(out, fmt.Sprintf("%d of %d members vote so far (%s): the others are brought up to date first, if they answer", len(voters), len(v.GetMembers()), memberNames(v, voters)))
	case len(v.GetMembers()) == 2:
		out = append(out, "this swarm has two members and both vote: if either machine is lost, the swarm stops. With a third member any one machine may vanish: ostrich invite --role member")
	}
	return append(out, silentVoters(v)...)
}

// withoutQuorum is the sentence for a swarm that accepts nothing now.
func withoutQuorum(v *wire.View) string {
	text := "no coordinator answers: devices keep their results and go on trying. Bring more members up, or check the network"
	if n := len(v.GetVoters()); n > 1 {
		text += fmt.Sprintf(" (%d of the %d voters are needed: %s)", n/2+1, n, memberNames(v, v.GetVoters()))
	}
	return text + "; if most of them are lost for good: ostrich recover"
}

// silentMS is how long a voter may not answer before people are told: section 5
// of the design replaces it after 30 s, if it can.
const silentMS = 3000

// silentVoters says what the silence of some voters means.
func silentVoters(v *wire.View) []string {
	var silent []string
	for _, m := range v.GetMemberViews() {
		if m.GetVoter() && m.GetId() != v.GetCoordinator() && (m.GetSilentMs() < 0 || m.GetSilentMs() >= silentMS) {
			silent = append(silent, m.GetId())
		}
	}
	if len(silent) == 0 {
		return nil
	}
	voters := len(v.GetVoters())
	left := voters - len(silent) - (voters/2 + 1)
	cost := "the loss of one more voter stops the swarm"
	if left > 0 {
		cost = fmt.Sprintf("the swarm survives the loss of %d more", left)
	}
	return []string{fmt.Sprintf("%d of %d voters do not answer (%s): %s. Bring them back; what is lost for good is taken out with: ostrich device remove NAME",
		len(silent), voters, memberNames(v, silent), cost)}
}

// memberName is what people call a member.
func memberName(v *wire.View, id string) string {
	at := slices.IndexFunc(v.GetMemberViews(), func(m *wire.MemberView) bool { return m.GetId() == id })
	if at < 0 || v.GetMemberViews()[at].GetName() == "" {
		return wire.DeviceID(id).Short()
	}
	return v.GetMemberViews()[at].GetName()
}

func memberNames(v *wire.View, ids []string) string {
	var names []string
	for _, id := range ids {
		names = append(names, memberName(v, id))
	}
	return strings.Join(names, ", ")
}
