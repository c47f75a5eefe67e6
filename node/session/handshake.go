package session

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const (
	// handshakeLimit bounds a handshake, from its first byte to its last.
	handshakeLimit = 10 * time.Second
	// maxHandshakeFrame bounds the frames of a handshake other than Hello, which
	// lists leases, and Welcome, which lists members.
	maxHandshakeFrame = 64 << 10
	nonceSize         = 32
)

// Identity is who a side of a session is, and the proof of it.
type Identity struct {
	ID  wire.DeviceID
	Key ed25519.PrivateKey
}

// Accept is what a coordinator needs to take sessions.
type Accept struct {
	Identity
	Swarm            wire.SwarmID
	Generation, Term uint64
	// Admit is called once the device has proved its identity. It returns the
	// welcome to send; an error is sent as a refusal with its code, and a
	// *Refused as it is. Other refusals say the generation. It may block within the handshake's 10 s.
	Admit func(*wire.Hello) (*wire.Welcome, error)
}

// Dial is the device's side of the handshake on a stream to the coordinator. It
// fills hello's version, nonce and device_id. trust is asked whether the
// coordinator's identity may be believed; its error ends the handshake and is
// returned wrapped. A refusal is returned as *Refused, a false identity as an
// error with CODE_BAD_PROOF. The stream belongs to Dial: it is closed on
// failure, and with the Conn. The Conn must be run or closed.
func Dial(ctx context.Context, rw io.ReadWriteCloser, id Identity, hello *wire.Hello, trust func(coordinator wire.DeviceID) error) (*Conn, *wire.Welcome, error) {
	hello.Version = wire.SessionVersion
	hello.DeviceId = string(id.ID)
	hello.Nonce = newNonce()
	var challenge *wire.Challenge
	var welcome *wire.Welcome
	err := handshake(ctx, rw, func() (err error) {
		challenge, err = introduce(rw, hello)
		if err != nil {
			return err
		}
		coordinator := wire.DeviceID(challenge.GetCoordinatorId())
		if err := trust(coordinator); err != nil {
			return fmt.Errorf("device %s as coordinator: %w", coordinator.Short(), err)
		}
		welcome, err = prove(rw, id, hello, challenge)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	return newConn(rw, deviceSide, wire.DeviceID(challenge.GetCoordinatorId()), challenge), welcome, nil
}

// introduce sends the hello and returns the challenge that answers it, once it
// is checked.
func introduce(rw io.ReadWriter, hello *wire.Hello) (*wire.Challenge, error) {
	err := writeFrame(rw, &wire.Frame{Kind: &wire.Frame_Hello{Hello: hello}})
	if err != nil {
		return nil, err
	}
	frame, err := readHandshake(rw, maxHandshakeFrame)
	if err != nil {
		return nil, err
	}
	challenge := frame.GetChallenge()
	if challenge == nil {
		return nil, unexpected(frame, "a challenge")
	}
	if challenge.GetGeneration() < hello.GetGeneration() {
		return nil, wire.Errorf(wire.Code_CODE_WRONG_SWARM, "the coordinator is of generation %d of the swarm, which is at %d",
			challenge.GetGeneration(), hello.GetGeneration())
	}
	if len(challenge.GetNonce()) != nonceSize {
		return nil, wire.Errorf(wire.Code_CODE_BAD_PROOF, "a challenge with a nonce of %d bytes", len(challenge.GetNonce()))
	}
	err = verify(wire.DeviceID(challenge.GetCoordinatorId()), wire.SessionTranscript("coordinator", hello, challenge), challenge.GetSignature())
	if err != nil {
		return nil, err
	}
	return challenge, nil
}

// prove answers the challenge and returns the welcome.
func prove(rw io.ReadWriter, id Identity, hello *wire.Hello, challenge *wire.Challenge) (*wire.Welcome, error) {
	proof := &wire.Proof{Signature: ed25519.Sign(id.Key, wire.SessionTranscript("device", hello, challenge))}
	err := writeFrame(rw, &wire.Frame{Kind: &wire.Frame_Proof{Proof: proof}})
	if err != nil {
		return nil, err
	}
	frame, err := readHandshake(rw, wire.MaxFrame)
	if err != nil {
		return nil, err
	}
	if frame.GetWelcome() == nil {
		return nil, unexpected(frame, "a welcome")
	}
	return frame.GetWelcome(), nil
}

// AcceptConn is the coordinator's side of the handshake. The Hello that it
// returns is of this swarm, and its device has proved its identity. A device
// that is refused is told why, and the refusal is returned as *Refused. The
// stream belongs to AcceptConn: it is closed on failure, and with the Conn. The
// Conn must be run or closed.
func AcceptConn(ctx context.Context, rw io.ReadWriteCloser, a Accept) (*Conn, *wire.Hello, error) {
	var hello *wire.Hello
	challenge := &wire.Challenge{CoordinatorId: string(a.ID), Nonce: newNonce(), Term: a.Term, Generation: a.Generation}
	err := handshake(ctx, rw, func() (err error) {
		hello, err = readHello(rw)
		if err != nil {
			return err
		}
		welcome, err := a.examine(rw, hello, challenge)
		if err != nil {
			return err
		}
		return writeFrame(rw, &wire.Frame{Kind: &wire.Frame_Welcome{Welcome: welcome}})
	})
	if err != nil {
		return nil, nil, err
	}
	return newConn(rw, coordinatorSide, wire.DeviceID(hello.GetDeviceId()), challenge), hello, nil
}

// examine checks the hello, has the device prove its identity and asks Admit.
// What it refuses it has told the device.
func (a Accept) examine(rw io.ReadWriter, hello *wire.Hello, challenge *wire.Challenge) (*wire.Welcome, error) {
	if err := a.checkHello(hello); err != nil {
		return nil, a.refuse(rw, err)
	}
	challenge.Signature = ed25519.Sign(a.Key, wire.SessionTranscript("coordinator", hello, challenge))
	err := writeFrame(rw, &wire.Frame{Kind: &wire.Frame_Challenge{Challenge: challenge}})
	if err != nil {
		return nil, err
	}
	frame, err := readHandshake(rw, maxHandshakeFrame)
	if err != nil {
		return nil, err
	}
	if frame.GetProof() == nil {
		return nil, unexpected(frame, "a proof")
	}
	err = verify(wire.DeviceID(hello.GetDeviceId()), wire.SessionTranscript("device", hello, challenge), frame.GetProof().GetSignature())
	if err != nil {
		return nil, a.refuse(rw, err)
	}
	welcome, err := a.Admit(hello)
	if err != nil {
		return nil, a.refuse(rw, err)
	}
	return welcome, nil
}

// checkHello reports what rules the device out before it has proved anything.
func (a Accept) checkHello(hello *wire.Hello) error {
	if v := hello.GetVersion(); v != wire.SessionVersion {
		return wire.Errorf(wire.Code_CODE_VERSION, "session version %d: this coordinator speaks version %d: use the same version of ostrich on both", v, wire.SessionVersion)
	}
	swarm, err := wire.SwarmIDFromBytes(hello.GetSwarmId())
	if err != nil || swarm != a.Swarm {
		return wire.Errorf(wire.Code_CODE_WRONG_SWARM, "this coordinator belongs to another swarm")
	}
	if hello.GetGeneration() > a.Generation {
		return wire.Errorf(wire.Code_CODE_WRONG_SWARM, "the device has seen generation %d of the swarm; this coordinator is at %d", hello.GetGeneration(), a.Generation)
	}
	if n := len(hello.GetNonce()); n != nonceSize {
		return wire.Errorf(wire.Code_CODE_INVALID, "a hello with a nonce of %d bytes, not %d", n, nonceSize)
	}
	if _, err := wire.DeviceID(hello.GetDeviceId()).PublicKey(); err != nil {
		return wire.Errorf(wire.Code_CODE_INVALID, "a hello whose device ID is none")
	}
	return nil
}

// Refuse answers the other side's Hello with a refusal and closes the stream:
// what a member does that does not coordinate. The refusal should say the
// swarm's generation as this member knows it, and who coordinates where it does.
func Refuse(ctx context.Context, rw io.ReadWriteCloser, refusal *wire.Refusal) error {
	err := handshake(ctx, rw, func() error {
		if _, err := readHello(rw); err != nil {
			return err
		}
		return writeFrame(rw, &wire.Frame{Kind: &wire.Frame_Refusal{Refusal: refusal}})
	})
	if err != nil {
		return err
	}
	return rw.Close()
}

// handshake runs f within the handshake's limit: when that or ctx ends the
// stream is broken, which ends f. On an error it closes the stream.
func handshake(ctx context.Context, rw io.ReadWriteCloser, f func() error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, handshakeLimit,
		wire.Errorf(wire.Code_CODE_UNAVAILABLE, "the handshake was not done after %v", handshakeLimit))
	defer cancel()
	stop := context.AfterFunc(ctx, func() { breakLink(rw) })
	err := f()
	if !stop() {
		return context.Cause(ctx)
	}
	if err != nil {
		rw.Close()
	}
	return err
}

// refuse sends err as a refusal, with the generation of the swarm, and returns it
// as *Refused.
func (a Accept) refuse(w io.Writer, err error) error {
	var refused *Refused
	if !errors.As(err, &refused) {
		refused = &Refused{Refusal: &wire.Refusal{Error: wire.EncodeError(err), Generation: a.Generation}}
	}
	werr := writeFrame(w, &wire.Frame{Kind: &wire.Frame_Refusal{Refusal: refused.Refusal}})
	if werr != nil {
		return errors.Join(refused, werr)
	}
	return refused
}

func readHello(r io.Reader) (*wire.Hello, error) {
	frame, err := readHandshake(r, wire.MaxFrame)
	if err != nil {
		return nil, err
	}
	if frame.GetHello() == nil {
		return nil, unexpected(frame, "a hello")
	}
	return frame.GetHello(), nil
}

// readHandshake reads a frame of a handshake. A refusal is returned as *Refused.
func readHandshake(r io.Reader, limit int) (*wire.Frame, error) {
	frame := new(wire.Frame)
	if err := wire.ReadMessage(r, limit, frame); err != nil {
		return nil, fmt.Errorf("reading a frame of the handshake: %w", err)
	}
	if refusal := frame.GetRefusal(); refusal != nil {
		return nil, &Refused{Refusal: refusal}
	}
	return frame, nil
}

func unexpected(frame *wire.Frame, want string) error {
	return protocolError("%s where %s was due", kindName(frame), want)
}

func verify(id wire.DeviceID, transcript, signature []byte) error {
	key, err := id.PublicKey()
	if err != nil || !ed25519.Verify(key, transcript, signature) {
		return wire.Errorf(wire.Code_CODE_BAD_PROOF, "the other side is not the device that it claims to be")
	}
	return nil
}

func newNonce() []byte {
	nonce := make([]byte, nonceSize)
	rand.Read(nonce)
	return nonce
}

func writeFrame(w io.Writer, frame *wire.Frame) error {
	if err := wire.WriteMessage(w, wire.MaxFrame, frame); err != nil {
		return fmt.Errorf("sending %s: %w", kindName(frame), err)
	}
	return nil
}
