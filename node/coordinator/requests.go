package coordinator

import (
	"context"
	"errors"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// answer does what a device or client asks, if its role allows it.
func (c *Coordinator) answer(ctx context.Context, d *device, r *wire.Request) *wire.Response {
	c.mu.Lock()
	d.lastSeen = time.Now()
	c.mu.Unlock()
	record, err := c.registered(d.id) // it may have been removed meanwhile
	response := &wire.Response{}
	if err == nil {
		asker := asker{c: c, device: d, id: d.id, role: record.Role}
		err = asker.answer(ctx, r, response)
	}
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) && wire.CodeOf(err) == wire.Code_CODE_INTERNAL {
		// The answer may still arrive, and says nothing of what was asked.
		err = wire.Errorf(wire.Code_CODE_UNAVAILABLE, "this node stopped coordinating before it could answer")
	}
	if refusesTrust(err) {
		c.refused(d, "refused: %v", err)
	}
	response.Error = wire.EncodeError(err)
	return response
}

// asker is who asks: its answers keep within its role.
type asker struct {
	c      *Coordinator
	device *device
	id     wire.DeviceID
	role   wire.Role
}

// need refuses what takes a higher role.
func (a asker) need(role wire.Role, what string) error {
	if a.role >= role {
		return nil
	}
	word := "a member"
	if role == wire.Role_ROLE_ADMIN {
		word = "an admin"
	}
	return wire.Errorf(wire.Code_CODE_DENIED, "%s takes %s of the swarm, and this device is %s: let an admin make an invite with \"ostrich invite --role %s\" and join with it from another data folder",
		what, word, wire.RoleWord(a.role), wire.RoleName(role))
}

// answer calls the handler of the request's kind. Each sets its own part of the
// response.
func (a asker) answer(ctx context.Context, r *wire.Request, out *wire.Response) error {
	switch k := r.GetKind().(type) {
	case *wire.Request_ReadPage:
		return reply(ctx, k.ReadPage, a.readPage, func(v *wire.ReadPageResponse) { out.Kind = &wire.Response_ReadPage{ReadPage: v} })
	case *wire.Request_WritePage:
		return reply(ctx, k.WritePage, a.writePage, func(v *wire.WritePageResponse) { out.Kind = &wire.Response_WritePage{WritePage: v} })
	case *wire.Request_ReadResults:
		return reply(ctx, k.ReadResults, a.readResults, func(v *wire.ReadResultsResponse) { out.Kind = &wire.Response_ReadResults{ReadResults: v} })
	case *wire.Request_SubmitJob:
		return reply(ctx, k.SubmitJob, a.submitJob, func(v *wire.SubmitJobResponse) { out.Kind = &wire.Response_SubmitJob{SubmitJob: v} })
	case *wire.Request_AppendInputs:
		return reply(ctx, k.AppendInputs, a.appendInputs, func(v *wire.AppendInputsResponse) { out.Kind = &wire.Response_AppendInputs{AppendInputs: v} })
	case *wire.Request_CloseInputs:
		return reply(ctx, k.CloseInputs, a.closeInputs, func(v *wire.CloseInputsResponse) { out.Kind = &wire.Response_CloseInputs{CloseInputs: v} })
	case *wire.Request_CancelJob:
		return reply(ctx, k.CancelJob, a.cancelJob, func(v *wire.CancelJobResponse) { out.Kind = &wire.Response_CancelJob{CancelJob: v} })
	case *wire.Request_RetryJob:
		return reply(ctx, k.RetryJob, a.retryJob, func(v *wire.RetryJobResponse) { out.Kind = &wire.Response_RetryJob{RetryJob: v} })
	case *wire.Request_RemoveJob:
		return reply(ctx, k.RemoveJob, a.removeJob, func(v *wire.RemoveJobResponse) { out.Kind = &wire.Response_RemoveJob{RemoveJob: v} })
	case *wire.Request_ListJobs:
		return reply(ctx, k.ListJobs, a.listJobs, func(v *wire.ListJobsResponse) { out.Kind = &wire.Response_ListJobs{ListJobs: v} })
	case *wire.Request_GetJob:
		return reply(ctx, k.GetJob, a.getJob, func(v *wire.GetJobResponse) { out.Kind = &wire.Response_GetJob{GetJob: v} })
	case *wire.Request_HasProgram:
		return reply(ctx, k.HasProgram, a.hasProgram, func(v *wire.HasProgramResponse) { out.Kind = &wire.Response_HasProgram{HasProgram: v} })
	default:
		return a.answerRegistry(ctx, r, out)
	}
}

// answerRegistry answers what is about devices, invites and the whole.
func (a asker) answerRegistry(ctx context.Context, r *wire.Request, out *wire.Response) error {
	switch k := r.GetKind().(type) {
	case *wire.Request_ListDevices:
		return reply(ctx, k.ListDevices, a.listDevices, func(v *wire.ListDevicesResponse) { out.Kind = &wire.Response_ListDevices{ListDevices: v} })
	case *wire.Request_RenameDevice:
		return reply(ctx, k.RenameDevice, a.renameDevice, func(v *wire.RenameDeviceResponse) { out.Kind = &wire.Response_RenameDevice{RenameDevice: v} })
	case *wire.Request_RemoveDevice:
		return reply(ctx, k.RemoveDevice, a.removeDevice, func(v *wire.RemoveDeviceResponse) { out.Kind = &wire.Response_RemoveDevice{RemoveDevice: v} })
	case *wire.Request_SetDeviceMode:
		return reply(ctx, k.SetDeviceMode, a.setDeviceMode, func(v *wire.SetDeviceModeResponse) { out.Kind = &wire.Response_SetDeviceMode{SetDeviceMode: v} })
	case *wire.Request_GetView:
		return reply(ctx, k.GetView, a.getView, func(v *wire.GetViewResponse) { out.Kind = &wire.Response_GetView{GetView: v} })
	case *wire.Request_CreateInvite:
		return reply(ctx, k.CreateInvite, a.createInvite, func(v *wire.CreateInviteResponse) { out.Kind = &wire.Response_CreateInvite{CreateInvite: v} })
	case *wire.Request_ListInvites:
		return reply(ctx, k.ListInvites, a.listInvites, func(v *wire.ListInvitesResponse) { out.Kind = &wire.Response_ListInvites{ListInvites: v} })
	case *wire.Request_RevokeInvite:
		return reply(ctx, k.RevokeInvite, a.revokeInvite, func(v *wire.RevokeInviteResponse) { out.Kind = &wire.Response_RevokeInvite{RevokeInvite: v} })
	case *wire.Request_Admit:
		return reply(ctx, k.Admit, a.admitDevice, func(v *wire.AdmitResponse) { out.Kind = &wire.Response_Admit{Admit: v} })
	default:
		return wire.Errorf(wire.Code_CODE_VERSION, "this coordinator does not know what is asked; let all nodes run one version")
	}
}

// reply calls a handler and sets its answer if there is one.
func reply[In, Out any](ctx context.Context, in In, handle func(context.Context, In) (*Out, error), set func(*Out)) error {
	out, err := handle(ctx, in)
	if err != nil {
		return err
	}
	set(out)
	return nil
}
