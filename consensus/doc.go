// Package consensus is the swarm's Raft group: it founds and resumes the group,
// commits operations, says who leads and runs the leader's role, keeps the
// right members as voters, takes snapshots, hands leadership over, and recovers
// from the loss of most voters.
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
// # Servers
//
// A server of the group is a device with one memory of the log, its replica: a
// random name that is made when an empty log folder is first opened, and lies
// beside the term and the vote. A device that lost these is another server. It
// refuses streams that mean the memory which it lost, so it is neither asked for
// a vote nor counted for entries that it has forgotten. It tells the registry of
// its new replica, the leader removes the old server as soon as the others can
// commit that, and adds the new one as a standby. Folders from before replicas
// had names go on with none, and are the server that is called like the device.
//
// Each stream begins with a preamble (preamble.go) that says which replica is
// meant, and of which generation of the swarm the log is. A program from before
// the preamble is spoken to without one, where there is nothing to tell apart.
//
// # Voters
//
// While a node leads it compares the group's servers with the registry's
// members, one change at a time (see nextChange):
//
//   - A server whose device is no longer a member, or has another replica by now,
//     is removed.
//   - A member becomes a standby (raft's non-voter) while the group has room:
//     TargetVoters voters and two standbys. One that has not told its replica yet
//     is waited for.
//   - A standby that has not answered for 30 s makes room for a member that is
//     online; while votes are wanted, one that has not for 10 s.
//   - A standby becomes a voter when voters are wanted, it answered within the
//     last second and its log holds all that the leader's log held one look
//     (100 ms) ago. The leader knows this from the answers to its own
//     AppendEntries (see transport). An even number of voters survives no more
//     than the odd number below it, so from an odd number two standbys must be
//     ready, and are promoted one after the other.
//   - A voter that has not answered for 30 s is replaced by a ready standby that
//     is known to lack no page: promoted first, the absent one made a standby
//     afterwards. Without such a standby it is kept.
//   - A device that is drained or disabled is the last to get a vote and the first
//     of those that answer to lose one; it makes room as a standby.
//   - A device whose program is too old for what is in the log gets no vote.
//   - Voters above the target become standbys, never the leader itself.
//
// No change is made whose configuration could not commit with the voters that
// answer now.
//
// # Formats
//
// An entry carries the lowest command format that its operations need, and
// Propose refuses what a voter does not understand, by what its profile says
// (Format): a rolling upgrade never stops the group.
//
// # Elections
//
// A follower that has heard nothing for 500 to 1,000 ms asks the others whether
// they would vote for it, then for their votes. Votes and heartbeats travel on
// streams of their own, so that they wait neither for entries nor for long; each
// round of an election begins with new ones, as what was kept from earlier may
// lead to a process that is gone. See transport.
//
// # Disks
//
// Raft leads on while its disk hangs. An operation on the log that takes a leader
// over 5 s therefore ends its part: the transport closes, and Run returns
// ErrStalled. A leader that cannot write its log loses leadership; a term that
// cannot be written is tried again, and until then the node neither votes nor
// follows; an entry that cannot be read for 5 s ends the node with ErrDamaged.
//
// # Recovery
//
// When most voters are lost for good, Recover makes a survivor the group, in a
// new generation of the swarm, from all that its log holds. Members of different
// generations refuse each other's streams; the older side takes part no more, and
// is told by Options.Superseded to set its log aside. So old members that come
// back, even enough of them for a quorum of the old group, end their part as soon
// as one of them meets the new one. Until they do, nothing can tell them.
package consensus
