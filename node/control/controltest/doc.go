// Package controltest is a Control service in memory, for tests of the control
// client and of the command line. It computes tasks with a function as their
// inputs come, keeps to the rules of the real queue (gaps are refused, digests
// are checked, a repeated submit attaches) and breaks on request.
package controltest
