package gateway

import (
	"context"

	gatewayv1 "github.com/responses-gateway/responses-gateway/clients/go/gen/responses/gateway/v1"
)

// Lane is one line of conversation in a session: its turns run one after the other, lanes run side by side. It
// costs nothing until its first turn. An upstream connection carries some 32 named lanes in its life; the gateway
// opens more connections as needed.
type Lane struct {
	session *Session
	id      string
}

// laneState is what the session remembers of a lane, as long as there is something to remember. Guarded by session.mu.
type laneState struct {
	// forkFrom is the response that the next turn continues from, if not the lane's own last one.
	forkFrom     string
	lastResponse string
	// open are the calls of a response that a tool loop left without results.
	open *openCalls
	// running counts turns without an outcome.
	running int
	// undecided counts turns among them that answer open calls, or that their tool loop has given up. Whether they
	// complete decides what the next turn has to answer, so it waits for settled.
	undecided int
	settled   chan struct{}
}

func (state *laneState) awaitEnd() {
	if state.undecided++; state.undecided == 1 {
		state.settled = make(chan struct{})
	}
}

// openCalls are function calls of a response that nobody answers any more. Whoever continues from the response has to
// give a result for each: the outputs go before the input of the next turn.
type openCalls struct {
	response string
	outputs  []*Item
}

// ID is the lane's name; "" is the default lane.
func (l *Lane) ID() string { return l.id }

// Start starts a turn and returns when it is queued for sending; it waits, as long as ctx allows, while too much
// is queued. Turns of one lane run in the order of their Starts. The span of ctx becomes the turn's parent, with
// [WithTracer].
func (l *Lane) Start(ctx context.Context, request Request) (*Turn, error) {
	return l.session.start(ctx, l, request)
}

// WarmUp prepares instructions, tools and input upstream without producing output, so that the next turn answers
// sooner. Where the upstream cannot, the turn fails with reason NOT_SUPPORTED_BY_UPSTREAM.
func (l *Lane) WarmUp(ctx context.Context, request Request) (*Turn, error) {
	return l.session.start(ctx, l, request.warmUp())
}

// Steer adds user input to whatever turn runs on the lane. See [Turn.Steer].
func (l *Lane) Steer(ctx context.Context, input []*Item) error {
	return l.session.steer(ctx, l.id, "", input)
}

// Fork returns the lane id, whose first turn continues from the last response of this lane as it is now. Both
// then go their own ways.
func (l *Lane) Fork(id string) *Lane {
	s := l.session
	s.mu.Lock()
	defer s.mu.Unlock()
	if from := s.lanes[l.id]; from != nil && from.lastResponse != "" {
		fork := s.lane(id)
		fork.forkFrom, fork.open = from.lastResponse, from.open
	}
	return &Lane{session: s, id: id}
}

// LastResponseID is the response that the lane's next turn continues from, as far as the client has heard.
func (l *Lane) LastResponseID() string {
	l.session.mu.Lock()
	defer l.session.mu.Unlock()
	if state := l.session.lanes[l.id]; state != nil {
		return state.lastResponse
	}
	return ""
}

// leaveOpen remembers that a tool loop has ended and nobody answers the calls of this response.
func (l *Lane) leaveOpen(response string, outputs []*Item) {
	l.session.mu.Lock()
	defer l.session.mu.Unlock()
	if state := l.session.lanes[l.id]; state != nil && state.lastResponse == response {
		state.open = &openCalls{response, outputs}
	}
}

// unansweredCalls are error results for calls that nobody makes.
func unansweredCalls(calls []*gatewayv1.FunctionCall) (outputs []*Item) {
	for _, call := range calls {
		outputs = append(outputs, CallOutput(call.GetCallId(), errorResult("the call was not answered: the tool loop ended")))
	}
	return outputs
}

// abandon gives up a turn of a tool loop: it is cancelled, and whoever still reads it hears TURN_CLOSED. Should it
// complete nevertheless, the calls in it are answered by the lane's next turn.
func (t *Turn) abandon() {
	s := t.session
	_ = t.Cancel()
	s.mu.Lock()
	t.orphan = s.turns[t.id] == t
	if t.orphan && !t.answers {
		s.lanes[t.lane.id].awaitEnd()
	}
	freed := t.dismiss()
	if !t.orphan {
		s.settleOrphan(t)
	}
	delete(s.unread, t)
	s.mu.Unlock()
	s.release(freed)
	t.signal()
}

// settleOrphan has the calls of an abandoned turn answered that has completed. Called with mu held.
func (s *Session) settleOrphan(turn *Turn) {
	result := turn.SoFar()
	state := s.lanes[turn.lane.id]
	if outputs := unansweredCalls(result.FunctionCalls()); state != nil && len(outputs) > 0 &&
		state.lastResponse == result.ResponseID() {
		state.open = &openCalls{result.ResponseID(), outputs}
	}
}

// lane is called with mu held.
func (s *Session) lane(id string) *laneState {
	state := s.lanes[id]
	if state == nil {
		state = &laneState{}
		s.lanes[id] = state
	}
	return state
}

// leaveLane ends a turn's share in its lane; a lane without anything to remember is forgotten. Called with mu held.
func (s *Session) leaveLane(turn *Turn) {
	id := turn.lane.id
	state := s.lanes[id]
	if state == nil {
		return
	}
	state.running--
	if turn.orphan || turn.answers {
		if state.undecided--; state.undecided == 0 {
			close(state.settled)
		}
	}
	if state.running <= 0 && state.lastResponse == "" && state.forkFrom == "" {
		delete(s.lanes, id)
	}
}

// answering is the request with results for the calls that a tool loop has left open where it continues, if there are.
func (state *laneState) answering(request Request) (_ Request, answers bool) {
	open := state.open
	if open == nil || request.FullHistory || request.NewConversation ||
		request.Create.GetConversationId() != "" || request.Create.GetConversation() != nil {
		return request, false
	}
	base := state.lastResponse
	switch {
	case request.From != "":
		base = request.From
	case request.Create.GetPreviousResponseId() != "":
		base = request.Create.GetPreviousResponseId()
	}
	if base != open.response {
		return request, false
	}
	input := request.Input
	if input == nil {
		input = request.Create.GetInput()
	}
	answered := map[string]bool{}
	for _, item := range input {
		answered[item.GetFunctionCallOutput().GetCallId()] = true
	}
	var outputs []*gatewayv1.InputItem
	for _, output := range open.outputs {
		if !answered[output.GetFunctionCallOutput().GetCallId()] {
			outputs = append(outputs, output)
		}
	}
	request.Input = append(outputs, input...)
	return request, true
}
