package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"io"
	"strconv"
	"sync"
	"time"

	"github.com/ostrich-legs/ostrich/node/control"
	"github.com/ostrich-legs/ostrich/node/session"
	"github.com/ostrich-legs/ostrich/p2p"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

func newReader(b []byte) io.Reader { return bytes.NewReader(b) }

// stub is a device that joins like any other, keeps a real session over libp2p,
// and answers every lease at once without running anything: what remains is the
// queue.
type stub struct {
	host *p2p.Host
	conn *session.Conn
	done sync.WaitGroup
}

// stubLabel is the label by which jobs ask for stubs, so that the nodes' own
// workers leave them alone.
const stubLabel = "stub"

// joinStub joins a stub of so many slots to the swarm, with a session to the
// coordinator, which is the first node.
func joinStub(ctx context.Context, s swarm, slots int) (*stub, error) {
	out, err := control.Call(ctx, s[0].client.CreateInvite, &wire.CreateInviteRequest{Role: wire.Role_ROLE_WORKER})
	if err != nil {
		return nil, err
	}
	invite, err := p2p.ParseInvite(out.GetInvite().GetText())
	if err != nil {
		return nil, err
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	id := session.Identity{ID: wire.NewDeviceID(key.Public().(ed25519.PublicKey)), Key: key}
	profile := &wire.DeviceProfile{
		Name: "stub", Type: wire.DeviceType_DEVICE_TYPE_SERVER, Labels: map[string]string{stubLabel: "yes"}, Format: 1,
		Capabilities: &wire.Capabilities{CpuCores: uint32(slots), MemoryGb: 64, Runtime: "none"},
	}
	b := &stub{}
	b.host, err = p2p.New(p2p.Config{Key: key, Listen: "127.0.0.1:0", Role: func(wire.DeviceID) wire.Role { return wire.Role_ROLE_MEMBER }})
	if err != nil {
		return nil, err
	}
	admitted, err := b.host.Join(ctx, invite.Peers[0], func(nonce []byte) (*wire.JoinRequest, error) {
		return p2p.SignJoin(&wire.JoinRequest{SwarmId: invite.Swarm.Bytes(), Nonce: nonce, Profile: profile}, invite.Key(), key)
	})
	if err != nil {
		b.close()
		return nil, err
	}
	b.host.Learn(admitted.GetMembers())
	status, err := control.Call(ctx, s[0].client.GetStatus, &wire.GetStatusRequest{})
	if err != nil {
		b.close()
		return nil, err
	}
	stream, err := b.host.Open(ctx, wire.DeviceID(status.GetStatus().GetView().GetCoordinator()), p2p.ProtocolSession)
	if err != nil {
		b.close()
		return nil, err
	}
	hello := &wire.Hello{SwarmId: invite.Swarm.Bytes(), Generation: admitted.GetGeneration(), Slots: uint32(slots), Profile: profile}
	b.conn, _, err = session.Dial(ctx, stream, id, hello, func(wire.DeviceID) error { return nil })
	if err != nil {
		b.close()
		return nil, err
	}
	b.done.Go(func() { _ = b.conn.Run(ctx, session.Handler{Frame: b.frame}) })
	return b, nil
}

// frame answers a lease with empty outputs.
func (b *stub) frame(f *wire.Frame) error {
	lease := f.GetLease()
	if lease == nil {
		return nil
	}
	results := &wire.Results{JobId: lease.GetClaim().GetJobId(), Attempt: lease.GetClaim().GetAttempt()}
	for _, index := range lease.GetClaim().GetIndexes() {
		results.Results = append(results.Results, &wire.TaskResult{Index: index, Status: wire.TaskStatus_TASK_STATUS_OK, DurationUs: 10})
	}
	return b.conn.Send(context.Background(), &wire.Frame{Kind: &wire.Frame_Results{Results: results}})
}

func (b *stub) close() {
	if b.conn != nil {
		b.conn.Close("measured", false)
	}
	b.done.Wait()
	b.host.Close()
}

// stubSpec is a job that only stubs take.
func stubSpec(p *wire.Program) *wire.JobSpec {
	s := spec(p)
	s.Require = &wire.Requirements{Labels: map[string]string{stubLabel: "yes"}}
	return s
}

// measureQueue measures submit, lease and complete over three processes, all
// confirmed and durable, with a stub for a worker.
func measureQueue(ctx context.Context, e *env) error {
	const tasks = 200_000
	var rates []float64
	for range e.runs {
		rate, err := e.queueOnce(ctx, tasks)
		if err != nil {
			return err
		}
		rates = append(rates, rate)
	}
	e.table.add(figure{
		what: "queue alone, three processes, 200,000 tasks: submit, lease, complete, read back", unit: "tasks/s", runs: rates,
		baseline: "NATS JetStream, 3 replicas: 8,400/s with fsync unconfirmed, 820/s confirmed", goal: "at least 12,500 tasks/s",
	})
	return nil
}

func (e *env) queueOnce(ctx context.Context, tasks int) (float64, error) {
	s, err := e.swarm(ctx, 3)
	if err != nil {
		return 0, err
	}
	defer s.stop()
	b, err := joinStub(ctx, s, 16)
	if err != nil {
		return 0, err
	}
	defer b.close()
	p, err := s[1].program(ctx, "noop")
	if err != nil {
		return 0, err
	}
	took, err := s[1].mapOver(ctx, stubSpec(p), numbers(tasks), nil)
	if err != nil {
		return 0, err
	}
	return float64(tasks) / took.Seconds(), nil
}

// measureDepth shows that a task costs the same however many wait: the queue is
// filled first, then a stub joins and empties it.
func measureDepth(ctx context.Context, e *env) error {
	for _, depth := range []int{10_000, 100_000, 1_000_000} {
		var costs []float64
		var memory float64
		for range e.runs {
			cost, anonymous, err := e.depthOnce(ctx, depth)
			if err != nil {
				return err
			}
			costs, memory = append(costs, cost), max(memory, anonymous)
		}
		e.table.add(figure{
			what: "time a task with " + strconv.Itoa(depth) + " queued before the first runs", unit: "µs", runs: costs,
			baseline: fmt.Sprintf("three voters hold %s MiB of anonymous memory", number(memory)), goal: "the same at each depth",
		})
	}
	return nil
}

func (e *env) depthOnce(ctx context.Context, depth int) (microseconds, anonymous float64, err error) {
	s, err := e.swarm(ctx, 3)
	if err != nil {
		return 0, 0, err
	}
	defer s.stop()
	p, err := s[1].program(ctx, "noop")
	if err != nil {
		return 0, 0, err
	}
	job := stubSpec(p)
	job.Detached, job.KeepMs = true, time.Hour.Milliseconds()
	id := wire.NewJobID()
	if _, err := s[1].client.Map(ctx, control.MapOptions{JobID: id, Spec: job, Inputs: numbers(depth)}); err != nil {
		return 0, 0, err
	}
	anonymous = s.anonymous()
	b, err := joinStub(ctx, s, 16)
	if err != nil {
		return 0, 0, err
	}
	defer b.close()
	begun := time.Now()
	for {
		out, err := control.Call(ctx, s[1].client.GetJob, &wire.GetJobRequest{JobId: string(id)})
		if err != nil {
			return 0, 0, err
		}
		if control.Ended(out.GetJob()) {
			return float64(time.Since(begun).Microseconds()) / float64(depth), max(anonymous, s.anonymous()), nil
		}
		time.Sleep(10 * time.Millisecond)
	}
}
