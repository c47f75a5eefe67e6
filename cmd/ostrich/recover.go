package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/ostrich-legs/ostrich/node/control"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

func (a *app) recoverCommand() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "recover",
		Short: "Go on from this machine after most voters were lost for good",
		Long: `Makes this machine alone the swarm's memory when most of those that kept it are lost
for good: the swarm goes on from what is on this disk. It first shows what that is
and what could be lost, and asks. Run it on one machine only, the one that knows
most. Where the others can still come back, bring them back instead: nothing is lost
then.

The log as it was is kept beside the new one. Members that come back later set theirs
aside and join again by themselves.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withNode(func(c *control.Client) error { return a.recover(cmd.Context(), c, yes) })
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

func (a *app) recover(ctx context.Context, c *control.Client, yes bool) error {
	res, err := control.Call(ctx, c.Recover, &wire.RecoverRequest{})
	if err != nil {
		return err
	}
	plan := res.GetPlan()
	if why := plan.GetRefusal(); why != "" {
		return wire.Errorf(wire.Code_CODE_PRECONDITION, "%s", why)
	}
	if err := printPlan(a.out, plan, time.Now()); err != nil {
		return err
	}
	question := fmt.Sprintf("To go on from this machine alone, as generation %d, type recover: ", plan.GetNewGeneration())
	if err := a.confirmWord(yes, question, "recover"); err != nil {
		return err
	}
	res, err = control.Call(ctx, c.Recover, &wire.RecoverRequest{Confirm: true, Last: plan.GetLast()})
	if err != nil {
		return err
	}
	plan = res.GetPlan()
	a.notice("the swarm goes on from this machine, as generation %d; the log as it was is kept in %s", plan.GetNewGeneration(), plan.GetKept())
	a.notice("members that come back join again by themselves; take those that never will out with: ostrich device remove NAME")
	return nil
}

// printPlan shows what a survivor has and what could be lost.
func printPlan(w io.Writer, p *wire.RecoveryPlan, now time.Time) error {
	last := "not known"
	if at := time.UnixMilli(p.GetLastTimeMs()); p.GetLastTimeMs() > 0 {
		last = fmt.Sprintf("%s (%s ago)", local(p.GetLastTimeMs()), max(0, now.Sub(at)).Round(time.Second))
	}
	log := fmt.Sprintf("ends at entry %d", p.GetLast())
	if p.GetCommitted() > 0 {
		log += fmt.Sprintf("; %d are known to be committed", p.GetCommitted())
	}
	rows := [][2]string{
		{"generation", fmt.Sprintf("%d, and %d afterwards", p.GetGeneration(), p.GetNewGeneration())},
		{"log", log},
		{"last change", last},
		{"devices", fmt.Sprint(p.GetDevices())},
		{"jobs", fmt.Sprintf("%d open, %d ended, %d results", p.GetOpenJobs(), p.GetEndedJobs(), p.GetResults())},
		{"pages", fmt.Sprintf("%d missing on this disk", p.GetPagesMissing())},
	}
	for i, v := range p.GetVoters() {
		label, answers := "", "does not answer"
		if i == 0 {
			label = "other voters"
		}
		if v.GetReachable() {
			answers = "answers"
		}
		rows = append(rows, [2]string{label, fmt.Sprintf("%s (%s) %s", v.GetName(), short(v.GetId()), answers)})
	}
	if _, err := fmt.Fprintln(w, "What this machine has:"); err != nil {
		return err
	}
	if err := pairs(w, rows); err != nil {
		return err
	}
	if len(p.GetLosses()) == 0 {
		return nil
	}
	if _, err := fmt.Fprintln(w, "What to know before:"); err != nil {
		return err
	}
	for _, loss := range p.GetLosses() {
		if _, err := fmt.Fprintf(w, "- %s\n", loss); err != nil {
			return err
		}
	}
	return nil
}
