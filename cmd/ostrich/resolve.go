package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/ostrich-legs/ostrich/node/control"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// findJob returns the job that an ID, or an unambiguous end of one, names.
func findJob(ctx context.Context, c *control.Client, name string) (*wire.Job, error) {
	if wire.JobID(name).Check() == nil {
		res, err := control.Call(ctx, c.GetJob, &wire.GetJobRequest{JobId: name})
		if wire.CodeOf(err) != wire.Code_CODE_NOT_FOUND {
			return res.GetJob(), err
		}
	}
	res, err := control.Call(ctx, c.ListJobs, &wire.ListJobsRequest{})
	if err != nil {
		return nil, err
	}
	return pick(name, "job", res.GetJobs(), func(j *wire.Job) (string, string) { return j.GetId(), "" })
}

// findDevice returns the device that a name, an ID, or an unambiguous end of
// one names.
func findDevice(ctx context.Context, c *control.Client, name string) (*wire.Device, error) {
	res, err := control.Call(ctx, c.ListDevices, &wire.ListDevicesRequest{})
	if err != nil {
		return nil, err
	}
	return pick(name, "device", res.GetDevices(), func(d *wire.Device) (string, string) {
		return d.GetId(), d.GetProfile().GetName()
	})
}

// pick returns the one of all with that ID, else with that name, else whose ID
// ends so.
func pick[T any](want, what string, all []T, names func(T) (id, name string)) (none T, err error) {
	matches := []func(id, name string) bool{
		func(id, _ string) bool { return id == want },
		func(_, name string) bool { return name == want },
		func(id, _ string) bool { return strings.HasSuffix(id, want) },
	}
	if want == "" {
		return none, usagef("an empty name is no %s", what)
	}
	for _, match := range matches {
		var found []T
		var described []string
		for _, x := range all {
			id, name := names(x)
			if match(id, name) {
				found = append(found, x)
				described = append(described, strings.TrimSpace(id+" "+name))
			}
		}
		switch len(found) {
		case 0:
		case 1:
			return found[0], nil
		default:
			return none, fmt.Errorf("%q may be any of %d %ss, give more of the ID:\n  %s", want, len(found), what, strings.Join(described, "\n  "))
		}
	}
	return none, wire.Errorf(wire.Code_CODE_NOT_FOUND, "there is no %s %q; see: ostrich %ss", what, want, what)
}
