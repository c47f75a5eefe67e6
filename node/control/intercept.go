package control

import (
	"context"
	"errors"
	"io"

	"connectrpc.com/connect"
)

// codeInterceptor carries our error codes: encoded on a server, decoded on a
// client.
type codeInterceptor struct{}

func (codeInterceptor) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		res, err := next(ctx, req)
		if err == nil {
			return res, nil
		}
		if req.Spec().IsClient {
			return nil, decodeError(ctx, err)
		}
		return nil, encodeError(err)
	}
}

func (codeInterceptor) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		return encodeError(next(ctx, conn))
	}
}

func (codeInterceptor) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		return &codedConn{StreamingClientConn: next(ctx, spec), ctx: ctx}
	}
}

// codedConn decodes the errors of a client's stream.
type codedConn struct {
	connect.StreamingClientConn
	ctx context.Context
}

// Send leaves io.EOF, which tells the caller to ask Receive for the reason.
func (c *codedConn) Send(msg any) error {
	err := c.StreamingClientConn.Send(msg)
	if errors.Is(err, io.EOF) {
		return err
	}
	return decodeError(c.ctx, err)
}

// Receive leaves io.EOF, the end of the stream.
func (c *codedConn) Receive(msg any) error {
	err := c.StreamingClientConn.Receive(msg)
	if errors.Is(err, io.EOF) {
		return err
	}
	return decodeError(c.ctx, err)
}
