package coordinator

import (
	"context"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// setDeviceMode says whether a device is given work: an admin of any, a member
// of itself. Asked again it changes nothing.
func (a asker) setDeviceMode(ctx context.Context, r *wire.SetDeviceModeRequest) (*wire.SetDeviceModeResponse, error) {
	id := wire.DeviceID(r.GetDeviceId())
	need, what := wire.Role_ROLE_ADMIN, "enabling, draining or disabling another device"
	if id == a.id {
		need, what = wire.Role_ROLE_MEMBER, "enabling, draining or disabling a device"
	}
	if err := a.need(need, what); err != nil {
		return nil, err
	}
	word, ok := modeWords(r.GetMode())
	if !ok {
		return nil, wire.Errorf(wire.Code_CODE_INVALID, "a device is enabled, draining or disabled: there is no mode %d", r.GetMode())
	}
	record, err := a.c.registered(id)
	if err != nil {
		return nil, unknownDevice(id)
	}
	if record.Mode == r.GetMode() {
		return &wire.SetDeviceModeResponse{}, a.c.cfg.Group.Verify(ctx)
	}
	_, err = a.c.propose(ctx, a.id, &wire.Op{Kind: &wire.Op_SetDeviceMode{SetDeviceMode: &wire.SetDeviceMode{
		DeviceId: string(id), Mode: r.GetMode(),
	}}})
	if err != nil {
		return nil, err
	}
	a.c.applyMode(id)
	a.c.audit(id, "device %s %s, says device %s", id.Short(), word, a.id.Short())
	return &wire.SetDeviceModeResponse{}, nil
}

// modeWords says what a mode means to a device; false if there is no such mode.
func modeWords(mode wire.DeviceMode) (string, bool) {
	switch mode {
	case wire.DeviceMode_DEVICE_MODE_ENABLED:
		return "is enabled: it is given work", true
	case wire.DeviceMode_DEVICE_MODE_DRAINING:
		return "is draining: it finishes what it runs and is given nothing more", true
	case wire.DeviceMode_DEVICE_MODE_DISABLED:
		return "is disabled: what it had goes to others", true
	}
	return "", false
}

func unknownDevice(id wire.DeviceID) error {
	return wire.Errorf(wire.Code_CODE_NOT_FOUND, "no device %.60q belongs to the swarm", string(id))
}

// applyMode makes the session of a device follow the mode that was committed.
func (c *Coordinator) applyMode(id wire.DeviceID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := c.devices[id]
	record, err := c.registered(id)
	if d == nil || err != nil {
		return
	}
	switch d.mode = record.Mode; d.mode {
	case wire.DeviceMode_DEVICE_MODE_DRAINING:
		c.keepBack(d)
	case wire.DeviceMode_DEVICE_MODE_DISABLED:
		c.revoke(d)
	}
	c.wake()
}

// keepBack takes from a device what it was given and not yet sent. The caller
// holds the mutex.
func (c *Coordinator) keepBack(d *device) {
	now := time.Now()
	for l := range d.leases {
		if l.attempt != nil {
			continue
		}
		for _, index := range l.indexes {
			if l.queue.leased[index] == l {
				l.queue.release(index, now)
			}
		}
	}
}

// revoke ends all leases of a device: it is told to stop, and others may have
// the tasks at once. That counts as no attempt. The caller holds the mutex.
func (c *Coordinator) revoke(d *device) {
	for l := range d.leases {
		if l.attempt != nil {
			d.cancel(l.queue.id, l.attempt, nil)
		}
	}
	clear(d.late)
	c.release(d, time.Now())
}

// decline gives what a disabled device claims to others, who need not wait for
// it. The caller holds the mutex.
func (c *Coordinator) decline(d *device, claim *wire.LeaseClaim) {
	d.cancel(wire.JobID(claim.GetJobId()), claim.GetAttempt(), nil)
	q := c.jobs[wire.JobID(claim.GetJobId())]
	if q == nil {
		return
	}
	now := time.Now()
	for _, index := range claim.GetIndexes() {
		if q.leased[index] == nil && q.claim(index) {
			q.putBack(index, now)
		}
	}
}
