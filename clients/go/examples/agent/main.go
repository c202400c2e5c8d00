// Command agent lets the model call two functions of the program: go run ./agent
package main

import (
	"context"
	"fmt"
	"log"
	"time"

	gateway "github.com/responses-gateway/responses-gateway/clients/go"
)

type place struct {
	City string `json:"city" description:"Name of the city"`
}

type weather struct {
	City    string  `json:"city"`
	Celsius float64 `json:"celsius"`
}

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

	tools := gateway.Tools{Functions: []gateway.Tool{
		gateway.Func("weather", "Weather of a city, now", func(_ context.Context, in place) (weather, error) {
			fmt.Println("  weather of", in.City)
			return weather{in.City, 21.5}, nil
		}),
		gateway.Func("clock", "Time in a city, now", func(_ context.Context, in place) (string, error) {
			fmt.Println("  time in", in.City)
			return time.Now().UTC().Format(time.Kitchen), nil
		}),
	}}
	request := gateway.Request{Input: gateway.Text("What is the weather in Oslo, and what time is it there?")}
	result, err := session.Lane("").RunTools(ctx, request, tools)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(result.Text())
	fmt.Printf("%d tokens in all turns\n", result.Usage().TotalTokens)
}
