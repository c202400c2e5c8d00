// Command lanes runs eight agents side by side over one stream: go run ./lanes
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"sync"
	"time"

	gateway "github.com/responses-gateway/responses-gateway/clients/go"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
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

	var wait sync.WaitGroup
	for n := range 8 {
		wait.Go(func() {
			lane := session.Lane(fmt.Sprintf("agent-%d", n+1))
			for _, question := range []string{"Name a river.", "And a longer one?"} {
				turn, err := lane.Start(ctx, gateway.Request{Input: gateway.Text(question)})
				if err != nil {
					log.Println(lane.ID(), err)
					return
				}
				result, err := turn.Final(ctx)
				var failure *gateway.Error
				if errors.As(err, &failure) {
					log.Println(lane.ID(), failure.Reason, "replay", failure.Replay)
					return
				}
				fmt.Printf("%s: %s\n", lane.ID(), result.Text())
			}
		})
	}
	wait.Wait()
}
