//go:build unix

package main

import (
	"errors"
	"io"
	"syscall"
)

// closedPipe reports whether a write failed because its reader has gone.
func closedPipe(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, io.ErrClosedPipe)
}
