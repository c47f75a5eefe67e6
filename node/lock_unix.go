//go:build unix

package node

import (
	"os"

	"golang.org/x/sys/unix"
)

// lockFile takes the file for this process, or returns an error if another has
// it. The lock ends with the process, however it ends.
func lockFile(f *os.File) error {
	return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
}
