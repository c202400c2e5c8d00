package otel_test

import (
	"context"
	"errors"
	"testing"

	gateway "github.com/responses-gateway/responses-gateway/clients/go"
	"github.com/responses-gateway/responses-gateway/clients/go/otel"
	"go.opentelemetry.io/otel/baggage"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
)

func TestTheCallersSpanAndBaggage(t *testing.T) {
	span := trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled,
	})
	member, err := baggage.NewMember("team", "blue")
	if err != nil {
		t.Fatal(err)
	}
	carried, err := baggage.New(member)
	if err != nil {
		t.Fatal(err)
	}
	ctx := baggage.ContextWithBaggage(trace.ContextWithSpanContext(context.Background(), span), carried)
	traceparent, _, bag := otel.Tracer().Inject(ctx)
	if traceparent != "00-01000000000000000000000000000000-0200000000000000-01" || bag != "team=blue" {
		t.Fatalf("%q %q", traceparent, bag)
	}
	if traceparent, _, _ := otel.Tracer().Inject(context.Background()); traceparent != "" {
		t.Fatalf("%q without a span", traceparent)
	}
}

func TestAToolsSpan(t *testing.T) {
	recorder := tracetest.NewSpanRecorder()
	tracer := otel.TracerFrom(sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder)))
	ctx, end := tracer.StartTool(context.Background(), gateway.Call{ID: "c1", Name: "weather"})
	if !trace.SpanContextFromContext(ctx).IsValid() {
		t.Fatal("the function sees no span")
	}
	end(errors.New("secret of the conversation"))
	spans := recorder.Ended()
	if len(spans) != 1 || spans[0].Name() != "execute_tool weather" || spans[0].Status().Description != "the function failed" {
		t.Fatalf("%v", spans)
	}
}
