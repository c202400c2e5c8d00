// Command soak runs turns in all ways while the connection is cut: clients/conformance/soak.ts starts it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	gateway "github.com/responses-gateway/responses-gateway/clients/go"
)

const (
	workers = 8
	// One turn, whatever is done with it, ends within this.
	mostTime = 60 * time.Second
)

var ways = []string{
	"final", "read", "slow", "cancel", "drop", "close", "loop", "raising", "hanging", "limit", "leave", "interrupt", "steer",
}

type query struct {
	Query string `json:"query"`
}

var (
	look = gateway.Func("look", "Looks something up", func(_ context.Context, in query) (string, error) { return in.Query, nil })
	bad  = gateway.Func("look", "Fails, in one way or another", func(_ context.Context, in query) (string, error) {
		switch len(in.Query) % 3 {
		case 0:
			panic("no luck")
		case 1:
			runtime.Goexit()
		}
		return "", errors.New("no luck")
	})
	hangs = gateway.Func("look", "Does not answer", func(ctx context.Context, _ query) (string, error) {
		<-ctx.Done()
		return "", ctx.Err()
	})
)

type soak struct {
	session  *gateway.Session
	mu       sync.Mutex
	outcomes map[string]int
}

func main() {
	turns, seed := number("SOAK_TURNS"), number("SOAK_SEED")
	client, err := gateway.NewClient(gateway.WithLogger(slog.New(slog.NewTextHandler(io.Discard, nil))))
	if err != nil {
		log.Fatal(err)
	}
	session, err := client.Connect(context.Background(), gateway.WithModel("gpt-5.5"),
		gateway.WithOnEvent(func(gateway.Event) { panic("a bug of the program") }))
	if err != nil {
		log.Fatal(err)
	}
	s := &soak{session: session, outcomes: map[string]int{}}
	var all sync.WaitGroup
	for worker := range workers {
		all.Add(1)
		go func() {
			defer all.Done()
			chance := rand.New(rand.NewPCG(uint64(seed), uint64(worker)))
			for range turns/workers + 1 {
				s.count(s.play(chance, worker))
			}
		}()
	}
	all.Wait()
	resumes := session.Stats().Resumes
	if err := errors.Join(session.Close(), client.Close()); err != nil {
		log.Fatal(err)
	}
	sum := 0
	for _, count := range s.outcomes {
		sum += count
	}
	_ = json.NewEncoder(os.Stdout).Encode(map[string]any{
		"turns": sum, "outcomes": s.outcomes, "resumes": resumes, "left": left(),
	})
}

func (s *soak) play(chance *rand.Rand, worker int) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), mostTime)
	defer cancel()
	way := ways[chance.IntN(len(ways))]
	lane := s.session.Lane(fmt.Sprintf("lane-%d-%d", worker, chance.IntN(3)))
	text := fmt.Sprintf("#deltas=%d", 5+chance.IntN(300))
	request := gateway.Request{Input: gateway.Text("#tools=3 " + text)}
	tools := gateway.Tools{Functions: []gateway.Tool{look}}
	switch way {
	case "loop", "raising", "hanging", "limit", "interrupt":
		switch way {
		case "raising":
			tools.Functions[0] = bad
		case "hanging":
			tools.Functions[0], tools.CallTimeout = hangs, 20*time.Millisecond
		case "limit":
			tools.MaxTurns = 2
		case "interrupt":
			time.AfterFunc(time.Duration(chance.IntN(200))*time.Millisecond, cancel)
		}
		return outcome(lane.RunTools(ctx, request, tools))
	case "leave":
		for _, err := range lane.ToolTurns(ctx, request, tools) {
			return "left", err
		}
	}
	turn, err := lane.Start(ctx, gateway.Request{Input: gateway.Text(text)})
	if err != nil {
		return "", err
	}
	switch way {
	case "drop":
		return "dropped", nil
	case "final":
		return outcome(turn.Final(ctx))
	}
	for event, err := range turn.Events(ctx) {
		if err != nil {
			break
		}
		if way == "slow" {
			time.Sleep(time.Duration(chance.IntN(2000)) * time.Microsecond)
		}
		if event.TextDelta() == "" {
			continue
		}
		switch way {
		case "cancel":
			_ = turn.Cancel()
		case "steer":
			_ = turn.Steer(ctx, gateway.Text("and another thing"))
			way = "read"
		case "close":
			turn.Close()
		}
	}
	return outcome(turn.Final(ctx))
}

func outcome(result *gateway.Result, err error) (string, error) {
	if result == nil {
		return "", err
	}
	return string(result.Outcome), err
}

func (s *soak) count(outcome string, err error) {
	var failure *gateway.Error
	switch {
	case errors.As(err, &failure):
		outcome = failure.Reason
	case err != nil:
		outcome = err.Error()
		if errors.Is(err, context.Canceled) {
			outcome = "interrupted"
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.outcomes[outcome]++
}

// left are the goroutines of the client that do not end.
func left() []string {
	var still []string
	for range 100 {
		stacks := make([]byte, 1<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		still = []string{}
		for index, stack := range strings.Split(string(stacks), "\n\n") {
			if index > 0 && strings.Contains(stack, "clients/go") {
				still = append(still, stack)
			}
		}
		if len(still) == 0 {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	return still
}

func number(name string) int {
	value, err := strconv.Atoi(os.Getenv(name))
	if err != nil {
		log.Fatal(name, ": ", err)
	}
	return value
}
