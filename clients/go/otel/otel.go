// Package otel connects the gateway client with OpenTelemetry: the caller's span becomes the parent of the gateway's,
// and each function that a tool loop calls gets an execute_tool span.
//
//	client, err := gateway.NewClient(gateway.WithTracer(otel.Tracer()))
package otel

import (
	"context"

	gateway "github.com/responses-gateway/responses-gateway/clients/go"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

const scope = "github.com/responses-gateway/responses-gateway/clients/go"

// Tracer uses the global tracer provider.
func Tracer() gateway.Tracer { return TracerFrom(otel.GetTracerProvider()) }

// TracerFrom uses this tracer provider.
func TracerFrom(provider trace.TracerProvider) gateway.Tracer {
	return tracer{provider.Tracer(scope)}
}

type tracer struct{ trace.Tracer }

// The API takes W3C trace context, whatever propagator the program has set.
var w3c = propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{})

func (t tracer) Inject(ctx context.Context) (traceparent, tracestate, baggageHeader string) {
	if !trace.SpanContextFromContext(ctx).IsValid() && baggage.FromContext(ctx).Len() == 0 {
		return "", "", ""
	}
	carrier := propagation.MapCarrier{}
	w3c.Inject(ctx, carrier)
	return carrier.Get("traceparent"), carrier.Get("tracestate"), carrier.Get("baggage")
}

// StartTool follows the semantic conventions for generative AI.
func (t tracer) StartTool(ctx context.Context, call gateway.Call) (context.Context, func(error)) {
	ctx, span := t.Start(ctx, "execute_tool "+call.Name, trace.WithAttributes(
		attribute.String("gen_ai.operation.name", "execute_tool"),
		attribute.String("gen_ai.tool.name", call.Name),
		attribute.String("gen_ai.tool.call.id", call.ID),
		attribute.String("gen_ai.tool.type", "function"),
	))
	return ctx, func(err error) {
		if err != nil {
			// Its text may hold content of the conversation.
			span.SetStatus(codes.Error, "the function failed")
			span.SetAttributes(attribute.String("error.type", "tool_error"))
		}
		span.End()
	}
}
