package wire

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"hash"
)

// statement hashes a label and fields, each with its length, so that no two
// lists of fields give one statement.
func statement(label string, fields ...[]byte) []byte {
	h := sha256.New()
	writeField(h, []byte(label))
	for _, f := range fields {
		writeField(h, f)
	}
	return h.Sum(nil)
}

func writeField(h hash.Hash, field []byte) {
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(field))))
	h.Write(field)
}

func uintField(v uint64) []byte { return binary.BigEndian.AppendUint64(nil, v) }

// FoundingStatement is what the root key signs: who founds, and the lease key.
func FoundingStatement(f *FoundSwarm) []byte {
	return statement("ostrich found 1", f.GetRootKey(), []byte(f.GetFounder()), f.GetLeaseKey())
}

// JoinStatement is what a joiner signs, with the invite's key and with its own.
func JoinStatement(r *JoinRequest) []byte {
	return statement("ostrich join 1", r.GetSwarmId(), r.GetInviteKey(), []byte(r.GetDeviceId()),
		uintField(uint64(r.GetRole())), r.GetNonce(), r.GetOfferHash())
}

// SessionTranscript is what both sides of a session sign, each with a label of
// its own so that neither signature can stand for the other.
func SessionTranscript(side string, hello *Hello, challenge *Challenge) []byte {
	return statement("ostrich session 1 "+side, hello.GetSwarmId(), uintField(hello.GetGeneration()),
		[]byte(hello.GetDeviceId()), hello.GetNonce(), uintField(uint64(hello.GetSlots())),
		[]byte(challenge.GetCoordinatorId()), challenge.GetNonce(), uintField(challenge.GetTerm()),
		uintField(challenge.GetGeneration()))
}

// OfferStatement is what a browser's device signs when it asks bridge for a
// connection: the offer holds the fingerprint of its DTLS certificate.
func OfferStatement(swarm SwarmID, bridge DeviceID, r *SignalRequest) []byte {
	offer := sha256.Sum256([]byte(r.GetOffer()))
	return statement("ostrich offer 1", swarm.Bytes(), []byte(bridge), r.GetNonce(), []byte(r.GetDeviceId()), offer[:])
}

// AnswerStatement is what the bridge signs: the offer that it answers, and the
// answer with the fingerprint of its own certificate.
func AnswerStatement(swarm SwarmID, bridge DeviceID, r *SignalRequest, answer string) []byte {
	offer, hash := sha256.Sum256([]byte(r.GetOffer())), sha256.Sum256([]byte(answer))
	return statement("ostrich answer 1", swarm.Bytes(), []byte(bridge), r.GetNonce(), []byte(r.GetDeviceId()), offer[:], hash[:])
}

// LeaseToken is the HMAC-SHA256, under the swarm's lease key, of a lease: it
// proves to a later coordinator that device was given these tasks.
func LeaseToken(key []byte, device DeviceID, c *LeaseClaim) []byte {
	mac := hmac.New(sha256.New, key)
	writeField(mac, []byte("ostrich lease 1"))
	writeField(mac, []byte(device))
	writeField(mac, []byte(c.GetJobId()))
	writeField(mac, uintField(c.GetAttempt().GetTerm()))
	writeField(mac, uintField(c.GetAttempt().GetCounter()))
	indexes := make([]byte, 0, 4*len(c.GetIndexes()))
	for _, i := range c.GetIndexes() {
		indexes = binary.BigEndian.AppendUint32(indexes, i)
	}
	writeField(mac, indexes)
	return mac.Sum(nil)
}

// ValidLease reports whether the claim's token is that of device's lease.
func ValidLease(key []byte, device DeviceID, c *LeaseClaim) bool {
	return hmac.Equal(c.GetToken(), LeaseToken(key, device, c))
}

// Digest is a chain digest over the inputs of a job in order, so that a resumed
// upload can show that it continues the same inputs. The zero Digest stands for
// no inputs.
type Digest [sha256.Size]byte

// Next returns the digest of the inputs so far followed by one whose SHA-256
// is input.
func (d Digest) Next(input Hash) Digest {
	var both [2 * sha256.Size]byte
	copy(both[:], d[:])
	copy(both[sha256.Size:], input[:])
	return sha256.Sum256(both[:])
}
