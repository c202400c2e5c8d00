package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	gatewayv1 "github.com/responses-gateway/responses-gateway/clients/go/gen/responses/gateway/v1"
)

// Replay says whether a failed turn may be sent again without running twice.
type Replay string

// The verdicts.
const (
	// ReplaySafe: it certainly did not run.
	ReplaySafe Replay = "safe"
	// ReplayUnsafe: it ran, wholly or in part.
	ReplayUnsafe Replay = "unsafe"
	// ReplayUnknown: it may have run.
	ReplayUnknown Replay = "unknown"
)

// ErrTurnBusy is returned when a second reader reads a turn.
var ErrTurnBusy error = inferred(codes.FailedPrecondition, ReasonTurnBusy, "the turn already has a reader")

// ErrTurnLimit is what the [LoopError] of a tool loop wraps when the model still calls tools after the last turn.
var ErrTurnLimit error = inferred(codes.Canceled, ReasonLoopTurnLimit, "the tool loop reached its limit of turns")

const errorDomain = "responses-gateway"

// Error is trouble with a turn (TurnID is set) or with the whole session. Find it with errors.As.
type Error struct {
	// Code is the gRPC code.
	Code codes.Code
	// Reason is stable and meant for programs, for instance "UPSTREAM_RATE_LIMITED"; "" if nobody gave one.
	Reason string
	// Message is for people.
	Message string
	// Domain of Reason.
	Domain string
	// Metadata holds small facts, for instance field = "create.temperature".
	Metadata map[string]string
	// RetryAfter is the earliest time to try again, from now; nil when waiting is not known to help.
	RetryAfter *time.Duration
	// Replay is set for turns.
	Replay Replay
	// Phase is how far the turn had come: not_sent, sent, created, output_started; "" if unknown.
	Phase string
	// LaneID and TurnID are set for turns.
	LaneID, TurnID string
	// Upstream is what the upstream said, if anything.
	Upstream *gatewayv1.UpstreamError
	// Result is what had arrived of the turn; nil if nothing could.
	Result *Result
	// Inferred: the client concluded it, the gateway did not say it.
	Inferred bool

	cause error
}

// Error implements error. It holds no content of the conversation beyond the upstream's own words.
func (e *Error) Error() string {
	what := "session"
	if e.TurnID != "" {
		what = "turn " + e.TurnID
	}
	name := e.Reason
	if name == "" {
		name = e.Code.String()
	}
	return fmt.Sprintf("gateway: %s: %s: %s", what, name, e.Message)
}

// Unwrap returns what caused it, if that is known: the transport's error, or that of a context.
func (e *Error) Unwrap() error { return e.cause }

// Is makes errors.Is compare with another Error by its reason, or by its code if it has no reason; and with
// context.Canceled and context.DeadlineExceeded by the code.
func (e *Error) Is(target error) bool {
	if other, is := target.(*Error); is {
		if other.Reason != "" {
			return e.Reason == other.Reason
		}
		return e.Code == other.Code
	}
	switch target {
	case context.Canceled:
		return e.Code == codes.Canceled
	case context.DeadlineExceeded:
		return e.Code == codes.DeadlineExceeded
	default:
		return false
	}
}

// GRPCStatus makes status.Code and status.FromError understand it.
func (e *Error) GRPCStatus() *status.Status { return status.New(e.Code, e.Error()) }

// LogValue is what slog writes: no content beyond the upstream's own words.
func (e *Error) LogValue() slog.Value {
	return slog.GroupValue(
		slog.String("reason", e.Reason), slog.String("code", e.Code.String()), slog.String("message", e.Message),
		slog.String("lane", e.LaneID), slog.String("turn", e.TurnID), slog.String("replay", string(e.Replay)),
	)
}

// HasReason reports whether err is an Error with this reason.
func HasReason(err error, reason string) bool {
	var e *Error
	return errors.As(err, &e) && e.Reason == reason
}

func turnError(event *gatewayv1.Event, failed *gatewayv1.TurnFailed) *Error {
	e := &Error{
		Code:     codes.Code(failed.GetCode()),
		Reason:   failed.GetReason(),
		Message:  failed.GetMessage(),
		Domain:   errorDomain,
		Metadata: failed.GetMetadata(),
		Replay:   replayOf(failed.GetReplay()),
		Phase:    phaseOf(failed.GetPhase()),
		LaneID:   event.GetLaneId(),
		TurnID:   event.GetTurnId(),
		Upstream: failed.GetUpstreamError(),
	}
	if failed.GetRetryAfter() != nil {
		wait := failed.GetRetryAfter().AsDuration()
		e.RetryAfter = &wait
	}
	return e
}

// streamError turns the end of a stream into an Error.
func streamError(err error) *Error {
	st := status.Convert(err)
	e := &Error{Code: st.Code(), Message: st.Message(), Inferred: true, cause: err}
	for _, detail := range st.Details() {
		switch d := detail.(type) {
		case *errdetails.ErrorInfo:
			if d.GetDomain() == errorDomain {
				e.Reason, e.Domain, e.Metadata, e.Inferred = d.GetReason(), d.GetDomain(), d.GetMetadata(), false
			}
		case *errdetails.RetryInfo:
			wait := d.GetRetryDelay().AsDuration()
			e.RetryAfter = &wait
		}
	}
	if e.Inferred {
		e.explain()
	}
	return e
}

// pathCause is something that lies between client and gateway.
type pathCause struct {
	name  string
	http  []int
	text  string // part of the message, in small letters; "" fits none
	codes []codes.Code
	says  string
}

// httpStatus is how grpc-go and the other libraries write the status of an HTTP answer that is none of gRPC's.
var httpStatus = regexp.MustCompile(`(?i)\bstatus(?: code)?(?: received from server)?:? (\d{3})\b`)

// explain says what something on the way has done, where the gateway has said nothing.
func (e *Error) explain() {
	found, status := httpStatus.FindStringSubmatch(e.Message), 0
	if found != nil {
		status, _ = strconv.Atoi(found[1])
	}
	for _, cause := range pathCauses {
		fits := slices.Contains(cause.http, status) || slices.Contains(cause.http, 0)
		if status == 0 {
			fits = slices.Contains(cause.codes, e.Code) ||
				(cause.text != "" && strings.Contains(strings.ToLower(e.Message), cause.text))
		}
		if !fits {
			continue
		}
		e.Message += " (" + cause.says + ")"
		e.Metadata = map[string]string{"path": cause.name}
		if status != 0 {
			e.Metadata["http_status"] = found[1]
		}
		return
	}
}

func inferred(code codes.Code, reason, message string) *Error {
	return &Error{Code: code, Reason: reason, Message: message, Domain: errorDomain, Inferred: true}
}

// forTurn is the session's error as the end of one of its turns.
func (e *Error) forTurn(t *Turn, replay Replay) *Error {
	copied := *e
	copied.LaneID, copied.TurnID, copied.Replay = t.lane.id, t.id, replay
	copied.Inferred = true
	return &copied
}

// resumable reports whether the session may still live behind a stream that ended so: the transport broke, or the
// gateway cut a slow reader. Whatever else the gateway says is meant.
func (e *Error) resumable() bool {
	if e.Reason == ReasonTokenSourceFailed {
		return true
	}
	if !e.Inferred {
		return e.Reason == ReasonSlowConsumer || e.Reason == ReasonOverloaded || e.Reason == ReasonClientSilent
	}
	switch e.Code {
	case codes.OK, codes.Unavailable, codes.Internal, codes.Unknown, codes.Canceled, codes.DeadlineExceeded:
		return true
	default:
		return false
	}
}

func replayOf(verdict gatewayv1.ReplayVerdict) Replay {
	switch verdict {
	case gatewayv1.ReplayVerdict_REPLAY_VERDICT_SAFE:
		return ReplaySafe
	case gatewayv1.ReplayVerdict_REPLAY_VERDICT_UNSAFE:
		return ReplayUnsafe
	default:
		return ReplayUnknown
	}
}

func phaseOf(phase gatewayv1.TurnPhase) string {
	if phase == gatewayv1.TurnPhase_TURN_PHASE_UNSPECIFIED {
		return ""
	}
	return strings.ToLower(strings.TrimPrefix(phase.String(), "TURN_PHASE_"))
}
