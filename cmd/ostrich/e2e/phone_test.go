package e2e

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// phone is a Chromium, on a machine of a LAN or on this one, with one page open.
type phone struct {
	t       *testing.T
	browser context.Context
}

// phone starts a Chromium in a machine's namespace. It is spoken to through a
// pipe, since its loopback is another one.
func (l *lan) phone(machine int) *phone {
	l.t.Helper()
	nsenter, err := exec.LookPath("nsenter")
	if err != nil {
		skipNamespace(l.t, err.Error())
	}
	return newPhone(l.t, chromedp.ModifyCmdFunc(func(cmd *exec.Cmd) {
		cmd.Args = append([]string{nsenter, "--net=/run/netns/" + l.machine(machine), cmd.Path}, cmd.Args[1:]...)
		cmd.Path = nsenter
	}))
}

// newPhone starts a Chromium.
func newPhone(t *testing.T, more ...chromedp.ExecAllocatorOption) *phone {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(chromium(t)), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.UserDataDir(folder(t)),
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true))
	allocator, cancel := chromedp.NewExecAllocator(t.Context(), append(options, more...)...)
	t.Cleanup(cancel)
	browser, cancel := chromedp.NewContext(allocator)
	t.Cleanup(cancel)
	if err := chromedp.Do(browser); err != nil {
		t.Fatalf("starting Chromium: %v", err)
	}
	return &phone{t, browser}
}

// chromium is the path of a browser. Where there is none the test is skipped,
// save in CI.
func chromium(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	if os.Getenv("CI") != "" {
		t.Fatal("there is no Chromium: .ci/run installs it")
	}
	t.Skip("SKIPPED: there is no Chromium here, so that a browser computes is NOT proven by this run; apt-get install chromium")
	return ""
}

func (p *phone) open(link string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.browser, commandTime)
	defer cancel()
	if err := chromedp.Do(ctx, chromedp.Navigate(link)); err != nil {
		p.t.Fatalf("opening %s: %v", link, err)
	}
}

// says returns the text of an element of the page.
func (p *phone) says(id string) string {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.browser, commandTime)
	defer cancel()
	text, err := chromedp.Run(ctx, chromedp.Evaluate[string](fmt.Sprintf("document.getElementById(%q).innerText", id)))
	if err != nil {
		p.t.Fatal(err)
	}
	return text
}

// connected waits until the page is connected, through another bridge than
// before if that is not "", and returns how it says that it is.
func (p *phone) connected(before string) (now string) {
	p.t.Helper()
	eventually(p.t, patience, "the page is connected, and not as in: "+before, func() bool {
		now = p.says("detail")
		return strings.HasPrefix(now, "Connected") && now != before
	})
	return now
}

// link makes an invite and returns its link.
func (n *node) link() string {
	n.t.Helper()
	var made struct {
		Link string `json:"link"`
	}
	n.read(&made, "invite")
	return made.Link
}

// browsers are the browsers among the devices.
func (n *node) browsers() []device {
	n.t.Helper()
	var all []device
	n.read(&all, "devices")
	return slices.DeleteFunc(all, func(d device) bool { return d.Type != "BROWSER" })
}

// spinInBrowsers begins a map of some seconds over browsers. The result is
// checked by the function that it returns, which also waits for its end.
func (n *node) spinInBrowsers() (finish func()) {
	n.t.Helper()
	const tasks = 150
	r := n.begin("map", "builtin:spin", "--range", fmt.Sprintf("1..%d", tasks), "--require", "browser", "--", "5000")
	_ = r.stdin.Close()
	lines := make(chan int, 1)
	go func() {
		out := &text{}
		_, _ = io.Copy(out, r.stdout)
		lines <- strings.Count(out.String(), "\n")
	}()
	return func() {
		n.t.Helper()
		if got := <-lines; got != tasks {
			n.t.Errorf("%d outputs, want %d", got, tasks)
		}
		r.await(0)
	}
}

// A phone joins by a link that names an address of the LAN, over plain http, and
// goes on computing when its bridge dies and when it gets another address. What
// it holds when it vanishes goes to others.
func TestAPhoneOnALANOutlivesItsBridgeAndItsAddress(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes half a minute")
	}
	l := newLAN(t, 4)
	l.address(itself, "10.79.3")
	nodes := l.members("10.79.3", itself, 3)
	p := l.phone(itself)
	link := nodes[1].link()
	if u, err := url.Parse(link); err != nil || u.Hostname() != "10.79.3.12" {
		t.Fatalf("the link of an invite is %s (%v), want the machine's address on the LAN in it", link, err)
	}
	began := time.Now()
	p.open(link)
	how := p.connected("")
	t.Logf("connected %v after the click: %s", time.Since(began), how)

	p.losesTheCoordinator(l, nodes)
	on := p.losesItsBridge(nodes)
	p.moves(l, on)
	if all := on.browsers(); len(all) != 1 || all[0].TotalTasksCompleted != 300 {
		t.Errorf("the browsers are %+v, want one, which has done all tasks", all)
	}
	p.vanishes(l, on)
}

// itself is the phone's machine on the LAN.
const itself = 3

// losesTheCoordinator cuts off the coordinator, in silence, while the phone has
// nothing to do and so little reason to miss it.
func (p *phone) losesTheCoordinator(l *lan, nodes []*node) {
	p.t.Helper()
	old, _ := coordinator(p.t, nodes)
	at := slices.Index(nodes, old)
	how := p.connected("")
	l.ip("-n", l.machine(at), "link", "set", "eth0", "down")
	began := time.Now()
	now := p.connected(how)
	p.t.Logf("connected again %v after the coordinator was cut off: %s", time.Since(began), now)
	l.ip("-n", l.machine(at), "link", "set", "eth0", "up")
	nodes[0].voters(3)
	nodes[0].online(4)
}

// losesItsBridge kills the phone's bridge under a map through another node, which
// it returns.
func (p *phone) losesItsBridge(nodes []*node) (on *node) {
	p.t.Helper()
	on = nodes[2]
	finish := on.spinInBrowsers()
	eventually(p.t, patience, "the phone computes", func() bool { return p.says("done") != "0" })
	how := p.connected("")
	at := slices.IndexFunc(nodes, func(n *node) bool {
		host, _ := url.Parse(n.status().Addresses.Public)
		return strings.Contains(how, host.Host)
	})
	if at < 0 || nodes[at] == on {
		p.t.Fatalf("%s: that is none of the nodes that may be killed", how)
	}
	began := time.Now()
	nodes[at].kill()
	how = p.connected(how)
	p.t.Logf("connected again %v after the death of its bridge: %s", time.Since(began), how)
	finish()
	return on
}

// moves gives the phone another address under a map.
func (p *phone) moves(l *lan, on *node) {
	p.t.Helper()
	finish := on.spinInBrowsers()
	l.ip("-n", l.machine(itself), "addr", "flush", "dev", "eth0", "scope", "global")
	eventually(p.t, patience, "the phone is missed", func() bool { return p.says("headline") == "Not connected" })
	l.ip("-n", l.machine(itself), "addr", "add", "10.79.3.99/24", "dev", "eth0")
	began := time.Now()
	how := p.connected("")
	p.t.Logf("connected again %v after it got another address: %s", time.Since(began), how)
	finish()
}

// vanishes takes the phone away, without a word, under a map that others share.
func (p *phone) vanishes(l *lan, on *node) {
	p.t.Helper()
	const tasks = 60
	r := on.begin("map", "builtin:spin", "--range", fmt.Sprintf("1..%d", tasks), "--", "5000")
	_ = r.stdin.Close()
	eventually(p.t, patience, "the phone takes part", func() bool { return p.says("busy") != "0" })
	l.ip("-n", l.machine(itself), "link", "set", "eth0", "down")
	began := time.Now()
	out := &text{}
	_, _ = io.Copy(out, r.stdout)
	r.await(0)
	p.t.Logf("a map that it took part in ended %v after it vanished", time.Since(began))
	if got := strings.Count(out.String(), "\n"); got != tasks {
		p.t.Errorf("%d outputs, want %d", got, tasks)
	}
}
