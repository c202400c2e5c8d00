package gateway

import (
	"context"

	gatewayv1 "github.com/responses-gateway/responses-gateway/clients/go/gen/responses/gateway/v1"
)

// Tracer connects the client with a tracing library. The module clients/go/otel has one for OpenTelemetry.
type Tracer interface {
	// Inject returns the caller's span and baggage in W3C form; empty strings where there is none.
	Inject(ctx context.Context) (traceparent, tracestate, baggage string)
	// StartTool begins a span for one call of a function by a tool loop. end is called once, with the error that the
	// model is told, if any.
	StartTool(ctx context.Context, call Call) (inner context.Context, end func(error))
}

// traceContext is the current span of ctx, nil if there is none.
func (c *Client) traceContext(ctx context.Context) *gatewayv1.TraceContext {
	if c.opts.tracer == nil {
		return nil
	}
	traceparent, tracestate, baggage := c.opts.tracer.Inject(ctx)
	if traceparent == "" && baggage == "" {
		return nil
	}
	return &gatewayv1.TraceContext{Traceparent: traceparent, Tracestate: tracestate, Baggage: baggage}
}
