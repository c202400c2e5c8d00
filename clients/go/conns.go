package gateway

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
)

// quotaWait is how long a stream may wait on a connection that stands and carries others before it counts as full: a
// peer's limit of streams (100 with many proxies) shows in nothing else.
const quotaWait = time.Second

// conns are the connections of a client. There is one, and a further one while the peer takes no more streams on those
// that there are.
type conns struct {
	dial func() (*grpc.ClientConn, error)

	mu     sync.Mutex
	all    []*sharedConn
	closed bool
}

// sharedConn carries the streams of several sessions. Guarded by conns.mu.
type sharedConn struct {
	*grpc.ClientConn
	streams int
	full    bool
	retired bool // it leads to a gateway that goes down
}

// open begins a stream on a connection that takes it; done gives the place back when the stream has ended. ctx bounds
// the opening and goes with the stream.
func (c *conns) open(ctx context.Context, begin func(context.Context, *grpc.ClientConn) (connection, error)) (
	stream connection, on *sharedConn, done func(), err error,
) {
	for {
		conn, err := c.acquire()
		if err != nil {
			return nil, nil, nil, err
		}
		stream, full, err := c.try(ctx, conn, begin)
		if full {
			c.release(conn, true)
			continue
		}
		if err != nil {
			c.release(conn, false)
			return nil, nil, nil, err
		}
		return stream, conn, sync.OnceFunc(func() { c.release(conn, false) }), nil
	}
}

func (c *conns) try(ctx context.Context, conn *sharedConn, begin func(context.Context, *grpc.ClientConn) (connection, error)) (
	stream connection, full bool, err error,
) {
	type answer struct {
		stream connection
		err    error
	}
	attempt, cancel := context.WithCancel(ctx)
	answered := make(chan answer, 1)
	go func() {
		stream, err := begin(attempt, conn.ClientConn)
		answered <- answer{stream, err}
	}()
	timer := time.NewTicker(quotaWait)
	defer timer.Stop()
	for {
		select {
		case got := <-answered:
			if got.err != nil {
				cancel()
			} else {
				// The attempt's context is the stream's.
				context.AfterFunc(ctx, cancel)
			}
			return got.stream, false, got.err
		case <-timer.C:
			if conn.GetState() != connectivity.Ready || !c.carriesOthers(conn) {
				continue
			}
			// Should it come in this moment, it is cancelled with its context.
			cancel()
			<-answered
			return nil, true, nil
		}
	}
}

func (c *conns) carriesOthers(conn *sharedConn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return conn.streams > 1
}

func (c *conns) acquire() (*sharedConn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, clientClosed()
	}
	for _, conn := range c.all {
		if !conn.full && !conn.retired {
			conn.streams++
			return conn, nil
		}
	}
	dialled, err := c.dial()
	if err != nil {
		return nil, err
	}
	conn := &sharedConn{ClientConn: dialled, streams: 1}
	c.all = append(c.all, conn)
	return conn, nil
}

// retire has new streams take another connection; this one is closed with its last stream.
func (c *conns) retire(conn *sharedConn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	conn.retired = true
}

// release gives a place back; a further connection is closed with its last stream.
func (c *conns) release(conn *sharedConn, full bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	conn.streams--
	conn.full = full
	if conn.streams > 0 || c.closed {
		return
	}
	for index, other := range c.all {
		if other == conn && (index > 0 || conn.retired) {
			c.all = append(c.all[:index:index], c.all[index+1:]...)
			_ = conn.Close()
			return
		}
	}
}

func (c *conns) close() (err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for _, conn := range c.all {
		if problem := conn.Close(); err == nil {
			err = problem
		}
	}
	c.all = nil
	return err
}
