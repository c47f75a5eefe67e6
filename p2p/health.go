package p2p

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const (
	// maxHealth bounds what is read of a health page.
	maxHealth = 64 << 10
	// healthTimeout bounds asking for it.
	healthTimeout = 5 * time.Second
)

// FetchHealth asks a node's public listener, baseURL being http(s)://HOST:PORT,
// who it is and where: GET /health, 5 s and 64 KiB at most, no redirects, no
// proxy. The swarm's ID, the peer's ID and its addresses in the answer are well
// formed; whether they are true shows when the peer is dialled.
func FetchHealth(ctx context.Context, baseURL string) (*wire.Health, error) {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(baseURL, "/")+"/health", nil)
	if err != nil {
		return nil, invalid("%q is not the address of a public listener: %v", baseURL, err)
	}
	transport := &http.Transport{DisableKeepAlives: true, MaxResponseHeaderBytes: maxHealth}
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		return nil, wire.Errorf(wire.Code_CODE_UNAVAILABLE, "no node answers at %s (%s); check the address, and that the node runs and a firewall lets this machine through",
			baseURL, healthReason(err))
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxHealth+1))
	if err != nil {
		return nil, wire.Errorf(wire.Code_CODE_UNAVAILABLE, "the node at %s broke off its answer (%s); try again", baseURL, healthReason(err))
	}
	if resp.StatusCode != http.StatusOK || len(body) > maxHealth {
		return nil, notOstrich(baseURL)
	}
	return decodeHealth(body, baseURL)
}

func notOstrich(baseURL string) error {
	return invalid("what answers at %s is not the public listener of an ostrich node: check host and port (7777 unless chosen otherwise)", baseURL)
}

func decodeHealth(body []byte, baseURL string) (*wire.Health, error) {
	health := &wire.Health{}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(body, health); err != nil {
		return nil, notOstrich(baseURL)
	}
	peer := cleanPeer(health.GetPeer())
	if wire.SwarmID(health.GetSwarmId()).Bytes() == nil || peer == nil {
		return nil, notOstrich(baseURL)
	}
	health.SwarmId = strings.ToLower(health.GetSwarmId())
	health.Peer = peer
	return health, nil
}

func healthReason(err error) string {
	if errors.Is(err, context.DeadlineExceeded) {
		return "no answer in time"
	}
	return shortReason(err)
}
