package gateway

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	gatewayv1 "github.com/responses-gateway/responses-gateway/clients/go/gen/responses/gateway/v1"
)

func TestTurnStreamsAndAccumulates(t *testing.T) {
	session := connectTo(t, []SessionOption{WithModel("m"), WithLabels(map[string]string{"job": "1"})},
		func(f *fakeStream) error {
			if f.open.GetModel() != "m" || f.open.GetMetadata()["job"] != "1" || f.open.GetSchemaRevision() == 0 {
				return status.Errorf(codes.InvalidArgument, "open %v", f.open)
			}
			_ = f.accept()
			turn, err := f.startTurn()
			if err != nil {
				return err
			}
			_ = f.events(created(turn, "resp_1"), delta(turn, "Hel"))
			_ = f.events(delta(turn, "lo"), itemDone(turn, answer("Hello")), completed(turn, "resp_1"))
			return f.drain()
		})
	ctx := testContext(t)
	turn, err := session.Start(ctx, Request{Input: Text("hi")})
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for event, err := range turn.Events(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		text.WriteString(event.TextDelta())
	}
	result, err := turn.Final(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if text.String() != "Hello" || result.Text() != "Hello" || result.ResponseID() != "resp_1" {
		t.Fatalf("text %q, result %q of %q", text.String(), result.Text(), result.ResponseID())
	}
	if result.Outcome != Completed || result.Usage().TotalTokens != 7 || turn.Lane().LastResponseID() != "resp_1" {
		t.Fatalf("outcome %q, usage %+v", result.Outcome, result.Usage())
	}
	if stats := session.Stats(); stats.BufferedBytes != 0 || stats.RunningTurns != 0 || stats.LastSeq != 5 {
		t.Fatalf("stats %+v", stats)
	}
}

func TestLostStreamIsResumedWithoutSendingTheTurnAgain(t *testing.T) {
	var second []string
	session := connectTo(t, nil,
		func(f *fakeStream) error {
			_ = f.accept()
			turn, err := f.startTurn()
			if err != nil {
				return err
			}
			_ = f.events(created(turn, "resp_1"), delta(turn, "one "))
			return status.Error(codes.Unavailable, "connection lost")
		},
		func(f *fakeStream) error {
			if resume := f.open.GetResume(); resume.GetToken() != "token-1" || resume.GetLastSeq() != 2 {
				return status.Errorf(codes.InvalidArgument, "resume %v", resume)
			}
			turn := &gatewayv1.StartTurn{TurnId: "turn-1"}
			_ = f.accept(func(o *gatewayv1.Opened) {
				o.ActiveTurns = []*gatewayv1.ActiveTurn{{TurnId: "turn-1", Phase: gatewayv1.TurnPhase_TURN_PHASE_OUTPUT_STARTED}}
			})
			_ = f.events(delta(turn, "two"), completed(turn, "resp_1"))
			for {
				message, err := f.Recv()
				if err != nil {
					return nil
				}
				second = append(second, message.String())
			}
		})
	ctx := testContext(t)
	turn, err := session.Start(ctx, Request{Input: Text("hi")})
	if err != nil {
		t.Fatal(err)
	}
	result, err := turn.Final(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if result.Text() != "one two" || session.Stats().Resumes != 1 {
		t.Fatalf("text %q, resumes %d", result.Text(), session.Stats().Resumes)
	}
	if err := session.Close(); err != nil || len(second) != 0 {
		t.Fatalf("close %v, sent after the resume: %v", err, second)
	}
}

func TestStartThatTheGatewayNeverSawIsSentAgainUnderItsId(t *testing.T) {
	session := connectTo(t, nil,
		func(f *fakeStream) error {
			_ = f.accept()
			if _, err := f.startTurn(); err != nil {
				return err
			}
			return status.Error(codes.Unavailable, "connection lost")
		},
		func(f *fakeStream) error {
			_ = f.accept()
			turn, err := f.startTurn()
			if err != nil {
				return err
			}
			if turn.GetTurnId() != "mine" {
				return status.Errorf(codes.InvalidArgument, "turn %v", turn.GetTurnId())
			}
			_ = f.events(completed(turn, "resp_1", answer("yes")))
			return f.drain()
		})
	ctx := testContext(t)
	turn, err := session.Start(ctx, Request{Input: Text("hi"), TurnID: "mine"})
	if err != nil {
		t.Fatal(err)
	}
	if result, err := turn.Final(ctx); err != nil || result.Text() != "yes" {
		t.Fatalf("%v %v", result, err)
	}
}

func TestGoneSessionFailsTurnsWithTheirVerdicts(t *testing.T) {
	session := connectTo(t, nil,
		func(f *fakeStream) error {
			_ = f.accept()
			first, err := f.startTurn()
			if err != nil {
				return err
			}
			if _, err := f.startTurn(); err != nil {
				return err
			}
			_ = f.events(created(first, "resp_1"))
			return status.Error(codes.Unavailable, "connection lost")
		},
		func(f *fakeStream) error {
			_ = f.accept(func(o *gatewayv1.Opened) { o.ResumeOutcome = gatewayv1.ResumeOutcome_RESUME_OUTCOME_GONE })
			return f.drain()
		})
	ctx := testContext(t)
	begun, _ := session.Lane("a").Start(ctx, Request{Input: Text("hi")})
	sent, _ := session.Lane("b").Start(ctx, Request{Input: Text("hi")})
	for turn, replay := range map[*Turn]Replay{begun: ReplayUnsafe, sent: ReplayUnknown} {
		_, err := turn.Final(ctx)
		var failure *Error
		if !errors.As(err, &failure) || failure.Reason != ReasonSessionExpired || failure.Replay != replay || !failure.Inferred {
			t.Fatalf("turn %s: %v (%+v)", turn.ID(), err, failure)
		}
	}
	<-session.Done()
	if !HasReason(session.Err(), ReasonSessionExpired) {
		t.Fatalf("session: %v", session.Err())
	}
	if _, err := session.Start(ctx, Request{}); !HasReason(err, ReasonSessionExpired) {
		t.Fatalf("start: %v", err)
	}
}

func TestPartialResumeFailsTurnsThatLostEvents(t *testing.T) {
	session := connectTo(t, nil,
		func(f *fakeStream) error {
			_ = f.accept()
			turn, err := f.startTurn()
			if err != nil {
				return err
			}
			_ = f.events(created(turn, "resp_1"))
			return status.Error(codes.Unavailable, "connection lost")
		},
		func(f *fakeStream) error {
			_ = f.accept(func(o *gatewayv1.Opened) {
				o.ResumeOutcome = gatewayv1.ResumeOutcome_RESUME_OUTCOME_PARTIAL
				o.OldestSeq = 9
			})
			f.seq = 8
			turn, err := f.startTurn()
			if err != nil {
				return err
			}
			_ = f.events(completed(turn, "resp_2", answer("fine")))
			return f.drain()
		})
	ctx := testContext(t)
	lost, _ := session.Start(ctx, Request{Input: Text("hi")})
	if _, err := lost.Final(ctx); !HasReason(err, ReasonEventsLost) {
		t.Fatalf("lost: %v", err)
	}
	next, err := session.Start(ctx, Request{Input: Text("again")})
	if err != nil {
		t.Fatal(err)
	}
	if result, err := next.Final(ctx); err != nil || result.Text() != "fine" {
		t.Fatalf("%v %v", result, err)
	}
}

func TestStreamThatCannotBeResumedInTime(t *testing.T) {
	lost := func(f *fakeStream) error { return status.Error(codes.Unavailable, "no") }
	session := connectTo(t, nil,
		func(f *fakeStream) error {
			_ = f.accept(func(o *gatewayv1.Opened) { o.ResumeGrace = durationpb.New(120 * time.Millisecond) })
			if _, err := f.startTurn(); err != nil {
				return err
			}
			return status.Error(codes.Unavailable, "connection lost")
		}, lost, lost, lost, lost, lost, lost)
	ctx := testContext(t)
	turn, _ := session.Start(ctx, Request{Input: Text("hi")})
	_, err := turn.Final(ctx)
	var failure *Error
	if !errors.As(err, &failure) || failure.Reason != ReasonStreamLost || failure.Replay != ReplayUnknown {
		t.Fatalf("%v", err)
	}
}

func TestErrorsOfTheGatewayAreTyped(t *testing.T) {
	session := connectTo(t, nil, func(f *fakeStream) error {
		_ = f.accept()
		turn, err := f.startTurn()
		if err != nil {
			return err
		}
		_ = f.events(delta(turn, "par"), failed(turn, &gatewayv1.TurnFailed{
			Code: 8, Reason: "UPSTREAM_RATE_LIMITED", Message: "slow down",
			Replay:     gatewayv1.ReplayVerdict_REPLAY_VERDICT_SAFE,
			Phase:      gatewayv1.TurnPhase_TURN_PHASE_SENT,
			RetryAfter: durationpb.New(2 * time.Second),
			Metadata:   map[string]string{"k": "v"},
		}))
		st, _ := status.New(codes.PermissionDenied, "no more").WithDetails(
			&errdetails.ErrorInfo{Reason: "PERMISSION_DENIED", Domain: "responses-gateway", Metadata: map[string]string{"a": "b"}},
			&errdetails.RetryInfo{RetryDelay: durationpb.New(time.Second)},
		)
		return st.Err()
	})
	ctx := testContext(t)
	turn, _ := session.Lane("x").Start(ctx, Request{Input: Text("hi")})
	result, err := turn.Final(ctx)
	var failure *Error
	if !errors.As(err, &failure) {
		t.Fatalf("%v", err)
	}
	if failure.Code != codes.ResourceExhausted || failure.Reason != "UPSTREAM_RATE_LIMITED" || failure.Replay != ReplaySafe ||
		failure.Phase != "sent" || *failure.RetryAfter != 2*time.Second || failure.Metadata["k"] != "v" ||
		failure.TurnID != turn.ID() || failure.LaneID != "x" || failure.Inferred {
		t.Fatalf("%+v", failure)
	}
	if result.Text() != "par" || result.Outcome != Failed {
		t.Fatalf("%q %q", result.Text(), result.Outcome)
	}
	<-session.Done()
	if !errors.As(session.Err(), &failure) || failure.Reason != "PERMISSION_DENIED" ||
		failure.Metadata["a"] != "b" || *failure.RetryAfter != time.Second || failure.Inferred {
		t.Fatalf("%+v", session.Err())
	}
}

func TestUnreadEventsHoldUpTheGatewayAndNothingIsLost(t *testing.T) {
	const events, bytes = 400, 16 << 10
	var sent atomic.Int64
	piece := strings.Repeat("x", bytes)
	session := connectTo(t, []SessionOption{WithMaxBufferedBytes(64 << 10)}, func(f *fakeStream) error {
		_ = f.accept()
		turn, err := f.startTurn()
		if err != nil {
			return err
		}
		for range events {
			if err := f.events(delta(turn, piece)); err != nil {
				return err
			}
			sent.Add(1)
		}
		_ = f.events(completed(turn, "resp_1"))
		return f.drain()
	})
	ctx := testContext(t)
	turn, _ := session.Start(ctx, Request{Input: Text("hi")})
	for session.Stats().BufferedBytes < 64<<10 {
		if ctx.Err() != nil {
			t.Fatal("the buffer never filled")
		}
		time.Sleep(time.Millisecond)
	}
	result, err := turn.Final(ctx)
	if err != nil || len(result.Text()) != events*bytes {
		t.Fatalf("%d bytes, %v", len(result.Text()), err)
	}
	if most := session.Stats().MaxBufferedBytes; most > 64<<10+2*bytes {
		t.Fatalf("buffered %d", most)
	}
}

func TestAcknowledgesNowAndThen(t *testing.T) {
	acked := make(chan uint64, 1)
	session := connectTo(t, nil, func(f *fakeStream) error {
		_ = f.accept()
		turn, err := f.startTurn()
		if err != nil {
			return err
		}
		for range ackEvents - 1 {
			_ = f.events(delta(turn, "x"))
		}
		_ = f.events(completed(turn, "resp_1"))
		message, err := f.Recv()
		if err != nil {
			return err
		}
		acked <- message.GetAck().GetSeq()
		return f.drain()
	})
	ctx := testContext(t)
	turn, _ := session.Start(ctx, Request{Input: Text("hi")})
	if _, err := turn.Final(ctx); err != nil {
		t.Fatal(err)
	}
	if seq := <-acked; seq != ackEvents {
		t.Fatalf("acked %d", seq)
	}
}

func TestCancelSteerAndFork(t *testing.T) {
	session := connectTo(t, nil, func(f *fakeStream) error {
		_ = f.accept()
		first, err := f.startTurn()
		if err != nil {
			return err
		}
		_ = f.events(completed(first, "resp_1"))
		fork, err := f.startTurn()
		if err != nil {
			return err
		}
		if fork.GetPreviousResponseId() != "resp_1" || fork.GetLaneId() != "b" {
			return status.Errorf(codes.InvalidArgument, "%v", fork)
		}
		message, err := f.Recv()
		if err != nil || message.GetSteerTurn().GetTurnId() != fork.GetTurnId() {
			return status.Errorf(codes.InvalidArgument, "%v", message)
		}
		message, err = f.Recv()
		if err != nil || message.GetCancelTurn().GetTurnId() != fork.GetTurnId() {
			return status.Errorf(codes.InvalidArgument, "%v", message)
		}
		last := failed(fork, &gatewayv1.TurnFailed{Code: 1, Reason: "TURN_CANCELLED"})
		last.Outcome = gatewayv1.TurnOutcome_TURN_OUTCOME_CANCELLED
		_ = f.events(last)
		return f.drain()
	})
	ctx := testContext(t)
	first, _ := session.Lane("a").Start(ctx, Request{Input: Text("hi")})
	if _, err := first.Final(ctx); err != nil {
		t.Fatal(err)
	}
	turn, err := session.Lane("a").Fork("b").Start(ctx, Request{Input: Text("what if")})
	if err != nil {
		t.Fatal(err)
	}
	if err := turn.Steer(ctx, Text("no, so")); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(turn.Cancel(), turn.Cancel()); err != nil {
		t.Fatal(err)
	}
	result, err := turn.Final(ctx)
	if !HasReason(err, "TURN_CANCELLED") || result.Outcome != Cancelled {
		t.Fatalf("%v %v", result, err)
	}
}

func TestAWaitThatEndsLosesNothing(t *testing.T) {
	release := make(chan struct{})
	session := connectTo(t, nil, func(f *fakeStream) error {
		_ = f.accept()
		turn, err := f.startTurn()
		if err != nil {
			return err
		}
		_ = f.events(delta(turn, "a"))
		<-release
		_ = f.events(delta(turn, "b"), completed(turn, "resp_1"))
		return f.drain()
	})
	ctx := testContext(t)
	turn, _ := session.Start(ctx, Request{Input: Text("hi")})
	short, cancel := context.WithTimeout(ctx, 30*time.Millisecond)
	defer cancel()
	if _, err := turn.Final(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("%v", err)
	}
	close(release)
	for range turn.Events(ctx) {
		if _, err := turn.Final(ctx); !errors.Is(err, ErrTurnBusy) {
			t.Fatalf("second reader: %v", err)
		}
		break
	}
	if result, err := turn.Final(ctx); err != nil || result.Text() != "ab" {
		t.Fatalf("%v %v", result, err)
	}
}

func TestOldStreamIsReplaced(t *testing.T) {
	seen := make(chan GoAway, 1)
	session := connectTo(t, []SessionOption{WithOnGoAway(func(g GoAway) { seen <- g })},
		func(f *fakeStream) error {
			_ = f.accept()
			_ = f.goAway(&gatewayv1.GoAway{
				Reason: gatewayv1.GoAwayReason_GO_AWAY_REASON_MAX_AGE, ResumeToken: "newer", TimeLeft: durationpb.New(time.Second),
			})
			return f.drain()
		},
		func(f *fakeStream) error {
			if f.open.GetResume().GetToken() != "newer" {
				return status.Errorf(codes.InvalidArgument, "%v", f.open)
			}
			_ = f.accept()
			turn, err := f.startTurn()
			if err != nil {
				return err
			}
			_ = f.events(completed(turn, "resp_1", answer("here")))
			return f.drain()
		})
	if goAway := <-seen; goAway.Draining || goAway.TimeLeft != time.Second {
		t.Fatalf("%+v", goAway)
	}
	ctx := testContext(t)
	turn, err := session.Start(ctx, Request{Input: Text("hi")})
	if err != nil {
		t.Fatal(err)
	}
	if result, err := turn.Final(ctx); err != nil || result.Text() != "here" {
		t.Fatalf("%v %v", result, err)
	}
}

func TestDrainingLetsRunningTurnsFinish(t *testing.T) {
	seen := make(chan GoAway, 1)
	finish := make(chan struct{})
	session := connectTo(t, []SessionOption{WithOnGoAway(func(g GoAway) { seen <- g })}, func(f *fakeStream) error {
		_ = f.accept()
		turn, err := f.startTurn()
		if err != nil {
			return err
		}
		_ = f.goAway(&gatewayv1.GoAway{
			Reason: gatewayv1.GoAwayReason_GO_AWAY_REASON_DRAINING, TimeLeft: durationpb.New(time.Minute),
		})
		<-finish
		return f.events(completed(turn, "resp_1", answer("done")))
	})
	ctx := testContext(t)
	turn, _ := session.Start(ctx, Request{Input: Text("hi")})
	<-seen
	_, err := session.Start(ctx, Request{Input: Text("more")})
	var failure *Error
	if !errors.As(err, &failure) || failure.Reason != ReasonDraining || failure.Replay != ReplaySafe {
		t.Fatalf("%v", err)
	}
	close(finish)
	if result, err := turn.Final(ctx); err != nil || result.Text() != "done" {
		t.Fatalf("%v %v", result, err)
	}
	<-session.Done()
	if !HasReason(session.Err(), ReasonDraining) {
		t.Fatalf("%v", session.Err())
	}
}

func TestCloseCancelsRunningTurnsAndEndsReaders(t *testing.T) {
	cancelled := make(chan string, 1)
	session := connectTo(t, nil, func(f *fakeStream) error {
		_ = f.accept()
		if _, err := f.startTurn(); err != nil {
			return err
		}
		message, err := f.Recv()
		if err != nil {
			return err
		}
		cancelled <- message.GetCancelTurn().GetTurnId()
		return f.drain()
	})
	ctx := testContext(t)
	turn, _ := session.Start(ctx, Request{Input: Text("hi")})
	for session.Stats().QueuedBytes > 0 {
		time.Sleep(time.Millisecond)
	}
	read := make(chan error, 1)
	go func() { _, err := turn.Final(ctx); read <- err }()
	if err := session.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-read; !HasReason(err, ReasonSessionClosed) {
		t.Fatalf("%v", err)
	}
	if id := <-cancelled; id != turn.ID() {
		t.Fatalf("cancelled %q", id)
	}
	if _, err := session.Start(ctx, Request{}); !HasReason(err, ReasonSessionClosed) {
		t.Fatalf("%v", err)
	}
	if session.Err() != nil {
		t.Fatalf("%v", session.Err())
	}
}

func TestSessionEventsAndUnknownEvents(t *testing.T) {
	notices := make(chan Event, 1)
	session := connectTo(t, []SessionOption{WithOnEvent(func(e Event) { notices <- e })}, func(f *fakeStream) error {
		_ = f.accept()
		turn, err := f.startTurn()
		if err != nil {
			return err
		}
		future := delta(turn, "")
		future.Type, future.Payload, future.Json = "response.from_the_future", nil, []byte(`{"n":1}`)
		_ = f.events(&gatewayv1.Event{
			Type:    "gateway.notice",
			Payload: &gatewayv1.Event_Notice{Notice: &gatewayv1.Notice{Kind: "recovered"}},
		}, future, completed(turn, "resp_1"))
		return f.drain()
	})
	ctx := testContext(t)
	turn, _ := session.Start(ctx, Request{Input: Text("hi")})
	var unknown string
	for event, err := range turn.Events(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		if event.Type() == "response.from_the_future" {
			unknown = string(event.JSON())
		}
	}
	if unknown != `{"n":1}` {
		t.Fatalf("unknown event %q", unknown)
	}
	if notice := <-notices; notice.Notice().GetKind() != "recovered" || notice.TurnID() != "" {
		t.Fatalf("%v", notice)
	}
}

// testTracer finds the caller's span in the context.
type testTracer struct{}

const traceparent = "00-01000000000000000000000000000000-0200000000000000-01"

func (testTracer) Inject(ctx context.Context) (string, string, string) {
	found, _ := ctx.Value(testTracer{}).(string)
	return found, "", ""
}

func (testTracer) StartTool(ctx context.Context, _ Call) (context.Context, func(error)) {
	return ctx, func(error) {}
}

func TestTraceContextTokenAndMetadata(t *testing.T) {
	type call struct {
		md    metadata.MD
		trace *gatewayv1.TraceContext
	}
	calls := make(chan call, 1)
	client := clientOf(t, &fake{streams: []func(*fakeStream) error{func(f *fakeStream) error {
		md, _ := metadata.FromIncomingContext(f.Context())
		_ = f.accept()
		turn, err := f.startTurn()
		if err != nil {
			return err
		}
		calls <- call{md, turn.GetTraceContext()}
		_ = f.events(completed(turn, "resp_1"))
		return f.drain()
	}}}, WithToken("secret"), WithMetadata("x-team", "blue"), WithTracer(testTracer{}))
	session, err := client.Connect(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	turn, _ := session.Start(context.WithValue(testContext(t), testTracer{}, traceparent), Request{Input: Text("hi")})
	if _, err := turn.Final(testContext(t)); err != nil {
		t.Fatal(err)
	}
	got := <-calls
	if got.trace.GetTraceparent() != traceparent {
		t.Fatalf("traceparent %q", got.trace.GetTraceparent())
	}
	if got.md.Get("authorization")[0] != "Bearer secret" || got.md.Get("x-team")[0] != "blue" {
		t.Fatalf("%v", got.md)
	}
}

func TestRequestsThatAreTooLargeAreRefusedHere(t *testing.T) {
	session := connectTo(t, nil, func(f *fakeStream) error {
		_ = f.accept()
		return f.drain()
	})
	_, err := session.Start(testContext(t), Request{Input: Text(strings.Repeat("x", 1<<20))})
	var failure *Error
	if !errors.As(err, &failure) || failure.Reason != ReasonMessageTooLarge || failure.Replay != ReplaySafe {
		t.Fatalf("%v", err)
	}
}

func TestOpenFails(t *testing.T) {
	client := clientOf(t, &fake{streams: []func(*fakeStream) error{func(*fakeStream) error {
		st, _ := status.New(codes.Unauthenticated, "who?").WithDetails(
			&errdetails.ErrorInfo{Reason: "UNAUTHENTICATED", Domain: "responses-gateway"})
		return st.Err()
	}}})
	if _, err := client.Connect(testContext(t)); !HasReason(err, "UNAUTHENTICATED") {
		t.Fatalf("%v", err)
	}
}

func TestAddresses(t *testing.T) {
	for address, want := range map[string]struct {
		target string
		plain  bool
	}{
		"127.0.0.1:50051":      {"127.0.0.1:50051", true},
		"localhost:1":          {"localhost:1", true},
		"[::1]:1":              {"[::1]:1", true},
		"gateway.example:443":  {"gateway.example:443", false},
		"http://gateway:50051": {"gateway:50051", true},
		"https://127.0.0.1:1/": {"127.0.0.1:1", false},
		"unix:/run/g.sock":     {"unix:/run/g.sock", true},
	} {
		if target, plain := parseAddress(address); target != want.target || plain != want.plain {
			t.Errorf("%s: %s, plain %v", address, target, plain)
		}
	}
}

func TestAReusedTurnIDEndsTheNewTurn(t *testing.T) {
	session := connectTo(t, nil, func(f *fakeStream) error {
		_ = f.accept()
		first, err := f.startTurn()
		if err != nil {
			return err
		}
		_ = f.events(completed(first, "resp_1"))
		second, err := f.startTurn()
		if err != nil {
			return err
		}
		refused := failed(second, &gatewayv1.TurnFailed{Code: 9, Reason: "TURN_ID_REUSED"})
		refused.Type, refused.Outcome = "gateway.request.rejected", 0
		_ = f.events(refused)
		return f.drain()
	})
	ctx := testContext(t)
	first, _ := session.Start(ctx, Request{Input: Text("hi"), TurnID: "same"})
	if _, err := first.Final(ctx); err != nil {
		t.Fatal(err)
	}
	second, _ := session.Start(ctx, Request{Input: Text("ho"), TurnID: "same"})
	if _, err := second.Final(ctx); !HasReason(err, "TURN_ID_REUSED") {
		t.Fatalf("%v", err)
	}
}
