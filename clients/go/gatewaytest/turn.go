package gatewaytest

import (
	"sync"

	gateway "github.com/responses-gateway/responses-gateway/clients/go"
	gatewayv1 "github.com/responses-gateway/responses-gateway/clients/go/gen/responses/gateway/v1"
)

// Turn is a turn that the test answers.
type Turn struct {
	// Start is what the program asked for.
	Start *gatewayv1.StartTurn

	server  *Server
	session *session
	id      string
	done    chan struct{}

	mu    sync.Mutex
	items []*gatewayv1.OutputItem
	ended bool
}

// Text is the text of the turn's last message.
func (t *Turn) Text() string {
	input := t.Start.GetCreate().GetInput()
	for index := len(input) - 1; index >= 0; index-- {
		if message := input[index].GetMessage(); message != nil {
			return message.GetText()
		}
	}
	return ""
}

// Outputs are the results that the turn brings, by call id.
func (t *Turn) Outputs() map[string]string {
	outputs := map[string]string{}
	for _, item := range t.Start.GetCreate().GetInput() {
		if output := item.GetFunctionCallOutput(); output != nil {
			outputs[output.GetCallId()] = output.GetOutput()
		}
	}
	return outputs
}

// Answered says whether the turn brings the result of a call of this function.
func (t *Turn) Answered(function string) bool {
	t.server.mu.Lock()
	defer t.server.mu.Unlock()
	for id := range t.Outputs() {
		if t.server.calls[id] == function {
			return true
		}
	}
	return false
}

// Delta streams a piece of text.
func (t *Turn) Delta(text string) {
	t.event("response.output_text.delta", &gatewayv1.Event{Payload: &gatewayv1.Event_OutputTextDelta{
		OutputTextDelta: &gatewayv1.OutputTextDelta{Delta: text},
	}})
}

// Say streams a text and makes it a message of the answer.
func (t *Turn) Say(text string) {
	t.Delta(text)
	t.Item(&gatewayv1.OutputItem{Kind: &gatewayv1.OutputItem_Message{Message: &gatewayv1.Message{
		Role: "assistant", Content: []*gatewayv1.ContentPart{{Kind: &gatewayv1.ContentPart_OutputText{
			OutputText: &gatewayv1.OutputText{Text: text},
		}}},
	}}})
}

// Call asks for a function.
func (t *Turn) Call(function, arguments string) {
	id := t.server.next("call")
	t.server.mu.Lock()
	t.server.calls[id] = function
	t.server.mu.Unlock()
	t.Item(&gatewayv1.OutputItem{Kind: &gatewayv1.OutputItem_FunctionCall{
		FunctionCall: &gatewayv1.FunctionCall{CallId: id, Name: function, Arguments: arguments},
	}})
}

// Item adds an output item.
func (t *Turn) Item(item *gatewayv1.OutputItem) {
	t.mu.Lock()
	t.items = append(t.items, item)
	t.mu.Unlock()
	t.event("response.output_item.done", &gatewayv1.Event{Payload: &gatewayv1.Event_OutputItemDone{
		OutputItemDone: &gatewayv1.OutputItemDone{Item: item},
	}})
}

// Complete ends the turn with what was said.
func (t *Turn) Complete() {
	t.end(gatewayv1.TurnOutcome_TURN_OUTCOME_COMPLETED, "response.completed", &gatewayv1.Event{
		Payload: &gatewayv1.Event_ResponseCompleted{ResponseCompleted: &gatewayv1.ResponseCompleted{Response: t.response()}},
	})
}

// Incomplete ends the turn early, as at the limit of output tokens.
func (t *Turn) Incomplete() {
	t.end(gatewayv1.TurnOutcome_TURN_OUTCOME_INCOMPLETE, "response.incomplete", &gatewayv1.Event{
		Payload: &gatewayv1.Event_ResponseIncomplete{ResponseIncomplete: &gatewayv1.ResponseIncomplete{Response: t.response()}},
	})
}

// Fail ends the turn with an error; its code, reason, message, replay, retry-after and metadata are told.
func (t *Turn) Fail(failure *gateway.Error) {
	t.end(gatewayv1.TurnOutcome_TURN_OUTCOME_FAILED, "gateway.turn.failed", &gatewayv1.Event{
		Payload: &gatewayv1.Event_TurnFailed{TurnFailed: failedOf(failure)},
	})
}

// Cancelled is closed when the turn has ended, for instance because the program has cancelled it.
func (t *Turn) Cancelled() <-chan struct{} { return t.done }

func (t *Turn) response() *gatewayv1.Response {
	t.mu.Lock()
	defer t.mu.Unlock()
	return &gatewayv1.Response{
		Id: t.id, Output: t.items, Usage: &gatewayv1.Usage{InputTokens: 1, OutputTokens: 1, TotalTokens: 2},
	}
}

func (t *Turn) event(kind string, event *gatewayv1.Event) {
	t.mu.Lock()
	ended := t.ended
	t.mu.Unlock()
	if !ended {
		t.send(kind, event)
	}
}

func (t *Turn) end(outcome gatewayv1.TurnOutcome, kind string, event *gatewayv1.Event) {
	t.mu.Lock()
	if t.ended {
		t.mu.Unlock()
		return
	}
	t.ended = true
	t.mu.Unlock()
	close(t.done)
	event.Outcome = outcome
	t.session.over(t)
	t.send(kind, event)
}

func (t *Turn) send(kind string, event *gatewayv1.Event) {
	event.LaneId, event.TurnId, event.Type = t.Start.GetLaneId(), t.Start.GetTurnId(), kind
	t.session.send(event)
}
