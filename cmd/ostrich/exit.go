package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// Exit statuses: section 10 of the design.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitTasksFailed = 3
	exitNoNode      = 4
	exitTime        = 124
	exitOstrich     = 125
	exitTrap        = 134
	exitBound       = 137
	exitInterrupted = 130
	exitClosedPipe  = 141
)

var (
	// errInterrupted is the cause of a context that a signal ended.
	errInterrupted = errors.New("interrupted")
	// errOutputClosed is a write to a standard output that nobody reads.
	errOutputClosed = errors.New("nobody reads the output")
)

// exitError ends the program with a status, and a message if err is not nil.
type exitError struct {
	status int
	err    error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.status)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// usageError is a command line that is wrong.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error {
	return &usageError{fmt.Errorf(format, args...)}
}

// exitStatus returns the status that err asks for, and what to say of it; ""
// means nothing.
func exitStatus(ctx context.Context, err error) (int, string) {
	var exit *exitError
	var usage *usageError
	switch {
	case err == nil:
		return exitOK, ""
	case errors.Is(err, errOutputClosed):
		return exitClosedPipe, ""
	case errors.Is(err, errInterrupted), context.Cause(ctx) == errInterrupted:
		return exitInterrupted, errInterrupted.Error()
	case errors.As(err, &exit):
		if exit.err == nil {
			return exit.status, ""
		}
		return exit.status, exit.Error()
	case errors.As(err, &usage):
		return exitUsage, usage.Error()
	}
	switch wire.CodeOf(err) {
	case wire.Code_CODE_UNAVAILABLE, wire.Code_CODE_NOT_COORDINATOR, wire.Code_CODE_UNKNOWN_OUTCOME:
		return exitNoNode, err.Error()
	}
	return exitFailed, err.Error()
}

// outputWriter is standard output: it knows a closed pipe, and does not wait
// beyond the end of a context for a reader that does not read.
type outputWriter struct {
	ctx context.Context
	w   io.Writer
}

// Write writes on; errOutputClosed says that nobody reads. After a context's
// end the write may go on with p: nothing is written any more then.
func (o outputWriter) Write(p []byte) (int, error) {
	if _, ok := o.w.(*os.File); !ok {
		return o.write(p)
	}
	var n int
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		n, err = o.write(p)
	}()
	select {
	case <-done:
		return n, err
	case <-o.ctx.Done():
		return 0, context.Cause(o.ctx)
	}
}

func (o outputWriter) write(p []byte) (int, error) {
	n, err := o.w.Write(p)
	if err != nil && closedPipe(err) {
		err = errOutputClosed
	} else if err != nil {
		err = fmt.Errorf("writing the output: %w", err)
	}
	return n, err
}
