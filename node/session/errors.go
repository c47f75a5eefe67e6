package session

import (
	"errors"
	"fmt"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// Reasons for which a session ends; Run's error matches one of them, or its
// context's.
var (
	// ErrGoodbye: the other side ended the session, in words or by a clean end
	// of the stream. See GoodbyeError.
	ErrGoodbye = errors.New("the other side said goodbye")
	// ErrSilent: the other side did not answer a ping.
	ErrSilent = errors.New("the other side has fallen silent")
	// ErrStalled: the other side takes nothing of what is sent to it.
	ErrStalled = errors.New("the other side has stopped reading")
	// ErrProtocol: the other side sent what the protocol does not allow.
	ErrProtocol = errors.New("the other side broke the session protocol")
	// ErrBroken: the stream failed.
	ErrBroken = errors.New("the link broke")
	// ErrClosed: this side called Close.
	ErrClosed = errors.New("the session is closed")
)

// GoodbyeError is the other side's goodbye. It matches ErrGoodbye.
type GoodbyeError struct {
	// Reason is the other side's, in words; not to be trusted.
	Reason string
	// Redial says that the coordinator's role moved: dial again at once.
	Redial bool
}

// Error returns the reason.
func (e *GoodbyeError) Error() string { return fmt.Sprintf("%v: %s", ErrGoodbye, e.Reason) }

// Is reports whether target is ErrGoodbye.
func (e *GoodbyeError) Is(target error) bool { return target == ErrGoodbye }

// Refused is the error of a handshake that the other side refused, and, given
// by Accept.Admit, a refusal to send. wire.CodeOf sees its code.
type Refused struct{ Refusal *wire.Refusal }

// Error returns the other side's words.
func (e *Refused) Error() string { return "refused: " + e.Refusal.GetError().GetText() }

// Unwrap returns the refusal's error with its code.
func (e *Refused) Unwrap() error {
	if e.Refusal.GetError() == nil {
		return &wire.CodedError{Code: wire.Code_CODE_INTERNAL, Text: "no reason given"}
	}
	return wire.DecodeError(e.Refusal.GetError())
}

// Coordinator returns who coordinates according to the refusal; nil if it does
// not say.
func (e *Refused) Coordinator() *wire.Peer { return e.Refusal.GetCoordinator() }

// Generation returns the swarm's generation according to the refusal; 0 if it
// does not say. It is not proven.
func (e *Refused) Generation() uint64 { return e.Refusal.GetGeneration() }

// protocolError is an ErrProtocol with what was wrong.
func protocolError(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrProtocol, fmt.Sprintf(format, args...))
}

// unavailable is what callers of an ended session get.
func unavailable(reason error) error {
	return wire.Errorf(wire.Code_CODE_UNAVAILABLE, "the session has ended: %v", reason)
}
