package coordinator

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// A token proves a lease: a MAC under the key of what was leased when, and since
// format 2 what that is, in clear, so that a lease of a job that was removed, or
// of a generation that is past, is told from one that was never given.
//
//	MAC (32) · creation of the job, ms (8) · generation (8)
const (
	macSize   = sha256.Size
	tokenSize = macSize + 8 + 8
)

// tokenFormat is the command format since which tokens say what they are of:
// coordinators before it would take the longer ones for forged.
const tokenFormat = 2

// origin tells a job from another that had its ID before, and from itself before
// the swarm was recovered.
type origin struct {
	createdMS  uint64
	generation uint64
}

func (c *Coordinator) originOf(q *jobQueue) origin {
	return origin{createdMS: uint64(q.createdMS), generation: c.swarm.generation}
}

// leaseKey is the key of the MACs of a job's leases.
func (c *Coordinator) leaseKey(o origin) []byte {
	mac := hmac.New(sha256.New, c.swarm.leaseKey)
	mac.Write(binary.BigEndian.AppendUint64(nil, o.createdMS))
	if o.generation > 1 {
		mac.Write(binary.BigEndian.AppendUint64(nil, o.generation))
	}
	return mac.Sum(nil)
}

// token returns the proof of a lease of a job to a device.
func (c *Coordinator) token(q *jobQueue, device wire.DeviceID, claim *wire.LeaseClaim) []byte {
	o := c.originOf(q)
	token := wire.LeaseToken(c.leaseKey(o), device, claim)
	if c.cfg.Group.Format() < tokenFormat {
		return token
	}
	token = binary.BigEndian.AppendUint64(token, o.createdMS)
	return binary.BigEndian.AppendUint64(token, o.generation)
}

// originOfClaim returns what a claim is of, and whether it proves that. A token
// of format 1 can only be of the job that is there now.
func (c *Coordinator) originOfClaim(q *jobQueue, device wire.DeviceID, claim *wire.LeaseClaim) (o origin, proven bool) {
	token := claim.GetToken()
	switch len(token) {
	case macSize:
		o = origin{createdMS: uint64(q.createdMS), generation: 1}
	case tokenSize:
		o.createdMS = binary.BigEndian.Uint64(token[macSize:])
		o.generation = binary.BigEndian.Uint64(token[macSize+8:])
	default:
		return o, false
	}
	return o, hmac.Equal(token[:macSize], wire.LeaseToken(c.leaseKey(o), device, claim))
}

// proven returns the claims that are really of leases of this device, of jobs
// that are open. What it works on in vain it is told to leave.
func (c *Coordinator) proven(d *device, claims []*wire.LeaseClaim) []*wire.LeaseClaim {
	var good []*wire.LeaseClaim
	for _, claim := range claims {
		id := wire.JobID(claim.GetJobId())
		c.mu.Lock()
		q := c.jobs[id]
		c.mu.Unlock()
		forged := false
		if q != nil {
			o, ok := c.originOfClaim(q, d.id, claim)
			forged = !ok || claim.GetAttempt() == nil
			if !forged && o == c.originOf(q) {
				good = append(good, claim)
				continue
			}
		}
		d.cancel(id, claim.GetAttempt(), nil)
		if forged {
			c.refused(d, "device %s claims a lease of job %s that it was never given", d.id.Short(), id)
		}
	}
	return good
}
