package state

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"io"

	"google.golang.org/protobuf/proto"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// encoder writes the canonical encoding: uvarints, length-prefixed bytes and
// deterministic protobuf. The first error sticks.
type encoder struct {
	w   *bufio.Writer
	err error
}

func newEncoder(w io.Writer) *encoder {
	return &encoder{w: bufio.NewWriterSize(w, 64<<10)}
}

func (e *encoder) raw(b []byte) {
	if e.err == nil {
		_, e.err = e.w.Write(b)
	}
}

func (e *encoder) uint(v uint64) {
	var buf [binary.MaxVarintLen64]byte
	e.raw(buf[:binary.PutUvarint(buf[:], v)])
}

func (e *encoder) bool(v bool) {
	if v {
		e.uint(1)
	} else {
		e.uint(0)
	}
}

func (e *encoder) bytes(b []byte) {
	e.uint(uint64(len(b)))
	e.raw(b)
}

func (e *encoder) text(s string) { e.bytes([]byte(s)) }

func (e *encoder) message(m proto.Message) {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil && e.err == nil {
		e.err = err
	}
	e.bytes(b)
}

func (e *encoder) flush() error {
	if e.err == nil {
		e.err = e.w.Flush()
	}
	return e.err
}

// decoder reads what encoder wrote. Nothing is allocated for a length that the
// input has not shown to be true. The first error sticks, and then every
// method returns zero.
type decoder struct {
	r   *bufio.Reader
	sum hash.Hash // of what was read
	err error
}

func newDecoder(r io.Reader) *decoder {
	return &decoder{r: bufio.NewReaderSize(r, 64<<10), sum: sha256.New()}
}

// fail notes the first error.
func (d *decoder) fail(err error) {
	if d.err == nil && err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		d.err = err
	}
}

func (d *decoder) uint() uint64 {
	if d.err != nil {
		return 0
	}
	head, err := d.r.Peek(binary.MaxVarintLen64)
	v, n := binary.Uvarint(head)
	if n <= 0 {
		if n < 0 || err == nil {
			err = invalid("a number that is too long")
		}
		d.fail(err)
		return 0
	}
	d.sum.Write(head[:n])
	_, err = d.r.Discard(n)
	d.fail(err)
	return v
}

// limited reads a number of at most limit.
func (d *decoder) limited(what string, limit uint64) uint64 {
	v := d.uint()
	if v > limit {
		d.fail(invalid("%s is %d: at most %d is possible", what, v, limit))
		return 0
	}
	return v
}

func (d *decoder) u32(what string) uint32 { return uint32(d.limited(what, 1<<32-1)) }

func (d *decoder) time(what string) int64 { return int64(d.limited(what, 2*maxTimeMS)) }

func (d *decoder) bool() bool { return d.limited("a flag", 1) == 1 }

// fill reads exactly len(b) bytes.
func (d *decoder) fill(b []byte) {
	if d.err != nil {
		return
	}
	_, err := io.ReadFull(d.r, b)
	d.fail(err)
	d.sum.Write(b)
}

// bytes reads length-prefixed bytes. Long ones are read in parts, so that
// memory grows only with what is really there.
func (d *decoder) bytes(what string, limit uint64) []byte {
	const part = 64 << 10
	n := int(d.limited("the length of "+what, limit))
	var b []byte
	for d.err == nil && len(b) < n {
		from := len(b)
		b = append(b, make([]byte, min(part, n-from))...)
		d.fill(b[from:])
	}
	if d.err != nil {
		return nil
	}
	return b
}

func (d *decoder) text(what string, limit uint64) string { return string(d.bytes(what, limit)) }

func (d *decoder) hash() (h wire.Hash) {
	d.fill(h[:])
	return h
}

func (d *decoder) message(what string, m proto.Message, limit uint64) {
	b := d.bytes(what, limit)
	if d.err == nil {
		d.fail(proto.Unmarshal(b, m))
	}
}

// check notes an error of a check of what was read.
func (d *decoder) check(err error) { d.fail(err) }

// expect notes that what was read contradicts itself.
func (d *decoder) expect(ok bool, what string) {
	if !ok {
		d.fail(invalid("%s", what))
	}
}
