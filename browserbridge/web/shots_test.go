package web_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// screen is how a page is looked at.
type screen struct {
	name          string
	width, height int64
	scheme        string
}

var screens = []screen{
	{"desk", 1280, 900, "light"},
	{"desk-dark", 1280, 900, "dark"},
	{"phone", 360, 740, "light"},
	{"phone-dark", 360, 740, "dark"},
}

// look shows the tab on a screen, and checks that nothing lies beyond its side.
// Where OSTRICH_ARTEFACTS names a folder, the picture is kept there.
func (p *tab) look(name string, s screen) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	scheme := chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: s.scheme}},
		})
		return err
	})
	if err := chromedp.Do(ctx, chromedp.EmulateViewport(s.width, s.height, chromedp.EmulateScale(2)), scheme); err != nil {
		p.t.Fatal(err)
	}
	if over := eval[int](p, `document.documentElement.scrollWidth - document.documentElement.clientWidth`); over > 0 {
		p.t.Errorf("%s on %s: the page is %d px wider than its window", name, s.name, over)
	}
	small := eval[[]string](p, `[...document.querySelectorAll("button, input")].filter((e) => e.offsetParent && e.type !== "range" && e.offsetHeight < 40).map((e) => e.id)`)
	if len(small) > 0 {
		p.t.Errorf("%s on %s: too low for a finger: %v", name, s.name, small)
	}
	folder := os.Getenv("OSTRICH_ARTEFACTS")
	if folder == "" {
		return
	}
	picture, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
	if err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, name+"-"+s.name+".png"), picture, 0o644); err != nil {
		p.t.Fatal(err)
	}
}

func TestThePageFitsDesksAndPhones(t *testing.T) {
	s := newSwarm(t)
	b := s.bridge("bridge")
	browser := startBrowser(t)
	p := open(t, browser, b.link())
	d := s.session()
	d.lease(t, 1, s.spec("programs/upper.wasm"), 0, lines(0, 1234)...)
	d.take(t, 1234, true)
	d.lease(t, 2, s.spec("testdata/loop.wasm"), 2000, lines(0, 40)...)
	p.until("a task runs", func() bool { return strings.Contains(p.text("running"), "loop.wasm") })
	eval[bool](p, `(document.querySelector("details").open = true)`)
	for _, screen := range screens {
		p.look("computing", screen)
	}
	uninvited := open(t, browser, b.url+"/join")
	uninvited.until("the page asks for an invite", func() bool { return uninvited.text("headline") == "Join a swarm" })
	for _, screen := range screens {
		uninvited.look("uninvited", screen)
	}
}
