package control

import (
	"crypto/subtle"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
	"github.com/ostrich-legs/ostrich/p2p/wire/wireconnect"
)

const (
	// maxBody bounds a request, uploads apart: section 11 of the design.
	maxBody = 1 << 20
	// maxUpload bounds an upload: the largest input with the few bytes that
	// frame each part.
	maxUpload = wire.MaxBlob + wire.MaxBlob/1024
	// bodyTime bounds the time in which a request arrives, uploads apart.
	bodyTime = 30 * time.Second
)

// door is one of the two listeners, as the guard sees it.
type door struct {
	// hosts returns the names by which the listener may be called.
	hosts func() []string
	// port must be in Host; "" accepts any.
	port string
	// token must be presented; "" with open unset refuses every call.
	token string
	// open asks for no token: the socket's file mode has done so.
	open bool
}

// guard lets through to next what comes to the right host (421), from no
// foreign page (403), with the token (401), and bounds its body.
func (d door) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		switch {
		case !d.hostAllowed(r.Host):
			http.Error(w, "this node is not known by that name", http.StatusMisdirectedRequest)
		case !sameSite(r):
			http.Error(w, "requests of other sites are refused", http.StatusForbidden)
		case !d.authorized(r):
			h.Set("WWW-Authenticate", "Bearer")
			http.Error(w, "say Authorization: Bearer, with the token in control.token of the node's data folder", http.StatusUnauthorized)
		default:
			bounded(w, r)
			next.ServeHTTP(w, r)
		}
	})
}

// hostAllowed keeps pages away whose own name was pointed at this address.
func (d door) hostAllowed(hostPort string) bool {
	host, port, err := net.SplitHostPort(hostPort)
	if err != nil {
		host, port = hostPort, "80"
	}
	if d.port != "" && port != d.port {
		return false
	}
	host = strings.TrimSuffix(strings.TrimPrefix(strings.ToLower(host), "["), "]")
	for _, allowed := range d.hosts() {
		if strings.ToLower(allowed) == host {
			return true
		}
	}
	return false
}

// sameSite reports whether the request comes from no page, or one of ours.
func sameSite(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
	default:
		return false
	}
	origin := r.Header.Get("Origin")
	if origin == "" {
		return true
	}
	u, err := url.Parse(origin)
	return err == nil && u.Scheme == "http" && u.Host == r.Host
}

func (d door) authorized(r *http.Request) bool {
	if d.open {
		return true
	}
	given, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	return ok && d.token != "" && subtle.ConstantTimeCompare([]byte(given), []byte(d.token)) == 1
}

// bounded sets the bounds of a request's body: an upload may take its time, all
// else has to arrive soon.
func bounded(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case wireconnect.ControlPutBlobProcedure, wireconnect.ControlPutProgramProcedure:
		r.Body = http.MaxBytesReader(w, r.Body, maxUpload)
		return
	}
	rc := http.NewResponseController(w)
	if err := rc.SetReadDeadline(time.Now().Add(bodyTime)); err == nil {
		r.Body = &timedBody{ReadCloser: r.Body, done: func() { rc.SetReadDeadline(time.Time{}) }}
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
}
