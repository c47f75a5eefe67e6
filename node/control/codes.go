package control

import (
	"context"
	"errors"

	"connectrpc.com/connect"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// ErrNoNode is in the chain of the errors that say that no node listens on the
// data folder's socket; their code is CODE_UNAVAILABLE.
var ErrNoNode = errors.New("no node is running")

// noNodeError says which data folder has no node.
type noNodeError struct{ coded *wire.CodedError }

func newNoNodeError(dataDir string) error {
	return &noNodeError{&wire.CodedError{
		Code: wire.Code_CODE_UNAVAILABLE,
		Text: "no node is running on " + dataDir + "; start one with: ostrich up",
	}}
}

func (e *noNodeError) Error() string   { return e.coded.Text }
func (e *noNodeError) Unwrap() []error { return []error{e.coded, ErrNoNode} }

// connectCode is the class of Connect that comes nearest, for clients that
// know nothing of ours. The exact code travels as a detail.
func connectCode(code wire.Code) connect.Code {
	switch code {
	case wire.Code_CODE_INVALID:
		return connect.CodeInvalidArgument
	case wire.Code_CODE_NOT_FOUND:
		return connect.CodeNotFound
	case wire.Code_CODE_DENIED, wire.Code_CODE_BAD_PROOF, wire.Code_CODE_REMOVED:
		return connect.CodePermissionDenied
	case wire.Code_CODE_CONFLICT:
		return connect.CodeAlreadyExists
	case wire.Code_CODE_UNAVAILABLE, wire.Code_CODE_NOT_COORDINATOR:
		return connect.CodeUnavailable
	case wire.Code_CODE_UNKNOWN_OUTCOME:
		return connect.CodeAborted
	case wire.Code_CODE_EXHAUSTED, wire.Code_CODE_NO_SPACE:
		return connect.CodeResourceExhausted
	case wire.Code_CODE_PRECONDITION, wire.Code_CODE_WRONG_SWARM:
		return connect.CodeFailedPrecondition
	case wire.Code_CODE_VERSION:
		return connect.CodeUnimplemented
	default:
		return connect.CodeInternal
	}
}

// wireCode is the way back for errors that carry no detail: those that the
// Connect library itself makes.
func wireCode(code connect.Code) wire.Code {
	switch code {
	case connect.CodeInvalidArgument, connect.CodeOutOfRange:
		return wire.Code_CODE_INVALID
	case connect.CodeNotFound:
		return wire.Code_CODE_NOT_FOUND
	case connect.CodePermissionDenied, connect.CodeUnauthenticated:
		return wire.Code_CODE_DENIED
	case connect.CodeAlreadyExists:
		return wire.Code_CODE_CONFLICT
	case connect.CodeUnavailable, connect.CodeCanceled, connect.CodeDeadlineExceeded, connect.CodeAborted:
		return wire.Code_CODE_UNAVAILABLE
	case connect.CodeResourceExhausted:
		return wire.Code_CODE_EXHAUSTED
	case connect.CodeFailedPrecondition:
		return wire.Code_CODE_PRECONDITION
	case connect.CodeUnimplemented:
		return wire.Code_CODE_VERSION
	default:
		return wire.Code_CODE_INTERNAL
	}
}

// encodeError makes what a handler returned into an error that Connect carries
// with its code. Connect's own errors and the ends of contexts pass.
func encodeError(err error) error {
	if err == nil {
		return nil
	}
	var coded *wire.CodedError
	if !errors.As(err, &coded) {
		var own *connect.Error
		if errors.As(err, &own) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
			return err
		}
	}
	encoded := wire.EncodeError(err)
	out := connect.NewError(connectCode(encoded.GetCode()), errors.New(encoded.GetText()))
	if detail, err := connect.NewErrorDetail(encoded); err == nil {
		out.AddDetail(detail)
	}
	return out
}

// decodeError makes what Connect returned into an error with our code: the
// node's own where it sent one. The end of ctx is returned as it is.
func decodeError(ctx context.Context, err error) error {
	var failed *connect.Error
	if err == nil || !errors.As(err, &failed) {
		return err
	}
	if connect.IsWireError(err) {
		for _, d := range failed.Details() {
			if v, derr := d.Value(); derr == nil {
				if e, ok := v.(*wire.Error); ok {
					return wire.DecodeError(e)
				}
			}
		}
		return wire.Errorf(wireCode(failed.Code()), "%s", failed.Message())
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var absent *noNodeError
	if errors.As(err, &absent) {
		return absent
	}
	switch failed.Code() {
	case connect.CodeResourceExhausted, connect.CodeUnimplemented:
		return wire.Errorf(wire.Code_CODE_INTERNAL, "%s", failed.Message())
	default:
		return wire.Errorf(wire.Code_CODE_UNAVAILABLE, "the connection to the node was lost")
	}
}
