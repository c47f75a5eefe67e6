package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/ostrich-legs/ostrich/node"
	"github.com/ostrich-legs/ostrich/node/control"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

func (a *app) doctorCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Say what is wrong with this machine's node and its swarm, and what to do",
		Long: `Looks at what is reachable, who votes, the log and its pages, the disk, the clocks and
the versions, and says what is wrong and how to mend it. Without a running node it
looks at the data folder and the ports. The exit status is 1 when it finds a problem.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			findings, err := a.findings(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				err = printJSON(a.out, views(findings, findingView))
			} else {
				err = printFindings(a.out, findings)
			}
			if err != nil {
				return err
			}
			return problems(findings)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print an array of objects")
	return cmd
}

// findings asks the node, and looks at its folder where there is none.
func (a *app) findings(ctx context.Context) ([]*wire.Finding, error) {
	dir, err := a.folder()
	if err != nil {
		return nil, err
	}
	var res *wire.DiagnoseResponse
	err = a.withNode(func(c *control.Client) (err error) {
		res, err = control.Call(ctx, c.Diagnose, &wire.DiagnoseRequest{})
		return err
	})
	if errors.Is(err, control.ErrNoNode) {
		c := node.DefaultConfig()
		c.DataDir = dir
		return node.Examine(c), nil
	}
	return res.GetFindings(), err
}

// problems is the error that says how many findings are problems; nil for none.
func problems(findings []*wire.Finding) error {
	n := 0
	for _, f := range findings {
		if f.GetLevel() == node.LevelProblem {
			n++
		}
	}
	switch n {
	case 0:
		return nil
	case 1:
		return errors.New("1 problem was found")
	}
	return fmt.Errorf("%d problems were found", n)
}

func printFindings(w io.Writer, findings []*wire.Finding) error {
	width := 0
	for _, f := range findings {
		width = max(width, len(f.GetSubject()))
	}
	for _, f := range findings {
		if _, err := fmt.Fprintf(w, "%-7s  %-*s  %s\n", f.GetLevel(), width, f.GetSubject(), f.GetText()); err != nil {
			return err
		}
		if f.GetMend() == "" {
			continue
		}
		if _, err := fmt.Fprintf(w, "%-7s  %-*s  → %s\n", "", width, "", f.GetMend()); err != nil {
			return err
		}
	}
	return nil
}
