package sandbox

import (
	"fmt"
	"os"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// failure ends a task from within one of its calls, by panic.
type failure struct {
	kind wire.FailureKind
	text string
}

func (f *failure) Error() string { return f.text }

func failf(kind wire.FailureKind, format string, args ...any) *failure {
	return &failure{kind, fmt.Sprintf(format, args...)}
}

// sink takes a task's output: in memory up to InlineOutput, from there in a
// file.
type sink struct {
	limit  uint64
	path   string
	buf    []byte
	file   *os.File
	inFile uint64
}

// reset makes the sink ready for the next task.
func (s *sink) reset(limit uint64, path string) {
	s.limit, s.path, s.buf, s.inFile = limit, path, s.buf[:0], 0
}

// size returns the bytes taken so far.
func (s *sink) size() uint64 { return s.inFile + uint64(len(s.buf)) }

// write takes p, or ends the task with a failure.
func (s *sink) write(p []byte) {
	if uint64(len(p)) > s.limit-s.size() {
		panic(failf(wire.FailureKind_FAILURE_KIND_OUTPUT, "its output passed its bound of %s", bytesText(s.limit)))
	}
	if len(s.buf)+len(p) <= InlineOutput {
		s.buf = append(s.buf, p...)
		return
	}
	s.flush()
	if len(p) <= InlineOutput {
		s.buf = append(s.buf, p...)
		return
	}
	s.toFile(p)
}

// flush moves what is in memory to the file.
func (s *sink) flush() {
	s.toFile(s.buf)
	s.buf = s.buf[:0]
}

func (s *sink) toFile(p []byte) {
	if s.path == "" {
		panic(failf(wire.FailureKind_FAILURE_KIND_INTERNAL, "its output passed %s and the node gave no file for it", bytesText(InlineOutput)))
	}
	if s.file == nil {
		file, err := os.OpenFile(s.path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
		if err != nil {
			panic(failf(wire.FailureKind_FAILURE_KIND_INTERNAL, "its output has no place: %v", err))
		}
		s.file = file
	}
	n, err := s.file.Write(p)
	s.inFile += uint64(n)
	if err != nil {
		panic(failf(wire.FailureKind_FAILURE_KIND_INTERNAL, "its output cannot be kept: %v", err))
	}
}

// end closes the file, if there is one, after what is left in memory; inFile
// reports whether the output lies there. A task that failed for another reason
// than its own end calls discard instead.
func (s *sink) end() (inFile bool, err error) {
	if s.file == nil {
		return false, nil
	}
	defer func() {
		if r := recover(); r != nil {
			err = r.(*failure)
		}
		if closeErr := s.file.Close(); err == nil && closeErr != nil {
			err = closeErr
		}
		s.file = nil
	}()
	s.flush()
	return true, nil
}

// discard drops the output and its file.
func (s *sink) discard() {
	if s.file != nil {
		_ = s.file.Close()
		_ = os.Remove(s.path)
	}
	s.file, s.buf, s.inFile = nil, s.buf[:0], 0
}

// tail keeps the end of what is written to it.
type tail struct{ buf []byte }

func (t *tail) write(p []byte) {
	p = p[max(0, len(p)-wire.MaxStderr):]
	t.buf = append(t.buf, p...)
	// Shift seldom: a program that writes single bytes must not cost a copy of
	// the whole for each.
	if len(t.buf) > 4*wire.MaxStderr {
		t.buf = append(t.buf[:0], t.bytes()...)
	}
}

// bytes returns at most the last wire.MaxStderr bytes.
func (t *tail) bytes() []byte { return t.buf[max(0, len(t.buf)-wire.MaxStderr):] }

// bytesText says n as people read it.
func bytesText(n uint64) string {
	switch {
	case n >= 1<<20 && n%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 1<<10 && n%(1<<10) == 0:
		return fmt.Sprintf("%d KiB", n>>10)
	case n == 1:
		return "1 byte"
	}
	return fmt.Sprintf("%d bytes", n)
}
