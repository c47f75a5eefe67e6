// Package consensus is the swarm's Raft group: it founds and resumes the group,
// commits operations, says who leads and runs the leader's role, keeps the
// right members as voters, takes snapshots and hands leadership over.
//
// It wraps hashicorp/raft with a bbolt log and file snapshots. Everything that
// has meaning lives elsewhere: what an operation does is package
// consensus/state's, the streams between members come from package p2p, what a
// leader does is the function that the caller of Run passes, and where the
// bytes of pages lie is told through Options.Pages. The one caller is package
// node.
//
//	Propose ──▶ committer ──▶ one entry, up to 4 in flight ──▶ raft ──▶ log
//	                                                            │
//	   caller ◀── results, split ◀── state.Apply (fsm) ◀─ committed
//
// # Voters
//
// While a node leads it compares the group's servers with the registry's
// members, one change at a time (see nextChange):
//
//   - A server whose device is no longer a member is removed.
//   - A member becomes a standby (raft's non-voter) while the group has room:
//     TargetVoters voters and two standbys.
//   - A standby becomes a voter when voters are wanted, it answered within the
//     last second and its log holds all that the leader's log held one look
//     (100 ms) ago. The leader knows this from the answers to its own
//     AppendEntries (see transport). An even number of voters survives no more
//     than the odd number below it, so from an odd number two standbys must be
//     ready, and are promoted one after the other.
//   - A voter that has not answered for 30 s is replaced by a ready standby:
//     promoted first, the absent one made a standby afterwards. Without a ready
//     standby it is kept.
//   - Voters above the target become standbys, never the leader itself.
//
// No change is made whose configuration could not commit with the voters that
// answer now.
package consensus
