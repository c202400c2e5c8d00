package gateway

import (
	"google.golang.org/protobuf/proto"

	gatewayv1 "github.com/responses-gateway/responses-gateway/clients/go/gen/responses/gateway/v1"
)

// outgoing is a message that waits to be sent.
type outgoing struct {
	message *gatewayv1.ConnectRequest
	turn    *Turn // whose start it is
	last    bool  // no message: half-close
	size    int64
}

// outbox is the queue of messages for the gateway. It outlives streams. Guarded by session.mu.
type outbox struct {
	queue []outgoing
	bytes int64
	// ready wakes the writer.
	ready chan struct{}
	// room is closed when something was taken, for those that wait in Start or Steer; nil if nobody waits.
	room chan struct{}
}

func (o *outbox) add(out outgoing) {
	if out.message != nil {
		out.size = int64(proto.Size(out.message))
	}
	o.queue = append(o.queue, out)
	o.bytes += out.size
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

func (o *outbox) halfClose() { o.add(outgoing{last: true}) }

func (o *outbox) take() (outgoing, bool) {
	if len(o.queue) == 0 {
		return outgoing{}, false
	}
	out := o.queue[0]
	o.queue[0] = outgoing{}
	o.queue = o.queue[1:]
	o.freed(out.size)
	return out, true
}

// drop takes the start of a turn out that was not sent.
func (o *outbox) drop(turn *Turn) {
	for index, out := range o.queue {
		if out.turn == turn {
			o.queue = append(o.queue[:index:index], o.queue[index+1:]...)
			o.freed(out.size)
			return
		}
	}
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
	o.queue = nil
	o.freed(bytes)
}

func (o *outbox) wake() {
	select {
	case o.ready <- struct{}{}:
	default:
	}
}
