package node

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"syscall"

	"connectrpc.com/connect"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// copyProgram writes the bytes of a streamed program to w: the first message is
// at hand, the others follow. Size and hash are those that the first announced.
func copyProgram(in *connect.ClientStream[wire.PutProgramRequest], head *wire.PutProgramRequest, w io.Writer) error {
	if head.GetSize() > wire.MaxProgram {
		return wire.Errorf(wire.Code_CODE_INVALID, "a program of %d bytes: at most %d MiB are allowed", head.GetSize(), wire.MaxProgram>>20)
	}
	want := bytes.Clone(head.GetHash())
	announced := head.GetSize()
	sum := sha256.New()
	var size uint64
	for data := head.GetData(); ; data = in.Msg().GetData() {
		size += uint64(len(data))
		if size > announced {
			return wire.Errorf(wire.Code_CODE_INVALID, "a program longer than the %d bytes announced", announced)
		}
		sum.Write(data)
		if _, err := w.Write(data); err != nil {
			return err
		}
		if !in.Receive() {
			break
		}
	}
	if err := in.Err(); err != nil {
		return err
	}
	if size != announced || !bytes.Equal(sum.Sum(nil), want) {
		return wire.Errorf(wire.Code_CODE_INVALID, "the program arrived damaged; submit it again")
	}
	return nil
}

// fullDisk says of an error that a full disk made what the way out is; others
// it returns as they are.
func fullDisk(err error) error {
	if errors.Is(err, syscall.ENOSPC) {
		return wire.Errorf(wire.Code_CODE_NO_SPACE, "the disk of this node's data folder is full: free some space, or remove jobs (%v)", err)
	}
	return err
}
