package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/ostrich-legs/ostrich/node/control"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

func (a *app) leaveCommand() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "leave",
		Short: "Take this device out of its swarm, for good",
		Long: `Takes this device out of its swarm, stops its node and clears its data folder. It
may join again with a new invite, as a new device. A coordinator hands its role over
first. It is refused, with the reason, where the members that are left could not go
on without this one.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withNode(func(c *control.Client) error {
				res, err := control.Call(cmd.Context(), c.GetStatus, &wire.GetStatusRequest{})
				if err != nil {
					return err
				}
				if err := a.confirm(yes, leaveQuestion(res.GetStatus())); err != nil {
					return err
				}
				return a.endNode(cmd.Context(), c, func(ctx context.Context) error {
					_, err := control.Call(ctx, c.Leave, &wire.LeaveRequest{})
					return err
				})
			})
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

// leaveQuestion asks whether a device shall leave, and says what it costs the
// others.
func leaveQuestion(s *wire.Status) string {
	question := fmt.Sprintf("Take %s out of swarm %s (%s) for good?", s.GetName(), s.GetView().GetSwarmName(), s.GetSwarmId())
	members := s.GetView().GetMembers()
	if !slices.Contains(members, s.GetDeviceId()) {
		return question
	}
	switch len(members) {
	case 1:
		return "This is the swarm's only member: without it the swarm is gone, with its jobs and its list of devices.\n" + question
	case 2:
		return "One member is left then: if that machine is lost, so are the swarm's jobs and its list of devices.\n" + question
	case 3:
		return "Two members are left then, and one of them votes: if that machine is lost, the swarm stops.\n" + question
	}
	return question
}
