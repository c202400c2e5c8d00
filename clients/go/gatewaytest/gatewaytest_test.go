package gatewaytest_test

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	gateway "github.com/responses-gateway/responses-gateway/clients/go"
	"github.com/responses-gateway/responses-gateway/clients/go/gatewaytest"
)

func TestScriptedTurnsFaultsAndResumes(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	resume := make(chan struct{})
	server := gatewaytest.NewServer(t, func(turn *gatewaytest.Turn) {
		switch {
		case turn.Answered("weather"):
			for _, output := range turn.Outputs() {
				turn.Say("it is " + output)
			}
		case turn.Text() == "fail":
			turn.Fail(&gateway.Error{
				Code: codes.Unavailable, Reason: gateway.ReasonUpstreamOverloaded, Replay: gateway.ReplaySafe,
			})
		case turn.Text() == "hang":
			<-turn.Cancelled()
		case turn.Text() == "cut":
			turn.Delta("one ")
			<-resume
			turn.Delta("two")
		default:
			turn.Call("weather", `{"city":"Oslo"}`)
		}
	})
	session, err := server.Client(t).Connect(ctx, gateway.WithModel("m"))
	if err != nil {
		t.Fatal(err)
	}
	weather := gateway.Func("weather", "Weather of a city", func(_ context.Context, in struct {
		City string `json:"city"`
	}) (string, error) {
		return "cold in " + in.City, nil
	})
	result, err := session.Lane("agent").RunTools(ctx,
		gateway.Request{Input: gateway.Text("How is it?")}, gateway.Tools{Functions: []gateway.Tool{weather}})
	if err != nil || result.Text() != "it is cold in Oslo" || len(server.Turns()) != 2 {
		t.Fatalf("%v %v", result, err)
	}
	failing, _ := session.Start(ctx, gateway.Request{Input: gateway.Text("fail")})
	if _, err := failing.Final(ctx); !gateway.HasReason(err, gateway.ReasonUpstreamOverloaded) {
		t.Fatal(err)
	}
	hanging, _ := session.Start(ctx, gateway.Request{Input: gateway.Text("hang")})
	_ = hanging.Cancel()
	if _, err := hanging.Final(ctx); !gateway.HasReason(err, gateway.ReasonTurnCancelled) {
		t.Fatal(err)
	}
	cut, _ := session.Start(ctx, gateway.Request{Input: gateway.Text("cut")})
	for event := range cut.Events(ctx) {
		if event.TextDelta() != "" {
			break
		}
	}
	server.Cut()
	close(resume)
	if result, err := cut.Final(ctx); err != nil || result.Text() != "one two" || session.Stats().Resumes != 1 {
		t.Fatalf("%v %v", result, err)
	}
	server.Forget()
	<-session.Done()
	if !gateway.HasReason(session.Err(), gateway.ReasonSessionExpired) {
		t.Fatal(session.Err())
	}
}
