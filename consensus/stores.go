package consensus

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const (
	// logFile is the log's name in the folder.
	logFile = "raft.db"
	// lockTimeout is how long another process may still hold the log: one that
	// is just ending.
	lockTimeout = time.Second
	// cachedEntries of the end of the log are kept in memory for followers. The
	// bound on their bytes is this times that of an entry.
	cachedEntries = 64
	// keptSnapshots is how many snapshots stay on disk.
	keptSnapshots = 2
)

// stores are where raft keeps its log, its vote and its snapshots.
type stores struct {
	logs      raft.LogStore
	stable    raft.StableStore
	snapshots raft.SnapshotStore
	closer    func() error
}

func (s *stores) close() error {
	if s.closer == nil {
		return nil
	}
	return s.closer()
}

// openStores opens the folder, and checks the log before anything is written to
// it.
func openStores(o Options) (*stores, error) {
	dir, logger := o.Dir, newRaftLog(loggerOf(o))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the folder of the replicated log: %w", err)
	}
	snapshots, err := raft.NewFileSnapshotStoreWithLogger(dir, keptSnapshots, logger)
	if err != nil {
		return nil, fmt.Errorf("opening the snapshots in %s: %w", dir, err)
	}
	covered, err := newestSnapshot(snapshots)
	if err != nil {
		return nil, fmt.Errorf("listing the snapshots in %s: %w", dir, err)
	}
	path := filepath.Join(dir, logFile)
	if info, err := os.Stat(path); err == nil && info.Size() > 0 {
		if err := guard(func() error { return checkLog(path, covered) }); err != nil {
			return nil, openError(dir, err)
		}
	}
	var log *raftboltdb.BoltStore
	err = guard(func() (err error) {
		log, err = openLog(path, openMode{noSync: o.Faults.NoSync})
		return err
	})
	if err != nil {
		return nil, openError(dir, err)
	}
	st := &stores{logs: log, stable: log, snapshots: snapshots, closer: log.Close}
	if o.Wrap != nil {
		st.logs, st.stable = o.Wrap(log, log)
	}
	return st, nil
}

type openMode struct{ readOnly, noSync bool }

func openLog(path string, mode openMode) (*raftboltdb.BoltStore, error) {
	return raftboltdb.New(raftboltdb.Options{
		Path:   path,
		NoSync: mode.noSync,
		BoltOptions: &bbolt.Options{
			Timeout:        lockTimeout,
			NoFreelistSync: true,
			FreelistType:   bbolt.FreelistMapType,
			ReadOnly:       mode.readOnly,
		},
	})
}

// guard calls f, and makes an error of what bbolt does with a damaged file: it
// panics, or faults where a file that was cut short is mapped.
func guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if fault := recover(); fault != nil {
			err = fmt.Errorf("%v", fault)
		}
	}()
	return f()
}

// newestSnapshot returns the last index that a snapshot covers; 0 without one.
func newestSnapshot(snapshots raft.SnapshotStore) (index uint64, err error) {
	list, err := snapshots.List()
	for _, s := range list {
		index = max(index, s.Index)
	}
	return index, err
}

// checkLog reads the whole log before bbolt opens it for writing: what is
// damaged becomes an error here, where raft would panic, or use it.
func checkLog(path string, covered uint64) error {
	log, err := openLog(path, openMode{readOnly: true})
	if err != nil {
		return err
	}
	defer log.Close()
	return checkEntries(log, covered)
}

// checkEntries verifies that every entry is what was written, and that none is
// missing but those that a snapshot covers: a follower that was sent one keeps
// its last entries from before, and goes on behind the snapshot.
func checkEntries(log raft.LogStore, covered uint64) error {
	first, err := log.FirstIndex()
	if err != nil {
		return err
	}
	last, err := log.LastIndex()
	if err != nil || last == 0 {
		return err
	}
	for i := first; i <= last; i++ {
		var l raft.Log
		err := log.GetLog(i, &l)
		if i <= covered && errors.Is(err, raft.ErrLogNotFound) {
			continue
		}
		if err != nil {
			return fmt.Errorf("entry %d of %d to %d: %w", i, first, last, err)
		}
		if l.Index != i {
			return fmt.Errorf("entry %d says that it is entry %d", i, l.Index)
		}
		if l.Type != raft.LogCommand {
			continue
		}
		if err := checkEntry(l.Data); err != nil {
			return fmt.Errorf("entry %d: %w", i, err)
		}
	}
	return nil
}

// openError says what keeps the log from being opened.
func openError(dir string, err error) error {
	var path *fs.PathError
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return wire.Errorf(wire.Code_CODE_CONFLICT, "the data folder is in use by another process: it holds %s", filepath.Join(dir, logFile))
	case errors.As(err, &path):
		return fmt.Errorf("opening the replicated log: %w", err)
	}
	return damaged(filepath.Join(dir, logFile), err)
}

// damaged is the error of a file or folder whose contents cannot be right.
func damaged(path string, err error) error {
	return fmt.Errorf("%s is %w and is left as it is (%v): where the swarm has other members, set it aside and let them bring this device up to date", path, ErrDamaged, err)
}
