package wire

import (
	"encoding/binary"
	"fmt"
	"io"

	"google.golang.org/protobuf/proto"
)

// lengthSize is the size of the big-endian length before each message on a
// stream.
const lengthSize = 4

// ReadMessage reads a length and so many bytes from r into m. It reads nothing
// beyond, and allocates nothing for a length above limit, which is an error.
func ReadMessage(r io.Reader, limit int, m proto.Message) error {
	var head [lengthSize]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	size := binary.BigEndian.Uint32(head[:])
	if uint64(size) > uint64(limit) {
		return Errorf(Code_CODE_INVALID, "a message of %d bytes: at most %d are allowed", size, limit)
	}
	buf := make([]byte, size)
	if _, err := io.ReadFull(r, buf); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	if err := proto.Unmarshal(buf, m); err != nil {
		return Errorf(Code_CODE_INVALID, "a message that is not a %s", m.ProtoReflect().Descriptor().Name())
	}
	return nil
}

// AppendMessage appends m, with its length before it, to buf. A message above
// limit is an error.
func AppendMessage(buf []byte, limit int, m proto.Message) ([]byte, error) {
	size := proto.Size(m)
	if size > limit {
		return buf, fmt.Errorf("a %s of %d bytes: at most %d are allowed", m.ProtoReflect().Descriptor().Name(), size, limit)
	}
	buf = binary.BigEndian.AppendUint32(buf, uint32(size))
	return proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(buf, m)
}

// WriteMessage writes m, with its length before it, to w in one call.
func WriteMessage(w io.Writer, limit int, m proto.Message) error {
	buf, err := AppendMessage(nil, limit, m)
	if err != nil {
		return err
	}
	_, err = w.Write(buf)
	return err
}
