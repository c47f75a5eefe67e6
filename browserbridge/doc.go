// Package browserbridge lets browsers into the swarm: it answers their offers
// over HTTP, holds their WebRTC connections, and splices the one data channel of
// each, unread, onto a stream to the coordinator.
//
//	page ──GET, POST /signal──▶ Bridge ──▶ gate (rates) ─▶ proofs ─▶ admission
//	  │                                              │ offer, answer, end
//	  │                             ┌── pipe, yamux ─┴─ browser ─▶ splice ─▶ Dial
//	  └──UDP or TCP──▶ filter ─▶ stack (pion) ─▶ peer ─▶ connection ─▶ splice
//
// The second line is a process of its own: this program again, see ChildMain. A
// panic in the stack ends it, and with it the connections, and never the node.
//
// Both sides prove who they are: the browser signs the challenge and its offer,
// the bridge both descriptions, and with them the fingerprints that DTLS checks.
// All that comes from a browser is hostile: an offer is read into the few fields
// that an answer needs, datagrams are checked before the WebRTC stack sees them,
// and what one browser can hold or cost is bounded.
//
// It leaves to others who belongs to the swarm, where the coordinator is, and
// what a session says (its functions are told to it), and the HTTP listener.
// Package node makes the one Bridge of a member. The stack itself is
// behind stack.go, so that another version can take its place.
package browserbridge
