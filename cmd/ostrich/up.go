package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ostrich-legs/ostrich/node"
	"github.com/ostrich-legs/ostrich/node/control"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// exitWithStdin is set to 1 by the demo for the nodes that it starts: they end
// when their stdin does, so that they do not outlive it.
const exitWithStdin = "OSTRICH_EXIT_WITH_STDIN"

// nodeGCPercent makes a node's memory follow closely what it holds: it shares
// its machine with its owner.
const nodeGCPercent = 50

// maxInvite bounds an invite that is read from stdin.
const maxInvite = 64 << 10

func (a *app) upCommand() *cobra.Command {
	c := node.DefaultConfig()
	var labels []string
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Start this machine's node",
		Long: `Starts this machine's node and keeps it running until Ctrl-C, SIGTERM or "ostrich
down". In an empty data folder it founds a swarm, or joins one with --join; in a
used one it goes on where it was.

It prints a line "ready" on stdout when it can take work, and everything else on
stderr. INVITE is a text, a link, CODE@HOST:PORT, or - for stdin.`,
		Example: `  ostrich up
  ostrich up --join "$INVITE" --name kitchen
  ostrich up --data /tmp/second --public 127.0.0.1:0 --control 127.0.0.1:0 --p2p 127.0.0.1:0`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.up(cmd.Context(), c, labels)
		},
	}
	cmd.Flags().StringVar(&c.Join, "join", "", "join a swarm with an `INVITE`")
	nodeFlags(cmd, &c, &labels)
	return cmd
}

func (a *app) joinCommand() *cobra.Command {
	c := node.DefaultConfig()
	var labels []string
	cmd := &cobra.Command{
		Use:   "join INVITE",
		Short: "Join a swarm: the same as up --join INVITE",
		Example: `  ostrich join "$INVITE"
  ostrich join K7Q2M-XXXXX@192.168.1.20:7777`,
		Args: exactArgs(1, "an INVITE: a text, a link, CODE@HOST:PORT, or - for stdin"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if args[0] == "" {
				return usagef("an empty INVITE")
			}
			c.Join = args[0]
			return a.up(cmd.Context(), c, labels)
		},
	}
	nodeFlags(cmd, &c, &labels)
	return cmd
}

func nodeFlags(cmd *cobra.Command, c *node.Config, labels *[]string) {
	flags := cmd.Flags()
	flags.StringVar(&c.Name, "name", "", "the device's name, `N` (default: the host's)")
	flags.StringVar(&c.Public, "public", c.Public, "`HOST:PORT` of the join page; port 0 means any free one, the last one first")
	flags.StringVar(&c.TLSCert, "tls-cert", "", "serve the join page over https, with the certificate in `FILE` (PEM)")
	flags.StringVar(&c.TLSKey, "tls-key", "", "the certificate's key, in `FILE` (PEM)")
	flags.StringVar(&c.Control, "control", c.Control, "`HOST:PORT` of the API")
	flags.StringVar(&c.P2P, "p2p", c.P2P, "`HOST:PORT` for other nodes, TCP and QUIC (default: port 7776 of every address)")
	flags.BoolVar(&c.NoMDNS, "no-mdns", false, "do not look for members on the local network")
	flags.IntVar(&c.Slots, "slots", 0, "run `N` tasks at one time (default: by the cores)")
	flags.StringArrayVar(labels, "label", nil, "say `K=V` of this device, for --require (again for more)")
}

// up runs a node until it ends.
func (a *app) up(ctx context.Context, c node.Config, labels []string) error {
	var err error
	if c.DataDir, err = a.folder(); err != nil {
		return err
	}
	if c.Labels, err = parseLabels(labels); err != nil {
		return err
	}
	if c.Join == "-" {
		if c.Join, err = readInvite(a.in); err != nil {
			return err
		}
	}
	c.Version = version()
	c.Log = slog.New(logHandler(a.err))
	if err := c.Validate(); err != nil {
		return &usageError{err}
	}
	debug.SetGCPercent(nodeGCPercent)
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	if os.Getenv(exitWithStdin) == "1" {
		go func() {
			io.Copy(io.Discard, a.in)
			stop(errInterrupted)
		}()
	}
	err = node.Run(ctx, c, func() {
		fmt.Fprintln(a.out, "ready")
		a.greet(ctx, c.DataDir)
	})
	if errors.Is(err, errInterrupted) || errors.Is(err, context.Canceled) {
		return nil // the end that was asked for: by signal, or by "ostrich down"
	}
	return err
}

// parseLabels reads K=V pairs.
func parseLabels(pairs []string) (map[string]string, error) {
	labels := map[string]string{}
	for _, p := range pairs {
		k, v, err := parsePair(p, "K=V, as --label wants it")
		if err != nil {
			return nil, &usageError{err}
		}
		labels[k] = v
	}
	return labels, nil
}

func readInvite(in io.Reader) (string, error) {
	raw, err := io.ReadAll(io.LimitReader(in, maxInvite))
	if err != nil {
		return "", fmt.Errorf("reading the invite from stdin: %w", err)
	}
	invite := strings.TrimSpace(string(raw))
	if invite == "" {
		return "", usagef("no invite came on stdin")
	}
	return invite, nil
}

// logHandler writes lines for a person: the time of day is enough.
func logHandler(w io.Writer) slog.Handler {
	return slog.NewTextHandler(w, &slog.HandlerOptions{ReplaceAttr: func(groups []string, at slog.Attr) slog.Attr {
		if at.Key == slog.TimeKey && len(groups) == 0 && at.Value.Kind() == slog.KindTime {
			return slog.String(slog.TimeKey, at.Value.Time().Format(time.TimeOnly))
		}
		return at
	}})
}

// greet tells the person at the terminal what is up, and where.
func (a *app) greet(ctx context.Context, dataDir string) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	c, err := control.Dial(dataDir)
	if err != nil {
		return
	}
	defer c.Close()
	res, err := control.Call(ctx, c.GetStatus, &wire.GetStatusRequest{})
	if err != nil {
		return
	}
	s := res.GetStatus()
	fmt.Fprintf(a.err, "%s is up, as %s of swarm %s (%s)\n", s.GetName(), enum(s.GetRole().String(), "ROLE_", true), s.GetView().GetSwarmName(), s.GetSwarmId())
	fmt.Fprintf(a.err, "  public %s   control %s\n", s.GetPublicAddress(), s.GetControlAddress())
	for _, addr := range s.GetP2PAddresses() {
		fmt.Fprintf(a.err, "  p2p %s\n", addr)
	}
	switch s.GetRole() {
	case wire.Role_ROLE_ADMIN:
		fmt.Fprintln(a.err, "Let other machines in with: ostrich invite --role member")
	case wire.Role_ROLE_MEMBER:
		fmt.Fprintln(a.err, "Let workers in with: ostrich invite")
	}
	for _, w := range s.GetWarnings() {
		fmt.Fprintf(a.err, "note: %s\n", w)
	}
}
