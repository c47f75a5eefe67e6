package consensus

import (
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

const (
	// preambleTimeout bounds how long an accepted stream may take to say hello.
	preambleTimeout = 5 * time.Second
	// messagePause bounds the pauses within a message that is being received.
	messagePause = 2 * time.Second
)

// card is what a node says of itself in preambles.
type card struct {
	me         Server
	generation uint64
	// anyReplica lets streams in that mean another memory: Faults.NoReplicas.
	anyReplica bool
	// met is told of each generation that the other side names.
	met func(generation uint64)
}

func (g *Group) card(o Options) card {
	return card{me: g.me, generation: g.generation, anyReplica: o.Faults.NoReplicas, met: g.meet}
}

// errNoPreamble says that the other side hung up instead of answering.
var errNoPreamble = errors.New("no answer to the preamble")

// greet speaks the dialling side's part of the preamble.
func (c card) greet(conn net.Conn, to Server, deadline time.Time) error {
	hello, err := hail{generation: c.generation, to: to.Replica, from: c.me.Replica}.encode()
	if err != nil {
		return err
	}
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	if _, err := conn.Write(hello); err != nil {
		return err
	}
	var b [replySize]byte
	if _, err := io.ReadFull(conn, b[:]); err != nil {
		if isTimeout(err) {
			return err
		}
		return fmt.Errorf("%w: %w", errNoPreamble, err)
	}
	answer, err := decodeReply(b[:])
	if err != nil {
		return err
	}
	c.met(answer.generation)
	if answer.verdict != accepted {
		return fmt.Errorf("it was refused: %v", answer.verdict)
	}
	return conn.SetDeadline(time.Time{})
}

// judge decides about a stream that was opened with a hail.
func (c card) judge(h hail) verdict {
	switch {
	case h.generation != c.generation:
		return wrongGeneration
	case h.to != c.me.Replica && !c.anyReplica:
		return wrongReplica
	}
	return accepted
}

// acceptedConn speaks the accepting side's part of the preamble before it gives
// the first bytes. One goroutine uses it: it reads a message, answers, and reads
// the next.
//
// Raft reads a snapshot on the goroutine that also votes, and sets no time limit.
// So a message that has begun must go on: a leader that freezes while it sends a
// snapshot would otherwise keep the follower from electing another.
type acceptedConn struct {
	net.Conn
	card  card
	begun bool
	// first is a byte that was read and belongs to the reader.
	first []byte
	// within says that a message has begun and is not answered; limited that a
	// time limit is set for that.
	within, limited bool
}

// Write answers a message.
func (c *acceptedConn) Write(p []byte) (int, error) {
	c.within = false
	return c.Conn.Write(p)
}

// limit sets the time limit of the next read.
func (c *acceptedConn) limit() error {
	switch {
	case c.within:
		c.limited = true
		return c.Conn.SetReadDeadline(time.Now().Add(messagePause))
	case c.limited:
		c.limited = false
		return c.Conn.SetReadDeadline(time.Time{})
	}
	return nil
}

// Read reads what follows the preamble.
func (c *acceptedConn) Read(p []byte) (int, error) {
	if !c.begun {
		if err := c.begin(); err != nil {
			c.Conn.Close()
			return 0, err
		}
		c.begun = true
	}
	if len(c.first) > 0 && len(p) > 0 {
		n := copy(p, c.first)
		c.first, c.within = nil, true
		return n, nil
	}
	if err := c.limit(); err != nil {
		return 0, err
	}
	n, err := c.Conn.Read(p)
	c.within = c.within || n > 0
	return n, err
}

// begin reads and answers the preamble. A program from before the preamble sends
// none: it is served where replicas and generations need not be told apart.
func (c *acceptedConn) begin() error {
	if err := c.Conn.SetDeadline(time.Now().Add(preambleTimeout)); err != nil {
		return err
	}
	var b [hailSize]byte
	if _, err := io.ReadFull(c.Conn, b[:1]); err != nil {
		return err
	}
	if b[0] != preambleMagic[0] {
		if c.card.me.Replica != "" || c.card.generation > 1 {
			return errors.New("a raft stream without a preamble was refused: its sender runs another version of ostrich")
		}
		c.first = b[:1]
		return c.Conn.SetDeadline(time.Time{})
	}
	if _, err := io.ReadFull(c.Conn, b[1:]); err != nil {
		return err
	}
	h, err := decodeHail(b[:])
	answer := reply{verdict: c.card.judge(h), generation: c.card.generation}
	if errors.Is(err, errUnknownVersion) {
		answer.verdict = wrongVersion
	} else if err != nil {
		return err
	}
	if _, err := c.Conn.Write(answer.encode()); err != nil {
		return err
	}
	if answer.verdict != accepted {
		if answer.verdict == wrongGeneration {
			c.card.met(h.generation)
		}
		return fmt.Errorf("a raft stream was refused: %v", answer.verdict)
	}
	return c.Conn.SetDeadline(time.Time{})
}
