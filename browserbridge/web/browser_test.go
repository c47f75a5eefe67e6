package web_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/ostrich-legs/ostrich/browserbridge"
	"github.com/ostrich-legs/ostrich/browserbridge/web"
	"github.com/ostrich-legs/ostrich/node/sandbox"
)

// The tests compare with what native devices do: their children are this binary.
func TestMain(m *testing.M) {
	if sandbox.IsChild() {
		os.Exit(sandbox.ChildMain(os.Args, os.Stdin, os.Stdout))
	}
	if browserbridge.IsChild() {
		os.Exit(browserbridge.ChildMain(os.Stdin, os.Stdout))
	}
	os.Exit(m.Run())
}

// patience bounds every wait in a browser: the machines that run tests are slow.
const patience = 60 * time.Second

// startBrowser starts Chromium, with a fresh profile, for one test. Where there
// is none the test is skipped, save in CI.
func startBrowser(t testing.TB, flags ...chromedp.ExecAllocatorOption) context.Context {
	t.Helper()
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" {
		if os.Getenv("CI") != "" {
			t.Fatal("there is no Chromium: .ci/run installs it")
		}
		t.Skip("SKIPPED: there is no Chromium here, so that the page works in a browser is NOT proven by this run; apt-get install chromium")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true), chromedp.WSURLReadTimeout(patience),
	)
	allocator, cancel := chromedp.NewExecAllocator(t.Context(), append(options, flags...)...)
	t.Cleanup(cancel)
	browser, cancel := chromedp.NewContext(allocator)
	t.Cleanup(cancel)
	if err := chromedp.Do(browser); err != nil {
		t.Fatalf("starting Chromium: %v", err)
	}
	return browser
}

// tab is an open page, which must not complain on its console.
type tab struct {
	t   testing.TB
	ctx context.Context
	// close closes the tab.
	close func()
	// loses is set where bridges die: what cannot be reached stands on the
	// console, whatever the page does.
	loses atomic.Bool
}

// open opens a page in a new tab.
func open(t testing.TB, browser context.Context, url string) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(browser)
	messages := chromedp.Console(ctx)
	p := &tab{t: t, ctx: ctx}
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		for m, err := range messages {
			if err != nil {
				return
			}
			if p.loses.Load() && m.Source == "network" && strings.Contains(m.Text, "net::ERR_") {
				continue
			}
			if m.IsException() || m.Type == "error" || m.Type == "warning" {
				t.Errorf("the console of %s: %s (%s:%d)", url, m, m.URL, m.Line)
			}
		}
	}()
	p.close = func() { cancel(); <-watched }
	t.Cleanup(p.close)
	p.navigate(url)
	return p
}

func (p *tab) navigate(url string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, chromedp.Navigate(url)); err != nil {
		p.t.Fatalf("opening %s: %v", url, err)
	}
}

// eval returns what an expression, or the promise it gives, comes to. $0, $1 …
// in it stand for args.
func eval[T any](p *tab, expression string, args ...any) T {
	p.t.Helper()
	for i, a := range args {
		b, err := json.Marshal(a)
		if err != nil {
			p.t.Fatal(err)
		}
		expression = strings.ReplaceAll(expression, fmt.Sprintf("$%d", i), string(b))
	}
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		p.t.Fatalf("%.200s: %v", expression, err)
	}
	return v
}

// text returns what an element says.
func (p *tab) text(id string) string {
	p.t.Helper()
	return strings.TrimSpace(eval[string](p, `document.getElementById($0).innerText`, id))
}

// typeCode types a short code and sends it off.
func (p *tab) typeCode(code string) {
	p.t.Helper()
	eval[bool](p, `(document.getElementById("code").value = $0, document.getElementById("code-form").requestSubmit(), true)`, code)
}

// until waits until a condition holds, and says what the page shows if it never
// does.
func (p *tab) until(what string, holds func() bool) {
	p.t.Helper()
	deadline := time.Now().Add(patience)
	for !holds() {
		if time.Now().After(deadline) {
			p.t.Fatalf("not within %v: %s; the page says %q and logs %q", patience, what,
				p.text("headline")+" "+p.text("detail"), eval[string](p, `document.getElementById("log").textContent`))
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// partsPage serves the pages, the programs of the sandbox and its tests, and a
// page of no content that has the parts of the join page in its reach.
func partsPage(t testing.TB) string {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle("/", web.Pages())
	mux.Handle("GET /sandbox/", http.StripPrefix("/sandbox/", http.FileServer(http.Dir("../../node/sandbox"))))
	mux.HandleFunc("GET /parts.js", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, "testdata/parts.js") })
	mux.HandleFunc("GET /parts", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, `<!doctype html><link rel="icon" href="/favicon.ico"><script src="/parts.js"></script>`)
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.URL
}
