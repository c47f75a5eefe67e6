package main

import (
	"fmt"
	"io"
	"os"

	"github.com/ostrich-legs/ostrich/node/control"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// maxInMemory is the largest input that is held in memory; a larger one waits
// in a temporary file, so that it can be sent again.
const maxInMemory = 4 << 20

// spool collects the bytes of one input. The zero value is empty.
type spool struct {
	memory []byte
	file   *os.File
	size   int64
}

// Write adds to the input, up to the bound of an input.
func (s *spool) Write(p []byte) (int, error) {
	if s.size+int64(len(p)) > wire.MaxBlob {
		return 0, wire.Errorf(wire.Code_CODE_INVALID, "an input is larger than %d bytes; cut the inputs smaller", wire.MaxBlob)
	}
	s.size += int64(len(p))
	if s.file == nil {
		if len(s.memory)+len(p) <= maxInMemory {
			s.memory = append(s.memory, p...)
			return len(p), nil
		}
		if err := s.spill(); err != nil {
			return 0, err
		}
	}
	if _, err := s.file.Write(p); err != nil {
		return 0, fmt.Errorf("keeping a large input in a temporary file: %w", err)
	}
	return len(p), nil
}

// spill moves what is in memory to a file without a name, where the system
// allows that.
func (s *spool) spill() error {
	f, err := os.CreateTemp("", "ostrich-input-")
	if err != nil {
		return fmt.Errorf("making a temporary file for a large input: %w", err)
	}
	os.Remove(f.Name())
	s.file = f
	if _, err := f.Write(s.memory); err != nil {
		return fmt.Errorf("keeping a large input in a temporary file: %w", err)
	}
	s.memory = nil
	return nil
}

// input returns the first n bytes as an input. One in a file is valid until
// the spool is reset; one in memory for ever.
func (s *spool) input(n int64) control.Input {
	if s.file == nil {
		return control.Input{Data: s.memory[:n:n]}
	}
	return control.Input{Open: func() (io.ReadCloser, error) {
		return io.NopCloser(io.NewSectionReader(s.file, 0, n)), nil
	}}
}

// keep makes the bytes from n on the new contents.
func (s *spool) keep(n int64) error {
	old := *s
	*s = spool{}
	defer old.close()
	if old.file == nil {
		_, err := s.Write(old.memory[n:])
		return err
	}
	_, err := io.Copy(s, io.NewSectionReader(old.file, n, old.size-n))
	return err
}

// reset empties the spool.
func (s *spool) reset() {
	s.close()
	*s = spool{}
}

func (s *spool) close() {
	if s.file != nil {
		s.file.Close()
		// For systems that do not remove open files.
		os.Remove(s.file.Name())
	}
}
