package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/ostrich-legs/ostrich/node/control"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// resultsFlags are the flags of job results.
type resultsFlags struct {
	follow    bool
	from      uint32
	unordered bool
	json      bool
	out       string
}

func (a *app) jobResultsCommand() *cobra.Command {
	var f resultsFlags
	cmd := &cobra.Command{
		Use:   "results ID",
		Short: "Print the results of a job",
		Long: `Prints the results that a job has, as map does, and with -f those to come as well.
--from N begins at index N, or with --unordered at the N-th that was completed, so
that an interrupted reader goes on where it was.`,
		Example: `  ostrich job results -f 5kq2x7ab
  ostrich job results 5kq2x7ab --from 1000 --json`,
		Args: exactArgs(1, "the ID of a job"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withNode(func(c *control.Client) error {
				return a.jobResults(cmd.Context(), c, args[0], &f)
			})
		},
	}
	flags := cmd.Flags()
	flags.BoolVarP(&f.follow, "follow", "f", false, "wait for results until the job has ended")
	flags.Uint32Var(&f.from, "from", 0, "the first index `N` to print")
	flags.BoolVar(&f.unordered, "unordered", false, "in the order of completion")
	flags.BoolVar(&f.json, "json", false, "print an object for each task")
	flags.StringVar(&f.out, "out", "", "write each output to a file `DIR`/INDEX instead of stdout")
	return cmd
}

func (a *app) jobResults(ctx context.Context, c *control.Client, name string, f *resultsFlags) error {
	job, err := findJob(ctx, c, name)
	if err != nil {
		return err
	}
	w, err := a.newResultWriter(f.json, f.out)
	if err != nil {
		return err
	}
	w.raw = job.GetSpec().GetSingle()
	p := a.newProgress()
	w.aside = p.around
	job, err = c.Results(ctx, control.ResultsOptions{
		JobID: wire.JobID(job.GetId()), Unordered: f.unordered, From: f.from, Follow: f.follow,
		Progress: p.job, Patience: control.Patience{Waiting: p.wait},
	}, w.write)
	p.end()
	if err != nil {
		return err
	}
	if job.GetSpec().GetSingle() && w.failed > 0 {
		return a.taskStatus(w)
	}
	return jobOutcome(job, w.failed)
}
