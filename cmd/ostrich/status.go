package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ostrich-legs/ostrich/node/control"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

func (a *app) statusCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what this machine's node knows of itself and its swarm",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withNode(func(c *control.Client) error {
				res, err := control.Call(cmd.Context(), c.GetStatus, &wire.GetStatusRequest{})
				if err != nil {
					return err
				}
				if asJSON {
					return printJSON(a.out, statusView(res.GetStatus()))
				}
				return printStatus(a.out, statusView(res.GetStatus()))
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print an object")
	return cmd
}

func printStatus(w io.Writer, s statusJSON) error {
	coordinator := s.Coordinator
	if coordinator == "" {
		coordinator = "none is known now"
	}
	quorum := "yes"
	if !s.Quorum {
		quorum = "NO"
	}
	st, r := s.Stats, s.Resources
	err := pairs(w, [][2]string{
		{"device", fmt.Sprintf("%s  %s  (%s)", s.Name, s.DeviceID, s.Role)},
		{"swarm", strings.TrimSpace(s.SwarmName + "  " + s.SwarmID)},
		{"coordinator", coordinator},
		{"quorum", fmt.Sprintf("%s  (%d voters of %d members, term %d)", quorum, len(s.Voters), len(s.Members), s.Term)},
		{"work", strings.TrimSpace(fmt.Sprintf("%s  %d jobs (%d active), %d tasks: %d pending, %d active, %d completed, %d failed; %.1f tasks/s",
			s.RunState, st.TotalJobs, st.ActiveJobs, st.TotalTasks, st.PendingTasks, st.ActiveTasks, st.CompletedTasks, st.FailedTasks, st.GlobalVelocity))},
		{"resources", fmt.Sprintf("%d devices online, %d cores, %.1f GB memory, %d GPUs", r.OnlineCount, r.TotalCores, r.TotalMemoryGB, r.TotalGPUs)},
		{"stored here", bytesText(s.BytesStored)},
		{"public", s.Addresses.Public},
		{"control", s.Addresses.Control},
		{"p2p", strings.Join(s.Addresses.P2P, "\n             ")},
	})
	if err != nil {
		return err
	}
	for _, warning := range s.Warnings {
		if _, err := fmt.Fprintf(w, "note: %s\n", warning); err != nil {
			return err
		}
	}
	return nil
}
