package main

import (
	"context"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/ostrich-legs/ostrich/node/control"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const (
	// downTime is how long a node may take to end.
	downTime = 30 * time.Second
	// lingerTime is how long its process may stay after its socket.
	lingerTime = 3 * time.Second
)

func (a *app) downCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "Stop this machine's node, gracefully",
		Long: `Stops this machine's node as SIGTERM does, and waits until it has ended. Its tasks
go to other devices; its data stays, and "ostrich up" goes on with it.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withNode(func(c *control.Client) error {
				return a.endNode(cmd.Context(), c, func(ctx context.Context) error {
					_, err := control.Call(ctx, c.Stop, &wire.StopRequest{})
					return err
				})
			})
		},
	}
}

// endNode asks a node to end with ask, and waits until it has.
func (a *app) endNode(ctx context.Context, c *control.Client, ask func(context.Context) error) error {
	dir, err := a.folder()
	if err != nil {
		return err
	}
	res, err := control.Call(ctx, c.GetStatus, &wire.GetStatusRequest{})
	if err != nil && !control.Transient(err) {
		return err
	}
	pid := int(res.GetStatus().GetPid())
	if err := ask(ctx); err != nil {
		return err
	}
	gone := func() bool {
		probe, err := control.Dial(dir)
		if err == nil {
			probe.Close()
		}
		return err != nil
	}
	if err := waitFor(ctx, downTime, gone); err != nil {
		return fmt.Errorf("the node was asked to end, but still answers after %v (process %d): %w", downTime, pid, err)
	}
	if err := waitFor(ctx, lingerTime, func() bool { return !alive(pid) }); err != nil && ctx.Err() != nil {
		return err
	}
	a.notice("the node on %s has ended", dir)
	return nil
}

// waitFor waits until done reports true.
func waitFor(ctx context.Context, limit time.Duration, done func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
	return nil
}

// alive reports whether a process exists, as far as the system says.
func alive(pid int) bool {
	if pid <= 0 {
		return false
	}
	p, err := os.FindProcess(pid)
	return err == nil && p.Signal(syscall.Signal(0)) == nil
}
