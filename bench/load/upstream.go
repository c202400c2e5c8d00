package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"sync"
	"time"

	"github.com/coder/websocket"
)

const (
	textBytes = 200
	// Sessions are spread over an interval instead of all sending at once.
	slots = 20
)

// Behind it stands the moment at which an event was handed to its socket, in nanoseconds.
var stampMark = []byte("@ns=")

// A turn asks for these in its last text.
var asked = regexp.MustCompile(`#deltas=(\d+) #rate=(\d+)`)

type turn struct {
	socket   *websocket.Conn
	id       string
	start    time.Time
	interval time.Duration
	deltas   int
	sent     int
}

// An upstream that sends deltas by the clock, whatever becomes of them: open loop.
type upstream struct {
	mutex     sync.Mutex
	turns     map[*turn]struct{}
	responses int
}

func serveUpstream() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	server := &upstream{turns: map[*turn]struct{}{}}
	go server.run()
	_, _ = fmt.Fprintf(os.Stdout, "listening %s\n", listener.Addr())
	log.Fatal(http.Serve(listener, http.HandlerFunc(server.accept)))
}

func (u *upstream) accept(response http.ResponseWriter, request *http.Request) {
	socket, err := websocket.Accept(response, request, nil)
	if err != nil {
		return
	}
	socket.SetReadLimit(-1)
	ctx := context.Background()
	for {
		_, create, err := socket.Read(ctx)
		if err != nil {
			u.forget(socket)
			return
		}
		u.begin(socket, create)
	}
}

func (u *upstream) begin(socket *websocket.Conn, create []byte) {
	deltas, rate := 1, 50
	if found := asked.FindSubmatch(create); found != nil {
		deltas, _ = strconv.Atoi(string(found[1]))
		rate, _ = strconv.Atoi(string(found[2]))
	}
	interval := time.Second / time.Duration(rate)
	u.mutex.Lock()
	defer u.mutex.Unlock()
	u.responses++
	begun := &turn{
		socket:   socket,
		id:       fmt.Sprintf("resp_%d", u.responses),
		start:    time.Now().Add(interval / slots * time.Duration(u.responses%slots)),
		interval: interval,
		deltas:   deltas,
	}
	begun.send(`{"type":"response.created","sequence_number":0,"response":%s}`, response(begun.id, "in_progress"))
	u.turns[begun] = struct{}{}
}

func (u *upstream) run() {
	for now := range time.Tick(time.Millisecond) {
		u.mutex.Lock()
		for each := range u.turns {
			if each.advance(now) {
				delete(u.turns, each)
			}
		}
		u.mutex.Unlock()
	}
}

func (u *upstream) forget(socket *websocket.Conn) {
	u.mutex.Lock()
	defer u.mutex.Unlock()
	for each := range u.turns {
		if each.socket == socket {
			delete(u.turns, each)
		}
	}
}

// advance sends what is due and tells whether the turn is over.
func (t *turn) advance(now time.Time) bool {
	for t.sent < t.deltas && !t.start.Add(time.Duration(t.sent)*t.interval).After(now) {
		t.sent++
		stamp := fmt.Sprintf("%s%d", stampMark, time.Now().UnixNano())
		t.send(
			`{"type":"response.output_text.delta","item_id":"msg_%s","output_index":0,"content_index":0,"delta":"%-*s","sequence_number":%d,"logprobs":[]}`,
			t.id, textBytes, stamp, t.sent)
	}
	if t.sent < t.deltas {
		return false
	}
	t.send(`{"type":"response.completed","sequence_number":%d,"response":%s}`, t.sent+1, response(t.id, "completed"))
	return true
}

func (t *turn) send(format string, values ...any) {
	_ = t.socket.Write(context.Background(), websocket.MessageText, fmt.Appendf(nil, format, values...))
}

func response(id, status string) string {
	return fmt.Sprintf(
		`{"id":"%s","object":"response","created_at":0,"status":"%s","model":"metronome","output":[],"usage":null,"store":false}`,
		id, status)
}
