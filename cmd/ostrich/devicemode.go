package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ostrich-legs/ostrich/node/control"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// deviceModeCommands are the commands that say whether a device is given work.
func (a *app) deviceModeCommands() []*cobra.Command {
	return []*cobra.Command{
		a.deviceModeCommand(&cobra.Command{
			Use:   "drain ID",
			Short: "Let a device finish what it runs, and give it nothing more",
			Long: `Lets a device finish the tasks that it has, and gives it no more, until it is enabled
again. A coordinator hands its role to another member first. Use it before you turn
a machine off.`,
		}, wire.DeviceMode_DEVICE_MODE_DRAINING, "is draining: it finishes what it runs and is given nothing more (ostrich device enable lets it work again)"),
		a.deviceModeCommand(&cobra.Command{
			Use:   "disable ID",
			Short: "Take all work from a device at once",
			Long: `Takes the tasks that a device has from it, gives them to others, and gives it no more,
until it is enabled again.`,
		}, wire.DeviceMode_DEVICE_MODE_DISABLED, "is disabled: its tasks go to others (ostrich device enable lets it work again)"),
		a.deviceModeCommand(&cobra.Command{
			Use:   "enable ID",
			Short: "Give a device work again",
		}, wire.DeviceMode_DEVICE_MODE_ENABLED, "is enabled: it is given work"),
	}
}

// deviceModeCommand completes a command that sets a device's mode; done is what
// to say afterwards.
func (a *app) deviceModeCommand(cmd *cobra.Command, mode wire.DeviceMode, done string) *cobra.Command {
	cmd.Args = exactArgs(1, "the ID of a device")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.withNode(func(c *control.Client) error {
			d, err := findDevice(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			_, err = control.Call(cmd.Context(), c.SetDeviceMode, &wire.SetDeviceModeRequest{DeviceId: d.GetId(), Mode: mode})
			if err == nil {
				a.notice("%s %s", named(d), done)
			}
			return err
		})
	}
	return cmd
}

// named is a device as sentences name it.
func named(d *wire.Device) string {
	return strings.TrimSpace(fmt.Sprintf("%s (%s)", d.GetProfile().GetName(), short(d.GetId())))
}

// removeFlags are the flags of device remove.
type removeFlags struct{ yes, revoke bool }

func (a *app) deviceRemoveCommand() *cobra.Command {
	var f removeFlags
	cmd := &cobra.Command{
		Use:   "remove ID",
		Short: "Take a device out of the swarm, for good",
		Long: `Takes a device out of the swarm for good, a lost machine too: its key is never let in
again. It is refused where the members that are left could not go on without it. The
invite that the device joined by may let others in still: --revoke-invite makes it
useless too.`,
		Example: `  ostrich device remove kitchen
  ostrich device remove 3xTqcYvA --yes --revoke-invite`,
		Args: exactArgs(1, "the ID of a device"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withNode(func(c *control.Client) error { return a.removeDevice(cmd.Context(), c, args[0], f) })
		},
	}
	cmd.Flags().BoolVar(&f.yes, "yes", false, "do not ask")
	cmd.Flags().BoolVar(&f.revoke, "revoke-invite", false, "revoke the invite that it joined by, too")
	return cmd
}

func (a *app) removeDevice(ctx context.Context, c *control.Client, name string, f removeFlags) error {
	d, err := findDevice(ctx, c, name)
	if err != nil {
		return err
	}
	question := fmt.Sprintf("Take %s, %s, out of the swarm for good?", named(d), enum(d.GetRole().String(), "ROLE_", true))
	if err := a.confirm(f.yes, question); err != nil {
		return err
	}
	res, err := control.Call(ctx, c.RemoveDevice, &wire.RemoveDeviceRequest{DeviceId: d.GetId(), RevokeInvite: f.revoke})
	if err != nil {
		return err
	}
	a.notice("%s is removed; its key is not let in again", named(d))
	invite := res.GetOpenInvite()
	if invite == "" {
		return nil
	}
	if f.yes || a.confirm(false, fmt.Sprintf("It joined by invite %s, which lets others in still. Revoke that too?", invite)) != nil {
		a.notice("invite %s, by which it joined, lets others in still; revoke it with: ostrich invite revoke %s", invite, invite)
		return nil
	}
	return a.revokeInvite(ctx, c, invite)
}
