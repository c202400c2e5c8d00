package gateway

import (
	"slices"
	"strings"

	gatewayv1 "github.com/responses-gateway/responses-gateway/clients/go/gen/responses/gateway/v1"
)

// Result is what a turn came to.
type Result struct {
	LaneID, TurnID string
	// Outcome is Running if the turn ended without a last event.
	Outcome Outcome
	// Response is the last one of the turn; nil if none was created.
	Response *gatewayv1.Response
	// Responses are all of the turn, in order. A steered turn has several.
	Responses []*gatewayv1.Response
	// Items are the output items of Response that are complete.
	Items []*gatewayv1.OutputItem
	// Turns are the results of all turns of a tool loop, in order; nil for a single turn.
	Turns []*Result

	// Cost is what the turn cost by the gateway's price table; nil without one, and for the result of a tool loop.
	Cost *gatewayv1.Cost

	partial string
}

// Usage is what the turn cost, over all its responses.
type Usage struct {
	InputTokens, CachedInputTokens, OutputTokens, ReasoningTokens, TotalTokens int64
}

// ResponseID names the response to continue from; "" if none was created.
func (r *Result) ResponseID() string { return r.Response.GetId() }

// Text is the visible answer. Of a turn that broke off, it is what had arrived.
func (r *Result) Text() string {
	var text strings.Builder
	messages := false
	for _, item := range r.Items {
		message := item.GetMessage()
		if message == nil {
			continue
		}
		messages = true
		for _, part := range message.GetContent() {
			text.WriteString(part.GetOutputText().GetText())
		}
	}
	if !messages || len(r.partial) > text.Len() {
		return r.partial
	}
	return text.String()
}

// Refusal is the model's refusal, "" if it did not refuse.
func (r *Result) Refusal() string {
	var text strings.Builder
	for _, item := range r.Items {
		for _, part := range item.GetMessage().GetContent() {
			text.WriteString(part.GetRefusal().GetRefusal())
		}
	}
	return text.String()
}

// FunctionCalls are the calls that wait for a result.
func (r *Result) FunctionCalls() []*gatewayv1.FunctionCall {
	var calls []*gatewayv1.FunctionCall
	for _, item := range r.Items {
		if call := item.GetFunctionCall(); call != nil {
			calls = append(calls, call)
		}
	}
	return calls
}

// Usage sums what the turn cost; for the result of a tool loop, what all its turns cost.
func (r *Result) Usage() Usage {
	var sum Usage
	for _, turn := range r.Turns {
		usage := turn.Usage()
		sum.InputTokens += usage.InputTokens
		sum.CachedInputTokens += usage.CachedInputTokens
		sum.OutputTokens += usage.OutputTokens
		sum.ReasoningTokens += usage.ReasoningTokens
		sum.TotalTokens += usage.TotalTokens
	}
	if r.Turns != nil {
		return sum
	}
	for _, response := range r.Responses {
		usage := response.GetUsage()
		sum.InputTokens += usage.GetInputTokens()
		sum.CachedInputTokens += usage.GetInputTokensDetails().GetCachedTokens()
		sum.OutputTokens += usage.GetOutputTokens()
		sum.ReasoningTokens += usage.GetOutputTokensDetails().GetReasoningTokens()
		sum.TotalTokens += usage.GetTotalTokens()
	}
	return sum
}

// accumulator builds the result from the events; the one place that knows how.
type accumulator struct {
	outcome   Outcome
	responses []*gatewayv1.Response
	items     []*gatewayv1.OutputItem
	text      strings.Builder
	cost      *gatewayv1.Cost
}

func (a *accumulator) add(event *gatewayv1.Event) {
	switch payload := event.Payload.(type) {
	case *gatewayv1.Event_OutputTextDelta:
		a.text.WriteString(payload.OutputTextDelta.GetDelta())
	case *gatewayv1.Event_OutputItemDone:
		a.items = append(a.items, payload.OutputItemDone.GetItem())
	case *gatewayv1.Event_ResponseCreated:
		a.begin(payload.ResponseCreated.GetResponse())
	case *gatewayv1.Event_ResponseCompleted:
		a.finish(payload.ResponseCompleted.GetResponse())
	case *gatewayv1.Event_ResponseIncomplete:
		a.finish(payload.ResponseIncomplete.GetResponse())
	case *gatewayv1.Event_ResponseFailed:
		a.finish(payload.ResponseFailed.GetResponse())
	}
	if outcome := outcomeOf(event.GetOutcome()); outcome != Running {
		a.outcome = outcome
	}
	if cost := event.GetCost(); cost != nil {
		a.cost = cost
	}
}

func (a *accumulator) begin(response *gatewayv1.Response) {
	a.responses = append(a.responses, response)
	a.items = nil
	a.text.Reset()
}

// finish replaces what response.created said. The finished response may list no output: the items then came alone.
func (a *accumulator) finish(response *gatewayv1.Response) {
	if last := len(a.responses) - 1; last >= 0 && a.responses[last].GetId() == response.GetId() {
		a.responses[last] = response
	} else {
		// A sparse upstream has left response.created out: what came so far belongs to this response.
		a.responses = append(a.responses, response)
	}
	if listed := response.GetOutput(); len(listed) > len(a.items) {
		a.items = listed
	}
}

func (a *accumulator) result(laneID, turnID string) *Result {
	r := &Result{
		LaneID: laneID, TurnID: turnID,
		Outcome: a.outcome, Responses: slices.Clone(a.responses), Items: slices.Clone(a.items), Cost: a.cost,
		partial: a.text.String(),
	}
	if last := len(a.responses) - 1; last >= 0 {
		r.Response = a.responses[last]
	}
	return r
}
