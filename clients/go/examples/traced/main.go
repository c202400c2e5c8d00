// Command traced makes one call within a span, which becomes the parent of the gateway's: go run ./traced
package main

import (
	"context"
	"fmt"
	"log"
	"time"

	gateway "github.com/responses-gateway/responses-gateway/clients/go"
	"github.com/responses-gateway/responses-gateway/clients/go/otel"
	"go.opentelemetry.io/otel/sdk/trace"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	provider := trace.NewTracerProvider() // Give it your exporter: trace.WithBatcher(…).
	defer provider.Shutdown(ctx)
	client, err := gateway.NewClient(gateway.WithTracer(otel.TracerFrom(provider)))
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	session, err := client.Connect(ctx, gateway.WithModel("gpt-5.5"))
	if err != nil {
		log.Fatal(err)
	}
	defer session.Close()

	ctx, span := provider.Tracer("example").Start(ctx, "ask")
	defer span.End()
	turn, err := session.Start(ctx, gateway.Request{Input: gateway.Text("Hello")})
	if err != nil {
		log.Fatal(err)
	}
	result, err := turn.Final(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(result.Text())
	fmt.Println("trace", span.SpanContext().TraceID())
}
