// Package state is what the swarm's members replicate: its devices, invites,
// jobs, tasks and programs, as packed facts in memory. The replicated log
// feeds Apply, and the same log gives the same state on every node.
//
// It is pure: no file, clock, randomness, goroutine, log line or effect. Time
// and identity come inside the commands, and what must follow from a change
// (pages that are named or released now) is handed back in the Outcome. Bytes
// of inputs, results and programs are not here, apart from payloads of at most
// wire.MaxInline: the state names their pages by hash.
//
// Who may ask for what (roles), who is connected and who works on what are
// not its concern: the coordinator checks the first and keeps the others. The
// one caller of Apply, Snapshot and Restore is package consensus; the
// coordinator and the node ask the queries under its read lock.
package state
