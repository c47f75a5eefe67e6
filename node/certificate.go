package node

import (
	"crypto/tls"
	"net"
	"os"
	"sync"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// certificateLook is how often the files of a certificate are looked at: one
// that was renewed is used without a restart.
const certificateLook = time.Minute

// certificate is that of the public listener, as its files have it.
type certificate struct {
	certFile, keyFile string

	mu      sync.Mutex
	current *tls.Certificate
	changed time.Time // of the certificate's file, when it was read
	looked  time.Time
}

// loadCertificate reads a certificate and its key.
func loadCertificate(certFile, keyFile string) (*certificate, error) {
	c := &certificate{certFile: certFile, keyFile: keyFile}
	if err := c.read(); err != nil {
		return nil, wire.Errorf(wire.Code_CODE_INVALID,
			"the certificate %s with the key %s cannot be used (%v): --tls-cert and --tls-key name PEM files that belong together", certFile, keyFile, err)
	}
	return c, nil
}

func (c *certificate) read() error {
	info, err := os.Stat(c.certFile)
	if err != nil {
		return err
	}
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return err
	}
	c.current, c.changed, c.looked = &pair, info.ModTime(), time.Now()
	return nil
}

// get returns the certificate of the files as they are now, or, while they are
// being replaced, as they were.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); now.Sub(c.looked) > certificateLook {
		c.looked = now
		if info, err := os.Stat(c.certFile); err == nil && !info.ModTime().Equal(c.changed) {
			_ = c.read() // it is tried again at the next look
		}
	}
	return c.current, nil
}

// names returns the DNS names that the certificate is for; none for nil.
func (c *certificate) names() []string {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current.Leaf == nil {
		return nil
	}
	return c.current.Leaf.DNSNames
}

// covers reports whether the certificate is for a host.
func (c *certificate) covers(host string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current.Leaf == nil {
		return false
	}
	if net.ParseIP(host) != nil {
		host = "[" + host + "]" // how x509 wants addresses
	}
	return c.current.Leaf.VerifyHostname(host) == nil
}
