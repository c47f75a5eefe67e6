// Package gobrowser is the browser's side of a bridge in Go: it joins by
// invite, connects, and opens session channels, as the worker page does. Tests
// and load measurements stand in for browsers with it; what is said on a channel
// is theirs to say. Each Browser has sockets of its own: a shared port on both
// ends of a connection misroutes (pion/ice #507).
package gobrowser
