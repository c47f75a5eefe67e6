package state

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const startMS = 1_760_000_000_000

// testKey returns the n-th key pair of the tests.
func testKey(n int) ed25519.PrivateKey {
	seed := make([]byte, ed25519.SeedSize)
	binary.BigEndian.PutUint64(seed, uint64(n)+1)
	return ed25519.NewKeyFromSeed(seed)
}

func public(k ed25519.PrivateKey) ed25519.PublicKey { return k.Public().(ed25519.PublicKey) }

func deviceID(n int) wire.DeviceID { return wire.NewDeviceID(public(testKey(n))) }

func profile(name string) *wire.DeviceProfile {
	return &wire.DeviceProfile{
		Name: name, Type: wire.DeviceType_DEVICE_TYPE_SERVER, Version: "test", Format: 1,
		Capabilities: &wire.Capabilities{CpuCores: 2, MemoryGb: 4, Runtime: "wazero"},
		Labels:       map[string]string{"room": "lab", "os": "linux"},
	}
}

// foundOp founds the swarm of root key 100 with device 0 as its founder.
func foundOp() *wire.FoundSwarm {
	root := testKey(100)
	f := &wire.FoundSwarm{
		RootKey: public(root), Founder: string(deviceID(0)), Profile: profile("founder"),
		LeaseKey: bytes.Repeat([]byte{7}, 32), SwarmName: "home",
	}
	f.Signature = ed25519.Sign(root, wire.FoundingStatement(f))
	return f
}

// wrap puts an operation into an Op.
func wrap(op any) *wire.Op {
	o := &wire.Op{Actor: string(deviceID(0))}
	switch k := op.(type) {
	case *wire.FoundSwarm:
		o.Kind = &wire.Op_FoundSwarm{FoundSwarm: k}
	case *wire.IssueInvite:
		o.Kind = &wire.Op_IssueInvite{IssueInvite: k}
	case *wire.RevokeInvite:
		o.Kind = &wire.Op_RevokeInvite{RevokeInvite: k}
	case *wire.AdmitDevice:
		o.Kind = &wire.Op_AdmitDevice{AdmitDevice: k}
	case *wire.UpdateDevice:
		o.Kind = &wire.Op_UpdateDevice{UpdateDevice: k}
	case *wire.SetPresence:
		o.Kind = &wire.Op_SetPresence{SetPresence: k}
	case *wire.RemoveDevice:
		o.Kind = &wire.Op_RemoveDevice{RemoveDevice: k}
	case *wire.SubmitJob:
		o.Kind = &wire.Op_SubmitJob{SubmitJob: k}
	case *wire.AppendInputs:
		o.Kind = &wire.Op_AppendInputs{AppendInputs: k}
	case *wire.CloseInputs:
		o.Kind = &wire.Op_CloseInputs{CloseInputs: k}
	case *wire.CompleteTasks:
		o.Kind = &wire.Op_CompleteTasks{CompleteTasks: k}
	case *wire.CancelJob:
		o.Kind = &wire.Op_CancelJob{CancelJob: k}
	case *wire.RetryJob:
		o.Kind = &wire.Op_RetryJob{RetryJob: k}
	case *wire.PurgeJob:
		o.Kind = &wire.Op_PurgeJob{PurgeJob: k}
	case *wire.PackResults:
		o.Kind = &wire.Op_PackResults{PackResults: k}
	case *wire.Sweep:
		o.Kind = &wire.Op_Sweep{Sweep: k}
	case *wire.SetDeviceMode:
		o.Kind = &wire.Op_SetDeviceMode{SetDeviceMode: k}
	case *wire.RaiseGeneration:
		o.Kind = &wire.Op_RaiseGeneration{RaiseGeneration: k}
	}
	return o
}

// command returns a command of the format that its operations need.
func command(timeMS int64, ops ...any) *wire.Command {
	c := &wire.Command{Format: 1, Term: 1, TimeMs: timeMS}
	for _, op := range ops {
		c.Ops = append(c.Ops, wrap(op))
	}
	stamp(c)
	return c
}

func stamp(c *wire.Command) {
	for _, op := range c.Ops {
		c.Format = max(c.Format, FormatOf(op))
	}
}

// swarm is a state under test, with the clock and the pages around it.
type swarm struct {
	t     testing.TB
	s     *State
	nowMS int64
	last  Outcome
}

func founded(t testing.TB) *swarm {
	w := &swarm{t: t, s: New(), nowMS: startMS}
	w.must(foundOp())
	return w
}

// try applies one operation.
func (w *swarm) try(op any) OpResult {
	w.last = w.s.Apply(1, command(w.nowMS, op))
	return w.last.Results[0]
}

func (w *swarm) must(op any) OpResult {
	w.t.Helper()
	r := w.try(op)
	if r.Err != nil {
		w.t.Fatalf("%T was refused: %v", op, r.Err)
	}
	return r
}

// refuse applies an operation that must be refused with code and must change
// nothing.
func (w *swarm) refuse(op any, code wire.Code) {
	w.t.Helper()
	before := w.s.Hash()
	r := w.try(op)
	if wire.CodeOf(r.Err) != code {
		w.t.Errorf("%T: got %v (%v), want %v", op, r.Err, wire.CodeOf(r.Err), code)
	}
	if r.Err != nil && w.s.Hash() != before {
		w.t.Errorf("%T was refused and changed the state", op)
	}
	if r.Err != nil && len(w.last.Named)+len(w.last.Released) > 0 {
		w.t.Errorf("%T was refused and touched pages", op)
	}
}

func pageHash(name string) []byte {
	h := wire.HashOf([]byte(name))
	return h[:]
}

func testProgram(name string) *wire.Program {
	return &wire.Program{Name: name, Blob: &wire.Blob{
		Size: 2 * wire.PageSize, Hash: pageHash("program " + name),
		Pages: [][]byte{pageHash(name + " 0"), pageHash(name + " 1")},
	}}
}

func testSpec() *wire.JobSpec {
	return &wire.JobSpec{
		Program: testProgram("cat"), Args: []string{"-n"}, Env: []string{"A=b"}, Retries: 2, TimeoutMs: 1000,
		MemoryMib: 64, MaxOutputBytes: 1 << 20, KeepGoing: true,
		Require: &wire.Requirements{Labels: map[string]string{"room": "lab", "os": "linux"}},
	}
}

func inlineSegment(first uint32, items ...string) *wire.Segment {
	seg := &wire.Segment{First: first, Count: uint32(len(items))}
	var list [][]byte
	for _, item := range items {
		list = append(list, []byte(item))
		seg.Bytes += uint64(len(item))
	}
	seg.Inline = wire.EncodePack(list)
	return seg
}

func pageSegment(first, count uint32, page string) *wire.Segment {
	return &wire.Segment{First: first, Count: count, Page: pageHash(page), Bytes: uint64(count)}
}

func blobSegment(first uint32, name string) *wire.Segment {
	return &wire.Segment{First: first, Count: 1, Bytes: wire.PageSize + 1, Blob: &wire.Blob{
		Size: wire.PageSize + 1, Pages: [][]byte{pageHash(name + " 0"), pageHash(name + " 1")},
	}}
}

func digest(name string) []byte { return pageHash("digest " + name) }

// submit makes a job with these inputs.
func submit(id string, closed bool, segments ...*wire.Segment) *wire.SubmitJob {
	op := &wire.SubmitJob{JobId: id, Spec: testSpec(), Close: closed}
	if len(segments) > 0 {
		op.Inputs = &wire.AppendInputs{Segments: segments, DigestAfter: digest("first")}
	}
	return op
}

// complete reports tasks that ended with an outcome each.
func complete(id string, outcomes map[uint32]byte, order ...uint32) *wire.CompleteTasks {
	op := &wire.CompleteTasks{JobId: id, Devices: []string{string(deviceID(0))}}
	var records [][]byte
	for _, i := range order {
		records = append(records, fmt.Appendf(nil, "record of %d", i))
		op.Indexes = append(op.Indexes, i)
		op.Outcomes = append(op.Outcomes, outcomes[i])
		op.DeviceOf = append(op.DeviceOf, 0)
	}
	op.Results = &wire.Segment{Count: uint32(len(order)), Inline: wire.EncodePack(records)}
	return op
}

// completeOK reports tasks that went well.
func completeOK(id string, order ...uint32) *wire.CompleteTasks { return complete(id, nil, order...) }

// inPage moves the records of a batch into a page.
func inPage(op *wire.CompleteTasks, page string) *wire.CompleteTasks {
	op.Results.Inline, op.Results.Page = nil, pageHash(page)
	return op
}

// restored returns what a snapshot of s brings back.
func restored(t testing.TB, s *State) *State {
	t.Helper()
	var buf bytes.Buffer
	if err := s.Snapshot(&buf); err != nil {
		t.Fatal(err)
	}
	again, err := Restore(bytes.NewReader(buf.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	return again
}
