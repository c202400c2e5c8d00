package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	gatewayv1 "github.com/responses-gateway/responses-gateway/clients/go/gen/responses/gateway/v1"
)

var quiet = WithLogger(slog.New(slog.NewTextHandler(io.Discard, nil)))

func waitUntil(t *testing.T, what string, done func() bool) {
	t.Helper()
	for ctx := testContext(t); !done(); {
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			t.Fatal(what)
		}
	}
}

func TestALaneThatNobodyReadsStopsNoOther(t *testing.T) {
	const pieces = 64
	session := connectTo(t, []SessionOption{WithMaxBufferedBytes(64 << 10)}, func(f *fakeStream) error {
		_ = f.accept()
		unread, err := f.startTurn()
		if err != nil {
			return err
		}
		for range pieces {
			_ = f.events(delta(unread, strings.Repeat("x", 4<<10)))
		}
		_ = f.events(completed(unread, "resp_1"))
		other, err := f.startTurn()
		if err != nil {
			return err
		}
		_ = f.events(completed(other, "resp_2", answer("fast")))
		return f.drain()
	})
	ctx := testContext(t)
	unread, _ := session.Lane("a").Start(ctx, Request{Input: Text("hi")})
	for _, err := range unread.Events(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		break
	}
	other, _ := session.Lane("b").Start(ctx, Request{Input: Text("hi")})
	if result, err := other.Final(ctx); err != nil || result.Text() != "fast" {
		t.Fatalf("%v %v", result, err)
	}
	for _, err := range unread.Events(ctx) {
		if !HasReason(err, ReasonReaderTooSlow) {
			t.Fatalf("%v", err)
		}
	}
	if result, err := unread.Final(ctx); err != nil || len(result.Text()) != pieces<<12 || result.Outcome != Completed {
		t.Fatalf("%d bytes, %v", len(result.Text()), err)
	}
	if buffered := session.Stats().BufferedBytes; buffered != 0 {
		t.Fatalf("%d bytes are held", buffered)
	}
}

func TestASlowReaderAloneLosesNothing(t *testing.T) {
	session := connectTo(t, []SessionOption{WithMaxBufferedBytes(4 << 10)}, func(f *fakeStream) error {
		_ = f.accept()
		turn, err := f.startTurn()
		if err != nil {
			return err
		}
		for range 40 {
			_ = f.events(delta(turn, strings.Repeat("x", 1<<10)))
		}
		_ = f.events(completed(turn, "resp_1"))
		return f.drain()
	})
	ctx := testContext(t)
	turn, _ := session.Start(ctx, Request{Input: Text("hi")})
	waitUntil(t, "nothing was buffered", func() bool { return session.Stats().BufferedBytes >= 4<<10 })
	time.Sleep(stallPatience + stallPatience/2)
	events := 0
	for _, err := range turn.Events(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		events++
	}
	if events != 41 {
		t.Fatalf("%d events", events)
	}
}

func TestClosingATurnGivesItsShareBack(t *testing.T) {
	session := connectTo(t, nil, func(f *fakeStream) error {
		_ = f.accept()
		turn, err := f.startTurn()
		if err != nil {
			return err
		}
		for range 100 {
			_ = f.events(delta(turn, "x"))
		}
		_ = f.events(completed(turn, "resp_1"))
		return f.drain()
	})
	ctx := testContext(t)
	turn, _ := session.Start(ctx, Request{Input: Text("hi")})
	for range turn.Events(ctx) {
		break
	}
	waitUntil(t, "the turn did not end", func() bool { return session.Stats().RunningTurns == 0 })
	turn.Close()
	if buffered := session.Stats().BufferedBytes; buffered != 0 || len(session.unread) != 0 {
		t.Fatalf("%d bytes, %d turns are held", buffered, len(session.unread))
	}
	if _, err := turn.Final(ctx); !HasReason(err, ReasonTurnClosed) {
		t.Fatalf("%v", err)
	}
}

func TestCallbacksMayPanicAndClose(t *testing.T) {
	var session *Session
	ready, closed := make(chan struct{}), make(chan error, 1)
	client := clientOf(t, &fake{streams: []func(*fakeStream) error{func(f *fakeStream) error {
		_ = f.accept()
		for kind := range 2 {
			_ = f.events(&gatewayv1.Event{Type: "gateway.notice", Payload: &gatewayv1.Event_Notice{
				Notice: &gatewayv1.Notice{Kind: fmt.Sprint(kind)},
			}})
		}
		return f.drain()
	}}}, quiet)
	session, err := client.Connect(testContext(t), WithOnEvent(func(event Event) {
		<-ready
		if event.Notice().GetKind() == "0" {
			panic("a bug of the program")
		}
		closed <- session.Close()
	}))
	if err != nil {
		t.Fatal(err)
	}
	close(ready)
	if err := <-closed; err != nil {
		t.Fatal(err)
	}
	<-session.Done()
}

func TestATokenSourceThatFailsOnceDoesNotEndTheSession(t *testing.T) {
	var asked atomic.Int32
	client := clientOf(t, &fake{streams: []func(*fakeStream) error{
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
			_ = f.events(completed(turn, "resp_1", answer("here")))
			return f.drain()
		},
	}}, quiet, WithTokenSource(func(context.Context) (string, error) {
		switch asked.Add(1) {
		case 2:
			panic("the token endpoint is down")
		case 3:
			return "", errors.New("still down")
		default:
			return "secret", nil
		}
	}))
	ctx := testContext(t)
	session, err := client.Connect(ctx)
	if err != nil {
		t.Fatal(err)
	}
	turn, _ := session.Start(ctx, Request{Input: Text("hi")})
	if result, err := turn.Final(ctx); err != nil || result.Text() != "here" || asked.Load() != 4 {
		t.Fatalf("%v %v after %d tokens", result, err, asked.Load())
	}
}

func TestOpeningIsBoundedAndHasReasons(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	hangs := WithTokenSource(func(context.Context) (string, error) { select {} })
	for name, test := range map[string]struct {
		address string
		options []ClientOption
		reason  string
	}{
		"nobody answers":       {silent.Addr().String(), nil, ReasonConnectTimeout},
		"nobody listens":       {closed.Addr().String(), nil, ReasonUnreachable},
		"a token that fails":   {silent.Addr().String(), []ClientOption{WithTokenSource(func(context.Context) (string, error) { return "", errors.New("no") })}, ReasonTokenSourceFailed},
		"a token with a break": {silent.Addr().String(), []ClientOption{WithToken("a\nb")}, ReasonTokenSourceFailed},
		"a token that hangs":   {silent.Addr().String(), []ClientOption{hangs}, ReasonConnectTimeout},
	} {
		if name == "a token that hangs" {
			// Its goroutine stays, as the program's own code does.
			continue
		}
		client, err := NewClient(append(test.options, WithAddress(test.address))...)
		if err != nil {
			t.Fatal(err)
		}
		_, err = client.Connect(testContext(t), WithConnectTimeout(200*time.Millisecond))
		var failure *Error
		if !errors.As(err, &failure) || failure.Reason != test.reason {
			t.Errorf("%s: %v", name, err)
		}
		if status.Code(err) != failure.Code || (test.reason == ReasonConnectTimeout && !errors.Is(err, context.DeadlineExceeded)) {
			t.Errorf("%s: %v", name, status.Code(err))
		}
		_ = client.Close()
	}
}

func TestClosingTheClientEndsItsSessions(t *testing.T) {
	client := clientOf(t, &fake{streams: []func(*fakeStream) error{func(f *fakeStream) error {
		_ = f.accept()
		return f.drain()
	}}})
	ctx := testContext(t)
	session, err := client.Connect(ctx)
	if err != nil {
		t.Fatal(err)
	}
	turn, _ := session.Start(ctx, Request{Input: Text("hi")})
	if err := errors.Join(client.Close(), client.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := turn.Final(ctx); !HasReason(err, ReasonClientClosed) {
		t.Fatalf("%v", err)
	}
	<-session.Done()
	if !HasReason(session.Err(), ReasonClientClosed) {
		t.Fatalf("%v", session.Err())
	}
	if _, err := client.Connect(ctx); !HasReason(err, ReasonClientClosed) {
		t.Fatalf("%v", err)
	}
}

func TestATurnThatThePathDoesNotCarryFails(t *testing.T) {
	attempts := 0
	var dies func(f *fakeStream) error
	dies = func(f *fakeStream) error {
		_ = f.accept()
		if _, err := f.startTurn(); err != nil {
			return err
		}
		attempts++
		return status.Error(codes.Unavailable, "connection lost")
	}
	session := connectTo(t, nil, dies, dies, dies, dies, func(f *fakeStream) error {
		_ = f.accept()
		turn, err := f.startTurn()
		if err != nil {
			return err
		}
		_ = f.events(completed(turn, "resp_1", answer("small")))
		return f.drain()
	})
	ctx := testContext(t)
	big, _ := session.Start(ctx, Request{Input: Text(strings.Repeat("x", 500_000))})
	_, err := big.Final(ctx)
	var failure *Error
	if !errors.As(err, &failure) || failure.Reason != ReasonTurnUndelivered || failure.Metadata["bytes"] < "500000" ||
		failure.Replay != ReplayUnknown || attempts != maxUndelivered {
		t.Fatalf("%v %+v after %d attempts", err, failure, attempts)
	}
	small, _ := session.Start(ctx, Request{Input: Text("hi")})
	if result, err := small.Final(ctx); err != nil || result.Text() != "small" {
		t.Fatalf("%v %v", result, err)
	}
}

func TestAnOpenedStreamThatIsLostAgainAndAgainEndsTheSession(t *testing.T) {
	opened := atomic.Int32{}
	dies := func(f *fakeStream) error {
		opened.Add(1)
		_ = f.accept(func(o *gatewayv1.Opened) { o.ResumeGrace = durationpb.New(time.Second) })
		return status.Error(codes.Unavailable, "connection lost")
	}
	streams := make([]func(*fakeStream) error, 1000)
	for index := range streams {
		streams[index] = dies
	}
	session := connectTo(t, nil, streams...)
	<-session.Done()
	if !HasReason(session.Err(), ReasonStreamLost) || opened.Load() > 15 {
		t.Fatalf("%v after %d streams", session.Err(), opened.Load())
	}
}

func TestAFurtherConnectionWhereThePeerTakesNoMoreStreams(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.MaxConcurrentStreams(2))
	service := &fake{}
	for range 5 {
		service.streams = append(service.streams, func(f *fakeStream) error {
			_ = f.accept()
			return f.drain()
		})
	}
	gatewayv1.RegisterResponsesServiceServer(server, service)
	go func() { _ = server.Serve(listener) }()
	defer server.Stop()
	client, err := NewClient(WithAddress(listener.Addr().String()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for range 5 {
		if _, err := client.Connect(testContext(t), WithConnectTimeout(10*time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	if connections := len(client.conns.all); connections != 3 {
		t.Fatalf("%d connections", connections)
	}
}

func TestSteersCountAsQueuedBytes(t *testing.T) {
	blocked := make(chan struct{})
	session := connectTo(t, []SessionOption{WithMaxQueuedBytes(1)}, func(f *fakeStream) error {
		_ = f.accept()
		<-blocked
		return f.drain()
	})
	defer close(blocked)
	ctx, cancel := context.WithTimeout(testContext(t), 500*time.Millisecond)
	defer cancel()
	turn, _ := session.Start(ctx, Request{Input: Text("hi")})
	var err error
	for range 1000 {
		if err = turn.Steer(ctx, Text(strings.Repeat("x", 100_000))); err != nil {
			break
		}
	}
	if !errors.Is(err, context.DeadlineExceeded) || session.Stats().QueuedBytes > 1<<20 {
		t.Fatalf("%v with %d bytes queued", err, session.Stats().QueuedBytes)
	}
}

func TestWhatCannotBeEncodedIsRefused(t *testing.T) {
	session := connectTo(t, nil, func(f *fakeStream) error {
		_ = f.accept()
		return f.drain()
	})
	ctx := testContext(t)
	if _, err := session.Start(ctx, Request{Input: Text("a\xffb")}); !HasReason(err, ReasonInvalidField) {
		t.Fatalf("%v", err)
	}
	if err := session.Lane("").Steer(ctx, Text("a\xffb")); !HasReason(err, ReasonInvalidField) {
		t.Fatalf("%v", err)
	}
}

func TestLanesWithoutATurnAreNotKept(t *testing.T) {
	session := connectTo(t, nil, func(f *fakeStream) error {
		_ = f.accept()
		turn, err := f.startTurn()
		if err != nil {
			return err
		}
		_ = f.events(failed(turn, &gatewayv1.TurnFailed{Code: 3, Reason: ReasonInvalidField}))
		return f.drain()
	})
	for index := range 100 {
		session.Lane(fmt.Sprint(index)).Fork("b").LastResponseID()
	}
	ctx := testContext(t)
	turn, _ := session.Lane("refused").Start(ctx, Request{Input: Text("hi")})
	_, _ = turn.Final(ctx)
	if len(session.lanes) != 0 {
		t.Fatalf("%d lanes are kept", len(session.lanes))
	}
}

func TestErrorsAnswerTheUsualQuestions(t *testing.T) {
	cancelled := fmt.Errorf("asking: %w", &Error{Code: codes.Canceled, Reason: ReasonTurnCancelled, TurnID: "t"})
	if !errors.Is(cancelled, context.Canceled) || !errors.Is(cancelled, &Error{Reason: ReasonTurnCancelled}) ||
		errors.Is(cancelled, &Error{Reason: ReasonTurnTimeout}) || errors.Is(cancelled, context.DeadlineExceeded) ||
		status.Code(cancelled) != codes.Canceled || !errors.Is(cancelled, &Error{Code: codes.Canceled}) {
		t.Fatal(cancelled)
	}
	if !HasReason(ErrTurnBusy, ReasonTurnBusy) || status.Code(ErrTurnBusy) != codes.FailedPrecondition {
		t.Fatal(ErrTurnBusy)
	}
}

func TestRetrySafeRunsAgainOnlyWhatDidNotRun(t *testing.T) {
	zero := time.Duration(0)
	for _, test := range []struct {
		failure Error
		want    int
	}{
		{Error{Reason: ReasonUpstreamRateLimited, Replay: ReplaySafe, RetryAfter: &zero}, 3},
		{Error{Reason: ReasonUpstreamOverloaded, Replay: ReplayUnknown}, 1},
		{Error{Reason: ReasonInvalidField, Replay: ReplaySafe}, 1},
	} {
		runs := 0
		_, err := RetrySafe(testContext(t), 3, func() (int, error) { runs++; return 0, &test.failure })
		if runs != test.want || !errors.Is(err, &test.failure) {
			t.Errorf("%s: %d runs, %v", test.failure.Reason, runs, err)
		}
	}
}

func TestAMovableSessionGoesOnElsewhere(t *testing.T) {
	seen, finish := make(chan GoAway, 1), make(chan struct{})
	var affinity [2]string
	session := connectTo(t, []SessionOption{WithOnGoAway(func(g GoAway) { seen <- g })},
		func(f *fakeStream) error {
			affinity[0] = header(f, "x-responses-session")
			_ = f.accept(func(o *gatewayv1.Opened) { o.Durable = true })
			turn, err := f.startTurn()
			if err != nil {
				return err
			}
			_ = f.events(created(turn, "resp_1"))
			_ = f.goAway(&gatewayv1.GoAway{
				Reason: gatewayv1.GoAwayReason_GO_AWAY_REASON_DRAINING, Movable: true, TimeLeft: durationpb.New(time.Minute),
			})
			<-finish
			last := completed(turn, "resp_1", answer("done"))
			last.Commit = 7
			_ = f.events(last)
			return f.drain()
		},
		func(f *fakeStream) error {
			// A balancer that does not know yet leads back to the gateway that goes down.
			st, _ := status.New(codes.Unavailable, "going down").WithDetails(
				&errdetails.ErrorInfo{Reason: ReasonDraining, Domain: "responses-gateway"})
			return st.Err()
		},
		func(f *fakeStream) error {
			affinity[1] = header(f, "x-responses-session")
			resume := f.open.GetResume()
			if resume.GetLastSeq() != 2 || resume.LastCommit == nil || resume.GetLastCommit() != 7 {
				return status.Errorf(codes.InvalidArgument, "%v", resume)
			}
			_ = f.accept(func(o *gatewayv1.Opened) {
				o.ResumeOutcome = gatewayv1.ResumeOutcome_RESUME_OUTCOME_RECOVERED
			})
			turn, err := f.startTurn()
			if err != nil {
				return err
			}
			_ = f.events(completed(turn, "resp_2", answer("elsewhere")))
			return f.drain()
		})
	ctx := testContext(t)
	first, _ := session.Start(ctx, Request{Input: Text("hi")})
	if goAway := <-seen; !goAway.Movable || !goAway.Draining {
		t.Fatalf("%+v", goAway)
	}
	held, err := session.Start(ctx, Request{Input: Text("more")})
	if err != nil {
		t.Fatal(err)
	}
	close(finish)
	if result, err := first.Final(ctx); err != nil || result.Text() != "done" {
		t.Fatalf("%v %v", result, err)
	}
	if result, err := held.Final(ctx); err != nil || result.Text() != "elsewhere" {
		t.Fatalf("%v %v", result, err)
	}
	if affinity[0] == "" || affinity[0] != affinity[1] || len(session.client.conns.all) != 1 {
		t.Fatalf("%q, %d connections", affinity, len(session.client.conns.all))
	}
}

func header(f *fakeStream, name string) string {
	md, _ := metadata.FromIncomingContext(f.Context())
	return strings.Join(md.Get(name), ",")
}
