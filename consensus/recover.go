package consensus

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"

	"github.com/ostrich-legs/ostrich/consensus/state"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// Remains is what a member holds of the swarm's memory, for the plan of a
// recovery.
type Remains struct {
	// Generation of its log.
	Generation uint64
	// Last is the end of its log, Committed what it knows to be committed, Applied
	// what its state holds. Recover commits everything up to Last.
	Last, Committed, Applied uint64
	// TimeMS is the time of the newest command in its state, milliseconds since
	// 1970 in UTC; 0 before the first.
	TimeMS int64
	// Leads says that a quorum answered just now: there is nothing to recover.
	Leads bool
	// Leader is who leads, as far as this node knows; "" for nobody.
	Leader wire.DeviceID
	// Servers are those of the newest configuration.
	Servers []Server
}

// Remains returns what this node holds, for the plan of a recovery.
func (g *Group) Remains() Remains {
	leader, _ := g.Leader()
	_, leads := g.leading()
	r := Remains{
		Generation: g.generation,
		Last:       g.raft.LastIndex(),
		Committed:  g.raft.CommitIndex(),
		Applied:    g.inState(),
		Leads:      leads,
		Leader:     leader,
		Servers:    g.Servers(),
	}
	g.Read(func(s *state.State) { r.TimeMS = s.TimeMS() })
	return r
}

// Preview calls f with the state as a recovery from this node would make it: all
// that its snapshot and its log hold, whether it was committed or not. After a
// restart without a quorum that is more than Read shows. It reads the whole log
// and takes the memory of a second state; f must not keep what it was given.
func (g *Group) Preview(f func(*state.State)) error {
	whole := newThrowaway()
	snapshots, err := g.stores.snapshots.List()
	if err != nil {
		return fmt.Errorf("listing the snapshots in %s: %w", g.dir, err)
	}
	next := uint64(0)
	if len(snapshots) > 0 {
		_, data, err := g.stores.snapshots.Open(snapshots[0].ID)
		if err != nil {
			return fmt.Errorf("opening snapshot %s: %w", snapshots[0].ID, err)
		}
		if err := whole.Restore(data); err != nil {
			return err
		}
		next = snapshots[0].Index + 1
	}
	first, err := g.stores.logs.FirstIndex()
	if err != nil {
		return err
	}
	for i, last := max(first, next), g.raft.LastIndex(); i > 0 && i <= last; i++ {
		var l raft.Log
		if err := g.stores.logs.GetLog(i, &l); err != nil {
			return fmt.Errorf("reading entry %d of the log: %w", i, err)
		}
		if l.Type == raft.LogCommand {
			whole.Apply(&l)
		}
	}
	if fault := whole.fault(); fault != nil {
		return fault
	}
	whole.read(f)
	return nil
}

// newThrowaway makes a state machine that nobody listens to.
func newThrowaway() *fsm {
	return newFSM(fsmHooks{changed: func() {}, members: func() {}, snapshot: 1 << 62})
}

// A recovery is prepared beside the log's folder, and takes its place by two
// renames:
//
//	DIR                      the old log, untouched
//	DIR.recovering           the copy that is worked on: removed after a crash
//	DIR.recovered            the copy, complete and synced
//
//	1. DIR.recovering → DIR.recovered
//	2. DIR → DIR.generation-N.TIME
//	3. DIR.recovered → DIR
//
// After a crash before step 2 the old log is in its place, and counts; after it
// Open takes step 3.
const (
	recoveringSuffix = ".recovering"
	recoveredSuffix  = ".recovered"
)

// recoveredTerms is how far a recovery raises the term: terms in which others
// led after this node was cut off must not come again in the new generation.
const recoveredTerms = 1000

// Recover makes this member alone the group, in a new generation, when most
// voters are lost. It works on the folder of a Group that was closed. All that
// its log holds counts as committed from then on, and nothing else does: what
// only the others held is lost. It becomes a new replica, and the only voter.
// The old folder is kept beside it, under the name that is returned.
//
// It may be interrupted at any point: the folder is then the old one or the new
// one (see Open). generation must be higher than the log's (CODE_PRECONDITION).
func Recover(dir string, self wire.DeviceID, generation uint64, log *slog.Logger) (kept string, err error) {
	if err := resumeRecovery(dir); err != nil {
		return "", err
	}
	if _, err := os.Stat(dir); err != nil {
		return "", fmt.Errorf("there is nothing to recover from: %w", err)
	}
	work := dir + recoveringSuffix
	if err := copyFolder(dir, work); err != nil {
		return "", fmt.Errorf("copying %s for the recovery: %w", dir, err)
	}
	old, err := recoverFolder(Options{Self: self, Dir: work, Generation: generation, Log: log})
	if err != nil {
		return "", errors.Join(fmt.Errorf("recovering from a copy of %s: %w", dir, err), os.RemoveAll(work))
	}
	if err := renameSynced(work, dir+recoveredSuffix); err != nil {
		return "", err
	}
	if kept, err = SetAside(dir, fmt.Sprintf("generation-%d", old)); err != nil {
		return "", err
	}
	return kept, resumeRecovery(dir)
}

// recoverFolder rewrites a folder's log for a group of one, and returns the
// generation that it was of.
func recoverFolder(o Options) (old uint64, err error) {
	st, err := openStores(o)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, st.close()) }()
	old, had, err := st.generation()
	if err != nil {
		return 0, damaged(o.Dir, err)
	}
	if !had {
		return 0, wire.Errorf(wire.Code_CODE_PRECONDITION, "the log is empty: there is nothing to recover from")
	}
	if o.Generation <= old || o.Generation > wire.MaxGeneration {
		return 0, wire.Errorf(wire.Code_CODE_PRECONDITION, "the log is of generation %d; a recovery needs a higher one, up to %d, and not %d", old, wire.MaxGeneration, o.Generation)
	}
	term, err := st.stable.GetUint64([]byte(termKey))
	if err != nil {
		return 0, damaged(o.Dir, err)
	}
	me := Server{ID: o.Self, Replica: newReplica(), Voter: true}
	conf := raft.DefaultConfig()
	conf.LocalID = me.id()
	conf.Logger = newRaftLog(loggerOf(o))
	address, transport := raft.NewInmemTransport(raft.ServerAddress(me.id()))
	defer transport.Close()
	f := newThrowaway()
	err = raft.RecoverCluster(conf, f, st.logs, st.stable, st.snapshots, transport,
		raft.Configuration{Servers: []raft.Server{{ID: me.id(), Address: address}}})
	if fault := f.fault(); fault != nil {
		return 0, fault
	}
	if err != nil {
		return 0, err
	}
	return old, errors.Join(
		st.stable.SetUint64([]byte(termKey), term+recoveredTerms),
		st.stable.Set([]byte(replicaKey), []byte(me.Replica)),
		st.setGeneration(o.Generation),
	)
}

// resumeRecovery puts in order what an interrupted Recover left.
func resumeRecovery(dir string) error {
	if err := os.RemoveAll(dir + recoveringSuffix); err != nil {
		return fmt.Errorf("removing what an interrupted recovery left: %w", err)
	}
	done := dir + recoveredSuffix
	if _, err := os.Stat(done); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return renameSynced(done, dir)
	} else if err != nil {
		return err
	}
	// The old log was not given up yet.
	if err := os.RemoveAll(done); err != nil {
		return fmt.Errorf("undoing an interrupted recovery: %w", err)
	}
	return nil
}

// SetAside renames a folder, or file, that is not to be used any more to
// NAME.WHY.TIME beside it, and returns the new name. Why is a word for people.
func SetAside(dir, why string) (kept string, err error) {
	base := fmt.Sprintf("%s.%s.%s", dir, why, time.Now().UTC().Format("20060102T150405Z"))
	for i := range 1000 {
		kept = base
		if i > 0 {
			kept = fmt.Sprintf("%s-%d", base, i)
		}
		if _, err := os.Lstat(kept); err == nil {
			continue
		}
		return kept, renameSynced(dir, kept)
	}
	return "", fmt.Errorf("setting %s aside: there are too many already", dir)
}

// renameSynced renames within a folder, durably.
func renameSynced(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(to))
}

// copyFolder copies a folder of files and folders, durably.
func copyFolder(from, to string) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	for _, e := range entries {
		source, target := filepath.Join(from, e.Name()), filepath.Join(to, e.Name())
		switch {
		case e.IsDir():
			err = copyFolder(source, target)
		case e.Type().IsRegular():
			err = copyFile(source, target)
		}
		if err != nil {
			return err
		}
	}
	return syncFolder(to)
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Sync(), out.Close())
}
