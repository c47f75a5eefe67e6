package sandbox

import "encoding/binary"

// Descriptors of a program, of which there are no others.
const (
	fdStdin  = 0
	fdStdout = 1
	fdStderr = 2
)

// Rights that descriptors have, as fd_fdstat_get tells them.
const (
	rightRead  = 1 << 1
	rightWrite = 1 << 6
	rightPoll  = 1 << 27
)

// open reports whether the program has the descriptor and has not closed it.
func (h *host) open(fd uint32) bool { return fd <= fdStderr && !h.closed[fd] }

func (h *host) fdClose(c call) errno {
	if !h.open(c.u32(0)) {
		return errnoBadf
	}
	h.closed[c.u32(0)] = true
	return errnoOK
}

// fdFdstatGet says of each descriptor that its type is unknown, as of a pipe.
func (h *host) fdFdstatGet(c call) errno {
	fd := c.u32(0)
	if !h.open(fd) {
		return errnoBadf
	}
	stat := c.bytes(c.u32(1), 24)
	if stat == nil {
		return errnoFault
	}
	clear(stat)
	rights := uint64(rightWrite | rightPoll)
	if fd == fdStdin {
		rights = rightRead | rightPoll
	}
	binary.LittleEndian.PutUint64(stat[8:], rights)
	return errnoOK
}

// fdFilestatGet says of each descriptor that it is of unknown type, has one
// link and nothing else.
func (h *host) fdFilestatGet(c call) errno {
	if !h.open(c.u32(0)) {
		return errnoBadf
	}
	stat := c.bytes(c.u32(1), 64)
	if stat == nil {
		return errnoFault
	}
	clear(stat)
	stat[24] = 1
	return errnoOK
}

// eachBuffer calls f with each buffer of an array of (pointer, length) until
// one is not in the program's memory or f returns false.
func eachBuffer(c call, array, count uint32, f func([]byte) bool) errno {
	if uint64(count)*8 > 1<<32-1 {
		return errnoFault
	}
	list := c.bytes(array, count*8)
	if list == nil && count > 0 {
		return errnoFault
	}
	for ; len(list) > 0; list = list[8:] {
		size := binary.LittleEndian.Uint32(list[4:])
		buf := c.bytes(binary.LittleEndian.Uint32(list), size)
		if buf == nil && size > 0 {
			return errnoFault
		}
		if size > 0 && !f(buf) {
			break
		}
	}
	return errnoOK
}

// fdRead fills all buffers, unless the input ends: how much one call returns
// must not depend on the machine.
func (h *host) fdRead(c call) errno {
	if c.u32(0) != fdStdin || !h.open(fdStdin) {
		return errnoBadf
	}
	total := uint32(0)
	result := eachBuffer(c, c.u32(1), c.u32(2), func(buf []byte) bool {
		n := h.stdin.fill(buf)
		total += uint32(n)
		return n == len(buf)
	})
	if result != errnoOK {
		return result
	}
	if !c.putU32(c.u32(3), total) {
		return errnoFault
	}
	return errnoOK
}

// fdWrite takes all bytes. Output above the task's bound ends the program.
func (h *host) fdWrite(c call) errno {
	fd := c.u32(0)
	if fd == fdStdin || !h.open(fd) {
		return errnoBadf
	}
	total := uint32(0)
	result := eachBuffer(c, c.u32(1), c.u32(2), func(buf []byte) bool {
		total += uint32(len(buf))
		if fd == fdStderr {
			h.stderr.write(buf)
		} else {
			h.stdout.write(buf)
		}
		return true
	})
	if result != errnoOK {
		return result
	}
	if !c.putU32(c.u32(3), total) {
		return errnoFault
	}
	return errnoOK
}
