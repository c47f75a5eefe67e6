package control

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// uploadPart is the size of the parts in which programs and large inputs go.
const uploadPart = 256 << 10

// sender is the side of a client's stream that both uploads need.
type sender[Req any] interface{ Send(*Req) error }

// PutProgram stores a program under its base name and returns what a JobSpec
// names it by. The node takes the bytes only if the swarm lacks them. Transient
// errors are returned: repeat the call.
func (c *Client) PutProgram(ctx context.Context, name string, module io.ReadSeeker) (*wire.Program, error) {
	h := sha256.New()
	size, err := io.Copy(h, module)
	if err != nil {
		return nil, fmt.Errorf("reading the program %s: %w", name, err)
	}
	if size > wire.MaxProgram {
		return nil, wire.Errorf(wire.Code_CODE_INVALID, "it has %d bytes: a program has at most %d", size, wire.MaxProgram)
	}
	if _, err := module.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("reading the program %s: %w", name, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream := c.ControlClient.PutProgram(ctx)
	first := &wire.PutProgramRequest{Name: name, Hash: h.Sum(nil), Size: uint64(size)}
	err = stream.Send(first)
	if err == nil {
		err = sendParts(stream, module, func(part []byte) *wire.PutProgramRequest {
			return &wire.PutProgramRequest{Data: part}
		})
	}
	// io.EOF: the node has answered already.
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("sending the program %s: %w", name, err)
	}
	res, err := stream.CloseAndReceive()
	if err != nil {
		return nil, err
	}
	return res.Msg.GetProgram(), nil
}

// PutBlob stores one large input and returns the Input that names it, and the
// SHA-256 of its bytes. Memory is bounded.
func (c *Client) PutBlob(ctx context.Context, r io.Reader) (*wire.Input, wire.Hash, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	h := sha256.New()
	stream := c.ControlClient.PutBlob(ctx)
	err := sendParts(stream, io.TeeReader(r, h), func(part []byte) *wire.PutBlobRequest {
		return &wire.PutBlobRequest{Data: part}
	})
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, wire.Hash{}, err
	}
	res, err := stream.CloseAndReceive()
	if err != nil {
		return nil, wire.Hash{}, err
	}
	return &wire.Input{Blob: res.Msg.GetBlob(), Hold: res.Msg.GetHold()}, wire.Hash(h.Sum(nil)), nil
}

// sendParts sends all of r. It returns io.EOF when the other side has answered
// before the end. A stream is done with a part when Send returns.
func sendParts[Req any](stream sender[Req], r io.Reader, wrap func([]byte) *Req) error {
	buf := make([]byte, uploadPart)
	for {
		n, err := io.ReadFull(r, buf)
		if n > 0 {
			if serr := stream.Send(wrap(buf[:n])); serr != nil {
				return serr
			}
		}
		switch err {
		case nil:
		case io.EOF, io.ErrUnexpectedEOF:
			return nil
		default:
			return &readError{err}
		}
	}
}

// readError marks an error of the bytes' source, which no repetition mends.
type readError struct{ err error }

func (e *readError) Error() string { return "reading an input: " + e.err.Error() }
func (e *readError) Unwrap() error { return e.err }

func hashReader(r io.Reader) (wire.Hash, error) {
	h := sha256.New()
	if _, err := io.Copy(h, r); err != nil {
		return wire.Hash{}, &readError{err}
	}
	return wire.Hash(h.Sum(nil)), nil
}
