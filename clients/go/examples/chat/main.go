// Command chat talks to the model, line by line: go run ./chat
package main

import (
	"bufio"
	"context"
	"fmt"
	"log"
	"os"
	"os/signal"

	gateway "github.com/responses-gateway/responses-gateway/clients/go"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := chat(ctx); err != nil {
		log.Fatal(err)
	}
}

func chat(ctx context.Context) error {
	client, err := gateway.NewClient()
	if err != nil {
		return err
	}
	defer client.Close()
	session, err := client.Connect(ctx, gateway.WithModel("gpt-5.5"))
	if err != nil {
		return err
	}
	defer session.Close()

	lines := bufio.NewScanner(os.Stdin)
	for fmt.Print("> "); lines.Scan(); fmt.Print("> ") {
		turn, err := session.Start(ctx, gateway.Request{Input: gateway.Text(lines.Text()), Instructions: "Be brief."})
		if err != nil {
			return err
		}
		for event, err := range turn.Events(ctx) {
			if err != nil {
				return err
			}
			fmt.Print(event.TextDelta())
		}
		fmt.Println()
	}
	fmt.Println()
	return lines.Err()
}
