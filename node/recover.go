package node

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"connectrpc.com/connect"

	"github.com/ostrich-legs/ostrich/consensus"
	"github.com/ostrich-legs/ostrich/consensus/state"
	"github.com/ostrich-legs/ostrich/p2p/blob"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const (
	// electionGrace is how long most voters, if they answer, get to elect a
	// coordinator before they count as unable to.
	electionGrace = 10 * time.Second
	// leadGrace is how long a recovered node is waited for until it coordinates.
	leadGrace = 10 * time.Second
	// copySpare is the free space wanted beyond that of the copy of the log.
	copySpare = 64 << 20
)

// Recover shows what going on from this member alone would mean, and does it
// when that is confirmed.
func (s *service) Recover(ctx context.Context, r *connect.Request[wire.RecoverRequest]) (*connect.Response[wire.RecoverResponse], error) {
	if err := s.opened(); err != nil {
		return nil, err
	}
	n := s.node
	g := n.group()
	if g == nil {
		return nil, wire.Errorf(wire.Code_CODE_DENIED, "this device is a worker: it does not keep the swarm's memory, and there is nothing here to go on from. Run \"ostrich recover\" on a member")
	}
	if !n.recovering.TryLock() {
		return nil, wire.Errorf(wire.Code_CODE_CONFLICT, "a recovery goes on here already")
	}
	defer n.recovering.Unlock()
	plan, err := n.recoveryPlan(ctx, g)
	if err != nil {
		return nil, err
	}
	if !r.Msg.GetConfirm() {
		return connect.NewResponse(&wire.RecoverResponse{Plan: plan}), nil
	}
	switch {
	case plan.GetRefusal() != "":
		return nil, wire.Errorf(wire.Code_CODE_PRECONDITION, "%s", plan.GetRefusal())
	case plan.GetLast() != r.Msg.GetLast():
		return nil, wire.Errorf(wire.Code_CODE_PRECONDITION, "the log has changed since you were asked: it ends at entry %d now. Look at it again: ostrich recover", plan.GetLast())
	}
	if plan.Kept, err = n.recover(ctx, plan.GetNewGeneration()); err != nil {
		return nil, err
	}
	n.announce(lineWarn, true, fmt.Sprintf("the swarm was recovered from this device alone: it goes on from entry %d as generation %d; the log as it was is kept in %s",
		plan.GetLast(), plan.GetNewGeneration(), plan.GetKept()))
	n.awaitLead(ctx)
	return connect.NewResponse(&wire.RecoverResponse{Plan: plan, Done: true}), nil
}

// recover makes this member the sole voter of a newer generation.
func (n *node) recover(ctx context.Context, generation uint64) (kept string, err error) {
	err = n.reopen(context.WithoutCancel(ctx), func() (err error) {
		// The log gets another name: until it has been opened, no name is known.
		m := *n.swarm.Load()
		m.Replica = ""
		if err := n.rememberSwarm(&m); err != nil {
			return err
		}
		kept, err = consensus.Recover(n.folder.path("raft"), n.id.ID, generation, n.log.With("part", "raft"))
		return err
	})
	return kept, err
}

// awaitLead waits until this node coordinates, for a bounded time.
func (n *node) awaitLead(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, leadGrace)
	defer cancel()
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	for n.lead.Load() == nil {
		select {
		case <-ctx.Done():
			return
		case <-look.C:
		}
	}
}

// recoveryPlan says what this member holds, what could be lost, and why it
// cannot be recovered from, if it cannot.
func (n *node) recoveryPlan(ctx context.Context, g *openGroup) (*wire.RecoveryPlan, error) {
	remains := g.Remains()
	plan := &wire.RecoveryPlan{
		Generation: n.swarm.Load().Generation, NewGeneration: n.swarm.Load().Generation + 1,
		Last: remains.Last, Committed: remains.Committed,
		PagesMissing: uint64(n.replica.Load().pages.Status().Missing),
	}
	names := make(map[wire.DeviceID]string)
	if err := g.Preview(func(s *state.State) { countRemains(plan, names, s) }); err != nil {
		return nil, fmt.Errorf("reading the log of this member: %w", err)
	}
	if why := n.nothingToRecover(ctx, remains); why != "" {
		plan.Refusal = why
		return plan, nil
	}
	voters := g.Voters()
	answers := n.askMembers(ctx, n.host.Members(), askAllLimit)
	for _, id := range voters {
		if _, reachable := answers[id]; id != n.id.ID {
			plan.Voters = append(plan.Voters, &wire.RecoveryPeer{Id: string(id), Name: names[id], Reachable: reachable})
		}
	}
	plan.Refusal = n.refuseRecovery(ctx, voters, answers)
	plan.Losses = losses(plan, answers, names)
	if n.roleOf(n.id.ID) == wire.Role_ROLE_MEMBER {
		plan.Losses = append(plan.Losses, "This device becomes an admin of the swarm, since those that it has may be lost.")
	}
	return plan, nil
}

// countRemains counts what a state holds, and notes the names of its devices.
func countRemains(plan *wire.RecoveryPlan, names map[wire.DeviceID]string, s *state.State) {
	for _, d := range s.Devices() {
		names[d.ID] = d.Name
	}
	plan.Devices, plan.LastTimeMs = uint64(len(names)), s.TimeMS()
	for _, j := range s.Jobs() {
		plan.Results += uint64(j.Results())
		if j.Ended() {
			plan.EndedJobs++
		} else {
			plan.OpenJobs++
		}
	}
}

// nothingToRecover says why there is nothing to do, or nothing to go on from.
func (n *node) nothingToRecover(ctx context.Context, remains consensus.Remains) string {
	if n.refreshView(ctx) {
		return n.quorumSentence()
	}
	if remains.Last == 0 {
		return "the log of this member is empty: there is nothing here to go on from. Run \"ostrich recover\" on a member that has the swarm's log"
	}
	free, err := blob.FreeSpace(n.folder.dir)
	if need := folderSize(n.folder.path("raft")) + copySpare; err == nil && free < need {
		return fmt.Sprintf("the log as it is has to be kept, which takes %d MiB, and %d MiB are free on the disk of %s: free some space first", need>>20, free>>20, n.folder.dir)
	}
	return ""
}

// quorumSentence refuses a recovery because a coordinator answered just now.
func (n *node) quorumSentence() string {
	view, _ := n.view.get()
	return fmt.Sprintf("the swarm has quorum: %s coordinates it. There is nothing to recover", memberName(view, view.GetCoordinator()))
}

// refuseRecovery says why the members that answer speak against a recovery from
// this one; "" when they do not. Where most voters answer it first waits for
// them to elect a coordinator.
func (n *node) refuseRecovery(ctx context.Context, voters []wire.DeviceID, answers map[wire.DeviceID]greeting) string {
	ours := n.swarm.Load().Generation
	reachable := 0
	for id, g := range answers {
		if g.generation > ours {
			return fmt.Sprintf("device %s is of generation %d: the swarm was recovered there already, and this device is about to join it again", id.Short(), g.generation)
		}
		if slices.Contains(voters, id) {
			reachable++
		}
	}
	if slices.Contains(voters, n.id.ID) {
		reachable++
	}
	if reachable <= len(voters)/2 {
		return ""
	}
	for end := time.Now().Add(electionGrace); time.Now().Before(end) && ctx.Err() == nil; {
		if n.refreshView(ctx) {
			return n.quorumSentence()
		}
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
	return ""
}

// losses says in words what a recovery would cost, and what speaks against it.
func losses(p *wire.RecoveryPlan, answers map[wire.DeviceID]greeting, names map[wire.DeviceID]string) (out []string) {
	out = append(out, fmt.Sprintf("What the other voters acknowledged behind entry %d has not reached this machine, and is lost.", p.GetLast()))
	switch {
	case p.GetCommitted() == 0:
		out = append(out, "Which of its last entries had been acknowledged is not known any more; all of them count from now on.")
	case p.GetLast() > p.GetCommitted():
		out = append(out, fmt.Sprintf("Entries %d to %d may never have been acknowledged to anybody; they count from now on.", p.GetCommitted()+1, p.GetLast()))
	}
	if p.GetPagesMissing() > 0 {
		out = append(out, fmt.Sprintf("%d pages of inputs, results and programs are not on this disk: what needs them waits until a machine that has them is back.", p.GetPagesMissing()))
	}
	reachable := 0
	for _, v := range p.GetVoters() {
		if v.GetReachable() {
			reachable++
		}
	}
	if reachable > 0 {
		out = append(out, fmt.Sprintf("%d of the %d other voters answer. If they only need to be started again, or mended (ostrich doctor), do that instead: nothing is lost then.", reachable, len(p.GetVoters())))
	}
	for id, g := range answers {
		if g.last > p.GetLast() {
			out = append(out, fmt.Sprintf("%s answers, and its log is longer (it ends at entry %d): run ostrich recover there instead.", names[id], g.last))
		}
	}
	return append(out, "Run this on one machine only. Machines that come back later set aside what only they know, and join again.")
}

// folderSize is the space that the files of a folder take.
func folderSize(dir string) (size uint64) {
	_ = filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil {
			return nil // what cannot be read cannot be copied either, and says so then
		}
		if info, err := entry.Info(); err == nil && info.Mode().IsRegular() {
			size += uint64(info.Size())
		}
		return nil
	})
	return size
}
