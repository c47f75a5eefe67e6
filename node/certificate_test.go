package node_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ostrich-legs/ostrich/browserbridge/gobrowser"
	"github.com/ostrich-legs/ostrich/node"
	"github.com/ostrich-legs/ostrich/p2p"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// selfSigned writes a certificate for 127.0.0.1 and its key, and returns who
// trusts it.
func selfSigned(t *testing.T, dir string) (certFile, keyFile string, trust *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	trust = x509.NewCertPool()
	for file, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	trust.AppendCertsFromPEM(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return certFile, keyFile, trust
}

func TestThePublicListenerSpeaksHTTPSWithACertificate(t *testing.T) {
	dir := t.TempDir()
	c := config(filepath.Join(dir, "a"), "")
	var trust *x509.CertPool
	c.TLSCert, c.TLSKey, trust = selfSigned(t, dir)
	n := startWith(t, c)
	url := n.status(t).GetPublicAddress()
	link := n.link(t, &wire.CreateInviteRequest{Role: wire.Role_ROLE_WORKER}).GetLink()
	if !strings.HasPrefix(url, "https://127.0.0.1:") || !strings.HasPrefix(link, url+"/join#") {
		t.Fatalf("the listener is at %s, the link is %s", url, link)
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trust}, DisableKeepAlives: true}}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/join", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Origin", url)
	response, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	page, err := io.ReadAll(response.Body)
	response.Body.Close()
	if err != nil || response.StatusCode != http.StatusOK || len(page) == 0 {
		t.Errorf("the page: status %d, %d bytes, %v", response.StatusCode, len(page), err)
	}
	invite, err := p2p.ParseInvite(link)
	if err != nil {
		t.Fatal(err)
	}
	browser, err := gobrowser.Connect(t.Context(), gobrowser.Config{URL: url, Key: newKey(t), Invite: invite.Key(), Client: client})
	if err != nil {
		t.Fatal(err)
	}
	browser.Close()
}

func TestACertificateThatCannotBeUsedIsNamed(t *testing.T) {
	dir := t.TempDir()
	cert, key, _ := selfSigned(t, dir)
	for _, tt := range []struct{ what, cert, key, want string }{
		{"no key", cert, "", "give both or none"},
		{"no certificate", "", key, "give both or none"},
		{"a file that is not there", filepath.Join(dir, "none.pem"), key, "none.pem"},
		{"a key for a certificate", key, cert, "belong together"},
	} {
		c := config(filepath.Join(dir, "a"), "")
		c.TLSCert, c.TLSKey = tt.cert, tt.key
		err := node.Run(t.Context(), c, func() { t.Error("it is ready") })
		if wire.CodeOf(err) != wire.Code_CODE_INVALID || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want CODE_INVALID with %q", tt.what, err, tt.want)
		}
	}
}
