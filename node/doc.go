// Package node is one device of a swarm put together: its configuration, its
// data folder, its life from founding or joining to the end, what it answers
// on its control API, and the one way to the coordinator.
//
// It is the only package that knows every part. A part that needs another gets
// it from here, as a function or a small interface of its own.
package node
