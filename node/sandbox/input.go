package sandbox

import (
	"bufio"
	"bytes"
	"io"
	"os"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// input is a task's stdin.
type input struct {
	r    io.Reader
	file *os.File
}

// openInput returns t's stdin; close it after use.
func openInput(t *task) (input, error) {
	if t.stdinPath == "" {
		return input{r: bytes.NewReader(t.stdin)}, nil
	}
	file, err := os.Open(t.stdinPath)
	if err != nil {
		return input{}, failf(wire.FailureKind_FAILURE_KIND_INTERNAL, "its input cannot be read: %v", err)
	}
	return input{r: bufio.NewReaderSize(file, 64<<10), file: file}, nil
}

// fill reads into buf until it is full or the input ends. An input that cannot
// be read ends the task.
func (in input) fill(buf []byte) int {
	n, err := io.ReadFull(in.r, buf)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		panic(failf(wire.FailureKind_FAILURE_KIND_INTERNAL, "its input cannot be read: %v", err))
	}
	return n
}

func (in input) close() {
	if in.file != nil {
		_ = in.file.Close()
	}
}
