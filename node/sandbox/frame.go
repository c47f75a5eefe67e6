package sandbox

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// The protocol between a pool and its child, over the child's stdin and stdout.
// A frame is the length of what follows (four bytes, big endian), a kind (one
// byte), and a body. The pool sends a program and tasks of it, as many ahead as
// it likes within its window; the child answers each task with one result, in
// order, and tells beforehand when it compiles. A program that is refused
// answers for all its tasks. A child that is spent answers nothing of what is
// left, which another does: without a text because it has done its part, with
// one because it is unsound. Both ends are the same binary, so that there is one
// version of it.
const (
	// to the child
	frameStart   byte = 1 // the folder for compiled programs; once, first
	frameProgram byte = 2 // hash, path
	frameTask    byte = 3
	frameCheck   byte = 4 // path; without one a tiny program of ours is run

	// to the pool
	frameReady     byte = 16
	frameCompiling byte = 17
	frameCompiled  byte = 18 // worn, if another child should run it
	frameRefused   byte = 19 // text
	frameResult    byte = 20
	frameChecked   byte = 21 // worn or not, verdict, text
	frameSpent     byte = 22 // text; the child has ended
)

// How a child is that has compiled a program: worn if another should go on.
const (
	conditionWorn  = "w"
	conditionSound = "s"
)

// The verdicts of a check.
const (
	checkFit    = "f"
	checkUnfit  = "u" // the text says what is wrong with the module
	checkUnread = "r" // the text says why the file cannot be read
)

const (
	// maxTaskFrame bounds a frame to the child.
	maxTaskFrame = MaxInlineInput + 4*wire.MaxArgs
	// maxResultFrame bounds a frame to the pool, whose child may be hostile.
	maxResultFrame = InlineOutput + wire.MaxStderr + 16<<10
)

var errFrame = errors.New("a frame of the sandbox protocol that makes no sense")

// frame is one message.
type frame struct {
	kind byte
	body []byte
}

// beginFrame appends the head of a frame to b; endFrame, given the length of b
// before it, completes it.
func beginFrame(b []byte, kind byte) []byte { return append(b, 0, 0, 0, 0, kind) }

func endFrame(b []byte, start int) []byte {
	binary.BigEndian.PutUint32(b[start:], uint32(len(b)-start-4))
	return b
}

// appendFrame appends a frame with the given body to b.
func appendFrame(b []byte, kind byte, body ...string) []byte {
	start := len(b)
	b = beginFrame(b, kind)
	for _, part := range body {
		b = append(b, part...)
	}
	return endFrame(b, start)
}

// readFrame reads a frame whose length is at most limit. The body is the
// caller's.
func readFrame(r *bufio.Reader, limit int) (frame, error) {
	head, err := r.Peek(5)
	if err != nil {
		if len(head) > 0 && err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return frame{}, err
	}
	size, kind := binary.BigEndian.Uint32(head), head[4]
	if size < 1 || uint64(size) > uint64(limit) {
		return frame{}, fmt.Errorf("%w: %d bytes", errFrame, size)
	}
	_, _ = r.Discard(5)
	body := make([]byte, size-1)
	if _, err := io.ReadFull(r, body); err != nil {
		return frame{}, io.ErrUnexpectedEOF
	}
	return frame{kind, body}, nil
}

// reader takes a body apart. After a mistake all it returns is zero, and bad is
// set.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) uint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.b, r.bad = nil, true
		return 0
	}
	r.b = r.b[n:]
	return v
}

// take returns the next n bytes, which share the body's memory.
func (r *reader) take(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.b, r.bad = nil, true
		return nil
	}
	b := r.b[:n:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) bytes() []byte { return r.take(r.uint()) }

func appendBytes[T string | []byte](b []byte, s T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// appendTask appends t as a frame. Its strings end in a zero byte already, as
// the program will get them.
func appendTask(b []byte, t *Task) []byte {
	start := len(b)
	b = beginFrame(b, frameTask)
	b = binary.AppendUvarint(b, uint64(t.MemoryMiB))
	b = binary.AppendUvarint(b, t.MaxOutput)
	b = append(b, t.Seed[:]...)
	for _, list := range [2][]string{t.Args, t.Env} {
		b = binary.AppendUvarint(b, uint64(len(list)))
		for _, s := range list {
			b = binary.AppendUvarint(b, uint64(len(s)+1))
			b = append(append(b, s...), 0)
		}
	}
	b = appendBytes(b, t.OutputPath)
	b = appendBytes(b, t.StdinPath)
	b = append(b, t.Stdin...)
	return endFrame(b, start)
}

// task is a Task as the child has it.
type task struct {
	memoryMiB  uint64
	maxOutput  uint64
	seed       [32]byte
	args, env  [][]byte
	outputPath string
	stdinPath  string
	stdin      []byte
}

// decode reads what appendTask wrote into t, reusing its lists.
func (t *task) decode(body []byte) error {
	r := reader{b: body}
	t.memoryMiB = r.uint()
	t.maxOutput = r.uint()
	copy(t.seed[:], r.take(32))
	t.args = decodeStrings(&r, t.args[:0])
	t.env = decodeStrings(&r, t.env[:0])
	t.outputPath = string(r.bytes())
	t.stdinPath = string(r.bytes())
	t.stdin = r.b
	if r.bad {
		return errFrame
	}
	return nil
}

func decodeStrings(r *reader, list [][]byte) [][]byte {
	for n := r.uint(); n > 0 && !r.bad; n-- {
		list = append(list, r.bytes())
	}
	return list
}

// appendResult appends res as a frame; inFile says that the output lies in the
// file that the task named.
func appendResult(b []byte, res *Result, inFile bool) []byte {
	start := len(b)
	b = beginFrame(b, frameResult)
	b = binary.AppendUvarint(b, uint64(res.ExitCode))
	b = append(b, byte(res.Failure))
	b = binary.AppendUvarint(b, uint64(res.Duration))
	file := byte(0)
	if inFile {
		file = 1
	}
	b = append(b, file)
	b = binary.AppendUvarint(b, res.StdoutSize)
	b = appendBytes(b, res.Error)
	b = appendBytes(b, res.Stderr)
	b = append(b, res.Stdout...)
	return endFrame(b, start)
}

// decodeResult reads what appendResult wrote, from a child that may lie: the
// bounds of t hold for what it returns. The result shares body's memory.
func decodeResult(body []byte, t *Task) (Result, error) {
	r := reader{b: body}
	var res Result
	exit := r.uint()
	res.ExitCode = uint32(exit)
	kind := r.take(1)
	duration := r.uint()
	file := r.take(1)
	res.StdoutSize = r.uint()
	res.Error = string(r.bytes())
	res.Stderr = r.bytes()
	if r.bad || exit > 1<<32-1 || duration > 1<<62 || file[0] > 1 {
		return Result{}, errFrame
	}
	res.Stdout = r.b
	res.Duration = time.Duration(duration)
	res.Failure = wire.FailureKind(kind[0])
	if wire.FailureKind_name[int32(kind[0])] == "" || len(res.Stderr) > wire.MaxStderr ||
		len(res.Error) > 4*wire.MaxErrorText || res.StdoutSize > t.MaxOutput {
		return Result{}, errFrame
	}
	if file[0] == 1 {
		res.StdoutPath, res.Stdout = t.OutputPath, nil
		if t.OutputPath == "" {
			return Result{}, errFrame
		}
		return res, nil
	}
	if uint64(len(res.Stdout)) != res.StdoutSize {
		return Result{}, errFrame
	}
	return res, nil
}
