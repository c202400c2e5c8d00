package gateway

import (
	"time"

	gatewayv1 "github.com/responses-gateway/responses-gateway/clients/go/gen/responses/gateway/v1"
)

// Outcome says how a turn ended.
type Outcome string

// The outcomes of turns. Running is no outcome: the turn goes on.
const (
	Running          Outcome = ""
	Completed        Outcome = "completed"
	Incomplete       Outcome = "incomplete"
	Failed           Outcome = "failed"
	Cancelled        Outcome = "cancelled"
	DeadlineExceeded Outcome = "deadline_exceeded"
)

// Event is one thing that happened, to a turn or to the session. The zero Event is no event.
type Event struct{ pb *gatewayv1.Event }

// Proto is the whole message; the typed payloads are there. Do not change it.
func (e Event) Proto() *gatewayv1.Event { return e.pb }

// Seq counts the session's events: 1, 2, 3 … also across reconnects.
func (e Event) Seq() uint64 { return e.pb.GetSeq() }

// LaneID is the lane, "" for the default lane.
func (e Event) LaneID() string { return e.pb.GetLaneId() }

// TurnID is the turn, "" for events about the whole session.
func (e Event) TurnID() string { return e.pb.GetTurnId() }

// Type is the upstream's name, for instance "response.output_text.delta", or one of the gateway's:
// gateway.turn.failed, gateway.request.rejected, gateway.notice. Pass over those that you do not know.
func (e Event) Type() string { return e.pb.GetType() }

// JSON is the upstream's exact JSON: with WithRawJSON, and where an event has no typed payload.
func (e Event) JSON() []byte { return e.pb.GetJson() }

// Outcome is set on the last event of a turn, and only there.
func (e Event) Outcome() Outcome { return outcomeOf(e.pb.GetOutcome()) }

// TextDelta is the piece of visible answer that the event brings, "" for other events.
func (e Event) TextDelta() string { return e.pb.GetOutputTextDelta().GetDelta() }

// Notice is what the gateway did, for events of type gateway.notice; nil for others.
func (e Event) Notice() *gatewayv1.Notice { return e.pb.GetNotice() }

// Failure is why the turn failed or a request about it was refused; nil for other events.
func (e Event) Failure() *Error {
	failed := e.pb.GetTurnFailed()
	if failed == nil {
		return nil
	}
	return turnError(e.pb, failed)
}

// GoAway announces the end of a stream.
type GoAway struct {
	// Draining: the gateway shuts down. Otherwise the stream is old and is replaced by itself.
	Draining bool
	// Movable: another gateway goes on with the session. It moves by itself, as soon as no turn runs.
	Movable bool
	// TimeLeft is how long running turns may still take.
	TimeLeft time.Duration
}

func outcomeOf(outcome gatewayv1.TurnOutcome) Outcome {
	switch outcome {
	case gatewayv1.TurnOutcome_TURN_OUTCOME_UNSPECIFIED:
		return Running
	case gatewayv1.TurnOutcome_TURN_OUTCOME_COMPLETED:
		return Completed
	case gatewayv1.TurnOutcome_TURN_OUTCOME_INCOMPLETE:
		return Incomplete
	case gatewayv1.TurnOutcome_TURN_OUTCOME_CANCELLED:
		return Cancelled
	case gatewayv1.TurnOutcome_TURN_OUTCOME_DEADLINE_EXCEEDED:
		return DeadlineExceeded
	default:
		// FAILED, and outcomes that are newer than this client: ended, and not known to be well.
		return Failed
	}
}
