//go:build ostrich_faults

package consensus

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/raft"
)

// InjectFaults lets a test harm the log of a running program, by words in a
// file. It is in no released program: only the build tag ostrich_faults has it.
//
//	nosync   when the group is opened: what is written is not made durable
//	fail     each write fails with an error of the disk
//	stall    each write waits for as long as the word is there
func InjectFaults(o *Options, file string) {
	o.Faults.NoSync = o.Faults.NoSync || isSaid(file, "nosync")
	o.Wrap = func(logs raft.LogStore, stable raft.StableStore) (raft.LogStore, raft.StableStore) {
		return faultyLog{logs, file}, faultyStable{stable, file}
	}
}

// isSaid reports whether the file has the word.
func isSaid(file, word string) bool {
	text, err := os.ReadFile(file)
	return err == nil && strings.Contains(string(text), word)
}

// suffer does to a write what the file says.
func suffer(file string, write func() error) error {
	for isSaid(file, "stall") {
		time.Sleep(10 * time.Millisecond)
	}
	if isSaid(file, "fail") {
		return fmt.Errorf("a fault that %s asks for: %w", file, syscall.EIO)
	}
	return write()
}

type faultyLog struct {
	raft.LogStore
	file string
}

func (f faultyLog) StoreLog(l *raft.Log) error {
	return suffer(f.file, func() error { return f.LogStore.StoreLog(l) })
}

func (f faultyLog) StoreLogs(l []*raft.Log) error {
	return suffer(f.file, func() error { return f.LogStore.StoreLogs(l) })
}

func (f faultyLog) DeleteRange(low, high uint64) error {
	return suffer(f.file, func() error { return f.LogStore.DeleteRange(low, high) })
}

type faultyStable struct {
	raft.StableStore
	file string
}

func (f faultyStable) Set(key, value []byte) error {
	return suffer(f.file, func() error { return f.StableStore.Set(key, value) })
}

func (f faultyStable) SetUint64(key []byte, value uint64) error {
	return suffer(f.file, func() error { return f.StableStore.SetUint64(key, value) })
}
