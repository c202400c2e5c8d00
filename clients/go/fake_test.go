package gateway

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/durationpb"

	gatewayv1 "github.com/responses-gateway/responses-gateway/clients/go/gen/responses/gateway/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake is a gateway of which a test plays each stream itself.
type fake struct {
	gatewayv1.UnimplementedResponsesServiceServer
	mu      sync.Mutex
	streams []func(*fakeStream) error
	served  int
	// failures of the first calls without a session
	failures []error
}

type fakeStream struct {
	t *testing.T
	grpc.BidiStreamingServer[gatewayv1.ConnectRequest, gatewayv1.ConnectResponse]
	open *gatewayv1.Open
	seq  uint64
}

func (f *fake) Connect(conn grpc.BidiStreamingServer[gatewayv1.ConnectRequest, gatewayv1.ConnectResponse]) error {
	f.mu.Lock()
	if f.served >= len(f.streams) {
		f.mu.Unlock()
		return errors.New("more streams than the test expects")
	}
	serve := f.streams[f.served]
	f.served++
	f.mu.Unlock()
	first, err := conn.Recv()
	if err != nil {
		return err
	}
	return serve(&fakeStream{BidiStreamingServer: conn, open: first.GetOpen()})
}

// connectTo starts a fake gateway that plays one function a stream, and opens a session with it.
func connectTo(t *testing.T, options []SessionOption, streams ...func(*fakeStream) error) *Session {
	t.Helper()
	client := clientOf(t, &fake{streams: streams})
	session, err := client.Connect(testContext(t), options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = session.Close() })
	return session
}

func clientOf(t *testing.T, service gatewayv1.ResponsesServiceServer, options ...ClientOption) *Client {
	t.Helper()
	listener := bufconn.Listen(1 << 20)
	server := grpc.NewServer(grpc.MaxRecvMsgSize(64 << 20))
	gatewayv1.RegisterResponsesServiceServer(server, service)
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(listener) }()
	options = append([]ClientOption{
		WithAddress("passthrough:///fake"),
		WithDialOptions(
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return listener.Dial() }),
		),
	}, options...)
	client, err := NewClient(options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = client.Close()
		server.Stop()
		<-served
	})
	return client
}

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// accept answers Open.
func (f *fakeStream) accept(change ...func(*gatewayv1.Opened)) error {
	opened := &gatewayv1.Opened{
		SessionId:     "session-1",
		ResumeToken:   "token-1",
		ResumeGrace:   durationpb.New(5 * time.Second),
		ResumeOutcome: gatewayv1.ResumeOutcome_RESUME_OUTCOME_NEW,
		Limits:        &gatewayv1.Limits{MaxMessageBytes: 1 << 20},
	}
	if resume := f.open.GetResume(); resume != nil {
		opened.ResumeOutcome = gatewayv1.ResumeOutcome_RESUME_OUTCOME_RESUMED
		opened.ResumeToken = resume.GetToken() + "+"
		f.seq = resume.GetLastSeq()
	}
	for _, f := range change {
		f(opened)
	}
	return f.Send(&gatewayv1.ConnectResponse{Message: &gatewayv1.ConnectResponse_Opened{Opened: opened}})
}

// startTurn waits for the next StartTurn and passes over acknowledgements.
func (f *fakeStream) startTurn() (*gatewayv1.StartTurn, error) {
	for {
		message, err := f.Recv()
		if err != nil {
			return nil, err
		}
		if start := message.GetStartTurn(); start != nil {
			return start, nil
		}
	}
}

// events numbers events and sends them in one batch.
func (f *fakeStream) events(events ...*gatewayv1.Event) error {
	for _, event := range events {
		f.seq++
		event.Seq = f.seq
	}
	return f.Send(&gatewayv1.ConnectResponse{
		Message: &gatewayv1.ConnectResponse_Events{Events: &gatewayv1.Events{Events: events}},
	})
}

func (f *fakeStream) goAway(goAway *gatewayv1.GoAway) error {
	return f.Send(&gatewayv1.ConnectResponse{Message: &gatewayv1.ConnectResponse_GoAway{GoAway: goAway}})
}

// drain reads until the client ends its side.
func (f *fakeStream) drain() error {
	for {
		if _, err := f.Recv(); err != nil {
			return nil
		}
	}
}

func created(turn *gatewayv1.StartTurn, id string) *gatewayv1.Event {
	return &gatewayv1.Event{
		LaneId: turn.GetLaneId(), TurnId: turn.GetTurnId(), Type: "response.created",
		Payload: &gatewayv1.Event_ResponseCreated{ResponseCreated: &gatewayv1.ResponseCreated{
			Response: &gatewayv1.Response{Id: id},
		}},
	}
}

func delta(turn *gatewayv1.StartTurn, text string) *gatewayv1.Event {
	return &gatewayv1.Event{
		LaneId: turn.GetLaneId(), TurnId: turn.GetTurnId(), Type: "response.output_text.delta",
		Payload: &gatewayv1.Event_OutputTextDelta{OutputTextDelta: &gatewayv1.OutputTextDelta{Delta: text}},
	}
}

func itemDone(turn *gatewayv1.StartTurn, item *gatewayv1.OutputItem) *gatewayv1.Event {
	return &gatewayv1.Event{
		LaneId: turn.GetLaneId(), TurnId: turn.GetTurnId(), Type: "response.output_item.done",
		Payload: &gatewayv1.Event_OutputItemDone{OutputItemDone: &gatewayv1.OutputItemDone{Item: item}},
	}
}

func completed(turn *gatewayv1.StartTurn, id string, output ...*gatewayv1.OutputItem) *gatewayv1.Event {
	return &gatewayv1.Event{
		LaneId: turn.GetLaneId(), TurnId: turn.GetTurnId(), Type: "response.completed",
		Outcome: gatewayv1.TurnOutcome_TURN_OUTCOME_COMPLETED,
		Payload: &gatewayv1.Event_ResponseCompleted{ResponseCompleted: &gatewayv1.ResponseCompleted{
			Response: &gatewayv1.Response{
				Id: id, Output: output,
				Usage: &gatewayv1.Usage{InputTokens: 3, OutputTokens: 4, TotalTokens: 7},
			},
		}},
	}
}

func failed(turn *gatewayv1.StartTurn, failure *gatewayv1.TurnFailed) *gatewayv1.Event {
	return &gatewayv1.Event{
		LaneId: turn.GetLaneId(), TurnId: turn.GetTurnId(), Type: "gateway.turn.failed",
		Outcome: gatewayv1.TurnOutcome_TURN_OUTCOME_FAILED,
		Payload: &gatewayv1.Event_TurnFailed{TurnFailed: failure},
	}
}

func answer(text string) *gatewayv1.OutputItem {
	return &gatewayv1.OutputItem{Kind: &gatewayv1.OutputItem_Message{Message: &gatewayv1.Message{
		Role: "assistant",
		Content: []*gatewayv1.ContentPart{{Kind: &gatewayv1.ContentPart_OutputText{
			OutputText: &gatewayv1.OutputText{Text: text},
		}}},
	}}}
}

func functionCall(id, name, arguments string) *gatewayv1.OutputItem {
	return &gatewayv1.OutputItem{Kind: &gatewayv1.OutputItem_FunctionCall{
		FunctionCall: &gatewayv1.FunctionCall{CallId: id, Name: name, Arguments: arguments},
	}}
}
