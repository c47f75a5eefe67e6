package p2p

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
)

// readFile reads a file of at most limit bytes.
func readFile(path string, limit int64) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > limit {
		return nil, fmt.Errorf("%s has %d bytes: at most %d are expected", path, info.Size(), limit)
	}
	return os.ReadFile(path)
}

// WriteFile replaces the file at path by data, mode 0600, in one step: after a
// crash there is the old file or the new one, whole. What a device must not
// forget is written so.
func WriteFile(path string, data []byte) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, filepath.Base(path)+".*.tmp")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return err
	}
	return syncFolder(dir)
}

// syncFolder makes a rename in a folder durable, where the system can.
func syncFolder(dir string) error {
	if runtime.GOOS == "windows" { // it keeps renames in its own journal
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
