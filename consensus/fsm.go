package consensus

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/ostrich-legs/ostrich/consensus/state"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// fsm feeds committed entries to the state. Raft calls it from one goroutine.
//
// What it cannot apply (an entry or a snapshot of a newer version, or a damaged
// one) breaks it: from then on it applies nothing and takes no snapshot, because
// a state that skipped an entry would differ from the other nodes' for ever.
// Run reports the fault; a newer program resumes where this one stopped.
type fsm struct {
	hooks       fsmHooks
	snapshotDue chan struct{} // cap 1
	logBytes    int64         // applied since the last snapshot
	term        uint64        // of the last entry
	broken      atomic.Pointer[error]

	mu    sync.RWMutex // held for writing while an entry is applied
	state *state.State
	index atomic.Uint64 // of the last command in state; 0 right after a snapshot; written under mu
}

// fsmHooks are called from raft's goroutine, without the lock.
type fsmHooks struct {
	pages    func(term uint64, named, released []wire.Hash, ended []wire.HoldID) // may be nil
	changed  func()
	members  func() // the registry may have changed
	snapshot int64  // bytes of log that make a snapshot due
}

var _ raft.ConfigurationStore = (*fsm)(nil)

func newFSM(hooks fsmHooks) *fsm {
	return &fsm{hooks: hooks, snapshotDue: make(chan struct{}, 1), state: state.New()}
}

func (f *fsm) read(fn func(*state.State)) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	fn(f.state)
}

func (f *fsm) readAt(fn func(uint64, *state.State)) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	fn(f.index.Load(), f.state)
}

// fault returns what broke the fsm; nil while it works.
func (f *fsm) fault() error {
	if err := f.broken.Load(); err != nil {
		return *err
	}
	return nil
}

// breakWith keeps the first fault.
func (f *fsm) breakWith(err error) error {
	f.broken.CompareAndSwap(nil, &err)
	f.hooks.changed()
	return f.fault()
}

// Apply applies one committed entry and returns a state.Outcome, or the error
// that broke the fsm.
func (f *fsm) Apply(l *raft.Log) any {
	if err := f.fault(); err != nil {
		return err
	}
	cmd, err := decodeEntry(l.Data)
	if err != nil {
		return f.breakWith(wire.Errorf(wire.CodeOf(err), "entry %d of the replicated log: %v", l.Index, err))
	}
	outcome, err := f.apply(l, cmd)
	if err != nil {
		return f.breakWith(err)
	}
	ended := endedHolds(cmd, outcome)
	if f.hooks.pages != nil && (l.Term > f.term || len(outcome.Named)+len(outcome.Released)+len(ended) > 0) {
		f.hooks.pages(l.Term, outcome.Named, outcome.Released, ended)
	}
	f.term = l.Term
	f.countBytes(int64(len(l.Data)))
	if touchesMembers(cmd) {
		f.hooks.members()
	}
	f.hooks.changed()
	return outcome
}

// apply runs the command under the lock. State.Apply does not panic; should it
// all the same, the node stops with an error that says where, instead of every
// voter crashing at each start.
func (f *fsm) apply(l *raft.Log, cmd *wire.Command) (outcome state.Outcome, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	defer func() {
		if fault := recover(); fault != nil {
			err = wire.Errorf(wire.Code_CODE_INTERNAL, "entry %d of the replicated log cannot be applied: %v", l.Index, fault)
		}
	}()
	outcome = f.state.Apply(l.Term, cmd)
	f.index.Store(l.Index)
	return outcome, nil
}

// endedHolds returns the holds of the operations that were not refused. What was
// refused, in another term perhaps, may be asked for again with the same pages.
func endedHolds(cmd *wire.Command, outcome state.Outcome) (ended []wire.HoldID) {
	for i, op := range cmd.GetOps() {
		if i >= len(outcome.Results) || outcome.Results[i].Err != nil {
			continue
		}
		for _, b := range op.GetHolds() {
			if id, err := wire.HoldIDFromBytes(b); err == nil {
				ended = append(ended, id)
			}
		}
	}
	return ended
}

func (f *fsm) countBytes(n int64) {
	f.logBytes += n
	if f.logBytes >= f.hooks.snapshot {
		f.logBytes = 0
		nudge(f.snapshotDue)
	}
}

// touchesMembers reports whether cmd may change who should be a server.
func touchesMembers(cmd *wire.Command) bool {
	return slices.ContainsFunc(cmd.GetOps(), func(op *wire.Op) bool {
		switch op.GetKind().(type) {
		case *wire.Op_FoundSwarm, *wire.Op_AdmitDevice, *wire.Op_UpdateDevice, *wire.Op_RemoveDevice,
			*wire.Op_SetPresence, *wire.Op_SetDeviceMode:
			return true
		}
		return false
	})
}

// StoreConfiguration is told of each committed configuration of the group.
func (f *fsm) StoreConfiguration(uint64, raft.Configuration) {
	f.hooks.members()
	f.hooks.changed()
}

// Snapshot encodes the state in memory, so that entries can be applied while
// raft writes it to disk.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	if err := f.fault(); err != nil {
		return nil, err
	}
	f.mu.RLock()
	defer f.mu.RUnlock()
	var buf bytes.Buffer
	if err := f.state.Snapshot(&buf); err != nil {
		return nil, fmt.Errorf("encoding a snapshot: %w", err)
	}
	f.logBytes = 0
	return snapshot(buf.Bytes()), nil
}

// Restore replaces the state by a snapshot's. A snapshot that is refused leaves
// the state as it was.
func (f *fsm) Restore(r io.ReadCloser) error {
	defer r.Close()
	if err := f.fault(); err != nil {
		return err
	}
	restored, err := state.Restore(r)
	if wire.CodeOf(err) == wire.Code_CODE_VERSION {
		return f.breakWith(err)
	}
	if err != nil {
		return err
	}
	named := slices.Collect(restored.Pages())
	f.mu.Lock()
	f.state = restored
	f.index.Store(0)
	f.mu.Unlock()
	f.logBytes = 0
	if f.hooks.pages != nil {
		f.hooks.pages(0, named, nil, nil)
	}
	f.hooks.members()
	f.hooks.changed()
	return nil
}

// snapshot is an encoded state.
type snapshot []byte

// Persist writes the snapshot to raft's file.
func (s snapshot) Persist(sink raft.SnapshotSink) error {
	if _, err := sink.Write(s); err != nil {
		sink.Cancel()
		return fmt.Errorf("writing snapshot %s: %w", sink.ID(), err)
	}
	return sink.Close()
}

// Release has nothing to give back.
func (snapshot) Release() {}
