//go:build !windows

package blob

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// FreeSpace returns the bytes that this process may still write to the disk
// that holds dir.
func FreeSpace(dir string) (uint64, error) {
	var stat unix.Statfs_t
	if err := unix.Statfs(dir, &stat); err != nil {
		return 0, fmt.Errorf("free space of the disk of %s: %w", dir, err)
	}
	return uint64(stat.Bavail) * uint64(stat.Bsize), nil
}

func isNoSpace(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}

func syncFile(path string) error { return syncPath(path) }

func syncFolder(path string) error { return syncPath(path) }

func syncPath(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}
