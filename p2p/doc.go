// Package p2p connects devices: one libp2p host a node (TCP with Noise or TLS
// and yamux, and QUIC; no relay, no NAT traversal), the device's key, the gate
// that keeps strangers out, the ways to find members again, streams, the
// transport of the Raft group, gossip, and joining with its invites.
//
// The gate. Whoever connects proves its key in libp2p's handshake. What it may
// do follows from the role that Config.Role gives for that key, looked up when
// a stream opens and, for Raft, again at each read. A stranger reaches exactly
// the join protocol (and libp2p's identify), and is cut off after ten seconds
// unless it has joined.
//
//	connection ──▶ InterceptSecured ──▶ stream ──▶ role ≥ minimum? ──▶ handler
//	               (bounds strangers)              └─ no: reset, counted, logged
//	                                  sweep, every second: strangers of 10 s go
//
// Finding members. The host keeps a connection to every member that SetMembers
// names: addresses come from the peers file, from other members (Learn), from
// what a peer says of itself once connected, and from mDNS; a loop dials who is
// missing, with back-off. Addresses are hints only: the key decides.
//
// It leaves to others what travels in the streams: sessions, pages, Raft, and
// who belongs to the swarm. Package node makes the host and wires it; consensus
// uses its raft.StreamLayer; p2p/blob and node/session get its streams.
package p2p
