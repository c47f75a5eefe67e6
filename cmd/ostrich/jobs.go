package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/ostrich-legs/ostrich/node/control"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

func (a *app) jobsCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "jobs",
		Short: "List the jobs of the swarm",
		Long:  "Lists the jobs that the swarm knows, the oldest first.",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withNode(func(c *control.Client) error {
				res, err := control.Call(cmd.Context(), c.ListJobs, &wire.ListJobsRequest{})
				if err != nil {
					return err
				}
				if asJSON {
					return printJSON(a.out, views(res.GetJobs(), jobView))
				}
				return table(a.out, "ID PROGRAM STATE TASKS FAILED CREATED WAITING-FOR", views(res.GetJobs(), jobRow))
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print an array of objects")
	return cmd
}

func jobRow(j *wire.Job) []string {
	v := jobView(j)
	return []string{
		short(v.ID), v.Program, v.State, fmt.Sprintf("%d/%d", v.Tasks.Completed, v.Tasks.Total),
		fmt.Sprint(v.Tasks.Failed), local(j.GetCreatedAtMs()), v.WaitingFor,
	}
}

func (a *app) jobCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "job",
		Short: "Look at one job, read its results, cancel or retry it",
		Long: `Does something with one job. ID is a job's ID, or as much of its end as no other
job has.`,
		RunE: needsSubcommand,
	}
	cmd.AddCommand(a.jobShowCommand(), a.jobResultsCommand(),
		a.jobAction("cancel", "Stop a job", func(ctx context.Context, c *control.Client, j *wire.Job) (string, error) {
			_, err := control.Call(ctx, c.CancelJob, &wire.CancelJobRequest{JobId: j.GetId(), Reason: "cancelled by hand"})
			return "is cancelled", err
		}),
		a.jobAction("retry", "Run the failed tasks of a job again", func(ctx context.Context, c *control.Client, j *wire.Job) (string, error) {
			res, err := control.Call(ctx, c.RetryJob, &wire.RetryJobRequest{JobId: j.GetId(), EndedAtMs: j.GetEndedAtMs()})
			return fmt.Sprintf("runs %s again", count(uint64(res.GetTasks()), "task")), err
		}),
		a.jobAction("rm", "Forget a job and its data", func(ctx context.Context, c *control.Client, j *wire.Job) (string, error) {
			_, err := control.Call(ctx, c.RemoveJob, &wire.RemoveJobRequest{JobId: j.GetId(), CreatedAtMs: j.GetCreatedAtMs()})
			return "is removed", err
		}))
	return cmd
}

// jobAction is a command that does one thing with one job and says so.
func (a *app) jobAction(name, about string, do func(context.Context, *control.Client, *wire.Job) (string, error)) *cobra.Command {
	return &cobra.Command{
		Use:   name + " ID",
		Short: about,
		Args:  exactArgs(1, "the ID of a job"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withNode(func(c *control.Client) error {
				job, err := findJob(cmd.Context(), c, args[0])
				if err != nil {
					return err
				}
				done, err := do(cmd.Context(), c, job)
				if err != nil {
					return err
				}
				a.notice("job %s %s", short(job.GetId()), done)
				return nil
			})
		},
	}
}

func (a *app) jobShowCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show ID",
		Short: "Show how a job stands",
		Args:  exactArgs(1, "the ID of a job"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withNode(func(c *control.Client) error {
				job, err := findJob(cmd.Context(), c, args[0])
				if err != nil {
					return err
				}
				if asJSON {
					return printJSON(a.out, jobView(job))
				}
				return printJob(a.out, job)
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print an object")
	return cmd
}

func printJob(w io.Writer, j *wire.Job) error {
	v := jobView(j)
	return pairs(w, [][2]string{
		{"id", v.ID}, {"program", v.Program}, {"state", v.State}, {"submitter", v.Submitter},
		{"priority", fmt.Sprint(v.Priority)}, {"created", local(j.GetCreatedAtMs())}, {"ended", local(j.GetEndedAtMs())},
		{"tasks", fmt.Sprintf("%d, of them %d pending, %d active, %d completed, %d failed",
			v.Tasks.Total, v.Tasks.Pending, v.Tasks.Active, v.Tasks.Completed, v.Tasks.Failed)},
		{"waiting for", v.WaitingFor}, {"error", v.Error},
	})
}

// pairs prints what has a value, a line each.
func pairs(w io.Writer, all [][2]string) error {
	text := ""
	for _, p := range all {
		if p[1] != "" {
			text += fmt.Sprintf("%-13s%s\n", p[0], p[1])
		}
	}
	_, err := io.WriteString(w, text)
	return err
}
