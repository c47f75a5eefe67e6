package coordinator

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"github.com/ostrich-legs/ostrich/consensus/state"
	"github.com/ostrich-legs/ostrich/node/session"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// maxSlots bounds what a device may claim to run at one time.
const maxSlots = 1024

// roleEnds is the goodbye of a coordinator whose term ends.
const roleEnds = "the coordinator's role moves on"

// serve runs one session from its handshake to its end. The end of the term
// ends a handshake at once; a session is told first: see endSessions.
func (c *Coordinator) serve(ctx, term context.Context, rw io.ReadWriteCloser) error {
	handshake, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(term, cancel)()
	conn, hello, err := session.AcceptConn(handshake, rw, session.Accept{
		Identity:   c.cfg.Identity,
		Swarm:      c.swarm.id,
		Generation: c.swarm.generation,
		Term:       c.term,
		Admit:      c.admit,
	})
	if err != nil {
		if code := wire.CodeOf(err); code == wire.Code_CODE_BAD_PROOF || code == wire.Code_CODE_DENIED {
			c.audit(wire.DeviceID(hello.GetDeviceId()), "a session was refused: %v", err)
		}
		return err
	}
	role, _ := c.roleOf(wire.DeviceID(hello.GetDeviceId()))
	d := newDevice(conn, hello, role)
	if !c.connect(d, hello.GetLeases()) {
		return conn.Close(roleEnds, true)
	}

	work, workCtx := errgroup.WithContext(ctx)
	work.Go(func() error { return c.sendGrants(workCtx, d) })
	work.Go(func() error {
		err := conn.Run(workCtx, session.Handler{
			Request: func(ctx context.Context, r *wire.Request) *wire.Response { return c.answer(ctx, d, r) },
			Frame:   func(f *wire.Frame) error { return c.frame(d, f) },
		})
		if err == nil {
			err = session.ErrGoodbye
		}
		return err
	})
	work.Go(func() error { c.welcomeDevice(workCtx, d); return nil })
	err = work.Wait()
	c.disconnect(d, err)
	return err
}

// admit decides, after its proof, whether a device may keep a session.
func (c *Coordinator) admit(hello *wire.Hello) (*wire.Welcome, error) {
	id := wire.DeviceID(hello.GetDeviceId())
	if hello.GetSlots() > maxSlots {
		return nil, wire.Errorf(wire.Code_CODE_INVALID, "%d slots: a device has at most %d", hello.GetSlots(), maxSlots)
	}
	if err := wire.CheckProfile(hello.GetProfile()); err != nil {
		return nil, err
	}
	role, err := c.roleOf(id)
	if err != nil {
		return nil, err
	}
	welcome := &wire.Welcome{
		Role:        role,
		Members:     c.members(),
		HeartbeatMs: heartbeatEvery.Milliseconds(),
		SwarmName:   c.swarm.name,
	}
	c.cfg.Group.Read(func(s *state.State) { welcome.DeviceName = s.Device(id).Name })
	return welcome, nil
}

// roleOf returns the role of a registered device.
func (c *Coordinator) roleOf(id wire.DeviceID) (role wire.Role, err error) {
	c.cfg.Group.Read(func(s *state.State) {
		switch d := s.Device(id); {
		case d != nil:
			role = d.Role
		case s.Removed(id):
			err = wire.Errorf(wire.Code_CODE_REMOVED, "device %s was removed from the swarm; join again with another data folder and a new invite", id.Short())
		default:
			err = wire.Errorf(wire.Code_CODE_DENIED, "device %s does not belong to this swarm; join it with an invite", id.Short())
		}
	})
	return role, err
}

// members lists the members and where they are.
func (c *Coordinator) members() []*wire.Peer {
	return c.cfg.Peers(c.memberIDs())
}

func (c *Coordinator) memberIDs() (ids []wire.DeviceID) {
	c.cfg.Group.Read(func(s *state.State) {
		for _, d := range s.Devices() {
			if d.Role >= wire.Role_ROLE_MEMBER {
				ids = append(ids, d.ID)
			}
		}
	})
	return ids
}

// connect makes d the session of its device. Leases that the device proves it
// holds stay with it; what else was leased to it waits to be leased again. It
// reports false when the term has ended.
func (c *Coordinator) connect(d *device, claims []*wire.LeaseClaim) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return false
	}
	if old := c.devices[d.id]; old != nil && old.gone.IsZero() {
		go old.conn.Close("another session of this device took its place", false)
	}
	c.devices[d.id] = d
	held := c.adopt(d, claims)
	now := time.Now()
	for id, q := range c.jobs {
		for index, holder := range q.leased {
			if holder == d.id && !held[claimedTask{id, index}] {
				q.release(index, d.id, now)
			}
		}
	}
	c.wake()
	return true
}

type claimedTask struct {
	job   wire.JobID
	index uint32
}

// adopt takes over the leases that device d proves, and returns them.
func (c *Coordinator) adopt(d *device, claims []*wire.LeaseClaim) map[claimedTask]bool {
	held := make(map[claimedTask]bool)
	for _, claim := range claims {
		q := c.jobs[wire.JobID(claim.GetJobId())]
		if q == nil || !wire.ValidLease(c.swarm.leaseKey, d.id, claim) {
			continue
		}
		for _, index := range claim.GetIndexes() {
			task := claimedTask{q.id, index}
			if !held[task] && q.adopt(index, d.id) {
				held[task] = true
				d.hold(q.id, 1)
			}
		}
	}
	return held
}

// disconnect ends d. A goodbye frees its leases at once, a broken link after a
// grace.
func (c *Coordinator) disconnect(d *device, why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.devices[d.id] != d {
		return
	}
	if errors.Is(why, session.ErrGoodbye) || d.total == 0 {
		c.free(d)
		return
	}
	d.gone = time.Now()
}

// free gives the leases of a device back and forgets its session.
func (c *Coordinator) free(d *device) {
	delete(c.devices, d.id)
	now := time.Now()
	for _, q := range c.jobs {
		for index, holder := range q.leased {
			if holder == d.id {
				q.release(index, d.id, now)
			}
		}
	}
	c.wake()
}

// welcomeDevice records what a new session tells of its device: that it is
// online, and its profile where that has changed.
func (c *Coordinator) welcomeDevice(ctx context.Context, d *device) {
	var online, same bool
	c.cfg.Group.Read(func(s *state.State) {
		if known := s.Device(d.id); known != nil {
			online = known.Online
			same = proto.Equal(known.Profile, d.profile)
		}
	})
	if !same {
		_, err := c.propose(ctx, d.id, &wire.Op{Kind: &wire.Op_UpdateDevice{UpdateDevice: &wire.UpdateDevice{
			DeviceId: string(d.id), Profile: d.profile,
		}}})
		if err != nil {
			c.cfg.Log.Debug("a device's profile was not recorded", "device", d.id, "err", err)
		}
	}
	if !online {
		c.setPresence(ctx, d.id, true)
	}
}

// endSessions says goodbye to all: the coordinator's role ends.
func (c *Coordinator) endSessions() {
	c.mu.Lock()
	c.ended = true
	var closing sync.WaitGroup
	for _, d := range c.devices {
		closing.Go(func() { d.conn.Close(roleEnds, true) })
	}
	c.mu.Unlock()
	closing.Wait()
}

// frame takes what a device says on its own.
func (c *Coordinator) frame(d *device, f *wire.Frame) error {
	c.mu.Lock()
	d.lastSeen = time.Now()
	c.mu.Unlock()
	switch kind := f.GetKind().(type) {
	case *wire.Frame_Heartbeat:
		c.mu.Lock()
		d.load = kind.Heartbeat
		c.mu.Unlock()
		return nil
	case *wire.Frame_Results:
		return c.receive(d, kind.Results)
	case *wire.Frame_LogLine:
		line := kind.LogLine
		line.Device, line.Audit = string(d.id), false
		c.cfg.Publish(line)
		return nil
	default:
		return wire.Errorf(wire.Code_CODE_INVALID, "a frame of a kind that a device does not send")
	}
}
