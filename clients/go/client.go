package gateway

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"

	gatewayv1 "github.com/responses-gateway/responses-gateway/clients/go/gen/responses/gateway/v1"
)

// Client holds the connection to a gateway. It connects when first used and serves any number of sessions.
type Client struct {
	conn *grpc.ClientConn
	opts clientOptions
}

// NewClient makes a client. It does not connect yet: a wrong address shows at Connect.
func NewClient(options ...ClientOption) (*Client, error) {
	opts := clientOptions{address: os.Getenv("RESPONSES_GATEWAY_ADDR"), maxReceive: DefaultMaxReceiveBytes}
	if opts.address == "" {
		opts.address = DefaultAddress
	}
	if token := os.Getenv("RESPONSES_GATEWAY_TOKEN"); token != "" {
		opts.token = func(context.Context) (string, error) { return token, nil }
	}
	for _, option := range options {
		if err := option(&opts); err != nil {
			return nil, err
		}
	}
	target, plain := parseAddress(opts.address)
	creds := insecure.NewCredentials()
	if opts.tls != nil {
		creds = credentials.NewTLS(opts.tls)
	} else if !plain {
		creds = credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12})
	}
	dial := []grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithInitialWindowSize(streamWindowBytes),
		grpc.WithInitialConnWindowSize(connectionWindowBytes),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(opts.maxReceive)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: minRetryDelay, Multiplier: 2, Jitter: 0.2, MaxDelay: maxRetryDelay},
			MinConnectTimeout: 5 * time.Second,
		}),
	}
	conn, err := grpc.NewClient(target, append(dial, opts.dial...)...)
	if err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	return &Client{conn: conn, opts: opts}, nil
}

// Connect opens a session. The context bounds the opening only; its values and its span go with the stream.
func (c *Client) Connect(ctx context.Context, options ...SessionOption) (*Session, error) {
	opts := sessionOptions{
		maxBuffered:  DefaultMaxBufferedBytes,
		maxQueued:    DefaultMaxQueuedBytes,
		closeTimeout: DefaultCloseTimeout,
	}
	for _, option := range options {
		if err := option(&opts); err != nil {
			return nil, err
		}
	}
	return connect(ctx, c, opts)
}

// Stub is the generated client over the same connection, for calls without a session. The caller's metadata is
// added with [Client.Outgoing].
func (c *Client) Stub() gatewayv1.ResponsesServiceClient {
	return gatewayv1.NewResponsesServiceClient(c.conn)
}

// Outgoing returns ctx with the client's token, metadata and the trace context of ctx for a call of Stub.
func (c *Client) Outgoing(ctx context.Context) (context.Context, error) {
	pairs := append([]string(nil), c.opts.metadata...)
	if c.opts.token != nil {
		token, err := c.opts.token(ctx)
		if err != nil {
			return nil, fmt.Errorf("gateway: token: %w", err)
		}
		pairs = append(pairs, "authorization", "Bearer "+token)
	}
	if trace := traceContext(ctx); trace != nil {
		pairs = append(pairs, "traceparent", trace.GetTraceparent())
		if state := trace.GetTracestate(); state != "" {
			pairs = append(pairs, "tracestate", state)
		}
	}
	return metadata.AppendToOutgoingContext(ctx, pairs...), nil
}

// Close closes the connection. Close the sessions first: those that are still open end with an error.
func (c *Client) Close() error { return c.conn.Close() }

// parseAddress splits the scheme off and says whether the connection is plain.
func parseAddress(address string) (target string, plain bool) {
	if rest, found := strings.CutPrefix(address, "http://"); found {
		return strings.TrimSuffix(rest, "/"), true
	}
	if rest, found := strings.CutPrefix(address, "https://"); found {
		return strings.TrimSuffix(rest, "/"), false
	}
	if strings.HasPrefix(address, "unix:") {
		return address, true
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return address, false
	}
	ip := net.ParseIP(host)
	return address, host == "localhost" || (ip != nil && ip.IsLoopback())
}
