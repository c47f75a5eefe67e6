package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"github.com/ostrich-legs/ostrich/node/control"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

func (a *app) logsCommand() *cobra.Command {
	var follow, audit, asJSON bool
	cmd := &cobra.Command{
		Use:   "logs",
		Short: "Show what happened in the swarm",
		Long: `Shows what this machine's node heard of what happened in the swarm, and with -f
what happens from now on.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withNode(func(c *control.Client) error {
				return a.logs(cmd.Context(), c, &wire.StreamLogsRequest{Follow: follow, Audit: audit}, asJSON)
			})
		},
	}
	flags := cmd.Flags()
	flags.BoolVarP(&follow, "follow", "f", false, "go on until interrupted")
	flags.BoolVar(&audit, "audit", false, "only refusals of trust")
	flags.BoolVar(&asJSON, "json", false, "print an object a line")
	return cmd
}

func (a *app) logs(ctx context.Context, c *control.Client, r *wire.StreamLogsRequest, asJSON bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.StreamLogs(ctx, connect.NewRequest(r))
	if err != nil {
		return err
	}
	defer stream.Close()
	for stream.Receive() {
		if err := a.logLine(stream.Msg().GetLine(), asJSON); err != nil {
			return err
		}
	}
	if err := stream.Err(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

func (a *app) logLine(l *wire.LogLine, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(a.out).Encode(logView(l))
	}
	audit := ""
	if l.GetAudit() {
		audit = " [audit]"
	}
	_, err := fmt.Fprintf(a.out, "%s %-5s %-12s %-8s %s%s\n", time.UnixMilli(l.GetTimeMs()).Format("2006-01-02 15:04:05.000"),
		strings.ToUpper(l.GetLevel()), l.GetSource(), short(l.GetDevice()), l.GetMessage(), audit)
	return err
}
