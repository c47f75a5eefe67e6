// Package sessiontest is the conformance suite of sessions over a kind of
// stream, and what tests of both sides of a session share. Only tests import
// it.
package sessiontest
