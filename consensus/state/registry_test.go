package state

import (
	"bytes"
	"crypto/ed25519"
	"math"
	"strings"
	"testing"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// joinRequest is device n's, signed with the invite's key of that number.
func joinRequest(invite, device int, role wire.Role) *wire.JoinRequest {
	r := &wire.JoinRequest{
		SwarmId: wire.NewSwarmID(public(testKey(100))).Bytes(), InviteKey: public(testKey(invite)),
		DeviceId: string(deviceID(device)), Role: role, Nonce: []byte("0123456789abcdef"), Profile: profile("joiner"),
	}
	sign(r, invite, device)
	return r
}

func sign(r *wire.JoinRequest, invite, device int) {
	r.InviteSignature = ed25519.Sign(testKey(invite), wire.JoinStatement(r))
	r.DeviceSignature = ed25519.Sign(testKey(device), wire.JoinStatement(r))
}

func invite(n int, role wire.Role) *wire.IssueInvite {
	return &wire.IssueInvite{
		LinkKey: public(testKey(n)), CodeKey: public(testKey(n + 1)), Role: role, ExpiresAtMs: startMS + hourMS,
	}
}

func TestFoundingMakesTheFounderAdmin(t *testing.T) {
	w := founded(t)
	d := w.s.Device(deviceID(0))
	if d == nil || d.Role != wire.Role_ROLE_ADMIN || d.Name != "founder" || d.JoinedAtMS != startMS {
		t.Errorf("the founder is %+v", d)
	}
	if w.s.SwarmID() != wire.NewSwarmID(public(testKey(100))) || w.s.SwarmName() != "home" || w.s.Generation() != 1 || len(w.s.LeaseKey()) != 32 {
		t.Errorf("the swarm is %s, %q, %d", w.s.SwarmID(), w.s.SwarmName(), w.s.Generation())
	}
	w.must(foundOp()) // once more changes nothing
	other := foundOp()
	other.LeaseKey = bytes.Repeat([]byte{8}, 32)
	w.refuse(other, wire.Code_CODE_CONFLICT)
}

func TestFoundingIsRefused(t *testing.T) {
	for name, change := range map[string]func(*wire.FoundSwarm){
		"a short root key":         func(f *wire.FoundSwarm) { f.RootKey = f.RootKey[:31] },
		"no lease key":             func(f *wire.FoundSwarm) { f.LeaseKey = nil },
		"a founder that is no key": func(f *wire.FoundSwarm) { f.Founder = "me" },
		"no profile":               func(f *wire.FoundSwarm) { f.Profile = nil },
		"a browser":                func(f *wire.FoundSwarm) { f.Profile.Type = wire.DeviceType_DEVICE_TYPE_BROWSER },
		"a long name":              func(f *wire.FoundSwarm) { f.SwarmName = strings.Repeat("x", 101) },
	} {
		t.Run(name, func(t *testing.T) {
			w := &swarm{t: t, s: New(), nowMS: startMS}
			f := foundOp()
			change(f)
			f.Signature = ed25519.Sign(testKey(100), wire.FoundingStatement(f))
			r := w.try(f)
			if wire.CodeOf(r.Err) != wire.Code_CODE_INVALID || w.s.Founded() {
				t.Errorf("got %v", r.Err)
			}
		})
	}
	w := &swarm{t: t, s: New(), nowMS: startMS}
	f := foundOp()
	f.Signature[0]++
	if r := w.try(f); wire.CodeOf(r.Err) != wire.Code_CODE_BAD_PROOF {
		t.Errorf("a false signature: got %v", r.Err)
	}
	if r := w.try(&wire.Sweep{}); wire.CodeOf(r.Err) != wire.Code_CODE_PRECONDITION {
		t.Errorf("an operation before the founding: got %v", r.Err)
	}
}

func TestAWholeCommandIsRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*wire.Command)
		want   wire.Code
	}{
		"of another term":   {func(c *wire.Command) { c.Term = 2 }, wire.Code_CODE_UNAVAILABLE},
		"of a newer format": {func(c *wire.Command) { c.Format = Format + 1 }, wire.Code_CODE_VERSION},
		"of no format":      {func(c *wire.Command) { c.Format = 0 }, wire.Code_CODE_INVALID},
		"of no time":        {func(c *wire.Command) { c.TimeMs = -1 }, wire.Code_CODE_INVALID},
		"of the far future": {func(c *wire.Command) { c.TimeMs = math.MaxInt64 }, wire.Code_CODE_INVALID},
	} {
		t.Run(name, func(t *testing.T) {
			w := founded(t)
			before := w.s.Hash()
			c := command(startMS+1, invite(1, wire.Role_ROLE_WORKER), &wire.Sweep{})
			tc.change(c)
			for i, r := range w.s.Apply(1, c).Results {
				if wire.CodeOf(r.Err) != tc.want {
					t.Errorf("operation %d: got %v, want %v", i, r.Err, tc.want)
				}
			}
			if w.s.Hash() != before {
				t.Error("the state changed")
			}
		})
	}
}

func TestTimeNeverGoesBack(t *testing.T) {
	w := founded(t)
	w.nowMS = startMS - 5
	w.must(&wire.Sweep{})
	if got := w.s.TimeMS(); got != startMS {
		t.Errorf("got %d, want %d", got, int64(startMS))
	}
}

func TestInvites(t *testing.T) {
	w := founded(t)
	op := invite(1, wire.Role_ROLE_MEMBER)
	id := w.must(op).ID
	if again := w.must(op).ID; again != id || len(w.s.Invites()) != 1 {
		t.Errorf("issued twice: %q and %q, %d invites", id, again, len(w.s.Invites()))
	}
	later := invite(1, wire.Role_ROLE_MEMBER) // asked again, because the outcome was not known
	later.ExpiresAtMs += 10_000
	if again := w.must(later).ID; again != id || w.s.Invites()[0].ExpiresAtMS != op.ExpiresAtMs {
		t.Errorf("asked again later: %q and %q, which expires at %d, want %d", id, again, w.s.Invites()[0].ExpiresAtMS, op.ExpiresAtMs)
	}
	if a, b := w.s.InviteByKey(op.LinkKey), w.s.InviteByKey(op.CodeKey); a == nil || a != b || a.ID != id || a.CreatedBy != deviceID(0) {
		t.Errorf("by its keys: %+v, %+v", a, b)
	}
	w.must(&wire.RevokeInvite{InviteId: id})
	if !w.s.Invites()[0].Revoked {
		t.Error("it is not revoked")
	}
	w.refuse(&wire.RevokeInvite{InviteId: "nothing"}, wire.Code_CODE_NOT_FOUND)
	w.nowMS += hourMS + inviteGraceMS
	w.must(&wire.Sweep{})
	if len(w.s.Invites()) != 1 {
		t.Error("it was forgotten early")
	}
	w.nowMS++
	w.must(&wire.Sweep{})
	if len(w.s.Invites()) != 0 || w.s.InviteByKey(op.LinkKey) != nil || w.s.InviteByKey(op.CodeKey) != nil {
		t.Error("it was not forgotten")
	}
}

func TestInvitesAreRefused(t *testing.T) {
	w := founded(t)
	w.must(invite(1, wire.Role_ROLE_WORKER))
	for name, tc := range map[string]struct {
		change func(*wire.IssueInvite)
		want   wire.Code
	}{
		"a short link key":              {func(i *wire.IssueInvite) { i.LinkKey = i.LinkKey[:5] }, wire.Code_CODE_INVALID},
		"a short code key":              {func(i *wire.IssueInvite) { i.CodeKey = i.CodeKey[:5] }, wire.Code_CODE_INVALID},
		"one key for both":              {func(i *wire.IssueInvite) { i.CodeKey = i.LinkKey }, wire.Code_CODE_INVALID},
		"no role":                       {func(i *wire.IssueInvite) { i.Role = 0 }, wire.Code_CODE_INVALID},
		"an unknown role":               {func(i *wire.IssueInvite) { i.Role = 9 }, wire.Code_CODE_INVALID},
		"no expiry":                     {func(i *wire.IssueInvite) { i.ExpiresAtMs = 0 }, wire.Code_CODE_INVALID},
		"a far expiry":                  {func(i *wire.IssueInvite) { i.ExpiresAtMs = math.MaxInt64 }, wire.Code_CODE_INVALID},
		"a known link key":              {func(i *wire.IssueInvite) { i.LinkKey = public(testKey(1)) }, wire.Code_CODE_CONFLICT},
		"a known code key":              {func(i *wire.IssueInvite) { i.CodeKey = public(testKey(2)) }, wire.Code_CODE_CONFLICT},
		"a code key that is a link key": {func(i *wire.IssueInvite) { i.CodeKey = public(testKey(1)) }, wire.Code_CODE_CONFLICT},
	} {
		t.Run(name, func(t *testing.T) {
			w.t = t
			op := invite(3, wire.Role_ROLE_WORKER)
			tc.change(op)
			w.refuse(op, tc.want)
		})
	}
}

func TestAdmission(t *testing.T) {
	w := founded(t)
	op := invite(1, wire.Role_ROLE_MEMBER)
	op.MaxUses = 1
	id := w.must(op).ID
	if got := w.must(&wire.AdmitDevice{Join: joinRequest(1, 1, wire.Role_ROLE_WORKER)}).Role; got != wire.Role_ROLE_WORKER {
		t.Errorf("asked for less: got %v", got)
	}
	if d := w.s.Device(deviceID(1)); d == nil || d.InvitedBy != id || d.Name != "joiner" {
		t.Errorf("the joiner is %+v", d)
	}
	// Once more, by the other key, costs no use and needs none.
	if got := w.must(&wire.AdmitDevice{Join: joinRequest(2, 1, wire.Role_ROLE_WORKER)}).Role; got != wire.Role_ROLE_WORKER {
		t.Errorf("once more: got %v", got)
	}
	if w.s.Invites()[0].Uses != 1 {
		t.Errorf("got %d uses, want 1", w.s.Invites()[0].Uses)
	}
	w.refuse(&wire.AdmitDevice{Join: joinRequest(1, 2, 0)}, wire.Code_CODE_DENIED)                     // used up
	w.refuse(&wire.AdmitDevice{Join: joinRequest(1, 1, wire.Role_ROLE_MEMBER)}, wire.Code_CODE_DENIED) // an upgrade costs a use
	w.must(invite(3, wire.Role_ROLE_MEMBER))
	if got := w.must(&wire.AdmitDevice{Join: joinRequest(3, 1, 0)}).Role; got != wire.Role_ROLE_MEMBER {
		t.Errorf("an upgrade: got %v", got)
	}
	if got := w.must(&wire.AdmitDevice{Join: joinRequest(3, 1, wire.Role_ROLE_WORKER)}).Role; got != wire.Role_ROLE_MEMBER {
		t.Errorf("a lower role: got %v", got)
	}
	browser := joinRequest(3, 2, wire.Role_ROLE_MEMBER)
	browser.Profile.Type = wire.DeviceType_DEVICE_TYPE_BROWSER
	if got := w.must(&wire.AdmitDevice{Join: browser}).Role; got != wire.Role_ROLE_WORKER {
		t.Errorf("a browser: got %v", got)
	}
	if got := len(w.s.Devices()); got != 3 {
		t.Errorf("got %d devices, want 3", got)
	}
}

func TestAdmissionIsRefused(t *testing.T) {
	const member = wire.Role_ROLE_MEMBER
	for name, tc := range map[string]struct {
		before func(*swarm)
		change func(*wire.JoinRequest)
		want   wire.Code
	}{
		"for another swarm":              {nil, func(r *wire.JoinRequest) { r.SwarmId[0]++ }, wire.Code_CODE_WRONG_SWARM},
		"for no swarm":                   {nil, func(r *wire.JoinRequest) { r.SwarmId = nil }, wire.Code_CODE_WRONG_SWARM},
		"with no such invite":            {nil, func(r *wire.JoinRequest) { r.InviteKey = public(testKey(50)) }, wire.Code_CODE_NOT_FOUND},
		"with a short key":               {nil, func(r *wire.JoinRequest) { r.InviteKey = nil }, wire.Code_CODE_NOT_FOUND},
		"with a false device":            {nil, func(r *wire.JoinRequest) { r.DeviceId = string(deviceID(6)) }, wire.Code_CODE_BAD_PROOF},
		"with no device":                 {nil, func(r *wire.JoinRequest) { r.DeviceId = "" }, wire.Code_CODE_INVALID},
		"with a raised role":             {nil, func(r *wire.JoinRequest) { r.Role = wire.Role_ROLE_ADMIN }, wire.Code_CODE_BAD_PROOF},
		"with another nonce":             {nil, func(r *wire.JoinRequest) { r.Nonce = []byte("other") }, wire.Code_CODE_BAD_PROOF},
		"with a long nonce":              {nil, func(r *wire.JoinRequest) { r.Nonce = make([]byte, 65) }, wire.Code_CODE_INVALID},
		"without the invite's signature": {nil, func(r *wire.JoinRequest) { r.InviteSignature = nil }, wire.Code_CODE_BAD_PROOF},
		"without its own":                {nil, func(r *wire.JoinRequest) { r.DeviceSignature = make([]byte, 64) }, wire.Code_CODE_BAD_PROOF},
		"without a profile":              {nil, func(r *wire.JoinRequest) { r.Profile = nil }, wire.Code_CODE_INVALID},
		"with a higher role":             {nil, func(r *wire.JoinRequest) { r.Role = wire.Role_ROLE_ADMIN; sign(r, 1, 5) }, wire.Code_CODE_DENIED},
		"with an unknown role":           {nil, func(r *wire.JoinRequest) { r.Role = 7; sign(r, 1, 5) }, wire.Code_CODE_INVALID},
		"with a revoked invite":          {func(w *swarm) { w.must(&wire.RevokeInvite{InviteId: w.s.Invites()[0].ID}) }, nil, wire.Code_CODE_DENIED},
		"with an expired invite":         {func(w *swarm) { w.nowMS += hourMS }, nil, wire.Code_CODE_DENIED},
		"after its removal": {func(w *swarm) {
			w.must(&wire.AdmitDevice{Join: joinRequest(1, 5, member)})
			w.must(&wire.RemoveDevice{DeviceId: string(deviceID(5))})
			w.must(&wire.RemoveDevice{DeviceId: string(deviceID(5))})
		}, nil, wire.Code_CODE_REMOVED},
	} {
		t.Run(name, func(t *testing.T) {
			w := founded(t)
			w.must(invite(1, member))
			if tc.before != nil {
				tc.before(w)
				w.must(&wire.Sweep{}) // takes the time over
			}
			r := joinRequest(1, 5, member)
			if tc.change != nil {
				tc.change(r)
			}
			w.refuse(&wire.AdmitDevice{Join: r}, tc.want)
		})
	}
}

func TestDevices(t *testing.T) {
	w := founded(t)
	id := string(deviceID(0))
	w.must(&wire.UpdateDevice{DeviceId: id, Name: "Küche"})
	w.must(&wire.UpdateDevice{DeviceId: id, Profile: profile("other")})
	d := w.s.Device(deviceID(0))
	if d.Name != "Küche" || d.Profile.GetName() != "other" {
		t.Errorf("a name given does not outlive a profile: %q", d.Name)
	}
	w.nowMS += 10
	w.must(&wire.SetPresence{DeviceId: id, Online: true})
	w.nowMS += 10
	w.must(&wire.SetPresence{DeviceId: id, Online: true})
	if !d.Online || d.PresenceAtMS != startMS+10 {
		t.Errorf("presence: %v at %d", d.Online, d.PresenceAtMS)
	}
	w.must(&wire.RemoveDevice{DeviceId: id})
	if w.s.Device(deviceID(0)) != nil || !w.s.Removed(deviceID(0)) || len(w.s.Devices()) != 0 {
		t.Error("it was not removed")
	}
	for _, op := range []any{
		&wire.UpdateDevice{DeviceId: id, Name: "x"}, &wire.SetPresence{DeviceId: id}, &wire.RemoveDevice{DeviceId: "nobody"},
	} {
		w.refuse(op, wire.Code_CODE_NOT_FOUND)
	}
}

func TestProfilesAreRefused(t *testing.T) {
	for name, change := range map[string]func(*wire.DeviceProfile){
		"no name":                   func(p *wire.DeviceProfile) { p.Name = "" },
		"a long name":               func(p *wire.DeviceProfile) { p.Name = strings.Repeat("ü", 101) },
		"a control character":       func(p *wire.DeviceProfile) { p.Name = "a\x1b[2J" },
		"a turned direction":        func(p *wire.DeviceProfile) { p.Name = "a\u202eb" },
		"no UTF-8":                  func(p *wire.DeviceProfile) { p.Name = "\xff" },
		"no type":                   func(p *wire.DeviceProfile) { p.Type = 0 },
		"an unknown type":           func(p *wire.DeviceProfile) { p.Type = 99 },
		"a browser's, for a member": func(p *wire.DeviceProfile) { p.Type = wire.DeviceType_DEVICE_TYPE_BROWSER },
		"no capabilities":           func(p *wire.DeviceProfile) { p.Capabilities = nil },
		"no cores":                  func(p *wire.DeviceProfile) { p.Capabilities.CpuCores = 0 },
		"too many cores":            func(p *wire.DeviceProfile) { p.Capabilities.CpuCores = 1025 },
		"no memory":                 func(p *wire.DeviceProfile) { p.Capabilities.MemoryGb = 0.1 },
		"memory that is NaN":        func(p *wire.DeviceProfile) { p.Capabilities.MemoryGb = math.NaN() },
		"too much memory":           func(p *wire.DeviceProfile) { p.Capabilities.MemoryGb = 65537 },
		"a long GPU":                func(p *wire.DeviceProfile) { p.Capabilities.GpuName = strings.Repeat("g", 101) },
		"a long runtime":            func(p *wire.DeviceProfile) { p.Capabilities.Runtime = strings.Repeat("g", 101) },
		"a negative score":          func(p *wire.DeviceProfile) { p.OpsScore = -1 },
		"an infinite score":         func(p *wire.DeviceProfile) { p.OpsScore = math.Inf(1) },
		"a long version":            func(p *wire.DeviceProfile) { p.Version = strings.Repeat("1", 65) },
		"too many labels": func(p *wire.DeviceProfile) {
			for i := range 33 {
				p.Labels[strings.Repeat("k", i+1)] = ""
			}
		},
		"a label without a key": func(p *wire.DeviceProfile) { p.Labels[""] = "x" },
		"a long label":          func(p *wire.DeviceProfile) { p.Labels["k"] = strings.Repeat("x", 65) },
	} {
		t.Run(name, func(t *testing.T) {
			w := founded(t)
			p := profile("device")
			change(p)
			w.refuse(&wire.UpdateDevice{DeviceId: string(deviceID(0)), Profile: p}, wire.Code_CODE_INVALID)
		})
	}
	w := founded(t)
	w.refuse(&wire.UpdateDevice{DeviceId: string(deviceID(0))}, wire.Code_CODE_INVALID)
	w.refuse(&wire.UpdateDevice{DeviceId: string(deviceID(0)), Name: "a\nb"}, wire.Code_CODE_INVALID)
}
