package sandbox

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// Seed returns the seed of a task's randomness: the SHA-256 of "ostrich seed
// 1\n", the job's ID, a zero byte, and the index as four bytes, big endian.
func Seed(job wire.JobID, index uint32) [32]byte {
	b := append([]byte("ostrich seed 1\n"), job...)
	b = binary.BigEndian.AppendUint32(append(b, 0), index)
	return sha256.Sum256(b)
}
