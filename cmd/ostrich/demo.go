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
	return &cobra.Command{
		Use:   "demo",
		Short: "See a swarm of three devices render a picture, on this machine alone",
		Long: `Starts three nodes of a new swarm in temporary folders, lets them render a picture
in tiles, a task each, writes it as a PNG file, compares it with what one direct run
of the same program gives, and cleans everything up but the picture.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.demo(cmd.Context()) },
	}
}

func (a *app) demo(ctx context.Context) (err error) {
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
	defer c.Close()
	fmt.Fprintf(a.err, "A swarm of %d devices is up after %.1f s. Rendering %d x %d pixels in %d tiles ...\n",
		demoNodes, time.Since(began).Seconds(), pictureWidth, pictureHeight, len(tiles()))
	rendering := time.Now()
	p, shares, err := a.render(ctx, c)
	if err != nil {
		return err
	}
	took := time.Since(rendering)
	if err := a.demoReport(ctx, c, shares, took); err != nil {
		return err
	}
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
	_, err = fmt.Fprintf(a.out, "The same, byte for byte, as a direct run in this process (%.1f s).\nPicture: %s\nAll in %.1f s.\n",
		time.Since(direct).Seconds(), path, time.Since(began).Seconds())
	return err
}

// render maps the renderer over the tiles. It returns the picture, and how many
// tiles each device computed.
func (a *app) render(ctx context.Context, c *control.Client) (*picture, map[string]int, error) {
	program, err := a.program(ctx, c, builtin+"render")
	if err != nil {
		return nil, nil, err
	}
	all := tiles()
	pic := newPicture()
	shares := map[string]int{}
	progress := a.newProgress()
	defer progress.end()
	o := control.MapOptions{
		Spec: &wire.JobSpec{
			Program: program, Retries: wire.DefaultRetries, TimeoutMs: wire.DefaultTimeout.Milliseconds(),
			MemoryMib: wire.DefaultMemoryMiB, MaxOutputBytes: wire.DefaultMaxOutput,
		},
		Inputs: func(yield func(control.Input, error) bool) {
			for _, t := range all {
				if !yield(control.Input{Data: []byte(t.line())}, nil) {
					return
				}
			}
		},
		Unordered: true,
		Result: func(r *wire.TaskResult, output io.Reader) error {
			if r.GetStatus() != wire.TaskStatus_TASK_STATUS_OK {
				return fmt.Errorf("tile %d failed: %s", r.GetIndex(), r.GetError())
			}
			if int(r.GetIndex()) >= len(all) {
				return fmt.Errorf("a tile %d that was not asked for", r.GetIndex())
			}
			shares[r.GetDevice()]++
			return progress.around(func() error { return pic.put(all[r.GetIndex()], output) })
		},
	}
	progress.options(&o)
	job, err := c.Map(ctx, o)
	if err != nil {
		return nil, nil, err
	}
	return pic, shares, jobOutcome(job, 0)
}

// demoReport says who computed how much.
func (a *app) demoReport(ctx context.Context, c *control.Client, shares map[string]int, took time.Duration) error {
	res, err := control.Call(ctx, c.ListDevices, &wire.ListDevicesRequest{})
	if err != nil {
		return err
	}
	names := map[string]string{}
	for _, d := range res.GetDevices() {
		names[d.GetId()] = d.GetProfile().GetName()
	}
	devices := slices.SortedFunc(maps.Keys(shares), func(x, y string) int { return cmp.Compare(names[x], names[y]) })
	var total int
	for _, n := range shares {
		total += n
	}
	for _, id := range devices {
		fmt.Fprintf(a.out, "%-8s %s computed %3d tiles (%d %%)\n", names[id], short(id), shares[id], (200*shares[id]+total)/(2*total))
	}
	_, err = fmt.Fprintf(a.out, "%d tiles in %.1f s\n", total, took.Seconds())
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
	c, err := control.Dial(first)
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
