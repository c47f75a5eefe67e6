package web_test

import (
	"bytes"
	"compress/flate"
	"crypto/ed25519"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/ostrich-legs/ostrich/node/session"
	"github.com/ostrich-legs/ostrich/p2p"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

func deflate(b []byte) []byte {
	var buf bytes.Buffer
	w, _ := flate.NewWriter(&buf, flate.BestSpeed) // the level is a valid one
	_, _ = w.Write(b)
	_ = w.Close()
	return buf.Bytes()
}

// checkUpper reports results that are not the upper-case lines.
func checkUpper(t *testing.T, got map[uint32]*wire.TaskResult, first, n int) {
	t.Helper()
	for i, in := range lines(first, n) {
		r := got[uint32(first+i)]
		if r.GetStatus() != wire.TaskStatus_TASK_STATUS_OK || string(r.GetOutput()) != strings.ToUpper(string(in.GetInline())) {
			t.Fatalf("task %d: %v", first+i, r)
		}
	}
}

func TestALinkMakesAPageADeviceThatComputes(t *testing.T) {
	s := newSwarm(t)
	b := s.bridge("bridge")
	p := open(t, startBrowser(t), b.link())
	d := s.session()
	profile := d.hello.GetProfile()
	if profile.GetType() != wire.DeviceType_DEVICE_TYPE_BROWSER || !strings.HasPrefix(profile.GetCapabilities().GetRuntime(), "Chrome ") || d.hello.GetSlots() < 1 {
		t.Errorf("the page says of itself: %v", d.hello)
	}
	if hash := eval[string](p, `location.href`); strings.Contains(hash, "#") {
		t.Errorf("the secret stays in the address bar: %s", hash)
	}
	spec := s.spec("programs/upper.wasm")
	d.lease(t, 1, spec, 0, lines(0, 500)...)
	d.lease(t, 2, spec, 500, lines(500, 500)...)
	checkUpper(t, d.take(t, 1000, true), 0, 1000)
	p.until("1,000 tasks are shown as done", func() bool { return p.text("done") == "1,000" })
	if got := p.text("swarm"); got != "the flock" {
		t.Errorf("the page calls the swarm %q", got)
	}
}

// Over plain http browsers withhold much: crypto.subtle, locks, the wake lock.
func TestAPageOverPlainHTTPComputes(t *testing.T) {
	s := newSwarm(t)
	b := s.bridge("bridge")
	browser := startBrowser(t, chromedp.Flag("host-resolver-rules", "MAP ostrich.test 127.0.0.1"))
	p := open(t, browser, strings.Replace(b.link(), "127.0.0.1", "ostrich.test", 1))
	d := s.session()
	if eval[bool](p, `isSecureContext`) {
		t.Fatal("the page counts as secure: the test tests nothing")
	}
	d.lease(t, 1, s.spec("programs/upper.wasm"), 0, lines(0, 100)...)
	checkUpper(t, d.take(t, 100, true), 0, 100)
	p.until("the page says that the screen may go dark", func() bool { return strings.Contains(p.text("screen"), "lets the screen go dark") })
	open(t, browser, strings.Replace(b.link(), "127.0.0.1", "ostrich.test", 1))
	if s.session().hello.GetDeviceId() == d.hello.GetDeviceId() {
		t.Error("a second tab is the same device")
	}
	p.navigate(strings.Replace(b.url, "127.0.0.1", "ostrich.test", 1) + "/join")
	if s.session().hello.GetDeviceId() != d.hello.GetDeviceId() {
		t.Error("a reload made another device")
	}
}

func TestATypedCodeJoins(t *testing.T) {
	s := newSwarm(t)
	b := s.bridge("bridge")
	s.invite = p2p.CodeKey("0123456789", testSwarm).Public().(ed25519.PublicKey)
	p := open(t, startBrowser(t), b.url)
	p.until("the page asks for a code", func() bool { return eval[bool](p, `!document.getElementById("code-form").hidden`) })
	p.typeCode("too short")
	if got := p.text("code-error"); !strings.Contains(got, "no short code") {
		t.Errorf("a code that is none: %q", got)
	}
	p.typeCode("ABCDE-FGHJK")
	p.until("the page says that there is no such invite", func() bool { return strings.Contains(p.text("detail"), "no such invite") })
	p.typeCode("o12-345 6789")
	s.session()
	p.until("the page is ready", func() bool { return p.text("headline") == "Ready" })
}

func TestARefusedInviteIsExplained(t *testing.T) {
	s := newSwarm(t)
	b := s.bridge("bridge")
	s.refusal = wire.Errorf(wire.Code_CODE_DENIED, "the invite was revoked: ask for a new one")
	p := open(t, startBrowser(t), b.link())
	p.until("the page says why", func() bool { return strings.Contains(p.text("detail"), "the invite was revoked") })
	if eval[bool](p, `document.getElementById("code-form").hidden`) {
		t.Error("the page does not ask for another invite")
	}
}

func TestAMangledLinkIsExplained(t *testing.T) {
	s := newSwarm(t)
	b := s.bridge("bridge")
	p := open(t, startBrowser(t), b.link()+"x")
	p.until("the page says what is wrong", func() bool { return strings.Contains(p.text("detail"), "mangled") })
}

func TestResultsAreDeliveredAgainAfterTheCoordinatorIsReplaced(t *testing.T) {
	s := newSwarm(t)
	b := s.bridge("bridge")
	open(t, startBrowser(t), b.link())
	d := s.session()
	spec := s.spec("programs/upper.wasm")
	d.lease(t, 1, spec, 0, lines(0, 10)...)
	d.lease(t, 2, spec, 10, lines(10, 10)...)
	got := d.take(t, 20, false)
	checkUpper(t, got, 0, 20)
	ack := &wire.ResultsAck{Attempt: &wire.Attempt{Term: 1, Counter: 1}, Indexes: []uint32{0, 1, 2}}
	d.conn.Post(&wire.Frame{Kind: &wire.Frame_ResultsAck{ResultsAck: ack}})
	s.mu.Lock()
	s.term = 2
	s.mu.Unlock()
	d.conn.Close("the coordinator's role moves on", true)

	again := s.session()
	if again.conn.Term() != 2 || len(again.hello.GetLeases()) != 2 {
		t.Fatalf("term %d, claims %v", again.conn.Term(), again.hello.GetLeases())
	}
	for _, claim := range again.hello.GetLeases() {
		if string(claim.GetToken()) != "token" || len(claim.GetIndexes()) != 10 {
			t.Errorf("a claim without proof: %v", claim)
		}
		if settled := claim.GetSettled(); claim.GetAttempt().GetCounter() == 1 && (len(settled) != 3 || settled[2] != 2) {
			t.Errorf("settled are %v, want 0, 1 and 2", settled)
		}
	}
	got = again.take(t, 17, true)
	if got[2] != nil {
		t.Error("an acknowledged result was delivered again")
	}
}

func TestOnlyTheSessionIsRenewedWhereTheBridgeLives(t *testing.T) {
	s := newSwarm(t)
	b := s.bridge("bridge")
	s.silent = true
	p := open(t, startBrowser(t), b.link())
	s.session()
	s.mu.Lock()
	s.silent = false
	s.mu.Unlock()
	begun := time.Now()
	d := s.session()
	t.Logf("a coordinator that says nothing was left after %v", time.Since(begun))
	d.conn.Close("the coordinator's role moves on", true)
	d = s.session()
	d.lease(t, 1, s.spec("programs/upper.wasm"), 0, lines(0, 5)...)
	checkUpper(t, d.take(t, 5, true), 0, 5)
	p.until("the page is ready", func() bool { return p.text("headline") == "Ready" })
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.offers != 1 {
		t.Errorf("%d connections, want 1 for all sessions", s.offers)
	}
}

func TestARemovedDeviceComesBackOnlyAsAnother(t *testing.T) {
	s := newSwarm(t)
	b := s.bridge("bridge")
	p := open(t, startBrowser(t), b.link())
	d := s.session()
	s.mu.Lock()
	s.removed[wire.DeviceID(d.hello.GetDeviceId())] = true
	s.mu.Unlock()
	d.conn.Close("this device was removed from the swarm", false)
	p.until("the page says so", func() bool { return strings.Contains(p.text("detail"), "was removed") })
	p.typeCode("ABCDE-FGHJK")
	if again := s.session(); again.hello.GetDeviceId() == d.hello.GetDeviceId() {
		t.Error("the removed device was tried again")
	}
}

func TestTheDeathOfItsBridgeSendsAPageToAnother(t *testing.T) {
	s := newSwarm(t)
	first, second := s.bridge("first"), s.bridge("second")
	p := open(t, startBrowser(t), first.link())
	p.loses.Store(true)
	d := s.session()
	spec := s.spec("programs/upper.wasm")
	d.lease(t, 1, spec, 0, lines(0, 10)...)
	d.take(t, 10, false)
	p.until("the page is connected", func() bool { return p.text("headline") == "Ready" })
	first.server.CloseClientConnections()
	first.server.Listener.Close()
	first.Bridge.Close()
	again := s.session()
	if len(again.hello.GetLeases()) != 1 {
		t.Errorf("claims %v", again.hello.GetLeases())
	}
	again.take(t, 10, true)
	host := strings.TrimPrefix(second.url, "http://")
	p.until("the page is connected through the other", func() bool { return strings.Contains(p.text("detail"), host) })
	// Workers are started anew, though nobody serves their script any more.
	loop := s.spec("testdata/loop.wasm")
	loop.TimeoutMs = 100
	slots := int(d.hello.GetSlots())
	again.lease(t, 2, loop, 100, lines(0, 3*slots)...)
	again.take(t, 3*slots, true)
	again.lease(t, 3, spec, 200, lines(200, 5)...)
	checkUpper(t, again.take(t, 5, true), 200, 5)
}

func TestATaskThatIsCancelledOrOverItsTimeGivesItsSlotBack(t *testing.T) {
	s := newSwarm(t)
	b := s.bridge("bridge")
	open(t, startBrowser(t), b.link())
	d := s.session()
	loop := s.spec("testdata/loop.wasm")
	slots := int(d.hello.GetSlots())
	d.lease(t, 1, loop, 0, lines(0, slots)...)
	d.conn.Post(&wire.Frame{Kind: &wire.Frame_CancelTasks{CancelTasks: &wire.CancelTasks{JobId: "job", Attempt: &wire.Attempt{Term: 1, Counter: 1}}}})
	loop.TimeoutMs = 300
	d.lease(t, 2, loop, 100, lines(100, slots)...)
	for index, r := range d.take(t, slots, true) {
		if index < 100 || r.GetFailure() != wire.FailureKind_FAILURE_KIND_TIMEOUT || !strings.Contains(r.GetError(), "longer than its bound of 300ms") {
			t.Errorf("task %d: %v", index, r)
		}
	}
	upper := s.spec("programs/upper.wasm")
	d.lease(t, 3, upper, 200, lines(200, 5)...)
	checkUpper(t, d.take(t, 5, true), 200, 5)
}

func TestLargeInputsAndOutputsGoThroughPages(t *testing.T) {
	s := newSwarm(t)
	b := s.bridge("bridge")
	open(t, startBrowser(t), b.link())
	d := s.session()
	large := bytes.Repeat([]byte("many a line of a large input\n"), 100_000)
	d.lease(t, 1, s.spec("programs/cat.wasm"), 0, &wire.LeasedInput{Blob: s.store(large)}, &wire.LeasedInput{Inline: []byte("small")})
	got := d.take(t, 2, true)
	if string(got[1].GetOutput()) != "small" {
		t.Errorf("the small one: %v", got[1])
	}
	if blob := got[0].GetOutputBlob(); blob.GetSize() != uint64(len(large)) || !bytes.Equal(s.load(blob), large) {
		t.Errorf("the large one: %.300v", got[0])
	}
}

func TestAReloadKeepsTheDeviceAndItsPrograms(t *testing.T) {
	s := newSwarm(t)
	b := s.bridge("bridge")
	p := open(t, startBrowser(t), b.link())
	d := s.session()
	d.lease(t, 1, s.spec("programs/upper.wasm"), 0, lines(0, 1)...)
	d.take(t, 1, true)
	reads := s.reads
	begun := time.Now()
	p.navigate(b.url + "/join")
	if err := d.end(t); !errors.Is(err, session.ErrGoodbye) {
		t.Errorf("the page that went ended its session with %v, want a goodbye", err)
	}
	t.Logf("the goodbye took %v at the most", time.Since(begun))
	again := s.session()
	if again.hello.GetDeviceId() != d.hello.GetDeviceId() {
		t.Error("a reload made another device")
	}
	if len(s.joins) != 1 {
		t.Errorf("%d joins, want 1", len(s.joins))
	}
	if len(again.hello.GetPrograms()) != 1 {
		t.Errorf("the page names %d programs, want 1", len(again.hello.GetPrograms()))
	}
	again.lease(t, 2, s.spec("programs/upper.wasm"), 1, lines(1, 1)...)
	checkUpper(t, again.take(t, 1, true), 1, 1)
	if s.reads != reads {
		t.Error("the program was fetched a second time")
	}
}

func TestTwoTabsAreTwoDevices(t *testing.T) {
	s := newSwarm(t)
	b := s.bridge("bridge")
	browser := startBrowser(t)
	open(t, browser, b.link())
	one := s.session()
	second := open(t, browser, b.link())
	two := s.session()
	if one.hello.GetDeviceId() == two.hello.GetDeviceId() {
		t.Error("both tabs are one device")
	}
	second.close()
	if err := two.end(t); !errors.Is(err, session.ErrGoodbye) {
		t.Errorf("a closed tab ended its session with %v, want a goodbye", err)
	}
	open(t, browser, b.link())
	if three := s.session(); three.hello.GetDeviceId() != two.hello.GetDeviceId() {
		t.Error("the second tab is not the device that it was before")
	}
}

func TestAPersonCanPauseLimitNameAndLeave(t *testing.T) {
	s := newSwarm(t)
	b := s.bridge("bridge")
	p := open(t, startBrowser(t), b.link())
	d := s.session()
	click := func(id string) { eval[bool](p, `(document.getElementById($0).click(), true)`, id) }
	d.lease(t, 1, s.spec("testdata/loop.wasm"), 0, lines(0, 1)...)
	p.until("the task runs", func() bool { return p.text("headline") == "Computing" })

	click("pause")
	paused := s.session()
	if paused.hello.GetSlots() != 0 || len(paused.hello.GetLeases()) != 0 {
		t.Errorf("paused, the page offers %d slots and claims %v", paused.hello.GetSlots(), paused.hello.GetLeases())
	}
	p.until("the page says so", func() bool { return p.text("headline") == "Paused" })
	click("pause")
	on := s.session()
	if on.hello.GetSlots() != d.hello.GetSlots() {
		t.Errorf("%d slots after a pause, %d before", on.hello.GetSlots(), d.hello.GetSlots())
	}
	p.until("the page is ready", func() bool { return p.text("headline") == "Ready" })

	eval[bool](p, `(document.getElementById("name").value = "Ada's phone", document.getElementById("name").dispatchEvent(new Event("change")), true)`)
	if named := s.session(); named.hello.GetProfile().GetName() != "Ada's phone" {
		t.Errorf("the page calls itself %q", named.hello.GetProfile().GetName())
	}
	p.until("the page is ready", func() bool { return p.text("headline") == "Ready" })

	click("leave")
	p.until("the page says that it left", func() bool { return p.text("headline") == "You have left" })
	p.navigate(b.url + "/join")
	p.until("it stays so after a reload", func() bool { return p.text("headline") == "You have left" })
	click("rejoin")
	if back := s.session(); back.hello.GetDeviceId() != d.hello.GetDeviceId() {
		t.Error("it came back as another device")
	}
}
