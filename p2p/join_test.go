package p2p

import (
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// joinTest is a member that admits bearers of one invite, and a joiner.
type joinTest struct {
	reg            *registry
	member, joiner *Host
	invite         ed25519.PrivateKey
	admitted       chan *wire.JoinRequest
	answer         error
}

func newJoinTest(t *testing.T) *joinTest {
	j := &joinTest{reg: newRegistry(), admitted: make(chan *wire.JoinRequest, 100)}
	j.member = device(t, j.reg, wire.Role_ROLE_ADMIN)
	j.joiner = testHost(t, newRegistry())
	secret, _ := NewSecrets()
	j.invite = LinkKey(secret, testSwarm)
	j.member.ServeJoin(testSwarm, func(_ context.Context, r *wire.JoinRequest) (*wire.AdmitResponse, error) {
		if j.answer != nil {
			return nil, j.answer
		}
		j.admitted <- r
		j.reg.set(wire.DeviceID(r.GetDeviceId()), r.GetRole())
		return &wire.AdmitResponse{Role: r.GetRole(), SwarmName: "flock", Generation: 1,
			Members: j.member.Peers([]wire.DeviceID{j.member.ID()})}, nil
	})
	return j
}

func (j *joinTest) peer() *wire.Peer {
	return j.member.Peers([]wire.DeviceID{j.member.ID()})[0]
}

// sign makes an honest request; change spoils it before or after signing.
func (j *joinTest) sign(before, after func(*wire.JoinRequest)) func([]byte) (*wire.JoinRequest, error) {
	return func(nonce []byte) (*wire.JoinRequest, error) {
		req := &wire.JoinRequest{SwarmId: testSwarm.Bytes(), Role: wire.Role_ROLE_WORKER, Nonce: nonce,
			Profile: &wire.DeviceProfile{Name: "joiner"}}
		if before != nil {
			before(req)
		}
		req, err := SignJoin(req, j.invite, j.joiner.cfg.Key)
		if after != nil {
			after(req)
		}
		return req, err
	}
}

func TestABearerOfAnInviteJoins(t *testing.T) {
	j := newJoinTest(t)
	got, err := j.joiner.Join(t.Context(), j.peer(), j.sign(nil, nil))
	if err != nil {
		t.Fatal(err)
	}
	if got.GetRole() != wire.Role_ROLE_WORKER || got.GetSwarmName() != "flock" || len(got.GetMembers()) != 1 {
		t.Errorf("admitted as %v", got)
	}
	if r := <-j.admitted; r.GetProfile().GetName() != "joiner" || wire.DeviceID(r.GetDeviceId()) != j.joiner.ID() {
		t.Errorf("admit saw %v", r)
	}
	if known := j.joiner.Peers([]wire.DeviceID{j.member.ID()}); len(known) != 1 {
		t.Error("the joiner does not know where the member is")
	}
	later := time.Now().Add(10 * fast().stranger)
	j.member.gate.sweep(later)
	j.joiner.gate.sweep(later)
	if !j.joiner.Connected(j.member.ID()) || !j.member.Connected(j.joiner.ID()) {
		t.Error("the connection of one that joined was cut")
	}
}

func TestAJoinThatIsNotProvenIsRefused(t *testing.T) {
	stolen := newKey(t)
	for _, c := range []struct {
		name          string
		before, after func(*wire.JoinRequest)
		want          wire.Code
	}{
		{"another nonce", func(r *wire.JoinRequest) { r.Nonce = make([]byte, nonceSize) }, nil, wire.Code_CODE_BAD_PROOF},
		{"no invite signature", nil, func(r *wire.JoinRequest) { r.InviteSignature = nil }, wire.Code_CODE_BAD_PROOF},
		{"no device signature", nil, func(r *wire.JoinRequest) { r.DeviceSignature = nil }, wire.Code_CODE_BAD_PROOF},
		{"a role put in later", nil, func(r *wire.JoinRequest) { r.Role = wire.Role_ROLE_ADMIN }, wire.Code_CODE_BAD_PROOF},
		{"a short invite key", nil, func(r *wire.JoinRequest) { r.InviteKey = r.InviteKey[:31] }, wire.Code_CODE_INVALID},
		{"another device's name", nil, func(r *wire.JoinRequest) {
			r.DeviceId = string(wire.NewDeviceID(stolen.Public().(ed25519.PublicKey)))
		}, wire.Code_CODE_BAD_PROOF},
	} {
		j := newJoinTest(t)
		_, err := j.joiner.Join(t.Context(), j.peer(), j.sign(c.before, c.after))
		if wire.CodeOf(err) != c.want {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		if len(j.admitted) != 0 {
			t.Errorf("%s reached admit", c.name)
		}
		j.joiner.Close()
		j.member.Close()
	}
}

func TestARefusalComesBackWithItsCodeAndTheConnectionEnds(t *testing.T) {
	j := newJoinTest(t)
	j.answer = wire.Errorf(wire.Code_CODE_PRECONDITION, "the invite has expired: ask for a new one")
	_, err := j.joiner.Join(t.Context(), j.peer(), j.sign(nil, nil))
	if wire.CodeOf(err) != wire.Code_CODE_PRECONDITION || err.Error() != "the invite has expired: ask for a new one" {
		t.Errorf("error %v", err)
	}
	eventually(t, "the connection's end", func() bool { return !j.member.Connected(j.joiner.ID()) })
	if got := j.member.Status().JoinsFailed; got != 1 {
		t.Errorf("%d failed joins were counted, want 1", got)
	}
}

func TestAnInviteOfAnotherSwarmIsNamedAsThat(t *testing.T) {
	j := newJoinTest(t)
	other := wire.SwarmID("ffeeddccbbaa99887766554433221100")
	_, err := j.joiner.Join(t.Context(), j.peer(), j.sign(func(r *wire.JoinRequest) { r.SwarmId = other.Bytes() }, nil))
	if wire.CodeOf(err) != wire.Code_CODE_WRONG_SWARM {
		t.Errorf("error %v, want CODE_WRONG_SWARM", err)
	}
	// A joiner that does not look gets the same answer from the member.
	req, _ := j.sign(func(r *wire.JoinRequest) { r.SwarmId = other.Bytes() }, nil)(make([]byte, nonceSize))
	err = checkJoin(req, &wire.JoinChallenge{SwarmId: testSwarm.Bytes(), Nonce: req.GetNonce()}, j.joiner.ID())
	if wire.CodeOf(err) != wire.Code_CODE_WRONG_SWARM {
		t.Errorf("the member's check: %v, want CODE_WRONG_SWARM", err)
	}
}

func TestAnOversizeJoinMessageIsRefusedUnread(t *testing.T) {
	j := newJoinTest(t)
	for _, size := range []uint32{wire.MaxJoinMessage + 1, 1 << 31} {
		pid, _ := peerID(j.member.ID())
		done := j.joiner.gate.expect(pid)
		j.joiner.Learn([]*wire.Peer{j.peer()})
		s, err := j.joiner.Open(t.Context(), j.member.ID(), ProtocolJoin)
		done()
		if err != nil {
			t.Fatal(err)
		}
		s.SetDeadline(time.Now().Add(10 * time.Second))
		if err := wire.ReadMessage(s, wire.MaxJoinMessage, &wire.JoinChallenge{}); err != nil {
			t.Fatal(err)
		}
		s.Write(binary.BigEndian.AppendUint32(nil, size))
		answer := &wire.JoinAnswer{}
		if err := wire.ReadMessage(s, wire.MaxJoinMessage, answer); err != nil || answer.GetError().GetCode() != wire.Code_CODE_INVALID {
			t.Errorf("%d bytes: answer %v, %v", size, answer, err)
		}
		s.Close()
	}
	if _, err := j.joiner.Join(t.Context(), j.peer(), j.sign(func(r *wire.JoinRequest) { r.OfferHash = make([]byte, wire.MaxJoinMessage) }, nil)); err == nil {
		t.Error("a joiner sent an oversize request")
	}
}

func TestAJoinerThatSaysNothingIsLetGo(t *testing.T) {
	j := newJoinTest(t)
	j.member.timing.join = 200 * time.Millisecond
	j.member.timing.stranger = time.Minute
	_, err := j.joiner.Join(t.Context(), j.peer(), func(nonce []byte) (*wire.JoinRequest, error) {
		eventually(t, "the member to give up", func() bool {
			j.member.joins.mu.Lock()
			defer j.member.joins.mu.Unlock()
			return j.member.joins.running == 0
		})
		return j.sign(nil, nil)(nonce)
	})
	if wire.CodeOf(err) != wire.Code_CODE_UNAVAILABLE {
		t.Errorf("error %v, want CODE_UNAVAILABLE", err)
	}
	if got := j.member.Status().JoinsFailed; got != 0 {
		t.Errorf("%d failed joins were counted", got)
	}
}

func TestFailedJoinsOfAnAddressAreLimited(t *testing.T) {
	j := newJoinTest(t)
	j.answer = wire.Errorf(wire.Code_CODE_NOT_FOUND, "no such invite")
	for range failuresPerMinute - 1 { // made elsewhere: they need not take their time here
		from := netip.MustParsePrefix("127.0.0.1/32")
		j.member.joins.begin(from, time.Now().Add(-10*time.Second))
		j.member.joins.end(from, true, time.Now().Add(-10*time.Second))
	}
	var last error
	for range 4 {
		_, last = j.joiner.Join(t.Context(), j.peer(), j.sign(nil, nil))
	}
	if wire.CodeOf(last) != wire.Code_CODE_EXHAUSTED {
		t.Errorf("after too many failures: %v, want CODE_EXHAUSTED", last)
	}
	j.answer = nil
	if _, err := j.joiner.Join(t.Context(), j.peer(), j.sign(nil, nil)); wire.CodeOf(err) != wire.Code_CODE_EXHAUSTED {
		t.Errorf("an honest join from a blocked address: %v, want CODE_EXHAUSTED", err)
	}
}

func TestJoiningSaysWhichAddressesWereTried(t *testing.T) {
	joiner := testHost(t, newRegistry())
	gone := func() *wire.Peer {
		return &wire.Peer{Id: string(wire.NewDeviceID(newKey(t).Public().(ed25519.PublicKey))),
			Addresses: []string{"/ip4/127.0.0.1/tcp/9", "/ip4/127.0.0.1/tcp/10"}}
	}
	sign := func([]byte) (*wire.JoinRequest, error) { return nil, nil }
	_, err := joiner.JoinAny(t.Context(), []*wire.Peer{gone(), gone()}, sign)
	if wire.CodeOf(err) != wire.Code_CODE_UNAVAILABLE {
		t.Errorf("error %v, want CODE_UNAVAILABLE", err)
	}
	for _, want := range []string{"127.0.0.1:9 (TCP): connection refused", "127.0.0.1:10 (TCP)", "firewall"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
	if _, err := joiner.JoinAny(t.Context(), nil, sign); wire.CodeOf(err) != wire.Code_CODE_INVALID {
		t.Errorf("without peers: %v", err)
	}
	self := &wire.Peer{Id: string(joiner.ID()), Addresses: []string{"/ip4/127.0.0.1/tcp/9"}}
	if _, err := joiner.Join(t.Context(), self, sign); wire.CodeOf(err) != wire.Code_CODE_INVALID {
		t.Errorf("joining oneself: %v", err)
	}
}

func TestJoinAnyGoesOnToTheNextMember(t *testing.T) {
	j := newJoinTest(t)
	gone := &wire.Peer{Id: string(wire.NewDeviceID(newKey(t).Public().(ed25519.PublicKey))), Addresses: []string{"/ip4/127.0.0.1/tcp/9"}}
	if _, err := j.joiner.JoinAny(t.Context(), []*wire.Peer{gone, j.peer()}, j.sign(nil, nil)); err != nil {
		t.Errorf("the second member was not asked: %v", err)
	}
}

func TestAnAnswerNamesAsManyMembersAsFit(t *testing.T) {
	a := &wire.AdmitResponse{Role: wire.Role_ROLE_MEMBER, SwarmName: "flock"}
	for range 200 {
		a.Members = append(a.Members, &wire.Peer{Id: strings.Repeat("x", 52), Addresses: []string{"/ip4/192.168.100.100/tcp/7776"}})
	}
	got := fitAdmitted(a)
	answer := &wire.JoinAnswer{Admitted: got}
	if size := proto.Size(answer); size > wire.MaxJoinMessage || len(got.GetMembers()) < 20 {
		t.Errorf("%d members in %d bytes", len(got.GetMembers()), size)
	}
}

func FuzzJoinRequest(f *testing.F) {
	_, device, _ := ed25519.GenerateKey(nil)
	_, invite, _ := ed25519.GenerateKey(nil)
	id := wire.NewDeviceID(device.Public().(ed25519.PublicKey))
	challenge := &wire.JoinChallenge{SwarmId: testSwarm.Bytes(), Nonce: make([]byte, nonceSize)}
	good, err := SignJoin(&wire.JoinRequest{SwarmId: testSwarm.Bytes(), Nonce: challenge.Nonce, Role: wire.Role_ROLE_WORKER}, invite, device)
	if err != nil {
		f.Fatal(err)
	}
	seed, _ := wire.AppendMessage(nil, wire.MaxJoinMessage, good)
	f.Add(seed)
	f.Add([]byte{0, 0, 0, 0})
	f.Add([]byte{255, 255, 255, 255})
	f.Fuzz(func(t *testing.T, data []byte) {
		req := &wire.JoinRequest{}
		if wire.ReadMessage(strings.NewReader(string(data)), wire.MaxJoinMessage, req) != nil {
			return
		}
		if err := checkJoin(req, challenge, id); err != nil {
			if !joinFailed(err) {
				t.Errorf("a refused request does not count as failed: %v", err)
			}
			return
		}
		if string(wire.JoinStatement(req)) != string(wire.JoinStatement(good)) {
			t.Errorf("a request that nobody signed passed: %v", req)
		}
	})
}
