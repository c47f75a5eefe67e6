package control

import (
	"context"
	"net"
	"net/http"
	"time"

	"connectrpc.com/connect"

	"github.com/ostrich-legs/ostrich/p2p/wire"
	"github.com/ostrich-legs/ostrich/p2p/wire/wireconnect"
)

// maxMessage bounds a message that the client takes: a results message holds
// at most 512 KiB, a list of jobs more.
const maxMessage = 64 << 20

// Client calls the node of a data folder over its Unix socket. Its methods may
// be called concurrently. Errors carry wire codes; those of a node that is not
// there have ErrNoNode in their chain too.
type Client struct {
	wireconnect.ControlClient
	dataDir   string
	transport *http.Transport
}

// Dial returns a client of the node on dataDir. A node that is not there is
// CODE_UNAVAILABLE with a text that says how to start one; later calls dial
// again by themselves.
func Dial(dataDir string) (*Client, error) {
	path := SocketPath(dataDir)
	conn, err := net.DialTimeout("unix", path, 2*time.Second)
	if err != nil {
		return nil, newNoNodeError(dataDir)
	}
	conn.Close()
	return newClient(dataDir, path), nil
}

func newClient(dataDir, path string) *Client {
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	t := &http.Transport{
		Protocols: &protocols,
		HTTP2:     &http.HTTP2Config{MaxReceiveBufferPerStream: 1 << 20, MaxReceiveBufferPerConnection: 16 << 20},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			d := net.Dialer{Timeout: 2 * time.Second}
			conn, err := d.DialContext(ctx, "unix", path)
			if err != nil {
				return nil, newNoNodeError(dataDir)
			}
			return conn, nil
		},
	}
	return &Client{
		ControlClient: wireconnect.NewControlClient(&http.Client{Transport: t}, "http://ostrich",
			connect.WithInterceptors(codeInterceptor{}),
			connect.WithReadMaxBytes(maxMessage),
			connect.WithAcceptCompression("gzip", nil, nil)),
		dataDir:   dataDir,
		transport: t,
	}
}

// Close closes idle connections. It may be called twice.
func (c *Client) Close() error {
	c.transport.CloseIdleConnections()
	return nil
}

// Call makes one call of a client, as in Call(ctx, client.GetJob, &request),
// and returns what the answer holds.
func Call[Req, Res any](ctx context.Context, method func(context.Context, *connect.Request[Req]) (*connect.Response[Res], error), req *Req) (*Res, error) {
	res, err := method(ctx, connect.NewRequest(req))
	if err != nil {
		return nil, err
	}
	return res.Msg, nil
}

// Acknowledge tells the swarm that the client of an attached job has all it
// wants of it.
func (c *Client) Acknowledge(ctx context.Context, id wire.JobID) error {
	_, err := Call(ctx, c.RemoveJob, &wire.RemoveJobRequest{JobId: string(id), Acknowledge: true})
	return err
}
