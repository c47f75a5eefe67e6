package node

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"

	"github.com/ostrich-legs/ostrich/p2p/blob"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// Levels of a wire.Finding.
const (
	LevelOK      = "ok"
	LevelWarning = "warning"
	LevelProblem = "problem"
)

const (
	// skewed is how far two clocks may be apart before people are told: jobs,
	// invites and logs carry the coordinator's time.
	skewed = 2 * time.Second
	// lagging is how many entries a member's log may lack.
	lagging = 1000
	// probeLimit bounds how long a tiny program may take.
	probeLimit = 5 * time.Second
)

// findings gathers what a diagnosis finds.
type findings []*wire.Finding

func (f *findings) add(level, subject, text, mend string) {
	*f = append(*f, &wire.Finding{Level: level, Subject: subject, Text: text, Mend: mend})
}

func (f *findings) ok(subject, format string, args ...any) {
	f.add(LevelOK, subject, fmt.Sprintf(format, args...), "")
}

// Diagnose says what is wrong with this node and its swarm, and what to do.
func (s *service) Diagnose(ctx context.Context, _ *connect.Request[wire.DiagnoseRequest]) (*connect.Response[wire.DiagnoseResponse], error) {
	if err := s.opened(); err != nil {
		return nil, err
	}
	n := s.node
	quorum := n.refreshView(ctx)
	view, age := n.view.get()
	if !quorum {
		view = n.localView(view)
	}
	var f findings
	m := n.swarm.Load()
	f.ok("node", "%s is up: %s of swarm %s (%s), version %s", n.profile.GetName(), m.Role, m.SwarmName, m.SwarmID, n.cfg.Version)
	n.diagnoseMode(&f)
	n.diagnoseSandbox(ctx, &f)
	if quorum {
		f.ok("quorum", "%s coordinates the swarm, in term %d of generation %d", memberName(view, view.GetCoordinator()), view.GetTerm(), view.GetGeneration())
		diagnoseVoters(&f, view)
		diagnoseMembers(&f, view)
	} else {
		n.diagnoseNoQuorum(ctx, &f, view, age)
	}
	n.diagnoseLog(&f)
	diagnoseDisk(&f, n.folder.dir)
	diagnoseKept(&f, n.folder.dir)
	diagnoseAddresses(&f, n.host.Addresses())
	return connect.NewResponse(&wire.DiagnoseResponse{Findings: f}), nil
}

// diagnoseMode says when this device is kept from work.
func (n *node) diagnoseMode(f *findings) {
	mend := "ostrich device enable " + n.id.ID.Short()
	switch n.mode(n.group()) {
	case wire.DeviceMode_DEVICE_MODE_DRAINING:
		f.add(LevelWarning, "work", "this device is draining: it is given no more work", mend)
	case wire.DeviceMode_DEVICE_MODE_DISABLED:
		f.add(LevelWarning, "work", "this device is disabled: it is given no work", mend)
	}
}

// diagnoseSandbox runs a tiny program.
func (n *node) diagnoseSandbox(ctx context.Context, f *findings) {
	const mend = "see that this machine has memory to spare, and that no limit (ulimit -d, ulimit -v, a container's) keeps it from Ostrich; then it comes back by itself within a minute, or with a restart"
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	start := time.Now()
	err := n.pool.Probe(ctx)
	switch why, _ := n.pool.Unwell(); {
	case why != "":
		f.add(LevelProblem, "sandbox", "this device runs nothing now, because its sandbox breaks, whatever the program: "+why, mend)
	case err != nil:
		f.add(LevelProblem, "sandbox", fmt.Sprintf("a tiny program does not run: %v", err), mend)
	default:
		f.ok("sandbox", "a tiny program ran, in a process of its own, in %v", time.Since(start).Round(time.Millisecond))
	}
}

// diagnoseVoters says what the swarm survives.
func diagnoseVoters(f *findings, v *wire.View) {
	voters := v.GetVoters()
	names := memberNames(v, voters)
	warned := warnings(&wire.Status{Quorum: true, View: v})
	if len(warned) == 0 {
		f.ok("voters", "%d of %d members vote (%s): any %d of them may be lost", len(voters), len(v.GetMembers()), names, (len(voters)-1)/2)
		return
	}
	for _, text := range warned {
		f.add(LevelWarning, "voters", text, "")
	}
}

// diagnoseMembers looks at each member as the coordinator sees it.
func diagnoseMembers(f *findings, v *wire.View) {
	for _, m := range v.GetMemberViews() {
		subject := "member " + m.GetName()
		before := len(*f)
		report := m.GetReport()
		if !m.GetOnline() {
			f.add(LevelWarning, subject, "it is not connected with the coordinator",
				"start it (ostrich up), or look at its network; if it is lost for good: ostrich device remove "+m.GetName())
			continue
		}
		if ahead := time.Duration(m.GetClockAheadMs()) * time.Millisecond; ahead.Abs() >= skewed {
			word := "ahead of"
			if ahead < 0 {
				word = "behind"
			}
			f.add(LevelWarning, subject, fmt.Sprintf("its clock is %v %s the coordinator's", ahead.Abs().Round(100*time.Millisecond), word), "have its clock set over the network (NTP)")
		}
		if m.GetLag() > lagging {
			f.add(LevelWarning, subject, fmt.Sprintf("its log lacks %d entries", m.GetLag()), "nothing, if the number falls: it is being brought up to date")
		}
		if report.GetPagesMissing() > 0 {
			f.add(LevelWarning, subject, fmt.Sprintf("%d pages are missing on its disk", report.GetPagesMissing()), "nothing, if the number falls: it fetches them from the other members")
		}
		if free := report.GetDiskFree(); free > 0 && free < diskEnough {
			f.add(LevelWarning, subject, fmt.Sprintf("%d MiB are free on its disk", free>>20), "free some space there, or remove jobs")
		}
		if m.GetFormat() != 0 && m.GetFormat() < newestFormat(v) {
			f.add(LevelWarning, subject, fmt.Sprintf("its version %s is older than others': what is new in theirs cannot be used yet", m.GetVersion()), "upgrade it")
		}
		if len(*f) == before {
			f.ok(subject, "%s, version %s", memberPart(m), m.GetVersion())
		}
	}
}

// memberPart is what a member does in the group.
func memberPart(m *wire.MemberView) string {
	switch {
	case m.GetVoter():
		return "votes"
	case m.GetStandby():
		return "is a standby"
	}
	return "is connected"
}

// newestFormat is the newest command format that a member understands.
func newestFormat(v *wire.View) (newest uint32) {
	for _, m := range v.GetMemberViews() {
		newest = max(newest, m.GetFormat())
	}
	return newest
}

// diagnoseNoQuorum says who can be reached when no coordinator can.
func (n *node) diagnoseNoQuorum(ctx context.Context, f *findings, v *wire.View, age time.Duration) {
	text := "no coordinator answers"
	if age > 0 {
		text += fmt.Sprintf(" since %v ago", age.Round(time.Second))
	}
	what, mend, _ := strings.Cut(withoutQuorum(v), ". ")
	if n.group() == nil {
		what = text
	}
	f.add(LevelProblem, "quorum", what, mend)
	var ids []wire.DeviceID
	for _, id := range v.GetMembers() {
		ids = append(ids, wire.DeviceID(id))
	}
	answers := n.askMembers(ctx, ids, askAllLimit)
	for _, id := range ids {
		if id == n.id.ID {
			continue
		}
		subject := "member " + memberName(v, string(id))
		part := "is no voter"
		if slices.Contains(v.GetVoters(), string(id)) {
			part = "is a voter"
		}
		if g, ok := answers[id]; ok || n.host.Connected(id) {
			f.ok(subject, "it answers, and %s; its log ends at entry %d", part, g.last)
		} else {
			f.add(LevelProblem, subject, "it does not answer, and "+part, "start it (ostrich up), or look at the network between the two")
		}
	}
}

// diagnoseLog looks at what this member keeps of the swarm.
func (n *node) diagnoseLog(f *findings) {
	r := n.replica.Load()
	if r == nil {
		return
	}
	if why := n.waitsForLog(); why != "" {
		f.add(LevelProblem, "log", why+"; this device does not vote",
			"nothing, as long as most of the voters are up: they bring it up to date. If they are lost for good, run \"ostrich recover\" on a member that has the log")
	} else {
		st := r.now.Load().Status()
		f.ok("log", "it ends at entry %d, %d of them applied, %d behind", st.Last, st.Applied, st.Lag)
	}
	pages := r.pages.Status()
	if missing := pages.Missing - len(pages.Lost); missing > 0 {
		f.add(LevelWarning, "pages", fmt.Sprintf("%d pages are missing on this disk", missing), "nothing, if the number falls: they are fetched from the other members")
	}
	if lost := pages.Lost; len(lost) > 0 {
		f.add(LevelProblem, "pages", fmt.Sprintf("%d pages are on no member's disk (%s)", len(lost), n.needers(lost)),
			"start a machine that may have them; if there is none, remove the jobs (ostrich job rm) and run them again")
	}
	if damaged, err := filepath.Glob(filepath.Join(n.folder.path("pages"), "damaged", "*")); err == nil && len(damaged) > 0 {
		f.add(LevelWarning, "pages", fmt.Sprintf("%d damaged pages were set aside in %s", len(damaged), filepath.Dir(damaged[0])), "have this disk checked")
	}
}

// diagnoseDisk looks at the free space.
func diagnoseDisk(f *findings, dir string) {
	free, err := blob.FreeSpace(dir)
	const mend = "free some space, or remove jobs (ostrich job rm)"
	switch {
	case err != nil:
		f.add(LevelWarning, "disk", fmt.Sprintf("how much is free on the disk of %s cannot be told: %v", dir, err), "")
	case free < diskLow:
		f.add(LevelProblem, "disk", fmt.Sprintf("%d MiB are free on the disk of %s: no page is written, and this device does not coordinate", free>>20, dir), mend)
	case free < diskEnough:
		f.add(LevelWarning, "disk", fmt.Sprintf("%d MiB are free on the disk of %s: no new input is taken", free>>20, dir), mend)
	default:
		f.ok("disk", "%.1f GiB are free on the disk of %s", float64(free)/(1<<30), dir)
	}
}

// diagnoseKept tells of the logs that were set aside.
func diagnoseKept(f *findings, dir string) {
	kept, err := filepath.Glob(filepath.Join(dir, "raft.*"))
	if err != nil || len(kept) == 0 {
		return
	}
	size := uint64(0)
	for _, k := range kept {
		size += folderSize(k)
	}
	f.add(LevelOK, "kept logs", fmt.Sprintf("logs that were set aside take %d MiB: %s", size>>20, strings.Join(kept, ", ")), "delete them when nobody wants to look into them any more")
}

// diagnoseAddresses looks whether other machines can reach this node.
func diagnoseAddresses(f *findings, addresses []string) {
	for _, a := range addresses {
		parts := strings.Split(a, "/")
		if len(parts) < 3 {
			continue
		}
		if ip, err := netip.ParseAddr(parts[2]); err != nil || !ip.IsLoopback() {
			f.ok("network", "other machines reach this node at %s", a)
			return
		}
	}
	f.add(LevelWarning, "network", "only this machine can reach this node", "start it without --p2p 127.0.0.1:…, to let other machines in")
}
