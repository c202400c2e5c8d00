package gateway

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	gatewayv1 "github.com/responses-gateway/responses-gateway/clients/go/gen/responses/gateway/v1"
)

// DefaultMaxTurns bounds a tool loop: a model that still calls tools then is most likely going in circles.
const DefaultMaxTurns = 32

// Tools are the functions of a tool loop, and its limits.
type Tools struct {
	// Functions that the model may call.
	Functions []Tool
	// MaxTurns bounds the loop. 0: DefaultMaxTurns.
	MaxTurns int
	// MaxDuration bounds the whole loop, functions included. 0: only the context does.
	MaxDuration time.Duration
	// MaxTokens bounds what the turns use together, looked at after each turn. 0: no limit.
	MaxTokens int64
	// MaxCost bounds what the turns cost together, in the unit of Cost. 0: no limit.
	MaxCost float64
	// Cost is what a turn cost; needed for MaxCost.
	Cost func(*Result) float64
	// CallTimeout bounds each call of a function; the model is told that it did not answer. 0: no limit. A function
	// that does not look at its context goes on unheard.
	CallTimeout time.Duration
	// MaxConcurrency bounds the calls that run side by side. 0: all calls of a turn.
	MaxConcurrency int
	// Approve is asked before each call; with an error the call is not made, and the model is told so.
	Approve func(ctx context.Context, call Call) error
	// OnCall is told each answered call. The calls of a turn come one after the other.
	OnCall func(ctx context.Context, report CallReport)
}

// LoopError says why a tool loop ended early. It wraps the cause: an *Error whose reason is that of a turn or one of
// LOOP_TURN_LIMIT, LOOP_TIME_LIMIT, LOOP_TOKEN_LIMIT and LOOP_COST_LIMIT, or the error of the context.
type LoopError struct {
	// Result is that of the last turn, as far as it came, with Turns and Usage of the whole loop; nil if no turn began.
	Result *Result
	// OpenCalls are the calls that the model waits for. The lane stays usable: its next turn answers them first, with
	// the results that the functions gave, and otherwise with an error result.
	OpenCalls []*gatewayv1.FunctionCall

	cause error
}

func (e *LoopError) Error() string {
	if len(e.OpenCalls) == 0 {
		return fmt.Sprintf("gateway: tool loop: %v", e.cause)
	}
	return fmt.Sprintf("gateway: tool loop: %v; the lane's next turn answers %d open calls", e.cause, len(e.OpenCalls))
}

// Unwrap is why it ended.
func (e *LoopError) Unwrap() error { return e.cause }

// RunTools runs turns until the model answers without calling a function. The calls of a turn run side by side;
// functions end with ctx. Calls of a turn that did not complete are not made. The result is that of the last turn;
// its Usage and Turns are those of the loop. When the loop ends early, the error is a *LoopError, and what still runs
// is cancelled.
func (l *Lane) RunTools(ctx context.Context, request Request, tools Tools) (*Result, error) {
	loop := newLoop(l, request, tools)
	var early *LoopError
	for _, err := range loop.turns(ctx) {
		if err != nil && !errors.As(err, &early) {
			return nil, err
		}
	}
	if early != nil {
		return early.Result, early
	}
	return loop.result(), nil
}

// ToolTurns is RunTools turn by turn: each turn may be read with Events before the next one is asked for. The loop
// owns its turns: when the range is left, the turn that runs is cancelled and closed.
func (l *Lane) ToolTurns(ctx context.Context, request Request, tools Tools) iter.Seq2[*Turn, error] {
	return newLoop(l, request, tools).turns(ctx)
}

type loop struct {
	lane    *Lane
	tools   Tools
	request Request
	// done are the results of the turns that have ended, in order.
	done []*Result
	// asked is the last completed response, as far as it waits for results: its calls and what answers them so far.
	asked     *Result
	askedTurn *Turn
	calls     []*gatewayv1.FunctionCall
	given     []*Item
	cost      float64
	// shrunk: outputs that were too large have been replaced by errors.
	shrunk bool
}

func newLoop(lane *Lane, request Request, tools Tools) *loop {
	create := proto.CloneOf(request.Create)
	if create == nil {
		create = &gatewayv1.CreateBody{}
	}
	all := slices.Concat(create.GetTools(), request.Tools)
	for _, tool := range tools.Functions {
		all = append(all, tool.spec)
	}
	create.Tools = nil
	request.Create, request.Tools = create, all
	if tools.MaxTurns == 0 {
		tools.MaxTurns = DefaultMaxTurns
	}
	return &loop{lane: lane, tools: tools, request: request}
}

func (l *loop) turns(ctx context.Context) iter.Seq2[*Turn, error] {
	return func(yield func(*Turn, error) bool) {
		if l.tools.MaxDuration > 0 {
			var cancel context.CancelFunc
			late := inferred(codes.DeadlineExceeded, ReasonLoopTimeLimit, "the tool loop reached its limit of time")
			ctx, cancel = context.WithTimeoutCause(ctx, l.tools.MaxDuration, late)
			defer cancel()
		}
		if err := l.run(ctx, func(turn *Turn) bool { return yield(turn, nil) }); err != nil {
			yield(nil, err)
		}
	}
}

// errLeft: the program has left the range.
var errLeft = errors.New("left")

func (l *loop) run(ctx context.Context, yield func(*Turn) bool) error {
	for {
		err := l.turn(ctx, yield)
		if err == nil && len(l.calls) == 0 {
			return nil
		}
		if err == nil {
			err = l.limit()
		}
		if err == nil {
			l.given = l.callTools(ctx, l.askedTurn, l.calls)
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
		}
		if err == nil {
			l.request = l.request.continued(l.given)
			continue
		}
		if l.shrink(err) {
			l.request = l.request.continued(l.given)
			continue
		}
		return l.endEarly(err)
	}
}

// turn runs one turn. Whatever becomes of it, nothing of it is left behind.
func (l *loop) turn(ctx context.Context, yield func(*Turn) bool) error {
	turn, err := l.lane.Start(ctx, l.request)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return err
	}
	turn.bound = ctx
	finished := false
	defer func() {
		// Also when the program panics in the range.
		if !finished {
			l.settle()
			turn.abandon()
		}
	}()
	if !yield(turn) {
		l.done = append(l.done, turn.SoFar())
		return errLeft
	}
	result, err := turn.Final(ctx)
	if result == nil {
		result = turn.SoFar()
	}
	l.done = append(l.done, result)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return err
	}
	finished = true
	// Before the program's own code is asked, which may panic.
	settled := false
	defer func() {
		if !settled {
			l.settle()
		}
	}()
	l.asked, l.askedTurn, l.calls, l.given, l.shrunk = result, turn, result.FunctionCalls(), nil, false
	if l.tools.Cost != nil {
		l.cost += l.tools.Cost(result)
	}
	if result.Outcome != Completed {
		// What an unfinished answer asks for is not run.
		l.settle()
		l.calls = nil
	}
	settled = true
	return nil
}

// limit is why no further turn may follow.
func (l *loop) limit() error {
	switch {
	case len(l.done) >= l.tools.MaxTurns:
		return ErrTurnLimit
	case l.tools.MaxTokens > 0 && l.result().Usage().TotalTokens >= l.tools.MaxTokens:
		return inferred(codes.ResourceExhausted, ReasonLoopTokenLimit, "the tool loop reached its limit of tokens")
	case l.tools.MaxCost > 0 && l.cost >= l.tools.MaxCost:
		return inferred(codes.ResourceExhausted, ReasonLoopCostLimit, "the tool loop reached its limit of money")
	default:
		return nil
	}
}

// shrink answers the calls whose outputs are too large to be sent with an error, once.
func (l *loop) shrink(err error) bool {
	if l.shrunk || len(l.given) == 0 || !(HasReason(err, ReasonMessageTooLarge) || HasReason(err, ReasonFrameTooLarge)) {
		return false
	}
	l.shrunk = true
	total := 0
	for _, item := range l.given {
		total += proto.Size(item)
	}
	for index, item := range l.given {
		output := item.GetFunctionCallOutput()
		if size := proto.Size(item); size > total/(2*len(l.given)) {
			l.given[index] = CallOutput(output.GetCallId(),
				errorResult(fmt.Sprintf("the output of %d bytes is too large to be sent", size)))
		}
	}
	return true
}

func (l *loop) endEarly(err error) error {
	l.settle()
	if err == errLeft {
		return nil
	}
	return &LoopError{Result: l.result(), OpenCalls: l.calls, cause: err}
}

// settle leaves the lane so that its next turn can run: the calls that the model waits for get results with it.
func (l *loop) settle() {
	if l.asked == nil || len(l.calls) == 0 {
		return
	}
	outputs := l.given
	if len(outputs) == 0 {
		outputs = unansweredCalls(l.calls)
	}
	l.lane.leaveOpen(l.asked.ResponseID(), outputs)
}

// result is the last turn's, with what the whole loop came to.
func (l *loop) result() *Result {
	if len(l.done) == 0 {
		return nil
	}
	last := *l.done[len(l.done)-1]
	last.Turns = slices.Clone(l.done)
	return &last
}

func (l *loop) logger() *slog.Logger { return l.lane.session.client.opts.logger }

// continued is the next request of the loop: the same settings, the results as input.
func (r Request) continued(outputs []*Item) Request {
	r.Input, r.TurnID, r.From, r.NewConversation, r.FullHistory = outputs, "", "", false, false
	r.Create = proto.CloneOf(r.Create)
	r.Create.Input, r.Create.PreviousResponseId = nil, nil
	// A forced tool choice would force the call again and again.
	r.Create.ToolChoice, r.ToolChoice = nil, ""
	return r
}
