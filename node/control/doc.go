// Package control is the local API of a node: the server that offers the
// schema's Control service on a Unix socket and on a TCP address, and the Go
// client that the command line uses, with the client's side of a map (an upload
// that can be resumed, a download that reconnects).
//
// It guards the doors (socket file, Host, Origin, token, bounds of bodies and
// times) and carries error codes both ways. What the calls do is the service's
// business: package node implements it. Package cmd/ostrich is the client's
// only user besides tests and benchmarks.
package control
