package web_test

import (
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/ostrich-legs/ostrich/browserbridge/web"
)

func get(t *testing.T, path string, header ...string) *http.Response {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, path, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	web.Pages().ServeHTTP(w, r)
	return w.Result()
}

func body(t *testing.T, r *http.Response) string {
	t.Helper()
	var b strings.Builder
	if err := r.Write(&b); err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(b.String(), "\r\n\r\n")
	return text
}

// What a phone loads to join: the page, its script and style, its workers.
func TestJoiningTransfersLittle(t *testing.T) {
	total := 0
	page := body(t, get(t, "/join"))
	parts := append(regexp.MustCompile(`/web/[^"]+`).FindAllString(page, -1), "/join")
	if len(parts) < 6 {
		t.Fatalf("the page names %v", parts)
	}
	for _, part := range parts {
		r := get(t, part, "Accept-Encoding", "gzip")
		if r.StatusCode != http.StatusOK || r.Header.Get("Content-Encoding") != "gzip" {
			t.Fatalf("%s: %s, encoding %q", part, r.Status, r.Header.Get("Content-Encoding"))
		}
		total += len(body(t, r))
		wantCache := "public, max-age=31536000, immutable"
		if part == "/join" {
			wantCache = "no-cache"
		}
		if got := r.Header.Get("Cache-Control"); got != wantCache {
			t.Errorf("%s may be kept %q, want %q", part, got, wantCache)
		}
	}
	if total > 200_000 {
		t.Errorf("joining transfers %d bytes, more than 200,000", total)
	}
	t.Logf("joining transfers %d bytes", total)
}

func TestPagesAreServedWithTheirHeaders(t *testing.T) {
	for _, c := range []struct {
		path   string
		status int
		kind   string
	}{
		{"/", http.StatusFound, "text/html; charset=utf-8"},
		{"/join", http.StatusOK, "text/html; charset=utf-8"},
		{"/web/join.js", http.StatusOK, "text/javascript; charset=utf-8"},
		{"/web/join.css", http.StatusOK, "text/css; charset=utf-8"},
		{"/favicon.ico", http.StatusOK, "image/svg+xml"},
		{"/web/", http.StatusNotFound, "text/plain; charset=utf-8"},
		{"/web/../web.go", http.StatusNotFound, "text/plain; charset=utf-8"},
		{"/join.js", http.StatusNotFound, "text/plain; charset=utf-8"},
	} {
		r := get(t, c.path)
		if r.StatusCode != c.status || r.Header.Get("Content-Type") != c.kind {
			t.Errorf("%s: %s, %q; want %d, %q", c.path, r.Status, r.Header.Get("Content-Type"), c.status, c.kind)
		}
		policy := r.Header.Get("Content-Security-Policy")
		if c.status == http.StatusOK && (!strings.HasPrefix(policy, "default-src 'self'") || strings.Contains(policy, "unsafe-inline") || strings.Contains(policy, "'unsafe-eval'")) {
			t.Errorf("%s has the policy %q", c.path, policy)
		}
	}
	r := get(t, "/join")
	if again := get(t, "/join", "If-None-Match", r.Header.Get("ETag")); again.StatusCode != http.StatusNotModified {
		t.Errorf("an unchanged page is sent again: %s", again.Status)
	}
}
