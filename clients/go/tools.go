package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"reflect"
	"sync"

	"google.golang.org/protobuf/proto"

	gatewayv1 "github.com/responses-gateway/responses-gateway/clients/go/gen/responses/gateway/v1"
)

// DefaultMaxTurns bounds a tool loop: a model that still calls tools then is most likely going in circles.
const DefaultMaxTurns = 32

// Tool is a function that the model may call. Make it with [Func].
type Tool struct {
	spec *gatewayv1.Tool
	name string
	call func(ctx context.Context, arguments string) (string, error)
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

// Tools are the functions of a tool loop.
type Tools struct {
	// Functions that the model may call.
	Functions []Tool
	// MaxTurns bounds the loop. 0: DefaultMaxTurns.
	MaxTurns int
}

// RunTools runs turns until the model answers without calling a function. The calls of a turn run side by side;
// functions end with ctx. Calls of a turn that did not complete are not made. ErrTurnLimit comes with the last
// result.
func (l *Lane) RunTools(ctx context.Context, request Request, tools Tools) (*Result, error) {
	var result *Result
	for turn, err := range l.ToolTurns(ctx, request, tools) {
		if err != nil {
			return result, err
		}
		if result, err = turn.Final(ctx); err != nil {
			return result, err
		}
	}
	return result, nil
}

// ToolTurns is RunTools turn by turn: each turn may be read with Events before the next one is asked for.
func (l *Lane) ToolTurns(ctx context.Context, request Request, tools Tools) iter.Seq2[*Turn, error] {
	return func(yield func(*Turn, error) bool) {
		limit := tools.MaxTurns
		if limit == 0 {
			limit = DefaultMaxTurns
		}
		for _, tool := range tools.Functions {
			request.Tools = append(request.Tools[:len(request.Tools):len(request.Tools)], tool.spec)
		}
		for count := 1; ; count++ {
			turn, err := l.Start(ctx, request)
			if err != nil {
				yield(nil, err)
				return
			}
			if !yield(turn, nil) {
				return
			}
			result, err := turn.Final(ctx)
			if err != nil {
				yield(nil, err)
				return
			}
			calls := result.FunctionCalls()
			if len(calls) == 0 || result.Outcome != Completed {
				return
			}
			if count >= limit {
				yield(nil, ErrTurnLimit)
				return
			}
			request = request.continued(tools.run(ctx, calls))
			if ctx.Err() != nil {
				yield(nil, ctx.Err())
				return
			}
		}
	}
}

// run makes all calls at once and keeps their order.
func (t Tools) run(ctx context.Context, calls []*gatewayv1.FunctionCall) []*Item {
	outputs := make([]*Item, len(calls))
	var wait sync.WaitGroup
	for index, call := range calls {
		wait.Go(func() { outputs[index] = CallOutput(call.GetCallId(), t.one(ctx, call)) })
	}
	wait.Wait()
	return outputs
}

func (t Tools) one(ctx context.Context, call *gatewayv1.FunctionCall) (output string) {
	defer func() {
		if problem := recover(); problem != nil {
			output = errorResult(fmt.Sprint(problem))
		}
	}()
	for _, tool := range t.Functions {
		if tool.name != call.GetName() {
			continue
		}
		output, err := tool.call(ctx, call.GetArguments())
		if err != nil {
			return errorResult(err.Error())
		}
		return output
	}
	return errorResult("there is no function " + call.GetName())
}

func errorResult(message string) string {
	encoded, _ := json.Marshal(map[string]string{"error": message})
	return string(encoded)
}

// continued is the next request of the loop: the same settings, the results as input.
func (r Request) continued(outputs []*Item) Request {
	r.Input, r.TurnID, r.From, r.NewConversation, r.FullHistory = outputs, "", "", false, false
	if r.Create != nil {
		r.Create = proto.CloneOf(r.Create)
		r.Create.Input, r.Create.PreviousResponseId = nil, nil
		// A forced tool choice would force the call again and again.
		r.Create.ToolChoice = nil
	}
	return r
}
