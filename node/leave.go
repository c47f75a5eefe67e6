package node

import (
	"context"
	"time"

	"connectrpc.com/connect"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// handOverLimit bounds how long a device that leaves waits until another
// coordinates.
const handOverLimit = 6 * time.Second

// Leave takes this device out of the swarm, ends the node, and clears its data
// folder. A coordinator hands its role over first: once it is out nobody takes
// part in a group with it.
func (s *service) Leave(ctx context.Context, _ *connect.Request[wire.LeaveRequest]) (*connect.Response[wire.LeaveResponse], error) {
	n := s.node
	if err := s.opened(); err != nil {
		return nil, err
	}
	if !n.leaving.CompareAndSwap(false, true) {
		return nil, wire.Errorf(wire.Code_CODE_CONFLICT, "this device is leaving the swarm already")
	}
	n.awaitHandOver(ctx)
	_, err := s.ask(ctx, &wire.Request{Kind: &wire.Request_RemoveDevice{RemoveDevice: &wire.RemoveDeviceRequest{
		DeviceId: string(n.id.ID),
	}}})
	if err != nil && wire.CodeOf(err) != wire.Code_CODE_REMOVED && !n.wasRemoved(n.id.ID) {
		n.leaving.Store(false)
		return nil, err
	}
	n.left.Store(true)
	n.stop(errStopped)
	return connect.NewResponse(&wire.LeaveResponse{}), nil
}

// awaitHandOver waits until this node, which prefers not to lead now, does not,
// or no other can.
func (n *node) awaitHandOver(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, handOverLimit)
	defer cancel()
	look := time.NewTicker(standBackEvery / 5)
	defer look.Stop()
	for {
		g := n.group()
		if g == nil || n.lead.Load() == nil || !n.othersCanLead(g) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-look.C:
		}
	}
}
