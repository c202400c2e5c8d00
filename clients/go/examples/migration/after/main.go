package main

import (
	"context"
	"fmt"
	"log"

	gateway "github.com/responses-gateway/responses-gateway/clients/go"
)

type city struct {
	City string `json:"city"`
}

type weather struct {
	City    string `json:"city"`
	Celsius int    `json:"celsius"`
}

type place struct {
	City    string `json:"city"`
	Country string `json:"country"`
}

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

	// A conversation, streamed.
	turn, err := session.Start(ctx, gateway.Request{Input: gateway.Text("Hello")})
	if err != nil {
		log.Fatal(err)
	}
	for event, err := range turn.Events(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Print(event.TextDelta())
	}
	if turn, err = session.Start(ctx, gateway.Request{Input: gateway.Text("And shorter?")}); err != nil {
		log.Fatal(err)
	}
	second, err := turn.Final(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("\n" + second.Text())

	// A tool loop.
	tool := gateway.Func("weather", "Weather of a city", func(_ context.Context, in city) (weather, error) {
		return weather{in.City, 21}, nil
	})
	result, err := session.Lane("agent").RunTools(ctx, gateway.Request{Input: gateway.Text("How warm is it in Oslo?")},
		gateway.Tools{Functions: []gateway.Tool{tool}})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(result.Text()) > 0)

	// A structured answer.
	turn, err = session.Lane("places").Start(ctx, gateway.Request{
		Input: gateway.Text("Where is the opera with the white roof?"), Format: gateway.FormatOf[place](""),
	})
	if err != nil {
		log.Fatal(err)
	}
	answer, err := turn.Final(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(gateway.Parse[place](answer).Value != nil)
}
