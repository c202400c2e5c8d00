package gateway

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
)

// maxSafeAttempts bounds what is sent again by itself.
const maxSafeAttempts = 4

// RetrySafe runs a turn, and runs it again as long as it fails with replay SAFE: it certainly did not run. It waits as
// long as the gateway says (RetryAfter), or 100 ms to 3 s, and tries maxAttempts times (0: 4).
//
//	result, err := gateway.RetrySafe(ctx, 0, func() (*gateway.Result, error) {
//		turn, err := lane.Start(ctx, request)
//		if err != nil {
//			return nil, err
//		}
//		return turn.Final(ctx)
//	})
func RetrySafe[T any](ctx context.Context, maxAttempts int, run func() (T, error)) (T, error) {
	if maxAttempts <= 0 {
		maxAttempts = maxSafeAttempts
	}
	for attempt := 0; ; attempt++ {
		value, err := run()
		var failure *Error
		if err == nil || attempt+1 >= maxAttempts || !errors.As(err, &failure) || !failure.worthRepeating() {
			return value, err
		}
		timer := time.NewTimer(retryDelay(attempt+1, failure.RetryAfter))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return value, err
		}
	}
}

// worthRepeating: it did not run, and time may help.
func (e *Error) worthRepeating() bool {
	if e.Replay != ReplaySafe {
		return false
	}
	switch e.Reason {
	case ReasonOverloaded, ReasonUpstreamUnavailable, ReasonUpstreamOverloaded, ReasonUpstreamRateLimited,
		ReasonUpstreamCircuitOpen, ReasonUpstreamLinkLost, ReasonTooManyQueuedTurns, ReasonChainLost:
		return true
	default:
		return e.RetryAfter != nil
	}
}

// maxToldWait: a caller who waits for one call does not expect to wait longer by itself.
const maxToldWait = 10 * time.Second

// tooLong is whether a wait is more than the caller has, or expects.
func tooLong(ctx context.Context, wait *time.Duration) bool {
	if wait == nil {
		return false
	}
	deadline, bounded := ctx.Deadline()
	return *wait > maxToldWait || (bounded && time.Until(deadline) <= *wait)
}

// retryUnary sends a call again that the gateway says was not done. gRPC's own retry policy knows only codes, and
// UNAVAILABLE is also what a connection says that broke in the middle of the work.
func retryUnary(
	ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker,
	options ...grpc.CallOption,
) error {
	_, err := RetrySafe(ctx, 0, func() (struct{}, error) {
		err := invoke(ctx, method, request, reply, conn, options...)
		if err == nil {
			return struct{}{}, nil
		}
		failure := streamError(err)
		if failure.Metadata["replay"] != string(ReplaySafe) || failure.Inferred || tooLong(ctx, failure.RetryAfter) {
			return struct{}{}, err
		}
		failure.Replay = ReplaySafe
		return struct{}{}, failure
	})
	var failure *Error
	if errors.As(err, &failure) && failure.cause != nil {
		return failure.cause
	}
	return err
}
