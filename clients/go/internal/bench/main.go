// Command bench reads one long turn and reports what it cost: clients/conformance/bench.ts starts it.
package main

import (
	"context"
	"encoding/json"
	"log"
	"os"
	"syscall"
	"time"

	gateway "github.com/responses-gateway/responses-gateway/clients/go"
)

func main() {
	ctx := context.Background()
	client, err := gateway.NewClient()
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	session, err := client.Connect(ctx, gateway.WithModel("gpt-5.5"))
	if err != nil {
		log.Fatal(err)
	}
	defer session.Close()
	read(ctx, session, os.Getenv("BENCH_WARM_UP"))
	cpu, began := cpuTime(), time.Now()
	events := read(ctx, session, os.Getenv("BENCH_INPUT"))
	_ = json.NewEncoder(os.Stdout).Encode(map[string]float64{
		"events": float64(events), "seconds": time.Since(began).Seconds(), "cpuSeconds": (cpuTime() - cpu).Seconds(),
	})
}

func read(ctx context.Context, session *gateway.Session, input string) (events int) {
	turn, err := session.Start(ctx, gateway.Request{Input: gateway.Text(input)})
	if err != nil {
		log.Fatal(err)
	}
	for _, err := range turn.Events(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		events++
	}
	return events
}

func cpuTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		log.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
