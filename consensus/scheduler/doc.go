// Package scheduler decides who gets what next: a pure function from a view of
// the devices and open jobs to grants of so many tasks of a job to a device.
//
// Which tasks those are, leases, retries, liveness and time are left to its
// one caller, the coordinator, which builds the view from its sessions and the
// replicated state and carries the grants out.
package scheduler
