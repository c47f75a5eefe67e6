package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/ostrich-legs/ostrich/node/control"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const (
	// takeoverPatience bounds how long the demo waits for a successor.
	takeoverPatience = 30 * time.Second
	// killTries is how often the picture is begun anew because the node that
	// the demo talks to has become the coordinator.
	killTries = 3
)

var errMoved = errors.New("the node that the demo talks to has become the coordinator: run the demo again")

// accident kills the node that coordinates in the middle of a picture, and
// measures the time until a tile completes under its successor. A nil one does
// nothing. But for hold and pass its methods are for one goroutine.
type accident struct {
	swarm  *demoSwarm
	local  *demoNode // which the demo talks to: it survives
	client *control.Client
	job    wire.JobID

	results           int
	victim, successor *demoNode
	struckAt          int // results that were there
	killed            time.Time
	// recorded is how many results there were when the successor first
	// answered: those with this number and above are its own.
	recorded uint64
	takeover time.Duration // 0 before it is known
	again    int           // tiles that ran more than once

	once   sync.Once
	passed chan struct{}
}

// hold makes the inputs wait until the coordinator is dead, so that there is
// something left for its successor however fast the machine is.
func (k *accident) hold() {
	if k != nil {
		<-k.passed
	}
}

// pass ends the wait of hold.
func (k *accident) pass() {
	if k != nil {
		k.once.Do(func() { close(k.passed) })
	}
}

// seen is told of each result, and strikes at half of so many tiles.
func (k *accident) seen(ctx context.Context, r *wire.TaskResult, tiles int, p *progress) error {
	if k == nil {
		return nil
	}
	k.results++
	if r.GetAttempts() > 1 {
		k.again++
	}
	if k.results == tiles/2 {
		return k.strike(ctx, p)
	}
	if k.victim != nil && k.takeover == 0 && uint64(r.GetNumber()) >= k.recorded {
		k.takeover = time.Since(k.killed)
	}
	return nil
}

// strike kills the coordinator and waits until another one answers.
func (k *accident) strike(ctx context.Context, p *progress) error {
	ctx, cancel := context.WithTimeoutCause(ctx, takeoverPatience, fmt.Errorf("nobody has taken over within %v", takeoverPatience))
	defer cancel()
	victim, err := k.swarm.coordinator(ctx, k.client)
	if err != nil {
		return err
	}
	if victim == k.local {
		return errMoved
	}
	p.note("%s coordinates the swarm, and %d tiles are done: kill -9 ...", victim.name, k.results)
	k.victim, k.struckAt, k.killed = victim, k.results, time.Now()
	if err := victim.cmd.Process.Kill(); err != nil {
		return fmt.Errorf("killing %s: %w", victim.name, err)
	}
	<-victim.ended
	k.pass()
	// Nobody but a successor can answer what is asked from here on.
	var job *wire.Job
	err = control.Patience{Limit: takeoverPatience}.Retry(ctx, func(ctx context.Context) error {
		res, err := control.Call(ctx, k.client.GetJob, &wire.GetJobRequest{JobId: string(k.job)})
		job = res.GetJob()
		return err
	})
	if err != nil {
		return err
	}
	k.recorded = job.GetTasks().GetCompleted() + job.GetTasks().GetFailed()
	k.successor, err = k.swarm.coordinator(ctx, k.client)
	return err
}

// report says who was killed and how long it took.
func (k *accident) report(w io.Writer) error {
	if k == nil {
		return nil
	}
	if k.takeover == 0 {
		return fmt.Errorf("no tile was computed after the death of %s", k.victim.name)
	}
	_, err := fmt.Fprintf(w, "%s coordinated and was killed after %d tiles. %s took over: the first tile under it was done %.2f s after the kill; %d tiles ran again.\n",
		k.victim.name, k.struckAt, k.successor.name, k.takeover.Seconds(), k.again)
	return err
}

// renderAndKill renders the picture while the coordinator dies, by way of a
// node that survives: it replaces the client.
func (a *app) renderAndKill(ctx context.Context, s *demoSwarm, r *rendering) error {
	for range killTries {
		local, c, err := s.bystander(ctx, r.client)
		if err != nil {
			return err
		}
		r.client.Close()
		r.client = c
		r.accident = &accident{swarm: s, local: local, client: c, passed: make(chan struct{})}
		if err := a.render(ctx, r); !errors.Is(err, errMoved) {
			return err
		}
	}
	return errMoved
}

// bystander returns a node that does not coordinate, and a client of it, once
// all nodes vote, so that the loss of one costs no quorum.
func (s *demoSwarm) bystander(ctx context.Context, c *control.Client) (*demoNode, *control.Client, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, demoStart, fmt.Errorf("the nodes did not all vote within %v", demoStart))
	defer cancel()
	err := waitFor(ctx, demoStart, func() bool {
		res, _ := control.Call(ctx, c.GetStatus, &wire.GetStatusRequest{})
		return len(res.GetStatus().GetView().GetVoters()) == demoNodes
	})
	if err != nil {
		return nil, nil, err
	}
	leader, err := s.coordinator(ctx, c)
	if err != nil {
		return nil, nil, err
	}
	nodes := s.all()
	local := nodes[slices.IndexFunc(nodes, func(n *demoNode) bool { return n != leader })]
	survivor, err := control.Dial(local.dir)
	return local, survivor, err
}

// coordinator returns the node that coordinates, which a client's node hears
// from.
func (s *demoSwarm) coordinator(ctx context.Context, c *control.Client) (found *demoNode, err error) {
	err = waitFor(ctx, takeoverPatience, func() bool {
		res, _ := control.Call(ctx, c.GetStatus, &wire.GetStatusRequest{})
		id := res.GetStatus().GetView().GetCoordinator()
		if id != "" && res.GetStatus().GetQuorum() {
			found = s.named(id)
		}
		return found != nil
	})
	if err != nil {
		return nil, fmt.Errorf("asking which node coordinates: %w", err)
	}
	return found, nil
}

// named returns the node with a device ID; nil if there is none.
func (s *demoSwarm) named(id string) *demoNode {
	for _, n := range s.all() {
		if n.id == id {
			return n
		}
	}
	return nil
}

// all returns the nodes that were started.
func (s *demoSwarm) all() []*demoNode {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.nodes)
}
