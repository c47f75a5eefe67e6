// Package session is the protocol between a device, or a client, and the
// coordinator, over any byte stream: the handshake that proves both identities,
// frames both ways, requests and their answers, signs of life, and the bounds
// that keep a hostile peer from costing more than its own session.
//
//	Dial / AcceptConn ──▶ Conn ──▶ Run reads until the end
//	                       ├─ Call     a request and its answer
//	                       ├─ Send     any other frame, queued
//	                       └─ Close    a goodbye, then the end
//
// It leaves the meaning of frames to its two users, node/worker (the device's
// side) and node/coordinator, and the making of streams to whoever dials: a
// libp2p stream, net.Pipe and a WebRTC data channel all do. A stream must
// unblock its Read and Write when it is closed; deadlines are not needed.
package session
