// Command load is the upstream and the clients of the overhead benchmark. Both are in Go because what they cost
// themselves is part of every time that they measure, and because services that call a gateway often are.
//
//	load upstream
//	load events -way direct -target HOST:PORT -sessions 64 -rate 50 -ramp 4 -seconds 5
//	load turns -direct HOST:PORT -floor HOST:PORT -through HOST:PORT -count 300
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) < 2 {
		log.Fatal("upstream, events or turns?")
	}
	switch name := os.Args[1]; name {
	case "upstream":
		serveUpstream()
	case "events":
		measureEvents(os.Args[2:])
	case "turns":
		measureTurns(os.Args[2:])
	default:
		log.Fatalf("%q is none of upstream, events, turns", name)
	}
}

// Turns go on for so long after the last event that counts, because all of them end in the same moment.
const tail = time.Second

// Times of one way, in microseconds. HdrHistograms in their own encoding, which other languages read.
type result struct {
	Histogram string `json:"histogram"`
}

// measureEvents opens the sessions, begins one turn in each of them, and prints how long each event took from the
// upstream's hand to here. Beginning a turn costs far more than an event, so turns begin one after the other, and what
// is sent meanwhile does not count: what counts lies between the lines `begin` and `end`.
func measureEvents(args []string) {
	flags := flag.NewFlagSet("events", flag.ExitOnError)
	way := flags.String("way", "direct", "direct, floor or through")
	target := flags.String("target", "", "HOST:PORT")
	sessions := flags.Int("sessions", 1, "")
	rate := flags.Int("rate", 50, "events a second of each session")
	ramp := flags.Int("ramp", 4, "seconds in which the turns begin")
	seconds := flags.Int("seconds", 5, "that count, after those")
	_ = flags.Parse(args)

	ctx := context.Background()
	clients, err := open(ctx, *way, *target, *sessions)
	if err != nil {
		log.Fatal(err)
	}
	began := time.Now()
	from := began.Add(time.Duration(*ramp) * time.Second)
	to := from.Add(time.Duration(*seconds) * time.Second)
	var wait sync.WaitGroup
	wait.Go(func() {
		time.Sleep(time.Until(from))
		fmt.Println("begin")
		time.Sleep(time.Until(to))
		fmt.Println("end")
	})
	times := make([]*hdrhistogram.Histogram, len(clients))
	for index, client := range clients {
		times[index] = newHistogram()
		start := began.Add(from.Sub(began) / time.Duration(len(clients)) * time.Duration(index))
		deltas := int((to.Sub(start) + tail).Seconds() * float64(*rate))
		wait.Go(func() {
			time.Sleep(time.Until(start))
			record := func(message []byte) { recordStamps(message, from.UnixNano(), to.UnixNano(), times[index]) }
			if err := client.turn(ctx, fmt.Sprintf("#deltas=%d #rate=%d", deltas, *rate), record); err != nil {
				log.Fatal(err)
			}
		})
	}
	wait.Wait()
	for _, client := range clients {
		wait.Go(client.close)
	}
	wait.Wait()
	all := newHistogram()
	for _, each := range times {
		all.Merge(each)
	}
	print(map[string]result{*way: encoded(all)})
}

// measureTurns runs short turns one after the other, each way in turn, and prints how long each took.
func measureTurns(args []string) {
	flags := flag.NewFlagSet("turns", flag.ExitOnError)
	count := flags.Int("count", 300, "of each way")
	ways := []string{"direct", "floor", "through"}
	targets := map[string]*string{}
	for _, way := range ways {
		targets[way] = flags.String(way, "", "HOST:PORT")
	}
	_ = flags.Parse(args)

	ctx := context.Background()
	clients := map[string]client{}
	times := map[string]*hdrhistogram.Histogram{}
	for _, way := range ways {
		opened, err := open(ctx, way, *targets[way], 1)
		if err != nil {
			log.Fatal(err)
		}
		clients[way], times[way] = opened[0], newHistogram()
	}
	for n := range *count {
		for _, way := range ways {
			began := time.Now()
			if err := clients[way].turn(ctx, "#deltas=1 #rate=1000", func([]byte) {}); err != nil {
				log.Fatal(err)
			}
			// The first ones meet cold code.
			if n >= *count/10 {
				_ = times[way].RecordValue(time.Since(began).Microseconds())
			}
		}
	}
	results := map[string]result{}
	for way, each := range times {
		results[way] = encoded(each)
	}
	print(results)
}

// Up to ten minutes.
func newHistogram() *hdrhistogram.Histogram { return hdrhistogram.New(1, 600_000_000, 3) }

// Of events that were sent in [from, to).
func recordStamps(message []byte, from, to int64, times *hdrhistogram.Histogram) {
	now := time.Now().UnixNano()
	for {
		at := bytes.Index(message, stampMark)
		if at < 0 {
			return
		}
		message = message[at+len(stampMark):]
		sent := int64(0)
		for _, digit := range message {
			if digit < '0' || digit > '9' {
				break
			}
			sent = sent*10 + int64(digit-'0')
		}
		if sent >= from && sent < to {
			_ = times.RecordValue(max(0, (now-sent)/1_000))
		}
	}
}

func encoded(times *hdrhistogram.Histogram) result {
	text, err := times.Encode(hdrhistogram.V2CompressedEncodingCookieBase)
	if err != nil {
		log.Fatal(err)
	}
	return result{Histogram: string(text)}
}

func print(results map[string]result) {
	if err := json.NewEncoder(os.Stdout).Encode(results); err != nil {
		log.Fatal(err)
	}
}
