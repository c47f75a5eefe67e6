package controltest

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// Time is when everything happens: 2026-01-02T03:04:05Z, in milliseconds.
const Time = 1767323045000

// Self, Other and Third are the devices of the swarm. The first is the node's
// own.
const (
	Self  = "12D3KooWSelfSelfSelfSelfSelfSelfSelfSelfSelfAAAA0001"
	Other = "12D3KooWOtherOtherOtherOtherOtherOtherOtherBBBB0002"
	Third = "12D3KooWThirdThirdThirdThirdThirdThirdThirdBBBB1002"
)

// Service is the fake. Set its fields before it serves; its methods may be
// called concurrently.
type Service struct {
	// Compute makes a task's result; nil means Echo. Attempts, device and the
	// like are filled in.
	Compute func(spec *wire.JobSpec, index uint32, input []byte) *wire.TaskResult
	// Reverse records the results of each call in reverse order.
	Reverse bool
	// Hold keeps results from being recorded until the job's inputs are closed.
	Hold bool
	// Discard forgets the bytes of large inputs, for tests of memory.
	Discard bool
	// Before and After, if not nil, are called around each call with its name
	// and its number, from 1, among those of that name. An error is the call's
	// answer: before it does anything, or although it has.
	Before, After func(name string, n int) error
	// Cut, if not nil, returns after how many messages the n-th stream of
	// results is cut off; 0 means never.
	Cut func(n int) int
	// Plan is what Recover shows, and Findings what Diagnose finds.
	Plan     *wire.RecoveryPlan
	Findings []*wire.Finding
	// Stopped is told that Stop or Leave was called.
	Stopped func()

	mu      sync.Mutex
	changed chan struct{}
	calls   map[string]int
	jobs    []*job
	blobs   map[wire.Hash][]byte
	devices []*wire.Device
	invites []*wire.Invite
	logs    []*wire.LogLine
}

// New returns a service of a swarm of three devices, with no jobs.
func New() *Service {
	return &Service{
		changed: make(chan struct{}), calls: map[string]int{}, blobs: map[wire.Hash][]byte{},
		devices: devices(), logs: logs(), Plan: plan(), Findings: findings(),
	}
}

// Echo is the program that puts out its input.
func Echo(_ *wire.JobSpec, _ uint32, input []byte) *wire.TaskResult {
	return &wire.TaskResult{Status: wire.TaskStatus_TASK_STATUS_OK, Output: input}
}

// Fail returns the result of a program that ended with a status.
func Fail(code uint32, stderr string) *wire.TaskResult {
	return &wire.TaskResult{
		Status: wire.TaskStatus_TASK_STATUS_FAILED, Failure: wire.FailureKind_FAILURE_KIND_EXIT, ExitCode: code,
		Stderr: []byte(stderr), Error: fmt.Sprintf("exit status %d", code),
	}
}

// Calls returns how often a call was made.
func (s *Service) Calls(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[name]
}

// Job returns a copy of a job as lists show it; nil if there is none.
func (s *Service) Job(id wire.JobID) *wire.Job {
	s.mu.Lock()
	defer s.mu.Unlock()
	if j := s.find(string(id)); j != nil {
		return proto.CloneOf(j.view())
	}
	return nil
}

// Inputs returns the inputs that a job has.
func (s *Service) Inputs(id wire.JobID) [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if j := s.find(string(id)); j != nil {
		return slices.Clone(j.inputs)
	}
	return nil
}

// call counts a call, does it, and gives the faults their chance.
func call[Res any](s *Service, name string, do func() (*Res, error)) (*connect.Response[Res], error) {
	s.mu.Lock()
	s.calls[name]++
	n := s.calls[name]
	s.mu.Unlock()
	if s.Before != nil {
		if err := s.Before(name, n); err != nil {
			return nil, err
		}
	}
	res, err := s.locked(do2any(do))
	if err != nil {
		return nil, err
	}
	if s.After != nil {
		if err := s.After(name, n); err != nil {
			return nil, err
		}
	}
	return connect.NewResponse(res.(*Res)), nil
}

func do2any[Res any](do func() (*Res, error)) func() (any, error) {
	return func() (any, error) { return do() }
}

// locked does something under the lock and wakes the streams.
func (s *Service) locked(do func() (any, error)) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	res, err := do()
	close(s.changed)
	s.changed = make(chan struct{})
	return res, err
}

// wait waits for a change after the moment when changed was read.
func wait(ctx context.Context, changed <-chan struct{}) error {
	select {
	case <-changed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
