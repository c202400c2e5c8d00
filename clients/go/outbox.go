package gateway

import (
	"google.golang.org/protobuf/proto"

	gatewayv1 "github.com/responses-gateway/responses-gateway/clients/go/gen/responses/gateway/v1"
)

// outgoing is a message that waits to be sent.
type outgoing struct {
	message *gatewayv1.ConnectRequest
	turn    *Turn // whose start it is
	about   *Turn // a cancel or a steer of it: it must not come before its start
	last    bool  // no message: half-close
	beat    bool  // a heartbeat
	size    int64
}

// outbox is the queue of messages for the gateway. It outlives streams. Guarded by session.mu.
type outbox struct {
	queue []outgoing
	bytes int64
	// held are starts that wait until the session has moved, and what is about them.
	held    []outgoing
	holding bool
	// beating: a heartbeat waits.
	beating bool
	// ready wakes the writer.
	ready chan struct{}
	// room is closed when something was taken, for those that wait in Start or Steer; nil if nobody waits.
	room chan struct{}
}

func (o *outbox) add(out outgoing) {
	if out.message != nil {
		out.size = int64(proto.Size(out.message))
	}
	o.bytes += out.size
	if o.holding && out.waits() {
		o.held = append(o.held, out)
		return
	}
	o.queue = append(o.queue, out)
	o.wake()
}

// addFirst queues messages before all others.
func (o *outbox) addFirst(first []outgoing) {
	if len(first) == 0 {
		return
	}
	rest := o.queue
	o.queue = nil
	for _, out := range first {
		o.add(out)
	}
	o.queue = append(o.queue, rest...)
}

// beat queues a heartbeat before all else. One at a time: where nothing is taken, more would only pile up.
func (o *outbox) beat() {
	if o.beating {
		return
	}
	o.beating = true
	o.addFirst([]outgoing{{beat: true, message: &gatewayv1.ConnectRequest{
		Message: &gatewayv1.ConnectRequest_Heartbeat{Heartbeat: &gatewayv1.Heartbeat{}},
	}}})
}

func (o *outbox) halfClose() { o.add(outgoing{last: true}) }

func (o *outbox) take() (outgoing, bool) {
	if len(o.queue) == 0 {
		return outgoing{}, false
	}
	out := o.queue[0]
	o.queue[0] = outgoing{}
	o.queue = o.queue[1:]
	if out.beat {
		o.beating = false
	}
	o.freed(out.size)
	return out, true
}

// waits says whether it begins a turn, or concerns one that has not begun.
func (o outgoing) waits() bool { return o.turn != nil || (o.about != nil && !o.about.sent) }

// hold keeps starts back that were not sent, and those that come.
func (o *outbox) hold() {
	rest := o.queue
	o.queue, o.holding = nil, true
	for _, out := range rest {
		if out.waits() {
			o.held = append(o.held, out)
		} else {
			o.queue = append(o.queue, out)
		}
	}
}

func (o *outbox) letGo() {
	o.queue = append(o.queue, o.held...)
	o.held, o.holding = nil, false
	o.wake()
}

func (o *outbox) freed(bytes int64) {
	o.bytes -= bytes
	if o.room != nil {
		close(o.room)
		o.room = nil
	}
}

// full returns a channel to wait for, nil if there is room. One message always fits.
func (o *outbox) full(maxBytes int64) <-chan struct{} {
	if o.bytes < maxBytes {
		return nil
	}
	if o.room == nil {
		o.room = make(chan struct{})
	}
	return o.room
}

func (o *outbox) clear() {
	bytes := o.bytes
	o.queue, o.held, o.beating = nil, nil, false
	o.freed(bytes)
}

func (o *outbox) wake() {
	select {
	case o.ready <- struct{}{}:
	default:
	}
}
