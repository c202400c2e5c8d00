package gatewaytest

import (
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	gateway "github.com/responses-gateway/responses-gateway/clients/go"
	gatewayv1 "github.com/responses-gateway/responses-gateway/clients/go/gen/responses/gateway/v1"
)

type serverStream = grpc.BidiStreamingServer[gatewayv1.ConnectRequest, gatewayv1.ConnectResponse]

// session outlives its streams; it keeps all events, so that any resume is without loss.
type session struct {
	mu      sync.Mutex
	events  []*gatewayv1.Event
	running map[string]*Turn
	known   map[string]bool
	stream  serverStream
	ended   chan error
}

// attach makes a stream the session's and sends what came after lastSeq.
func (s *session) attach(stream serverStream, ended chan error, lastSeq uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stream, s.ended = stream, ended
	if missed := s.events[min(lastSeq, uint64(len(s.events))):]; len(missed) > 0 {
		_ = stream.Send(batch(missed...))
	}
}

func (s *session) detach(ended chan error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended == ended {
		s.stream, s.ended = nil, nil
	}
}

func (s *session) cut(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended != nil {
		s.ended <- err
		s.stream, s.ended = nil, nil
	}
}

func (s *session) send(event *gatewayv1.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	event.Seq = uint64(len(s.events) + 1)
	s.events = append(s.events, event)
	if s.stream != nil {
		_ = s.stream.Send(batch(event))
	}
}

// begin is false for a turn that is known already.
func (s *session) begin(turn *Turn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := turn.Start.GetTurnId()
	if s.known[id] {
		return false
	}
	s.known[id], s.running[id] = true, turn
	return true
}

func (s *session) find(id string) *Turn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running[id]
}

func (s *session) over(turn *Turn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.running, turn.Start.GetTurnId())
}

func (s *session) active() (active []*gatewayv1.ActiveTurn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, turn := range s.running {
		active = append(active, &gatewayv1.ActiveTurn{
			LaneId: turn.Start.GetLaneId(), TurnId: id, Phase: gatewayv1.TurnPhase_TURN_PHASE_CREATED,
		})
	}
	return active
}

func batch(events ...*gatewayv1.Event) *gatewayv1.ConnectResponse {
	return &gatewayv1.ConnectResponse{Message: &gatewayv1.ConnectResponse_Events{Events: &gatewayv1.Events{Events: events}}}
}

func failedOf(failure *gateway.Error) *gatewayv1.TurnFailed {
	failed := &gatewayv1.TurnFailed{
		Code: int32(failure.Code), Reason: failure.Reason, Message: failure.Message, Metadata: failure.Metadata,
		Replay: gatewayv1.ReplayVerdict_REPLAY_VERDICT_UNKNOWN,
	}
	switch failure.Replay {
	case gateway.ReplaySafe:
		failed.Replay = gatewayv1.ReplayVerdict_REPLAY_VERDICT_SAFE
	case gateway.ReplayUnsafe:
		failed.Replay = gatewayv1.ReplayVerdict_REPLAY_VERDICT_UNSAFE
	}
	if failure.RetryAfter != nil {
		failed.RetryAfter = durationpb.New(*failure.RetryAfter)
	}
	return failed
}
