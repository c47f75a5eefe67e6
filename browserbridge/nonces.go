package browserbridge

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"sync"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const (
	nonceSize = 32
	// nonceLife is how long a challenge may be answered.
	nonceLife = time.Minute
	// maxUsedNonces bounds the nonces that are remembered as used: more than the
	// bridge answers offers in nonceLife.
	maxUsedNonces = 8192
)

// nonces makes challenges and takes each back once. To make one costs no memory,
// so that asking for many harms nobody: a nonce is its time (8 bytes) and random
// bytes (8), and the first 16 bytes of their HMAC under a key of this process.
type nonces struct {
	key []byte

	mu   sync.Mutex
	used map[[nonceSize]byte]time.Time // until when they are remembered
}

func newNonces() *nonces {
	n := &nonces{key: make([]byte, 32), used: make(map[[nonceSize]byte]time.Time)}
	rand.Read(n.key)
	return n
}

func (n *nonces) issue(now time.Time) []byte {
	nonce := binary.BigEndian.AppendUint64(make([]byte, 0, nonceSize), uint64(now.UnixMilli()))
	nonce = nonce[:16]
	rand.Read(nonce[8:])
	return append(nonce, n.seal(nonce)...)
}

func (n *nonces) seal(head []byte) []byte {
	mac := hmac.New(sha256.New, n.key)
	mac.Write(head)
	return mac.Sum(nil)[:nonceSize-16]
}

// check refuses a nonce that this bridge did not make (CODE_BAD_PROOF), and one
// that is too old (CODE_PRECONDITION).
func (n *nonces) check(nonce []byte, now time.Time) error {
	if len(nonce) != nonceSize || !hmac.Equal(nonce[16:], n.seal(nonce[:16])) {
		return wire.Errorf(wire.Code_CODE_BAD_PROOF, "the request answers a challenge that this node did not make")
	}
	if age := now.Sub(nonceTime(nonce)); age > nonceLife || age < -nonceLife {
		return stale("has expired")
	}
	return nil
}

// use takes a nonce that check let pass, once (CODE_PRECONDITION).
func (n *nonces) use(nonce []byte, now time.Time) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	id := [nonceSize]byte(nonce)
	if _, ok := n.used[id]; ok {
		return stale("was answered before")
	}
	if len(n.used) >= maxUsedNonces {
		n.forget(now)
	}
	if len(n.used) >= maxUsedNonces {
		return wire.Errorf(wire.Code_CODE_EXHAUSTED, "too many browsers ask this node at one time: try another, or again in a moment")
	}
	n.used[id] = nonceTime(nonce).Add(2 * nonceLife)
	return nil
}

// forget drops the nonces that check refuses by now.
func (n *nonces) forget(now time.Time) {
	for id, until := range n.used {
		if now.After(until) {
			delete(n.used, id)
		}
	}
}

func nonceTime(nonce []byte) time.Time {
	return time.UnixMilli(int64(binary.BigEndian.Uint64(nonce)))
}

func stale(why string) error {
	return wire.Errorf(wire.Code_CODE_PRECONDITION, "the challenge %s: ask for a new one and try again", why)
}
