package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"

	gatewayv1 "github.com/responses-gateway/responses-gateway/clients/go/gen/responses/gateway/v1"
)

// Client holds the connection to a gateway. It connects when first used and serves any number of sessions.
type Client struct {
	conns conns
	opts  clientOptions
	// closing is done once Close was called: what is being opened ends with it.
	closing context.Context
	close   context.CancelFunc

	mu       sync.Mutex
	stub     *grpc.ClientConn // for calls without a session
	sessions map[*Session]struct{}
	closed   bool
}

// NewClient makes a client. It does not connect yet: a wrong address shows at Connect.
func NewClient(options ...ClientOption) (*Client, error) {
	opts := clientOptions{
		address: os.Getenv("RESPONSES_GATEWAY_ADDR"), maxReceive: DefaultMaxReceiveBytes, logger: slog.Default(),
	}
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
	connect := func(more ...grpc.DialOption) (*grpc.ClientConn, error) {
		conn, err := grpc.NewClient(target, slices.Concat(dial, more, opts.dial)...)
		if err != nil {
			return nil, fmt.Errorf("gateway: %w", err)
		}
		return conn, nil
	}
	// A session decides itself what is sent again.
	sessions := func() (*grpc.ClientConn, error) { return connect(grpc.WithDisableRetry()) }
	stub, err := connect(grpc.WithChainUnaryInterceptor(retryUnary))
	if err != nil {
		return nil, err
	}
	closing, closeAll := context.WithCancel(context.Background())
	return &Client{
		conns: conns{dial: sessions}, opts: opts, closing: closing, close: closeAll, stub: stub,
		sessions: map[*Session]struct{}{},
	}, nil
}

// Connect opens a session. The context bounds the opening only, and so does WithConnectTimeout; its values and its span
// go with the stream. Failures are an *Error with a reason, for instance UNREACHABLE or CONNECT_TIMEOUT.
func (c *Client) Connect(ctx context.Context, options ...SessionOption) (*Session, error) {
	opts := sessionOptions{
		maxBuffered:  DefaultMaxBufferedBytes,
		maxQueued:    DefaultMaxQueuedBytes,
		closeTimeout: DefaultCloseTimeout,

		connectTimeout: DefaultConnectTimeout,
		heartbeat:      DefaultHeartbeat,
	}
	for _, option := range options {
		if err := option(&opts); err != nil {
			return nil, err
		}
	}
	return connect(ctx, c, opts)
}

// Stub is the generated client over a connection of its own, for calls without a session. The caller's metadata is
// added with [Client.Outgoing]. Unary calls are sent again by themselves where the gateway says that nothing was done.
func (c *Client) Stub() gatewayv1.ResponsesServiceClient {
	return gatewayv1.NewResponsesServiceClient(c.stub)
}

// Outgoing returns ctx with the client's token, metadata and the trace context of ctx for a call of Stub.
func (c *Client) Outgoing(ctx context.Context) (context.Context, error) {
	bounded, stop := context.WithTimeout(ctx, DefaultConnectTimeout)
	defer stop()
	defer context.AfterFunc(c.closing, stop)()
	pairs, err := within(bounded, c.headers)
	if err != nil {
		return nil, c.lost(tokenError(err))
	}
	return metadata.AppendToOutgoingContext(ctx, pairs...), nil
}

// lost is why a call without a session failed: what the client's end has caused says so.
func (c *Client) lost(failure *Error) *Error {
	if failure.Inferred && c.closing.Err() != nil {
		return clientClosed()
	}
	return failure
}

// headers asks the program for the token.
func (c *Client) headers(ctx context.Context) ([]string, error) {
	pairs := slices.Clone(c.opts.metadata)
	if c.opts.token != nil {
		token, err := c.opts.token(ctx)
		if err == nil && strings.ContainsFunc(token, func(r rune) bool { return r < ' ' || r > '~' }) {
			err = errors.New("the token has characters that a header cannot carry")
		}
		if err != nil {
			return nil, err
		}
		pairs = append(pairs, "authorization", "Bearer "+token)
	}
	if trace := c.traceContext(ctx); trace != nil {
		pairs = append(pairs, "traceparent", trace.GetTraceparent())
		if state := trace.GetTracestate(); state != "" {
			pairs = append(pairs, "tracestate", state)
		}
	}
	return pairs, nil
}

func tokenError(err error) *Error {
	failure := inferred(codes.Unauthenticated, ReasonTokenSourceFailed, "no token: "+err.Error())
	failure.cause = err
	return failure
}

// Close ends the sessions that are still open, or being opened, with reason CLIENT_CLOSED, and closes the connections.
// Turns that run are cancelled, as by Session.Close. It may be called more than once, and from a callback.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	open := slices.Collect(maps.Keys(c.sessions))
	c.mu.Unlock()
	c.close()
	for _, session := range open {
		session.shut(clientClosed())
	}
	for _, session := range open {
		<-session.done
	}
	return errors.Join(c.conns.close(), closeOnce(c.stub))
}

// remember is false if the client is closed.
func (c *Client) remember(s *Session) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.sessions[s] = struct{}{}
	return true
}

func (c *Client) forget(s *Session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.sessions, s)
}

func clientClosed() *Error {
	return inferred(codes.Canceled, ReasonClientClosed, "the client was closed")
}

func closeOnce(conn *grpc.ClientConn) error {
	if conn.GetState() == connectivity.Shutdown {
		return nil
	}
	return conn.Close()
}

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
