// Package web is the page by which a browser becomes a device: it joins the
// swarm by a link or a short code, computes in Web Workers, and shows what it
// does. Its sources are the TypeScript in src; what is served is the bundle in
// dist, which build.sh makes of them.
//
//	join.js    the page: identity, invite, link, session, holdings, view
//	slot.js    a worker for each slot: WASI, one task after the other
//	clock.js   a worker that tells the time to pages in the background
//
// It leaves to browserbridge the signalling and the channels that the page
// talks over, and to the node's public listener, its only caller, who may call.
package web

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"strings"
)

//go:generate sh build.sh

//go:embed dist
var dist embed.FS

// policy lets the page load its own parts, compile WebAssembly, and ask other
// bridges by their /signal, wherever they are; nothing else.
const policy = "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; connect-src 'self' http: https:; " +
	"object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// pageName is the page itself, which alone has no version in its address.
const pageName = "join.html"

// asset is a file as it is sent.
type asset struct {
	kind         string
	version      string // of its contents
	plain, small []byte // small is gzip's
}

// Pages returns the handler of the join page and of all that belongs to it: GET
// and HEAD of /, /join, /favicon.ico and /web/…, and 404 for everything else. It
// sets the headers of security and caching itself. It holds the files in memory,
// compressed, and may be called by many goroutines.
func Pages() http.Handler {
	assets := load()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := ""
		switch r.URL.Path {
		case "/":
			http.Redirect(w, r, "/join", http.StatusFound)
			return
		case "/join":
			name = pageName
		case "/favicon.ico":
			name = "icon.svg"
		default:
			name, _ = strings.CutPrefix(r.URL.Path, "/web/")
		}
		a, ok := assets[name]
		if !ok {
			http.NotFound(w, r)
			return
		}
		a.serve(w, r)
	})
}

// load reads the embedded files. That they are there is known when the program
// is built. The page names its parts with their versions: so the browser may keep
// them for ever, and a page whose bridge has died can still start workers.
func load() map[string]asset {
	files, err := fs.Glob(dist, "dist/*")
	if err != nil {
		panic(fmt.Sprintf("the embedded pages: %v", err))
	}
	assets := make(map[string]asset)
	page := read("dist/" + pageName)
	for _, file := range files {
		if name := path.Base(file); name != pageName {
			a := newAsset(file, read(file))
			assets[name] = a
			page = bytes.ReplaceAll(page, []byte(`"/web/`+name+`"`), []byte(`"/web/`+name+`?`+a.version+`"`))
		}
	}
	assets[pageName] = newAsset(pageName, page)
	return assets
}

func read(file string) []byte {
	b, err := dist.ReadFile(file)
	if err != nil {
		panic(fmt.Sprintf("the embedded pages: %v", err))
	}
	return b
}

func newAsset(file string, plain []byte) asset {
	sum := sha256.Sum256(plain)
	return asset{kind: kindOf(file), version: hex.EncodeToString(sum[:8]), plain: plain, small: compress(plain)}
}

func kindOf(file string) string {
	switch path.Ext(file) {
	case ".html":
		return "text/html; charset=utf-8"
	case ".js":
		return "text/javascript; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	default:
		return "image/svg+xml"
	}
}

func compress(b []byte) []byte {
	var buf bytes.Buffer
	z, _ := gzip.NewWriterLevel(&buf, gzip.BestCompression) // the level is a valid one
	_, _ = z.Write(b)                                       // a buffer takes everything
	_ = z.Close()
	return buf.Bytes()
}

func (a asset) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("Content-Type", a.kind)
	h.Set("Cache-Control", "no-cache")
	if r.URL.RawQuery == a.version {
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	tag := `"` + a.version + `"`
	h.Set("ETag", tag)
	h.Set("Vary", "Accept-Encoding")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	if r.Header.Get("If-None-Match") == tag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	body := a.plain
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		h.Set("Content-Encoding", "gzip")
		body = a.small
	}
	h.Set("Content-Length", fmt.Sprint(len(body)))
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // who has gone needs no answer
	}
}
