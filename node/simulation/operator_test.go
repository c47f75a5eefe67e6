package simulation

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/ostrich-legs/ostrich/node/session"
	"github.com/ostrich-legs/ostrich/node/worker"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const (
	// hands is how many calls about the registry are under way at one time.
	hands = 3
	// maxSubjects is how many devices they look after at one time.
	maxSubjects = 4
	// subjectLife is how many calls about one device are made: histories must
	// stay short enough to be checked.
	subjectLife = 40
)

// operator is an admin's process that only asks. Each request is sent once: one
// that is sent again may be done twice, and a name that comes back is no error
// of the swarm's then.
type operator struct {
	worker *worker.Link
	conn   atomic.Pointer[session.Conn]
	parts  parts
}

func startOperator(m *machine) (process, error) {
	o, dialer := &operator{}, newDialer(m)
	o.worker = worker.NewLink(dialer.link(dialer.dial), worker.Handler{
		Opened: func(c *session.Conn, _ *wire.Welcome) { o.conn.Store(c) },
		Closed: func() { o.conn.Store(nil) },
	})
	o.parts.start(o.worker.Run)
	return o, nil
}

func (o *operator) link() *worker.Link { return o.worker }
func (o *operator) kill()              { o.parts.endAll() }
func (o *operator) quit()              { o.parts.endInTurn() }

// once sends a request. There is no answer where there is no session.
func (o *operator) once(ctx context.Context, r *wire.Request) (response *wire.Response, asked bool, err error) {
	conn := o.conn.Load()
	if conn == nil {
		return nil, false, nil
	}
	short, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	response, err = conn.Call(short, r)
	if short.Err() != nil {
		err = wire.Errorf(wire.Code_CODE_UNKNOWN_OUTCOME, "%v", err)
	}
	return response, true, err
}

// subject is a device that is in the registry only.
type subject struct {
	id    wire.DeviceID
	name  string // as it joins
	calls int
}

// office is what an operator's hands share.
type office struct {
	swarm  *swarm
	invite ed25519.PrivateKey

	mu       sync.Mutex
	made     int
	names    int
	subjects []subject
}

// newOffice makes the invite of all subjects.
func (s *swarm) newOffice() *office {
	o := &office{swarm: s, invite: newIdentity("invite of subjects").Key}
	s.propose(&wire.Op{Kind: &wire.Op_IssueInvite{IssueInvite: &wire.IssueInvite{
		LinkKey: public(o.invite), Role: wire.Role_ROLE_WORKER, ExpiresAtMs: time.Now().Add(10000 * time.Hour).UnixMilli(),
	}}})
	return o
}

// pick counts a call about one of the subjects, in the place of one whose life is
// over a new one, and returns it as it is then. All is a copy of the list.
func (o *office) pick() (one subject, all []subject) {
	o.mu.Lock()
	defer o.mu.Unlock()
	k := rand.IntN(maxSubjects)
	if k >= len(o.subjects) || o.subjects[k].calls >= subjectLife {
		name := fmt.Sprintf("subject-%d", o.made)
		o.made++
		fresh := subject{id: newIdentity(name).ID, name: name}
		if k = min(k, len(o.subjects)); k == len(o.subjects) {
			o.subjects = append(o.subjects, fresh)
		} else {
			o.subjects[k] = fresh
		}
	}
	o.subjects[k].calls++
	return o.subjects[k], slices.Clone(o.subjects)
}

func (o *office) newName() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.names++
	return fmt.Sprintf("name %d", o.names)
}

// operate renames devices, takes them out of work and back, removes them, and
// looks at them, until ctx ends.
func (o *office) operate(ctx context.Context) {
	for ctx.Err() == nil {
		if p, ok := o.swarm.operator.process().(*operator); ok {
			o.act(ctx, p)
		}
		sleep(ctx, time.Duration(100+rand.IntN(500))*time.Millisecond)
	}
}

func (o *office) act(ctx context.Context, p *operator) {
	one, all := o.pick()
	id := string(one.id)
	in, r := deviceInput{}, &wire.Request{}
	switch x := rand.IntN(100); {
	case one.calls == 1 || x < 8:
		in.kind, in.name = "admit", one.name
		r.Kind = &wire.Request_Admit{Admit: &wire.AdmitRequest{Join: joinRequest(o.swarm.id, o.invite, newIdentity(one.name), one.name)}}
	case x < 35:
		in.kind, in.name = "rename", o.newName()
		r.Kind = &wire.Request_RenameDevice{RenameDevice: &wire.RenameDeviceRequest{DeviceId: id, Name: in.name}}
	case x < 60:
		in.kind, in.mode = "mode", wire.DeviceMode(1+rand.IntN(3))
		r.Kind = &wire.Request_SetDeviceMode{SetDeviceMode: &wire.SetDeviceModeRequest{DeviceId: id, Mode: in.mode}}
	case one.calls > subjectLife*3/4 && x < 66:
		in.kind = "remove"
		r.Kind = &wire.Request_RemoveDevice{RemoveDevice: &wire.RemoveDeviceRequest{DeviceId: id}}
	default:
		o.look(ctx, all)
		return
	}
	called := time.Now()
	if _, asked, err := p.once(ctx, r); asked {
		o.swarm.ledger.history.device(called, one.id, in, deviceOutput{code: wire.CodeOf(err)})
	}
}

// look lists the devices by any member, which is a look at each subject.
func (o *office) look(ctx context.Context, all []subject) {
	called := time.Now()
	response, err := o.swarm.ask(ctx, nil, &wire.Request{Kind: &wire.Request_ListDevices{ListDevices: &wire.ListDevicesRequest{}}})
	if err != nil {
		return
	}
	for _, one := range all {
		var out deviceOutput
		for _, d := range response.GetListDevices().GetDevices() {
			if d.GetId() == string(one.id) {
				out = deviceOutput{there: true, name: d.GetProfile().GetName(), mode: d.GetMode()}
			}
		}
		o.swarm.ledger.history.device(called, one.id, deviceInput{kind: "look"}, out)
	}
}

// deviceInput is a call about a device of the registry.
type deviceInput struct {
	kind string // admit, rename, mode, remove, look
	name string // admit, rename
	mode wire.DeviceMode
}

// deviceOutput is what was answered.
type deviceOutput struct {
	code wire.Code
	// look
	there bool
	name  string
	mode  wire.DeviceMode
}

// deviceState is a device as the model knows it.
type deviceState struct {
	there, removed bool
	name           string
	mode           wire.DeviceMode
}

// deviceModel says what the registry does with one device when one call comes
// after the other.
func deviceModel() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return deviceState{} },
		Step: func(s, in, out any) (bool, any) {
			return s.(deviceState).step(in.(deviceInput), out.(deviceOutput))
		},
	}
}

func (s deviceState) step(in deviceInput, out deviceOutput) (bool, any) {
	ok := out.code == wire.Code_CODE_UNSPECIFIED
	if in.kind == "look" {
		return out.there == s.there && (!s.there || out.name == s.name && out.mode == s.mode), s
	}
	want := s.there || in.kind == "admit" && !s.removed
	right := unknown(out.code) || ok == want
	switch in.kind {
	case "admit":
		if want && !s.there {
			s = deviceState{there: true, name: in.name, mode: wire.DeviceMode_DEVICE_MODE_ENABLED}
		}
	case "remove": // asked twice, it may say yes twice
		right = unknown(out.code) || ok || !s.there
		if s.there {
			s = deviceState{removed: true}
		}
	case "rename":
		if s.there {
			s.name = in.name
		}
	case "mode":
		if s.there {
			s.mode = in.mode
		}
	}
	return right, s
}
