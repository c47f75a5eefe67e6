// Package e2e tests the program as people have it: the built binary, in real
// processes that talk over real sockets, stopped, killed and restarted. It has
// no code but its tests, which need Go and nothing else; those of a network of
// their own need Linux and root, and say so when they are skipped. What can be
// tested in one process is tested beside the package that does it.
package e2e
