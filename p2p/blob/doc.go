// Package blob keeps the swarm's bytes: programs, inputs and outputs, as
// content-addressed pages of up to 1 MiB, each named by its SHA-256.
//
// A Store is the pages on one machine's disk. An Exchange puts pages on a
// quorum of the voters before anything names them, fetches them from whoever
// has them, pulls the named ones that this node lacks, and deletes those that
// nothing names. Node, coordinator and worker use it.
//
// Which pages are named is the replicated state's to know (package
// consensus/state), who votes is the group's, who may open a stream is the
// host's: all three are told to the Exchange as functions. The page protocol
// is written down in p2p/wire/peer.proto.
package blob
