package consensus

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
)

// A stream between members begins with a hail, which the other side answers
// before anything else is sent:
//
//	hail:  "orft" · version 1 byte · generation 8 · replica that is meant 8 · own replica 8
//	reply: "orft" · version 1 byte · verdict 1 byte · generation 8
//
// Numbers are big-endian. A replica is its name's 8 bytes, or zeros for a folder
// from before replicas had names. Later versions begin in the same way.
const (
	preambleMagic   = "orft"
	preambleVersion = 1
	hailSize        = len(preambleMagic) + 1 + 8 + 2*replicaBytes
	replySize       = len(preambleMagic) + 1 + 1 + 8
)

// hail is how the dialling side begins.
type hail struct {
	generation uint64
	to, from   string // replicas
}

// verdict is the accepting side's answer.
type verdict byte

const (
	accepted verdict = iota + 1
	// wrongReplica: the memory that is meant is not here.
	wrongReplica
	// wrongGeneration: one of both is of an older generation.
	wrongGeneration
	// wrongVersion: the hail is of a version that is not known.
	wrongVersion
)

func (v verdict) String() string {
	switch v {
	case accepted:
		return "accepted"
	case wrongReplica:
		return "it does not have the log that it had"
	case wrongGeneration:
		return "it is of another generation of the swarm"
	case wrongVersion:
		return "it runs another version of ostrich"
	}
	return fmt.Sprintf("unknown answer %d", byte(v))
}

// reply ends the preamble.
type reply struct {
	verdict    verdict
	generation uint64
}

func (h hail) encode() ([]byte, error) {
	b := append([]byte(preambleMagic), preambleVersion)
	b = binary.BigEndian.AppendUint64(b, h.generation)
	for _, replica := range []string{h.to, h.from} {
		raw, err := encodeReplica(replica)
		if err != nil {
			return nil, err
		}
		b = append(b, raw...)
	}
	return b, nil
}

// errUnknownVersion is a hail that a newer program sent.
var errUnknownVersion = errors.New("a preamble of an unknown version")

// decodeHail reads hailSize bytes.
func decodeHail(b []byte) (hail, error) {
	if len(b) != hailSize || string(b[:len(preambleMagic)]) != preambleMagic {
		return hail{}, errors.New("this is no preamble of a raft stream")
	}
	b = b[len(preambleMagic):]
	if b[0] != preambleVersion {
		return hail{}, fmt.Errorf("%w: %d", errUnknownVersion, b[0])
	}
	b = b[1:]
	return hail{
		generation: binary.BigEndian.Uint64(b),
		to:         decodeReplica(b[8:][:replicaBytes]),
		from:       decodeReplica(b[8+replicaBytes:][:replicaBytes]),
	}, nil
}

func (r reply) encode() []byte {
	b := append([]byte(preambleMagic), preambleVersion, byte(r.verdict))
	return binary.BigEndian.AppendUint64(b, r.generation)
}

// decodeReply reads replySize bytes.
func decodeReply(b []byte) (reply, error) {
	if len(b) != replySize || string(b[:len(preambleMagic)]) != preambleMagic {
		return reply{}, errors.New("this is no answer to a raft stream's preamble")
	}
	b = b[len(preambleMagic)+1:]
	return reply{verdict: verdict(b[0]), generation: binary.BigEndian.Uint64(b[1:])}, nil
}

// encodeReplica returns the bytes of a replica's name.
func encodeReplica(replica string) ([]byte, error) {
	var b [replicaBytes]byte
	if replica == "" {
		return b[:], nil
	}
	if n, err := hex.Decode(b[:], []byte(replica[:min(len(replica), 2*replicaBytes)])); err != nil || n != replicaBytes || len(replica) != 2*replicaBytes {
		return nil, fmt.Errorf("%q is no name of a replica", replica)
	}
	return b[:], nil
}

func decodeReplica(b []byte) string {
	if [replicaBytes]byte(b) == ([replicaBytes]byte{}) {
		return ""
	}
	return hex.EncodeToString(b)
}
