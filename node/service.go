package node

import (
	"context"
	"errors"
	"runtime/debug"
	"time"

	"connectrpc.com/connect"

	"github.com/ostrich-legs/ostrich/p2p"
	"github.com/ostrich-legs/ostrich/p2p/wire"
	"github.com/ostrich-legs/ostrich/p2p/wire/wireconnect"
)

// callLimit bounds how long a call waits for a coordinator.
const callLimit = 6 * time.Second

// service answers the control API: mostly it passes what is asked through the
// node's session to the coordinator.
type service struct {
	node *node
}

var _ wireconnect.ControlHandler = (*service)(nil)

// ask puts a request to the coordinator, waiting for one for a bounded time.
func (s *service) ask(ctx context.Context, r *wire.Request) (*wire.Response, error) {
	if err := s.opened(); err != nil {
		return nil, err
	}
	limited, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	return s.askFor(ctx, limited, r)
}

// askFor is ask with a limit of the caller's own; ctx is the client's.
func (s *service) askFor(ctx, limited context.Context, r *wire.Request) (*wire.Response, error) {
	out, err := s.node.worker.Link().Call(limited, r)
	if err != nil && ctx.Err() == nil && errors.Is(limited.Err(), context.DeadlineExceeded) {
		return nil, wire.Errorf(wire.Code_CODE_UNAVAILABLE,
			"no coordinator answers: the swarm has no quorum now, or this node cannot reach it (\"ostrich status\" shows what is known)")
	}
	return out, err
}

func (s *service) opened() error {
	if !s.node.opened.Load() {
		return wire.Errorf(wire.Code_CODE_UNAVAILABLE, "the node is starting; try again in a moment")
	}
	return nil
}

// answered wraps what a call returned for Connect.
func answered[T any](out *T, err error) (*connect.Response[T], error) {
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(out), nil
}

func (s *service) ListDevices(ctx context.Context, r *connect.Request[wire.ListDevicesRequest]) (*connect.Response[wire.ListDevicesResponse], error) {
	out, err := s.ask(ctx, &wire.Request{Kind: &wire.Request_ListDevices{ListDevices: r.Msg}})
	return answered(out.GetListDevices(), err)
}

func (s *service) RenameDevice(ctx context.Context, r *connect.Request[wire.RenameDeviceRequest]) (*connect.Response[wire.RenameDeviceResponse], error) {
	out, err := s.ask(ctx, &wire.Request{Kind: &wire.Request_RenameDevice{RenameDevice: r.Msg}})
	return answered(out.GetRenameDevice(), err)
}

func (s *service) RemoveDevice(ctx context.Context, r *connect.Request[wire.RemoveDeviceRequest]) (*connect.Response[wire.RemoveDeviceResponse], error) {
	if wire.DeviceID(r.Msg.GetDeviceId()) == s.node.id.ID {
		return nil, wire.Errorf(wire.Code_CODE_PRECONDITION, "this is the device of this node: take it out with \"ostrich leave\", which also ends the node and clears its folder")
	}
	out, err := s.ask(ctx, &wire.Request{Kind: &wire.Request_RemoveDevice{RemoveDevice: r.Msg}})
	return answered(out.GetRemoveDevice(), err)
}

func (s *service) SetDeviceMode(ctx context.Context, r *connect.Request[wire.SetDeviceModeRequest]) (*connect.Response[wire.SetDeviceModeResponse], error) {
	out, err := s.ask(ctx, &wire.Request{Kind: &wire.Request_SetDeviceMode{SetDeviceMode: r.Msg}})
	return answered(out.GetSetDeviceMode(), err)
}

func (s *service) ListJobs(ctx context.Context, r *connect.Request[wire.ListJobsRequest]) (*connect.Response[wire.ListJobsResponse], error) {
	out, err := s.ask(ctx, &wire.Request{Kind: &wire.Request_ListJobs{ListJobs: r.Msg}})
	return answered(out.GetListJobs(), err)
}

func (s *service) GetJob(ctx context.Context, r *connect.Request[wire.GetJobRequest]) (*connect.Response[wire.GetJobResponse], error) {
	out, err := s.ask(ctx, &wire.Request{Kind: &wire.Request_GetJob{GetJob: r.Msg}})
	return answered(out.GetGetJob(), err)
}

func (s *service) CloseInputs(ctx context.Context, r *connect.Request[wire.CloseInputsRequest]) (*connect.Response[wire.CloseInputsResponse], error) {
	out, err := s.ask(ctx, &wire.Request{Kind: &wire.Request_CloseInputs{CloseInputs: r.Msg}})
	return answered(out.GetCloseInputs(), err)
}

func (s *service) CancelJob(ctx context.Context, r *connect.Request[wire.CancelJobRequest]) (*connect.Response[wire.CancelJobResponse], error) {
	out, err := s.ask(ctx, &wire.Request{Kind: &wire.Request_CancelJob{CancelJob: r.Msg}})
	return answered(out.GetCancelJob(), err)
}

func (s *service) RetryJob(ctx context.Context, r *connect.Request[wire.RetryJobRequest]) (*connect.Response[wire.RetryJobResponse], error) {
	out, err := s.ask(ctx, &wire.Request{Kind: &wire.Request_RetryJob{RetryJob: r.Msg}})
	return answered(out.GetRetryJob(), err)
}

func (s *service) RemoveJob(ctx context.Context, r *connect.Request[wire.RemoveJobRequest]) (*connect.Response[wire.RemoveJobResponse], error) {
	out, err := s.ask(ctx, &wire.Request{Kind: &wire.Request_RemoveJob{RemoveJob: r.Msg}})
	return answered(out.GetRemoveJob(), err)
}

func (s *service) ListInvites(ctx context.Context, r *connect.Request[wire.ListInvitesRequest]) (*connect.Response[wire.ListInvitesResponse], error) {
	out, err := s.ask(ctx, &wire.Request{Kind: &wire.Request_ListInvites{ListInvites: r.Msg}})
	return answered(out.GetListInvites(), err)
}

func (s *service) RevokeInvite(ctx context.Context, r *connect.Request[wire.RevokeInviteRequest]) (*connect.Response[wire.RevokeInviteResponse], error) {
	out, err := s.ask(ctx, &wire.Request{Kind: &wire.Request_RevokeInvite{RevokeInvite: r.Msg}})
	return answered(out.GetRevokeInvite(), err)
}

// CreateInvite makes the secrets here, tells the swarm their public keys, and
// gives the secrets to the asker only.
func (s *service) CreateInvite(ctx context.Context, r *connect.Request[wire.CreateInviteRequest]) (*connect.Response[wire.CreateInviteResponse], error) {
	if err := s.opened(); err != nil {
		return nil, err
	}
	n := s.node
	swarm := n.swarm.Load().SwarmID
	secret, code := p2p.NewSecrets()
	request := r.Msg
	request.LinkKey = publicKey(p2p.LinkKey(secret, swarm))
	request.CodeKey = publicKey(p2p.CodeKey(code, swarm))
	out, err := s.ask(ctx, &wire.Request{Kind: &wire.Request_CreateInvite{CreateInvite: request}})
	if err != nil {
		return nil, err
	}
	debug.FreeOSMemory() // stretching the code took 19 MiB that an idle node need not keep
	invite := out.GetCreateInvite().GetInvite()
	members := n.host.Members()
	text := p2p.Invite{
		Swarm: swarm, Secret: secret, PublicURL: n.public.address(),
		Peers: n.host.Peers(append([]wire.DeviceID{n.id.ID}, members...)),
	}
	invite.Link, invite.Text, invite.Code = text.Link(), text.Text(), code
	return connect.NewResponse(&wire.CreateInviteResponse{Invite: invite}), nil
}

// Stop begins the end of the node.
func (s *service) Stop(context.Context, *connect.Request[wire.StopRequest]) (*connect.Response[wire.StopResponse], error) {
	s.node.stop(errStopped) // the control server ends last, and lets answers leave
	return connect.NewResponse(&wire.StopResponse{}), nil
}

// StreamLogs streams what happened, and, if asked, what happens.
func (s *service) StreamLogs(ctx context.Context, r *connect.Request[wire.StreamLogsRequest], out *connect.ServerStream[wire.StreamLogsResponse]) error {
	var next uint64
	for {
		lines, after, more := s.node.logs.since(next)
		next = after
		for _, line := range lines {
			if r.Msg.GetAudit() && !line.GetAudit() {
				continue
			}
			if err := out.Send(&wire.StreamLogsResponse{Line: line}); err != nil {
				return err
			}
		}
		if !r.Msg.GetFollow() {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-more:
		}
	}
}
