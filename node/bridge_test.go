package node_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ostrich-legs/ostrich/browserbridge/gobrowser"
	"github.com/ostrich-legs/ostrich/node/control"
	"github.com/ostrich-legs/ostrich/node/session"
	"github.com/ostrich-legs/ostrich/p2p"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// page is a browser with a session.
type page struct {
	*gobrowser.Browser
	conn    *session.Conn
	welcome *wire.Welcome
	ended   <-chan error
}

// openPage connects a browser with the node's bridge; invite is a link, or "".
func openPage(t *testing.T, url, invite string, key ed25519.PrivateKey) (*page, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	c := gobrowser.Config{URL: url, Key: key}
	if invite != "" {
		parsed, err := p2p.ParseInvite(invite)
		if err != nil {
			t.Fatal(err)
		}
		c.Invite = parsed.Key()
	}
	browser, err := gobrowser.Connect(ctx, c)
	if err != nil {
		return nil, err
	}
	t.Cleanup(browser.Close)
	p := &page{Browser: browser}
	return p, p.session(t, key)
}

// session opens the page's next session.
func (p *page) session(t *testing.T, key ed25519.PrivateKey) error {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	channel, err := p.Open(ctx)
	if err != nil {
		return err
	}
	challenge, err := gobrowser.Config{URL: p.Bridges[0]}.Challenge(ctx)
	if err != nil {
		return err
	}
	id := session.Identity{ID: wire.NewDeviceID(key.Public().(ed25519.PublicKey)), Key: key}
	hello := &wire.Hello{SwarmId: challenge.GetSwarmId(), Generation: 1, Profile: gobrowser.Profile("a browser in Go")}
	p.conn, p.welcome, err = session.Dial(ctx, channel, id, hello, func(wire.DeviceID) error { return nil })
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() {
		ended <- p.conn.Run(context.Background(), session.Handler{Frame: func(*wire.Frame) error { return nil }})
	}()
	p.ended = ended
	t.Cleanup(func() { p.conn.Close("the test is over", false) })
	return nil
}

func newKey(t *testing.T) ed25519.PrivateKey {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// link makes an invite through the node and returns it as it was answered.
func (n *testNode) link(t *testing.T, r *wire.CreateInviteRequest) *wire.Invite {
	t.Helper()
	out, err := control.Call(t.Context(), n.client.CreateInvite, r)
	if err != nil {
		t.Fatal(err)
	}
	return out.GetInvite()
}

func TestABrowserJoinsByLinkAndComesBackWithoutOne(t *testing.T) {
	n := start(t, filepath.Join(t.TempDir(), "a"), "")
	url := n.status(t).GetPublicAddress()
	invite := n.link(t, &wire.CreateInviteRequest{Role: wire.Role_ROLE_ADMIN})
	key := newKey(t)
	p, err := openPage(t, url, invite.GetLink(), key)
	if err != nil {
		t.Fatal(err)
	}
	if p.welcome.GetRole() != wire.Role_ROLE_WORKER {
		t.Errorf("by an admin's invite a browser is %v, want a worker", p.welcome.GetRole())
	}
	if got := n.devices(t); !slices.Contains(got, "a browser in Go") {
		t.Errorf("the devices are %v, without the browser", got)
	}
	p.conn.Close("done", false)
	if _, err := openPage(t, url, "", key); err != nil {
		t.Errorf("the same device, without an invite: %v", err)
	}
	if _, err := openPage(t, url, invite.GetLink(), newKey(t)); wire.CodeOf(err) != wire.Code_CODE_DENIED {
		t.Errorf("a used-up invite: got %v, want CODE_DENIED", err)
	}
	worker := n.link(t, &wire.CreateInviteRequest{Role: wire.Role_ROLE_WORKER})
	if _, err := control.Call(t.Context(), n.client.RevokeInvite, &wire.RevokeInviteRequest{InviteId: worker.GetId()}); err != nil {
		t.Fatal(err)
	}
	_, err = openPage(t, url, worker.GetLink(), newKey(t))
	var refused *gobrowser.Refused
	if !errors.As(err, &refused) || refused.Status != http.StatusOK || wire.CodeOf(err) != wire.Code_CODE_DENIED {
		t.Errorf("a revoked invite: got %v, want a refusal that a page can show", err)
	}
}

func TestABrowserKeepsItsConnectionWhenTheCoordinatorDies(t *testing.T) {
	dir := t.TempDir()
	a := start(t, filepath.Join(dir, "a"), "")
	b := start(t, filepath.Join(dir, "b"), a.invite(t, wire.Role_ROLE_MEMBER))
	c := start(t, filepath.Join(dir, "c"), a.invite(t, wire.Role_ROLE_MEMBER))
	eventually(t, "three vote", func() bool { return len(a.status(t).GetView().GetVoters()) == 3 })
	link := a.link(t, &wire.CreateInviteRequest{Role: wire.Role_ROLE_WORKER}).GetLink()
	key := newKey(t)
	p, err := openPage(t, b.status(t).GetPublicAddress(), link, key)
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Bridges) != 3 {
		t.Errorf("the page learns of the bridges %v, want three", p.Bridges)
	}
	a.stop()
	select {
	case <-p.ended:
	case <-time.After(20 * time.Second):
		t.Fatal("the session with a coordinator that is gone goes on")
	}
	eventually(t, "the next session opens on the same connection", func() bool { return p.session(t, key) == nil })
	if got := c.status(t).GetView().GetCoordinator(); wire.DeviceID(got) != p.conn.Remote() {
		t.Errorf("the page's coordinator is %s, the swarm's %s", p.conn.Remote(), got)
	}
}

func TestThePublicListenerKnowsItsVisitors(t *testing.T) {
	dir := t.TempDir()
	n := start(t, filepath.Join(dir, "a"), "")
	w := start(t, filepath.Join(dir, "w"), n.invite(t, wire.Role_ROLE_WORKER))
	url, worker := n.status(t).GetPublicAddress(), w.status(t).GetPublicAddress()
	for _, tt := range []struct {
		what, method, url string
		header            map[string]string
		status            int
	}{
		{"the page", "GET", url + "/join", nil, 200},
		{"a followed link", "GET", url + "/join", map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 200},
		{"the page, inside another site's", "GET", url + "/join", map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}, 403},
		{"the icon", "GET", url + "/favicon.ico", nil, 200},
		{"a challenge for any origin", "GET", url + "/signal", map[string]string{"Origin": "http://192.168.1.7:7777", "Sec-Fetch-Site": "cross-site"}, 200},
		{"a preflight", "OPTIONS", url + "/signal", map[string]string{"Origin": "http://192.168.1.7:7777"}, 204},
		{"a name that is not ours", "GET", url + "/signal", map[string]string{"Host": "evil.example"}, 421},
		{"a page that is not there", "GET", url + "/web/none.js", nil, 404},
		{"a worker's page", "GET", worker + "/join", nil, 404},
		{"a worker's signalling", "GET", worker + "/signal", nil, 404},
	} {
		r, err := http.NewRequestWithContext(t.Context(), tt.method, tt.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		for k, v := range tt.header {
			r.Header.Set(k, v)
		}
		r.Host = tt.header["Host"]
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, response.Body)
		response.Body.Close()
		if response.StatusCode != tt.status {
			t.Errorf("%s: status %d, want %d", tt.what, response.StatusCode, tt.status)
		}
		if policy := response.Header.Get("Content-Security-Policy"); !strings.HasPrefix(policy, "default-src ") || strings.Contains(policy, "unsafe-inline") {
			t.Errorf("%s: the policy is %q", tt.what, policy)
		}
	}
}
