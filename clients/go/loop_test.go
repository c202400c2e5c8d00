package gateway

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"

	gatewayv1 "github.com/responses-gateway/responses-gateway/clients/go/gen/responses/gateway/v1"
)

// script answers each turn by its number; it ends a turn that hangs when that is cancelled.
func script(seen *[]*gatewayv1.StartTurn, play func(round int, turn *gatewayv1.StartTurn) []*gatewayv1.Event) func(*fakeStream) error {
	return func(f *fakeStream) error {
		_ = f.accept()
		for round := 0; ; {
			message, err := f.Recv()
			if err != nil {
				return nil
			}
			if turn := message.GetStartTurn(); turn != nil {
				*seen = append(*seen, turn)
				_ = f.events(play(round, turn)...)
				round++
			}
			if cancel := message.GetCancelTurn(); cancel != nil {
				turn := &gatewayv1.StartTurn{LaneId: cancel.GetLaneId(), TurnId: cancel.GetTurnId()}
				last := failed(turn, &gatewayv1.TurnFailed{Code: 1, Reason: ReasonTurnCancelled})
				last.Outcome = gatewayv1.TurnOutcome_TURN_OUTCOME_CANCELLED
				_ = f.events(last)
			}
		}
	}
}

func outputsOf(turn *gatewayv1.StartTurn) (outputs []string) {
	for _, item := range turn.GetCreate().GetInput() {
		if output := item.GetFunctionCallOutput(); output != nil {
			outputs = append(outputs, output.GetCallId()+"="+output.GetOutput())
		}
	}
	return outputs
}

func TestALoopLeavesItsLaneUsable(t *testing.T) {
	notMade := `c1={"error":"the call was not answered: the tool loop ended"}`
	calls := func(round int, turn *gatewayv1.StartTurn) []*gatewayv1.Event {
		if round == 0 {
			return []*gatewayv1.Event{completed(turn, "resp_1", functionCall("c1", "work", `{}`))}
		}
		return []*gatewayv1.Event{created(turn, "resp_2")}
	}
	work := func(f func(ctx context.Context) (string, error)) []Tool {
		return []Tool{Func("work", "Works", func(ctx context.Context, _ struct{}) (string, error) { return f(ctx) })}
	}
	fine := work(func(context.Context) (string, error) { return "done", nil })
	for name, test := range map[string]struct {
		tools  Tools
		reason string
		is     error
		want   string
	}{
		"limit of turns":  {Tools{MaxTurns: 1, Functions: fine}, ReasonLoopTurnLimit, ErrTurnLimit, notMade},
		"limit of tokens": {Tools{MaxTokens: 7, Functions: fine}, ReasonLoopTokenLimit, nil, notMade},
		"limit of money": {
			Tools{MaxCost: 1, Cost: func(r *Result) float64 { return float64(r.Usage().TotalTokens) }, Functions: fine},
			ReasonLoopCostLimit, nil, notMade,
		},
		"time, in a function": {
			Tools{MaxDuration: 50 * time.Millisecond, Functions: work(func(ctx context.Context) (string, error) {
				<-ctx.Done()
				return "", ctx.Err()
			})},
			ReasonLoopTimeLimit, context.DeadlineExceeded, "c1=",
		},
		"time, in a turn": {
			Tools{MaxDuration: 100 * time.Millisecond, Functions: fine}, ReasonLoopTimeLimit, context.DeadlineExceeded, "c1=done",
		},
	} {
		t.Run(name, func(t *testing.T) {
			var seen []*gatewayv1.StartTurn
			session := connectTo(t, nil, script(&seen, calls))
			ctx := testContext(t)
			lane := session.Lane("agent")
			result, err := lane.RunTools(ctx, Request{Input: Text("go")}, test.tools)
			var early *LoopError
			if !errors.As(err, &early) || !HasReason(err, test.reason) || len(early.OpenCalls) != 1 || result == nil ||
				(test.is != nil && !errors.Is(err, test.is)) {
				t.Fatalf("%v", err)
			}
			waitUntil(t, "a turn was left behind", func() bool { return session.Stats().RunningTurns == 0 })
			// A fork from there has the same calls open.
			fork := lane.Fork("other")
			for _, next := range []*Lane{lane, fork} {
				turn, err := next.Start(ctx, Request{Input: Text("and now?")})
				if err != nil {
					t.Fatal(err)
				}
				for range turn.Events(ctx) {
					break
				}
			}
			for _, turn := range seen[len(seen)-2:] {
				outputs := outputsOf(turn)
				if len(outputs) != 1 || !strings.HasPrefix(outputs[0], test.want) || len(turn.GetCreate().GetInput()) != 2 {
					t.Fatalf("%v", turn)
				}
			}
		})
	}
}

func TestAnswersOfOnesOwnAreNotGivenTwice(t *testing.T) {
	var seen []*gatewayv1.StartTurn
	session := connectTo(t, nil, script(&seen, func(_ int, turn *gatewayv1.StartTurn) []*gatewayv1.Event {
		return []*gatewayv1.Event{completed(turn, "resp_1", functionCall("c1", "a", `{}`), functionCall("c2", "a", `{}`))}
	}))
	ctx := testContext(t)
	lane := session.Lane("")
	if _, err := lane.RunTools(ctx, Request{}, Tools{MaxTurns: 1}); !errors.Is(err, ErrTurnLimit) {
		t.Fatal(err)
	}
	turn, _ := lane.Start(ctx, Request{Input: []*Item{CallOutput("c2", "mine")}})
	_, _ = turn.Final(ctx)
	// The lane has gone on: nothing is open any more.
	fresh, _ := lane.Start(ctx, Request{Input: Text("next")})
	_, _ = fresh.Final(ctx)
	if outputs := outputsOf(seen[1]); len(outputs) != 2 || outputs[1] != "c2=mine" || len(outputsOf(seen[2])) != 0 {
		t.Fatalf("%v", seen)
	}
}

func TestALoopThatIsLeftCancelsItsTurn(t *testing.T) {
	var seen []*gatewayv1.StartTurn
	session := connectTo(t, nil, script(&seen, func(_ int, turn *gatewayv1.StartTurn) []*gatewayv1.Event {
		return []*gatewayv1.Event{created(turn, "resp_1"), delta(turn, "x")}
	}))
	ctx := testContext(t)
	for turn, err := range session.Lane("").ToolTurns(ctx, Request{}, Tools{}) {
		if err != nil {
			t.Fatal(err)
		}
		for range turn.Events(ctx) {
			break
		}
		break
	}
	waitUntil(t, "the turn goes on", func() bool { return session.Stats().RunningTurns == 0 })
	if buffered := session.Stats().BufferedBytes; buffered != 0 {
		t.Fatalf("%d bytes are held", buffered)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := session.Lane("").RunTools(ended, Request{}, Tools{}); !errors.Is(err, context.Canceled) || len(seen) != 1 {
		t.Fatalf("%v after %d turns", err, len(seen))
	}
}

func TestToolsOfTheRequestStayAndUsageIsSummed(t *testing.T) {
	var seen []*gatewayv1.StartTurn
	session := connectTo(t, nil, script(&seen, func(round int, turn *gatewayv1.StartTurn) []*gatewayv1.Event {
		if round < 2 {
			return []*gatewayv1.Event{completed(turn, "resp", functionCall("c", "work", `{}`))}
		}
		return []*gatewayv1.Event{completed(turn, "resp", answer("done"))}
	}))
	own := Func("own", "Is the program's", func(context.Context, struct{}) (string, error) { return "", nil }).Proto()
	tools := Tools{Functions: []Tool{Func("work", "Works", func(context.Context, struct{}) (string, error) { return "", nil })}}
	result, err := session.Lane("").RunTools(testContext(t),
		Request{Create: &gatewayv1.CreateBody{Tools: []*gatewayv1.Tool{own}}}, tools)
	if err != nil || result.Usage().TotalTokens != 21 || len(result.Turns) != 3 {
		t.Fatalf("%v %v", result, err)
	}
	for _, turn := range seen {
		if len(turn.GetCreate().GetTools()) != 2 {
			t.Fatalf("%v", turn.GetCreate().GetTools())
		}
	}
}

func TestEveryCallIsAnsweredWhateverItsFunctionDoes(t *testing.T) {
	var seen []*gatewayv1.StartTurn
	session := connectTo(t, nil, script(&seen, func(round int, turn *gatewayv1.StartTurn) []*gatewayv1.Event {
		if round > 0 {
			return []*gatewayv1.Event{completed(turn, "resp_2", answer("done"))}
		}
		return []*gatewayv1.Event{completed(turn, "resp_1",
			functionCall("c1", "exits", `{}`), functionCall("c2", "hangs", `{}`), functionCall("c3", "refused", `{}`),
			functionCall("c4", "huge", `{}`), functionCall("c5", "garbage", `{}`), functionCall("c6", "fine", `{}`))}
	}))
	forever := make(chan struct{})
	defer close(forever)
	text := func(name string, f func() string) Tool {
		return Func(name, "", func(context.Context, struct{}) (string, error) { return f(), nil })
	}
	var reports []CallReport
	result, err := session.Lane("").RunTools(testContext(t), Request{}, Tools{
		Functions: []Tool{
			text("exits", func() string { runtime.Goexit(); return "" }),
			text("hangs", func() string { <-forever; return "" }).WithTimeout(20 * time.Millisecond),
			text("refused", func() string { return "made" }),
			text("huge", func() string { return strings.Repeat("x", 2<<20) }),
			text("garbage", func() string { return "a\xffb" }),
			text("fine", func() string { return "fine" }),
		},
		MaxConcurrency: 2,
		Approve: func(_ context.Context, call Call) error {
			if call.Name == "refused" {
				return errors.New("not today")
			}
			return nil
		},
		OnCall: func(_ context.Context, report CallReport) { reports = append(reports, report) },
	})
	if err != nil || result.Text() != "done" || len(reports) != 6 {
		t.Fatalf("%v %v", result, err)
	}
	want := []string{
		`c1={"error":"the function ended its goroutine"}`, `c2={"error":"the function did not answer within 20ms"}`,
		`c3={"error":"the call was denied: not today"}`, `c4={"error":"the output of 2097`, "c5=a\uFFFDb", "c6=fine",
	}
	for index, output := range outputsOf(seen[1]) {
		if !strings.HasPrefix(output, want[index]) {
			t.Errorf("%s instead of %s", output[:min(len(output), 80)], want[index])
		}
	}
}
