// Package gatewaytest is a gateway for the tests of programs: it runs in the test's process and answers turns by a script.
//
//	server := gatewaytest.NewServer(t, func(turn *gatewaytest.Turn) {
//		if turn.Answered("weather") {
//			turn.Say("21 degrees")
//		} else {
//			turn.Call("weather", `{"city":"Oslo"}`)
//		}
//	})
//	client := server.Client(t)
package gatewaytest

import (
	"context"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/durationpb"

	gateway "github.com/responses-gateway/responses-gateway/clients/go"
	gatewayv1 "github.com/responses-gateway/responses-gateway/clients/go/gen/responses/gateway/v1"
)

// Server is a gateway in the test's process. Turns run as soon as they come, each in its own goroutine.
type Server struct {
	gatewayv1.UnimplementedResponsesServiceServer
	play     func(*Turn)
	listener *bufconn.Listener
	server   *grpc.Server

	mu       sync.Mutex
	sessions map[string]*session
	turns    []*Turn
	calls    map[string]string // function names by call id
	numbers  int
}

// NewServer starts a gateway that plays each turn by this function; it ends with the test. A turn that the function
// leaves without an end completes with no output.
func NewServer(t testing.TB, play func(*Turn)) *Server {
	t.Helper()
	s := &Server{
		play: play, listener: bufconn.Listen(1 << 20), server: grpc.NewServer(grpc.MaxRecvMsgSize(64 << 20)),
		sessions: map[string]*session{}, calls: map[string]string{},
	}
	gatewayv1.RegisterResponsesServiceServer(s.server, s)
	served := make(chan struct{})
	go func() { defer close(served); _ = s.server.Serve(s.listener) }()
	t.Cleanup(func() { s.server.Stop(); <-served })
	return s
}

// Client is a client of the server; it is closed with the test.
func (s *Server) Client(t testing.TB, options ...gateway.ClientOption) *gateway.Client {
	t.Helper()
	client, err := gateway.NewClient(append([]gateway.ClientOption{
		gateway.WithAddress("passthrough:///gatewaytest"),
		gateway.WithDialOptions(
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return s.listener.DialContext(ctx) }),
		),
	}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// Turns are those that were started, in order.
func (s *Server) Turns() []*Turn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*Turn(nil), s.turns...)
}

// Cut breaks the streams of all sessions, as a lost connection does. The client resumes.
func (s *Server) Cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, session := range s.sessions {
		session.cut(status.Error(codes.Unavailable, "cut by the test"))
	}
}

// Forget makes the server lose all sessions, and breaks their streams: SESSION_EXPIRED.
func (s *Server) Forget() {
	s.Cut()
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.sessions)
}

func (s *Server) next(prefix string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.numbers++
	return fmt.Sprintf("%s_%d", prefix, s.numbers)
}

// Connect implements the service.
func (s *Server) Connect(stream grpc.BidiStreamingServer[gatewayv1.ConnectRequest, gatewayv1.ConnectResponse]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	current, opened := s.open(first.GetOpen())
	if err := stream.Send(&gatewayv1.ConnectResponse{Message: &gatewayv1.ConnectResponse_Opened{Opened: opened}}); err != nil {
		return err
	}
	ended := make(chan error, 1)
	current.attach(stream, ended, first.GetOpen().GetResume().GetLastSeq())
	go func() {
		for {
			message, err := stream.Recv()
			if err != nil {
				ended <- nil
				return
			}
			s.take(current, message)
		}
	}()
	err = <-ended
	current.detach(ended)
	return err
}

func (s *Server) open(open *gatewayv1.Open) (*session, *gatewayv1.Opened) {
	opened := &gatewayv1.Opened{
		ResumeGrace: durationpb.New(time.Minute), ResumeOutcome: gatewayv1.ResumeOutcome_RESUME_OUTCOME_NEW,
		Limits: &gatewayv1.Limits{MaxMessageBytes: 16 << 20}, SchemaRevision: open.GetSchemaRevision(),
	}
	token := open.GetResume().GetToken()
	s.mu.Lock()
	found := s.sessions[token]
	s.mu.Unlock()
	switch {
	case found != nil:
		opened.ResumeOutcome = gatewayv1.ResumeOutcome_RESUME_OUTCOME_RESUMED
		opened.ActiveTurns = found.active()
	case token != "":
		opened.ResumeOutcome = gatewayv1.ResumeOutcome_RESUME_OUTCOME_GONE
	}
	if found == nil {
		token = s.next("session")
		found = &session{running: map[string]*Turn{}, known: map[string]bool{}}
		s.mu.Lock()
		s.sessions[token] = found
		s.mu.Unlock()
	}
	opened.SessionId, opened.ResumeToken = token, token
	return found, opened
}

func (s *Server) take(current *session, message *gatewayv1.ConnectRequest) {
	switch message := message.GetMessage().(type) {
	case *gatewayv1.ConnectRequest_StartTurn:
		turn := &Turn{Start: message.StartTurn, server: s, session: current, id: s.next("resp"), done: make(chan struct{})}
		if !current.begin(turn) {
			return
		}
		s.mu.Lock()
		s.turns = append(s.turns, turn)
		s.mu.Unlock()
		go func() {
			turn.event("response.created", &gatewayv1.Event{Payload: &gatewayv1.Event_ResponseCreated{
				ResponseCreated: &gatewayv1.ResponseCreated{Response: &gatewayv1.Response{Id: turn.id}},
			}})
			s.play(turn)
			turn.Complete()
		}()
	case *gatewayv1.ConnectRequest_CancelTurn:
		if turn := current.find(message.CancelTurn.GetTurnId()); turn != nil {
			turn.end(gatewayv1.TurnOutcome_TURN_OUTCOME_CANCELLED, "gateway.turn.failed", &gatewayv1.Event{
				Payload: &gatewayv1.Event_TurnFailed{TurnFailed: &gatewayv1.TurnFailed{
					Code: int32(codes.Canceled), Reason: gateway.ReasonTurnCancelled, Message: "cancelled by the client",
					Replay: gatewayv1.ReplayVerdict_REPLAY_VERDICT_UNSAFE,
				}},
			})
		}
	}
}
