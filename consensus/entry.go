package consensus

import (
	"encoding/binary"
	"hash/crc32"

	"google.golang.org/protobuf/proto"

	"github.com/ostrich-legs/ostrich/consensus/state"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// An entry of the log is a checksum and a command:
//
//	CRC-32C of the rest, 4 bytes, big endian · wire.Command
//
// Bbolt checks its own structure but not the bytes of entries; the checksum
// keeps a bit that flipped on one member's disk out of every member's state.
const entryHeader = 4

// maxOp bounds one operation. An entry takes no further operation above
// wire.MaxEntry, so entries stay below the sum of both.
const maxOp = wire.MaxFrame

func encodeEntry(cmd *wire.Command) ([]byte, error) {
	buf := make([]byte, entryHeader, entryHeader+proto.Size(cmd))
	buf, err := proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(buf, cmd)
	if err != nil {
		return nil, err
	}
	binary.BigEndian.PutUint32(buf, checksum(buf[entryHeader:]))
	return buf, nil
}

// decodeEntry reads what encodeEntry wrote. CODE_INTERNAL says that the entry is
// damaged, CODE_VERSION that a newer program wrote it.
func decodeEntry(b []byte) (*wire.Command, error) {
	if err := checkEntry(b); err != nil {
		return nil, err
	}
	cmd := new(wire.Command)
	if err := proto.Unmarshal(b[entryHeader:], cmd); err != nil {
		return nil, wire.Errorf(wire.Code_CODE_VERSION, "it needs a newer version of ostrich: it holds no command that this one can read")
	}
	if cmd.GetFormat() > state.Format {
		return nil, wire.Errorf(wire.Code_CODE_VERSION, "it needs a newer version of ostrich: its format is %d, and this one understands up to %d",
			cmd.GetFormat(), state.Format)
	}
	return cmd, nil
}

// checkEntry verifies the checksum only.
func checkEntry(b []byte) error {
	if len(b) < entryHeader {
		return wire.Errorf(wire.Code_CODE_INTERNAL, "it is damaged: %d bytes are too few", len(b))
	}
	if binary.BigEndian.Uint32(b) != checksum(b[entryHeader:]) {
		return wire.Errorf(wire.Code_CODE_INTERNAL, "it is damaged: its checksum does not match")
	}
	return nil
}

func checksum(b []byte) uint32 {
	return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))
}
