package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	gatewayv1 "github.com/responses-gateway/responses-gateway/clients/go/gen/responses/gateway/v1"
)

// Tool is a function that the model may call. Make it with [Func].
type Tool struct {
	spec    *gatewayv1.Tool
	name    string
	timeout time.Duration
	call    func(ctx context.Context, arguments string) (string, error)
}

// Func makes a tool of a function. The arguments are a struct: its json tags name the members, and the tags
// description:"…" and enum:"a,b" go into the JSON Schema. Results are written as JSON, strings as they are. An
// error, and a panic, goes to the model as the result {"error": …}. It panics if In has no JSON Schema: that is a
// mistake in the program.
func Func[In, Out any](name, description string, f func(context.Context, In) (Out, error)) Tool {
	schema, strict, err := schemaOf(reflect.TypeFor[In]())
	if err != nil {
		panic(fmt.Sprintf("gateway.Func(%q): %v", name, err))
	}
	return Tool{
		name: name,
		spec: &gatewayv1.Tool{Kind: &gatewayv1.Tool_Function{Function: &gatewayv1.FunctionTool{
			Name: name, Description: &description, Parameters: schema, Strict: proto.Bool(strict),
		}}},
		call: func(ctx context.Context, arguments string) (string, error) {
			var in In
			if err := json.Unmarshal([]byte(arguments), &in); err != nil {
				return "", fmt.Errorf("the arguments do not fit the schema: %w", err)
			}
			out, err := f(ctx, in)
			if err != nil {
				return "", err
			}
			if text, is := any(out).(string); is {
				return text, nil
			}
			encoded, err := json.Marshal(out)
			return string(encoded), err
		},
	}
}

// Name is the function's name.
func (t Tool) Name() string { return t.name }

// Proto is what the model is told, for Request.Tools.
func (t Tool) Proto() *gatewayv1.Tool { return t.spec }

// WithTimeout bounds a call of this tool, instead of Tools.CallTimeout.
func (t Tool) WithTimeout(timeout time.Duration) Tool {
	t.timeout = timeout
	return t
}

// Call is a call that the model makes.
type Call struct {
	// ID pairs the call with its result.
	ID string
	// Name of the function.
	Name string
	// Arguments as the model wrote them; usually JSON.
	Arguments string
	// LaneID and TurnID say where.
	LaneID, TurnID string
}

// CallReport is a call that was answered.
type CallReport struct {
	Call
	// Output is the result that the model gets.
	Output string
	// Err is why it is an error result; nil if the function gave it.
	Err error
	// Duration of the function.
	Duration time.Duration
}

// ErrDenied, returned by Tools.Approve, denies a call without saying more. What another error says goes to the model.
var ErrDenied = errors.New("the call was denied")

// callTools answers the calls of a turn, side by side and in their order, whatever the functions do.
func (l *loop) callTools(ctx context.Context, turn *Turn, calls []*gatewayv1.FunctionCall) []*Item {
	places := make(chan struct{}, max(1, l.tools.concurrency(len(calls))))
	type answer struct {
		index  int
		report CallReport
	}
	answers := make(chan answer, len(calls))
	for index, call := range calls {
		go func() {
			answered := CallReport{Call: Call{
				ID: call.GetCallId(), Name: call.GetName(), Arguments: call.GetArguments(),
				LaneID: turn.lane.id, TurnID: turn.id,
			}}
			select {
			case places <- struct{}{}:
				l.callTool(ctx, &answered)
				<-places
			case <-ctx.Done():
				answered.Err = context.Cause(ctx)
			}
			if answered.Err != nil {
				answered.Output = errorResult(answered.Err.Error())
			}
			answers <- answer{index, answered}
		}()
	}
	outputs := make([]*Item, len(calls))
	for range calls {
		each := <-answers
		outputs[each.index] = CallOutput(each.report.ID, each.report.Output)
		if onCall := l.tools.OnCall; onCall != nil {
			if err := protect(func() error { onCall(ctx, each.report); return nil }); err != nil {
				report(l.logger(), slog.LevelError, "gateway: OnCall failed", "error", err, "stack", stackOf(err))
			}
		}
	}
	return outputs
}

// callTool makes one call, within its time.
func (l *loop) callTool(ctx context.Context, call *CallReport) {
	began := time.Now()
	defer func() { call.Duration = time.Since(began) }()
	tool, found := l.tools.find(call.Name)
	if !found {
		call.Err = fmt.Errorf("there is no function %s", call.Name)
		return
	}
	if approve := l.tools.Approve; approve != nil {
		if _, err := within(ctx, func(ctx context.Context) (struct{}, error) {
			return struct{}{}, approve(ctx, call.Call)
		}); err != nil {
			call.Err = ErrDenied
			if !errors.Is(err, ErrDenied) {
				call.Err = fmt.Errorf("%w: %w", ErrDenied, err)
			}
			return
		}
	}
	timeout := l.tools.CallTimeout
	if tool.timeout > 0 {
		timeout = tool.timeout
	}
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, timeout,
			fmt.Errorf("the function did not answer within %s", timeout))
		defer cancel()
	}
	end := func(error) {}
	if tracer := l.lane.session.client.opts.tracer; tracer != nil {
		l.traced(func() { ctx, end = tracer.StartTool(ctx, call.Call) })
	}
	call.Output, call.Err = within(ctx, func(ctx context.Context) (string, error) {
		return tool.call(ctx, call.Arguments)
	})
	call.Output = strings.ToValidUTF8(call.Output, "\uFFFD")
	l.traced(func() { end(call.Err) })
	if stack := stackOf(call.Err); stack != "" {
		report(l.logger(), slog.LevelError, "gateway: a function panicked",
			"function", call.Name, "panic", call.Err.Error(), "stack", stack)
	}
}

// traced runs the program's tracer, which must not end the call.
func (l *loop) traced(call func()) {
	if err := protect(func() error { call(); return nil }); err != nil {
		report(l.logger(), slog.LevelError, "gateway: the tracer failed", "error", err, "stack", stackOf(err))
	}
}

func (t Tools) find(name string) (Tool, bool) {
	for _, tool := range t.Functions {
		if tool.name == name {
			return tool, true
		}
	}
	return Tool{}, false
}

func (t Tools) concurrency(calls int) int {
	if t.MaxConcurrency > 0 {
		return min(t.MaxConcurrency, calls)
	}
	return calls
}

func errorResult(message string) string {
	encoded, _ := json.Marshal(map[string]string{"error": strings.ToValidUTF8(message, "\uFFFD")})
	return string(encoded)
}
