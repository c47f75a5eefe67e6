package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/ostrich-legs/ostrich/node/control"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

func (a *app) devicesCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "devices",
		Short: "List the devices of the swarm",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withNode(func(c *control.Client) error {
				res, err := control.Call(cmd.Context(), c.ListDevices, &wire.ListDevicesRequest{})
				if err != nil {
					return err
				}
				if asJSON {
					return printJSON(a.out, views(res.GetDevices(), deviceView))
				}
				for _, d := range res.GetDevices() {
					if d.GetUnwell() != "" {
						a.notice("%s is sick, and is given no work: %s", d.GetProfile().GetName(), d.GetUnwell())
					}
				}
				return table(a.out, "NAME ID TYPE STATUS ROLE CORES MEMORY WEIGHT TASKS SEEN", views(res.GetDevices(), deviceRow))
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print an array of objects")
	return cmd
}

func deviceRow(d *wire.Device) []string {
	v := deviceView(d)
	return []string{
		v.Name, short(v.ID), v.Type, v.Status, v.Role, fmt.Sprint(v.Capabilities.CPUCores),
		fmt.Sprintf("%.1f GB", v.Capabilities.MemoryGB), fmt.Sprintf("%.0f", v.Weight),
		fmt.Sprint(v.TotalTasksCompleted), local(d.GetLastHeartbeatMs()),
	}
}

func (a *app) deviceCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "device",
		Short: "Change one device",
		Long: `Does something with one device. ID is a device's ID, as much of its end as no other
device has, or its name.`,
		RunE: needsSubcommand,
	}
	cmd.AddCommand(a.deviceRenameCommand())
	cmd.AddCommand(a.deviceModeCommands()...)
	cmd.AddCommand(a.deviceRemoveCommand())
	return cmd
}

func (a *app) deviceRenameCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "rename ID NAME",
		Short:   "Give a device another name",
		Example: "  ostrich device rename 3xTqcYvA kitchen",
		Args:    exactArgs(2, "the ID of a device and its new name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := wire.CheckName(args[1]); err != nil {
				return &usageError{err}
			}
			return a.withNode(func(c *control.Client) error {
				d, err := findDevice(cmd.Context(), c, args[0])
				if err != nil {
					return err
				}
				_, err = control.Call(cmd.Context(), c.RenameDevice, &wire.RenameDeviceRequest{DeviceId: d.GetId(), Name: args[1]})
				if err == nil {
					a.notice("device %s is %s now", short(d.GetId()), args[1])
				}
				return err
			})
		},
	}
}
