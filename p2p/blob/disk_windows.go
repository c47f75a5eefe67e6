package blob

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/windows"
)

// FreeSpace returns the bytes that this process may still write to the disk
// that holds dir.
func FreeSpace(dir string) (uint64, error) {
	path, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return 0, fmt.Errorf("free space of the disk of %s: %w", dir, err)
	}
	var free uint64
	if err := windows.GetDiskFreeSpaceEx(path, &free, nil, nil); err != nil {
		return 0, fmt.Errorf("free space of the disk of %s: %w", dir, err)
	}
	return free, nil
}

func isNoSpace(err error) bool {
	return errors.Is(err, windows.ERROR_DISK_FULL) || errors.Is(err, windows.ERROR_HANDLE_DISK_FULL)
}

// syncFile needs a handle that may write.
func syncFile(path string) error {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}

// syncFolder does nothing: Windows has no such call, and NTFS journals its
// folders.
func syncFolder(string) error { return nil }
