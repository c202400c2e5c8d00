// Command traced lets the model call a function within a span. The span is the parent of what the gateway does for each
// turn and of the function's call; all of it goes to a collector: OTEL_EXPORTER_OTLP_ENDPOINT, http://localhost:4317 by
// default. Run it with: go run ./traced
package main

import (
	"context"
	"fmt"
	"log"
	"time"

	gateway "github.com/responses-gateway/responses-gateway/clients/go"
	"github.com/responses-gateway/responses-gateway/clients/go/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

type place struct {
	City string `json:"city" description:"Name of the city"`
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	exporter, err := otlptracegrpc.New(ctx)
	if err != nil {
		log.Fatal(err)
	}
	provider := sdk.NewTracerProvider(sdk.WithBatcher(exporter))
	if err := ask(ctx, provider); err != nil {
		log.Fatal(err)
	}
	if err := provider.Shutdown(ctx); err != nil {
		log.Fatal(err)
	}
}

func ask(ctx context.Context, provider *sdk.TracerProvider) error {
	// A client's span: service graphs draw an edge from it to the gateway's spans below it.
	ctx, span := provider.Tracer("traced-example").Start(ctx, "question", trace.WithSpanKind(trace.SpanKindClient))
	defer span.End()
	client, err := gateway.NewClient(gateway.WithTracer(otel.TracerFrom(provider)))
	if err != nil {
		return err
	}
	defer client.Close()
	session, err := client.Connect(ctx, gateway.WithModel("gpt-5.5"))
	if err != nil {
		return err
	}
	defer session.Close()
	weather := gateway.Func("weather", "Weather of a city, now", func(_ context.Context, in place) (string, error) {
		return "sunny", nil
	})
	request := gateway.Request{Input: gateway.Text("What is the weather in Oslo?")}
	result, err := session.Lane("").RunTools(ctx, request, gateway.Tools{Functions: []gateway.Tool{weather}})
	if err != nil {
		return err
	}
	fmt.Println(result.Text())
	fmt.Println("trace", span.SpanContext().TraceID())
	return nil
}
