package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"image/png"
	"io"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/ostrich-legs/ostrich/node/control"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const (
	demoNodes = 3
	// demoStart bounds the start of the nodes.
	demoStart = 20 * time.Second
)

func (a *app) demoCommand() *cobra.Command {
	var kill bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "See a swarm of three devices render a picture, on this machine alone",
		Long: `Starts three nodes of a new swarm in temporary folders, lets them render a picture
in tiles, a task each, writes it as a PNG file, compares it with what one direct run
of the same program gives, and cleans everything up but the picture.

With --kill the node that coordinates the others is killed (kill -9) in the middle of
the picture. The demo says how long it took until a tile was done under its successor.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.demo(cmd.Context(), kill) },
	}
	cmd.Flags().BoolVar(&kill, "kill", false, "kill the coordinator in the middle of the picture")
	return cmd
}

// rendering is a picture that the swarm computes.
type rendering struct {
	client   *control.Client
	accident *accident // nil for none

	picture *picture
	shares  map[string]int // tiles that each device computed
	took    time.Duration
}

func (a *app) demo(ctx context.Context, kill bool) (err error) {
	began := time.Now()
	base, err := os.MkdirTemp("", "ostrich-demo-")
	if err != nil {
		return fmt.Errorf("making a folder for the demo: %w", err)
	}
	s := &demoSwarm{base: base}
	defer func() {
		if serr := s.stop(); err == nil {
			err = serr
		}
	}()
	fmt.Fprintf(a.err, "Starting %d nodes in %s ...\n", demoNodes, base)
	c, err := s.start(ctx)
	if err != nil {
		return err
	}
	r := &rendering{client: c}
	defer func() { r.client.Close() }()
	fmt.Fprintf(a.err, "A swarm of %d devices is up after %.1f s. Rendering %d x %d pixels in %d tiles ...\n",
		demoNodes, time.Since(began).Seconds(), pictureWidth, pictureHeight, len(tiles()))
	if kill {
		err = a.renderAndKill(ctx, s, r)
	} else {
		err = a.render(ctx, r)
	}
	if err == nil {
		err = a.demoReport(ctx, r)
	}
	if err == nil {
		err = a.compare(ctx, r.picture)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.out, "All in %.1f s.\n", time.Since(began).Seconds())
	return err
}

// compare writes the picture to a file, and checks it against a direct run.
func (a *app) compare(ctx context.Context, p *picture) error {
	path, err := p.save()
	if err != nil {
		return err
	}
	direct := time.Now()
	want, err := renderDirectly(ctx)
	if err != nil {
		os.Remove(path)
		return err
	}
	if !bytes.Equal(p.pixels, want) {
		return fmt.Errorf("the picture %s differs from a direct run of the same program", path)
	}
	_, err = fmt.Fprintf(a.out, "The same, byte for byte, as a direct run in this process (%.1f s).\nPicture: %s\n",
		time.Since(direct).Seconds(), path)
	return err
}

// render maps the renderer over the tiles, and fills the rest of r in.
func (a *app) render(ctx context.Context, r *rendering) error {
	program, err := a.program(ctx, r.client, builtin+"render")
	if err != nil {
		return err
	}
	began := time.Now()
	r.picture, r.shares = newPicture(), map[string]int{}
	progress := a.newProgress()
	defer progress.end()
	o := r.options(ctx, program, progress)
	progress.options(&o)
	job, err := r.client.Map(ctx, o)
	if err != nil {
		return err
	}
	r.took = time.Since(began)
	return jobOutcome(job, 0)
}

// options is the map of the picture.
func (r *rendering) options(ctx context.Context, program *wire.Program, p *progress) control.MapOptions {
	all := tiles()
	id := wire.NewJobID()
	if r.accident != nil {
		r.accident.job = id
	}
	return control.MapOptions{
		JobID: id,
		Spec: &wire.JobSpec{
			Program: program, Retries: wire.DefaultRetries, TimeoutMs: wire.DefaultTimeout.Milliseconds(),
			MemoryMib: wire.DefaultMemoryMiB, MaxOutputBytes: wire.DefaultMaxOutput,
		},
		Inputs: func(yield func(control.Input, error) bool) {
			for i, t := range all {
				if i == 3*len(all)/4 {
					r.accident.hold()
				}
				if !yield(control.Input{Data: []byte(t.line())}, nil) {
					return
				}
			}
		},
		StopInputs: r.accident.pass,
		Unordered:  true,
		Result: func(t *wire.TaskResult, output io.Reader) error {
			if t.GetStatus() != wire.TaskStatus_TASK_STATUS_OK {
				return fmt.Errorf("tile %d failed: %s", t.GetIndex(), t.GetError())
			}
			if int(t.GetIndex()) >= len(all) {
				return fmt.Errorf("a tile %d that was not asked for", t.GetIndex())
			}
			r.shares[t.GetDevice()]++
			err := p.around(func() error { return r.picture.put(all[t.GetIndex()], output) })
			if err != nil {
				return err
			}
			return r.accident.seen(ctx, t, len(all), p)
		},
	}
}

// demoReport says who computed how much.
func (a *app) demoReport(ctx context.Context, r *rendering) error {
	if err := r.accident.report(a.out); err != nil {
		return err
	}
	res, err := control.Call(ctx, r.client.ListDevices, &wire.ListDevicesRequest{})
	if err != nil {
		return err
	}
	names := map[string]string{}
	for _, d := range res.GetDevices() {
		names[d.GetId()] = d.GetProfile().GetName()
	}
	devices := slices.SortedFunc(maps.Keys(r.shares), func(x, y string) int { return cmp.Compare(names[x], names[y]) })
	var total int
	for _, n := range r.shares {
		total += n
	}
	for _, id := range devices {
		fmt.Fprintf(a.out, "%-8s %s computed %3d tiles (%d %%)\n", names[id], short(id), r.shares[id], (200*r.shares[id]+total)/(2*total))
	}
	_, err = fmt.Fprintf(a.out, "%d tiles in %.1f s\n", total, r.took.Seconds())
	return err
}

// save writes the picture to a new file in the folder for temporary files.
func (p *picture) save() (path string, err error) {
	f, err := os.CreateTemp("", "ostrich-demo-*.png")
	if err != nil {
		return "", fmt.Errorf("writing the picture: %w", err)
	}
	err = png.Encode(f, p.image())
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		os.Remove(f.Name())
		return "", fmt.Errorf("writing the picture: %w", err)
	}
	return f.Name(), nil
}

// start brings all nodes up and returns a client of the first, when all are
// online.
func (s *demoSwarm) start(ctx context.Context) (*control.Client, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, demoStart, fmt.Errorf("the nodes did not come up within %v", demoStart))
	defer cancel()
	first, err := s.node(ctx, 1, "")
	if err != nil {
		return nil, err
	}
	c, err := control.Dial(first.dir)
	if err != nil {
		return nil, err
	}
	invite, err := control.Call(ctx, c.CreateInvite, &wire.CreateInviteRequest{
		Role: wire.Role_ROLE_MEMBER, MaxUses: demoNodes - 1, UsesSet: true,
	})
	if err != nil {
		c.Close()
		return nil, err
	}
	var group errgroup.Group
	for i := 2; i <= demoNodes; i++ {
		group.Go(func() error {
			_, err := s.node(ctx, i, invite.GetInvite().GetText())
			return err
		})
	}
	if err = group.Wait(); err == nil {
		err = waitFor(ctx, demoStart, func() bool { return online(ctx, c) == demoNodes })
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// online counts the devices that can work.
func online(ctx context.Context, c *control.Client) int {
	res, _ := control.Call(ctx, c.ListDevices, &wire.ListDevicesRequest{})
	n := 0
	for _, d := range res.GetDevices() {
		switch d.GetStatus() {
		case wire.DeviceStatus_DEVICE_STATUS_ONLINE, wire.DeviceStatus_DEVICE_STATUS_BUSY:
			n++
		}
	}
	return n
}
