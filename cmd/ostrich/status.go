package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ostrich-legs/ostrich/node/control"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// silentMS is how long a server of the Raft group may not answer before status
// says so: the coordinator hears of a live one several times a second.
const silentMS = 3000

func (a *app) statusCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what this machine's node knows of itself and its swarm",
		Args:  noArgs,
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
	coordinator := "none is known now"
	if s.Coordinator != "" {
		coordinator = s.member(s.Coordinator)
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
		{"quorum", fmt.Sprintf("%s  (%s of %s, term %d, generation %d)", quorum, count(len(s.Voters), "voter"), count(len(s.Members), "member"), s.Term, s.Generation)},
		{"voters", s.memberList(s.Voters)},
		{"standbys", s.memberList(s.Standbys)},
		{"log here", s.logText()},
		{"work", strings.TrimSpace(fmt.Sprintf("%s  %s (%d active), %s: %d pending, %d active, %d completed, %d failed; %.1f tasks/s",
			s.RunState, count(st.TotalJobs, "job"), st.ActiveJobs, count(st.TotalTasks, "task"), st.PendingTasks, st.ActiveTasks, st.CompletedTasks, st.FailedTasks, st.GlobalVelocity))},
		{"resources", fmt.Sprintf("%s online, %s, %.1f GB memory, %s", count(r.OnlineCount, "device"), count(r.TotalCores, "core"), r.TotalMemoryGB, count(r.TotalGPUs, "GPU"))},
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

// logText says how far this node's memory of the swarm is; "" on workers.
func (s statusJSON) logText() string {
	if s.LogIndex == 0 && s.Applied == 0 {
		return ""
	}
	return fmt.Sprintf("entry %d, %d of them applied, lag %d, %d pages missing", s.LogIndex, s.Applied, s.Lag, s.PagesMissing)
}

// member names a member, by its ID where nothing else is known of it.
func (s statusJSON) member(id string) string {
	for _, m := range s.MemberViews {
		if m.ID == id {
			return fmt.Sprintf("%s (%s)", m.Name, short(id))
		}
	}
	return id
}

// memberList names members, and says what is behind or silent of each.
func (s statusJSON) memberList(ids []string) string {
	var out []string
	for _, id := range ids {
		text := s.member(id)
		for _, m := range s.MemberViews {
			switch {
			case m.ID != id || id == s.Coordinator || !s.Quorum:
			case m.SilentMS < 0 || m.SilentMS >= silentMS:
				text += " SILENT"
			case m.Lag > 0:
				text += fmt.Sprintf(" lag %d", m.Lag)
			}
			if m.ID == id && m.PagesMissing > 0 {
				text += fmt.Sprintf(" %d pages missing", m.PagesMissing)
			}
		}
		out = append(out, text)
	}
	return strings.Join(out, ", ")
}
