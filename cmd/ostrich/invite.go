package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/ostrich-legs/ostrich/node/control"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// inviteFlags are the flags of invite.
type inviteFlags struct {
	role string
	ttl  durationFlag
	uses uint32
	qr   string
	json bool
}

func (a *app) inviteCommand() *cobra.Command {
	var f inviteFlags
	cmd := &cobra.Command{
		Use:   "invite",
		Short: "Let other devices into the swarm",
		Long: `Makes an invite: who has it may join with its role, until it expires, is used up or
is revoked. A worker runs tasks; a member also keeps the swarm's memory and may
submit jobs; an admin may also invite members. Unless said otherwise, a worker's
invite lasts 24 h for any number of devices, others 1 h for one device.

The link, and the QR code that holds it, are for browsers: a phone that opens it
computes at once. The text form is for machines ("ostrich up --join TEXT"), the code
for typing ("ostrich up --join CODE@HOST:PORT").`,
		Example: `  ostrich invite --role member
  ostrich invite --role worker --ttl 7d --uses 20 --qr poster.svg
  ostrich invite ls`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			role, ok := parseRole(f.role)
			if !ok {
				return usagef("--role %s: a role is worker, member or admin", f.role)
			}
			if f.qr != "" {
				if err := checkQR(f.qr); err != nil {
					return err
				}
			}
			r := &wire.CreateInviteRequest{Role: role, TtlMs: f.ttl.v.Milliseconds(), MaxUses: f.uses, UsesSet: cmd.Flags().Changed("uses")}
			return a.withNode(func(c *control.Client) error {
				res, err := control.Call(cmd.Context(), c.CreateInvite, r)
				if err != nil {
					return err
				}
				return a.tellInvite(res.GetInvite(), f)
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.role, "role", "worker", "what the bearer may become: `worker|member|admin`")
	flags.Var(&f.ttl, "ttl", "how long it may be used, such as 1h or 7d")
	flags.Uint32Var(&f.uses, "uses", 0, "how many devices may use it, `N` (0: any number)")
	flags.StringVar(&f.qr, "qr", "", "write the QR code of the link to a picture, `FILE.png|.svg`")
	flags.BoolVar(&f.json, "json", false, "print an object")
	cmd.AddCommand(a.inviteListCommand(), a.inviteRevokeCommand())
	return cmd
}

// tellInvite prints a new invite, and writes its picture where one is wanted.
func (a *app) tellInvite(i *wire.Invite, f inviteFlags) error {
	var err error
	if f.json {
		err = printJSON(a.out, inviteView(i))
	} else if err = printInvite(a.out, i); err == nil {
		err = drawQR(a.out, i.GetLink(), isTerminal(a.out))
	}
	if err == nil && f.qr != "" {
		if err = writeQR(f.qr, i.GetLink()); err != nil {
			err = fmt.Errorf("invite %s is made, but its picture is not: %w", i.GetId(), err)
		}
	}
	return err
}

func parseRole(s string) (wire.Role, bool) {
	for _, r := range []wire.Role{wire.Role_ROLE_WORKER, wire.Role_ROLE_MEMBER, wire.Role_ROLE_ADMIN} {
		if enum(r.String(), "ROLE_", true) == s {
			return r, true
		}
	}
	return 0, false
}

func printInvite(w io.Writer, i *wire.Invite) error {
	uses := "any number of devices"
	if n := i.GetMaxUses(); n == 1 {
		uses = "one device"
	} else if n > 1 {
		uses = fmt.Sprintf("%d devices", n)
	}
	left := time.Duration(i.GetExpiresAtMs()-i.GetCreatedAtMs()) * time.Millisecond
	_, err := fmt.Fprintf(w, `Invite %s: role %s, for %s, until %s (%s).

link  %s
code  %s
text  %s

On the other machine:  ostrich up --join %s
In a browser there, or on a phone: open the link, or scan this.

`, i.GetId(), enum(i.GetRole().String(), "ROLE_", true), uses, local(i.GetExpiresAtMs()), left.Round(time.Second),
		i.GetLink(), i.GetCode(), i.GetText(), i.GetText())
	return err
}

func (a *app) inviteListCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List the invites, without their secrets",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withNode(func(c *control.Client) error {
				res, err := control.Call(cmd.Context(), c.ListInvites, &wire.ListInvitesRequest{})
				if err != nil {
					return err
				}
				if asJSON {
					return printJSON(a.out, views(res.GetInvites(), inviteView))
				}
				now := time.Now().UnixMilli()
				row := func(i *wire.Invite) []string { return inviteRow(i, now) }
				return table(a.out, "ID ROLE USES CREATED EXPIRES BY STATE", views(res.GetInvites(), row))
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print an array of objects")
	return cmd
}

func inviteRow(i *wire.Invite, nowMS int64) []string {
	uses := fmt.Sprintf("%d/%d", i.GetUses(), i.GetMaxUses())
	if i.GetMaxUses() == 0 {
		uses = fmt.Sprintf("%d/any", i.GetUses())
	}
	state := "open"
	switch {
	case i.GetRevoked():
		state = "revoked"
	case i.GetMaxUses() > 0 && i.GetUses() >= i.GetMaxUses():
		state = "used up"
	case nowMS >= i.GetExpiresAtMs():
		state = "expired"
	}
	return []string{
		i.GetId(), enum(i.GetRole().String(), "ROLE_", true), uses,
		local(i.GetCreatedAtMs()), local(i.GetExpiresAtMs()), short(i.GetCreatedBy()), state,
	}
}

func (a *app) inviteRevokeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "revoke ID",
		Short: "Make an invite useless",
		Args:  exactArgs(1, "the ID of an invite"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withNode(func(c *control.Client) error { return a.revokeInvite(cmd.Context(), c, args[0]) })
		},
	}
}

func (a *app) revokeInvite(ctx context.Context, c *control.Client, id string) error {
	_, err := control.Call(ctx, c.RevokeInvite, &wire.RevokeInviteRequest{InviteId: id})
	if err == nil {
		a.notice("invite %s is revoked", id)
	}
	return err
}
