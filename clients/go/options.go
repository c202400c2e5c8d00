package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"time"

	"google.golang.org/grpc"

	gatewayv1 "github.com/responses-gateway/responses-gateway/clients/go/gen/responses/gateway/v1"
)

const (
	// DefaultAddress is where a gateway listens that was started with its defaults.
	DefaultAddress = "127.0.0.1:50051"
	// DefaultMaxReceiveBytes is the largest message that is taken. Single events with images reach tens of MB;
	// gRPC's own default of 4 MiB would end the stream on them.
	DefaultMaxReceiveBytes = 64 << 20
	// DefaultMaxBufferedBytes is how much a session holds of events that nobody has read yet: seconds of the
	// fastest models, and as much as the gateway itself holds.
	DefaultMaxBufferedBytes = 4 << 20
	// DefaultMaxQueuedBytes is how much a session holds of turns that could not be sent yet: three of the largest.
	DefaultMaxQueuedBytes = 64 << 20
	// DefaultConnectTimeout is how long opening a session takes at most: name resolution, connection, TLS, a token.
	DefaultConnectTimeout = 10 * time.Second
	// DefaultHeartbeat is below the time-outs of proxies, which count messages; a gateway may ask for less.
	DefaultHeartbeat = 15 * time.Second
	// DefaultCloseTimeout is how long Close waits for the gateway to end the stream: a few round trips.
	DefaultCloseTimeout = 3 * time.Second

	// Fixed flow control windows keep what is in flight below the gateway's resume buffer (2 MiB of upstream JSON, some
	// five times what the same events take on the wire): with gRPC's growing windows a lost stream could lose more than
	// can be sent again.
	streamWindowBytes     = 128 << 10
	connectionWindowBytes = 8 << 20

	keepaliveTime    = 30 * time.Second
	keepaliveTimeout = 10 * time.Second
)

// ClientOption changes how a Client connects.
type ClientOption func(*clientOptions) error

type clientOptions struct {
	address    string
	token      func(context.Context) (string, error)
	metadata   []string
	tls        *tls.Config
	maxReceive int
	dial       []grpc.DialOption
	tracer     Tracer
	logger     *slog.Logger
}

// WithAddress names the gateway: "host:port", "https://host:port" (TLS), "http://host:port" (plain) or
// "unix:/path". Without a scheme, loopback addresses are plain and all others TLS. Default: the environment
// variable RESPONSES_GATEWAY_ADDR, then DefaultAddress.
func WithAddress(address string) ClientOption {
	return func(o *clientOptions) error {
		if address == "" {
			return errors.New("gateway: empty address")
		}
		o.address = address
		return nil
	}
}

// WithToken sends "authorization: Bearer TOKEN". Default: RESPONSES_GATEWAY_TOKEN, if set.
func WithToken(token string) ClientOption {
	return WithTokenSource(func(context.Context) (string, error) { return token, nil })
}

// WithTokenSource asks for the bearer token each time a stream is opened or resumed, within the context that bounds the
// opening. An error, and a panic, fails Connect with reason TOKEN_SOURCE_FAILED; a resume asks again.
func WithTokenSource(source func(context.Context) (string, error)) ClientOption {
	return func(o *clientOptions) error { o.token = source; return nil }
}

// WithMetadata adds gRPC metadata to each call: key, value, key, value.
func WithMetadata(pairs ...string) ClientOption {
	return func(o *clientOptions) error {
		if len(pairs)%2 != 0 {
			return errors.New("gateway: WithMetadata needs pairs")
		}
		o.metadata = append(o.metadata, pairs...)
		return nil
	}
}

// WithTLS uses TLS with this configuration, for instance with a client certificate.
func WithTLS(config *tls.Config) ClientOption {
	return func(o *clientOptions) error { o.tls = config.Clone(); return nil }
}

// WithMaxReceiveBytes sets the largest message that is taken. Default: DefaultMaxReceiveBytes.
func WithMaxReceiveBytes(n int) ClientOption {
	return func(o *clientOptions) error {
		if n <= 0 {
			return errors.New("gateway: WithMaxReceiveBytes must be positive")
		}
		o.maxReceive = n
		return nil
	}
}

// WithDialOptions adds options of grpc-go, applied last.
func WithDialOptions(options ...grpc.DialOption) ClientOption {
	return func(o *clientOptions) error { o.dial = append(o.dial, options...); return nil }
}

// WithTracer connects the client with a tracing library. The module clients/go/otel has one for OpenTelemetry.
func WithTracer(tracer Tracer) ClientOption {
	return func(o *clientOptions) error { o.tracer = tracer; return nil }
}

// WithLogger sets where failures of the program's own callbacks are reported. Default: slog.Default().
func WithLogger(logger *slog.Logger) ClientOption {
	return func(o *clientOptions) error {
		if logger == nil {
			return errors.New("gateway: WithLogger needs a logger")
		}
		o.logger = logger
		return nil
	}
}

// SessionOption changes what a Session asks for and how it behaves.
type SessionOption func(*sessionOptions) error

type sessionOptions struct {
	model        string
	upstream     string
	labels       map[string]string
	clientName   string
	version      string
	noRecovery   bool
	budget       *gatewayv1.Budget
	rawJSON      bool
	maxBuffered  int64
	maxQueued    int64
	noResume     bool
	closeTimeout time.Duration

	connectTimeout time.Duration
	heartbeat      time.Duration

	onEvent  func(Event)
	onGoAway func(GoAway)
}

// WithModel sets the model of turns that name none.
func WithModel(model string) SessionOption {
	return func(o *sessionOptions) error { o.model = model; return nil }
}

// WithUpstream chooses a configured upstream of the gateway by name.
func WithUpstream(name string) SessionOption {
	return func(o *sessionOptions) error { o.upstream = name; return nil }
}

// WithLabels sets labels for traces and logs of the gateway. At most 16; no secrets.
func WithLabels(labels map[string]string) SessionOption {
	return func(o *sessionOptions) error { o.labels = labels; return nil }
}

// WithProgram tells the gateway's logs which program this is.
func WithProgram(name, version string) SessionOption {
	return func(o *sessionOptions) error { o.clientName, o.version = name, version; return nil }
}

// Budget is what a session may use in its life; zero fields are no limits. A turn that does not fit fails with
// ReasonLimitExceeded, whose metadata has what is left.
type Budget struct {
	// Tokens counts input and output.
	Tokens uint64
	// Money is an exact decimal in the currency of the gateway's price table, for instance "0.50".
	Money string
	Turns uint32
}

// WithBudget bounds what the session may use.
func WithBudget(budget Budget) SessionOption {
	return func(o *sessionOptions) error {
		o.budget = &gatewayv1.Budget{Tokens: budget.Tokens, Money: budget.Money, Turns: budget.Turns}
		return nil
	}
}

// WithoutRecovery asks the gateway not to rebuild lanes that the upstream has lost.
func WithoutRecovery() SessionOption {
	return func(o *sessionOptions) error { o.noRecovery = true; return nil }
}

// WithoutResume makes a lost stream the end of the session.
func WithoutResume() SessionOption {
	return func(o *sessionOptions) error { o.noResume = true; return nil }
}

// WithRawJSON delivers the upstream's exact JSON with each event, besides its typed form.
func WithRawJSON() SessionOption {
	return func(o *sessionOptions) error { o.rawJSON = true; return nil }
}

// WithConnectTimeout bounds the opening of the session. Default: DefaultConnectTimeout.
func WithConnectTimeout(timeout time.Duration) SessionOption {
	return func(o *sessionOptions) error {
		if timeout <= 0 {
			return errors.New("gateway: WithConnectTimeout must be positive")
		}
		o.connectTimeout = timeout
		return nil
	}
}

// WithCloseTimeout bounds what Session.Close, and the client's, waits for the gateway to end the stream. Default:
// DefaultCloseTimeout.
func WithCloseTimeout(timeout time.Duration) SessionOption {
	return func(o *sessionOptions) error {
		if timeout <= 0 {
			return errors.New("gateway: WithCloseTimeout must be positive")
		}
		o.closeTimeout = timeout
		return nil
	}
}

// WithHeartbeat sets how often the client says that it is there, if the gateway agrees; three times as long without an
// answer, and the stream is resumed on another connection. 0: never. Default: DefaultHeartbeat.
func WithHeartbeat(interval time.Duration) SessionOption {
	return func(o *sessionOptions) error {
		if interval < 0 {
			return errors.New("gateway: WithHeartbeat must not be negative")
		}
		o.heartbeat = interval
		return nil
	}
}

// WithMaxBufferedBytes bounds the events that wait for their readers, over all turns of the session. Above it the
// session stops reading, and so finally do the gateway and the upstream. While the reader of another turn waits, the
// events that nobody reads are folded into their turns' results instead: see [Turn.Events]. One event may exceed the
// bound. Default: DefaultMaxBufferedBytes.
func WithMaxBufferedBytes(n int64) SessionOption {
	return func(o *sessionOptions) error {
		if n <= 0 {
			return errors.New("gateway: WithMaxBufferedBytes must be positive")
		}
		o.maxBuffered = n
		return nil
	}
}

// WithMaxQueuedBytes bounds the requests that wait to be sent; above it Start and Steer wait. Default:
// DefaultMaxQueuedBytes.
func WithMaxQueuedBytes(n int64) SessionOption {
	return func(o *sessionOptions) error {
		if n <= 0 {
			return errors.New("gateway: WithMaxQueuedBytes must be positive")
		}
		o.maxQueued = n
		return nil
	}
}

// WithOnEvent is told every event that belongs to no turn of this client: notices about the whole session, and
// refusals of requests that name unknown turns. It is called in order, apart from the session: it may block, and use or
// close the session. A panic is logged.
func WithOnEvent(f func(Event)) SessionOption {
	return func(o *sessionOptions) error { o.onEvent = f; return nil }
}

// WithOnGoAway is told when the gateway announces the end of the stream. A stream that has grown old is replaced
// by itself; when the gateway shuts down (Draining), running turns finish and new ones need a new session,
// unless another gateway goes on with it (Movable).
func WithOnGoAway(f func(GoAway)) SessionOption {
	return func(o *sessionOptions) error { o.onGoAway = f; return nil }
}
