package coordinator

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/ostrich-legs/ostrich/consensus/state"
	"github.com/ostrich-legs/ostrich/node/session"
	"github.com/ostrich-legs/ostrich/p2p/wire"
	"golang.org/x/sync/errgroup"
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
	var proven wire.DeviceID
	conn, hello, err := session.AcceptConn(handshake, rw, session.Accept{
		Identity:   c.cfg.Identity,
		Swarm:      c.swarm.id,
		Generation: c.swarm.generation,
		Term:       c.term,
		Admit: func(h *wire.Hello) (*wire.Welcome, error) {
			proven = wire.DeviceID(h.GetDeviceId())
			return c.admit(h)
		},
	})
	if err != nil {
		if refusesTrust(err) && c.handshakes.Allow() {
			c.audit(proven, "a session was refused: %v", err)
		}
		return err
	}
	d := newDevice(conn, hello, &c.staging, &c.useless)
	if bye := c.connect(d, hello.GetLeases()); bye != nil {
		return conn.Close(bye.GetReason(), bye.GetRedial())
	}

	work, workCtx := errgroup.WithContext(ctx)
	work.Go(func() error { return c.sendGrants(workCtx, d) })
	work.Go(func() error {
		err := conn.Run(workCtx, session.Handler{
			Request: func(ctx context.Context, r *wire.Request) *wire.Response { return c.answer(ctx, d, r) },
			Frame:   func(f *wire.Frame) error { return c.frame(workCtx, d, f) },
		})
		if err == nil {
			err = session.ErrGoodbye
		}
		return err
	})
	work.Go(func() error { c.welcomeDevice(workCtx, d); return nil })
	err = work.Wait()
	d.staged.forgetIf(func(*staged) bool { return true })
	c.disconnect(d, err)
	return err
}

// refusesTrust reports whether an error says that someone may not do what they
// tried: an audit event.
func refusesTrust(err error) bool {
	switch wire.CodeOf(err) {
	case wire.Code_CODE_DENIED, wire.Code_CODE_BAD_PROOF, wire.Code_CODE_REMOVED, wire.Code_CODE_WRONG_SWARM:
		return true
	}
	return false
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
	d, err := c.registered(id)
	if err != nil {
		return nil, err
	}
	return c.welcome(d, c.members()), nil
}

func (c *Coordinator) welcome(d state.Device, members []*wire.Peer) *wire.Welcome {
	return &wire.Welcome{
		Role:        d.Role,
		Members:     members,
		HeartbeatMs: heartbeatEvery.Milliseconds(),
		SwarmName:   c.swarm.name,
		DeviceName:  d.Name,
	}
}

// registered returns the record of a device that belongs to the swarm.
func (c *Coordinator) registered(id wire.DeviceID) (record state.Device, err error) {
	c.cfg.Group.Read(func(s *state.State) {
		switch d := s.Device(id); {
		case d != nil:
			record = *d
		case s.Removed(id):
			err = wire.Errorf(wire.Code_CODE_REMOVED, "device %s was removed from the swarm; join again with another data folder and a new invite", id.Short())
		default:
			err = wire.Errorf(wire.Code_CODE_DENIED, "device %s does not belong to this swarm; join it with an invite", id.Short())
		}
	})
	return record, err
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
// returns the goodbye to say when the term has ended, or the device was removed
// meanwhile.
func (c *Coordinator) connect(d *device, claims []*wire.LeaseClaim) *wire.Goodbye {
	proven := c.proven(d, claims)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return &wire.Goodbye{Reason: roleEnds, Redial: true}
	}
	// Read under the mutex: what is committed later finds the session.
	record, err := c.registered(d.id)
	if err != nil {
		return &wire.Goodbye{Reason: removedText}
	}
	d.mode = record.Mode
	if record.Role >= wire.Role_ROLE_MEMBER {
		c.membersDue = true // it is new, or somewhere else
	}
	old := c.devices[d.id]
	c.devices[d.id] = d
	delete(c.left, d.id)
	for _, claim := range proven {
		if d.mode == wire.DeviceMode_DEVICE_MODE_DISABLED {
			c.decline(d, claim)
		} else {
			c.adopt(d, claim)
		}
	}
	if old != nil {
		d.staged.inherit(&old.staged)
		c.release(old, time.Now())
		if old.gone.IsZero() {
			c.running.Go(func() { old.conn.Close("another session of this device took its place", false) })
		}
	}
	c.wake()
	return nil
}

// disconnect ends d. A goodbye frees its leases at once, a broken link after a
// grace.
func (c *Coordinator) disconnect(d *device, why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.devices[d.id] != d {
		return
	}
	goodbye := errors.Is(why, session.ErrGoodbye)
	c.left[d.id] = leaving{at: time.Now(), goodbye: goodbye}
	if goodbye || d.total == 0 {
		c.free(d)
		return
	}
	d.gone = time.Now()
}

// free gives the leases of a device back and forgets its session.
func (c *Coordinator) free(d *device) {
	delete(c.devices, d.id)
	d.staged.end()
	c.release(d, time.Now())
}

// welcomeDevice records what a new session tells of its device: that it is
// online, and its profile where that has changed.
func (c *Coordinator) welcomeDevice(ctx context.Context, d *device) {
	var online bool
	c.cfg.Group.Read(func(s *state.State) {
		if known := s.Device(d.id); known != nil {
			online = known.Online
		}
	})
	c.recordProfile(ctx, d)
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
func (c *Coordinator) frame(ctx context.Context, d *device, f *wire.Frame) error {
	c.mu.Lock()
	d.lastSeen = time.Now()
	expelled := d.expelled
	c.mu.Unlock()
	if expelled {
		return wire.Errorf(wire.Code_CODE_REMOVED, "this device was removed from the swarm")
	}
	switch kind := f.GetKind().(type) {
	case *wire.Frame_Heartbeat:
		c.noteReport(d, kind.Heartbeat.GetMember())
		c.noteHealth(d, kind.Heartbeat.GetUnwell())
		return nil
	case *wire.Frame_Results:
		return c.receive(ctx, d, kind.Results)
	case *wire.Frame_LogLine:
		c.relay(d, kind.LogLine)
		return nil
	default:
		return wire.Errorf(wire.Code_CODE_INVALID, "a frame of a kind that a device does not send")
	}
}
