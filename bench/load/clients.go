package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"github.com/coder/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	gatewayv1 "github.com/responses-gateway/responses-gateway/clients/go/gen/responses/gateway/v1"
)

const streamsPerConnection = 50

// A client that costs as little as a client can: messages stay bytes, and of the last one only the type is looked at.
type client interface {
	// turn returns at the end of the turn, having shown each message.
	turn(ctx context.Context, prompt string, onMessage func([]byte)) error
	// close leaves nothing behind that the next ones would pay for.
	close()
}

var completed = []byte("response.completed")

func open(ctx context.Context, way, target string, count int) ([]client, error) {
	clients := make([]client, 0, count)
	var connection *grpc.ClientConn
	for n := range count {
		if way != "direct" && n%streamsPerConnection == 0 {
			var err error
			if connection, err = dial(target); err != nil {
				return nil, err
			}
		}
		opened, err := openOne(ctx, way, target, connection)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", way, err)
		}
		clients = append(clients, opened)
	}
	return clients, nil
}

func openOne(ctx context.Context, way, target string, connection *grpc.ClientConn) (client, error) {
	switch way {
	case "direct":
		socket, _, err := websocket.Dial(ctx, "ws://"+target+"/v1/responses", nil)
		if err != nil {
			return nil, err
		}
		socket.SetReadLimit(-1)
		return directClient{socket}, nil
	case "floor":
		stream, err := connection.NewStream(ctx, &bothWays, "/floor.Relay/Relay")
		return floorClient{stream}, err
	case "through":
		return openGateway(ctx, connection)
	default:
		return nil, fmt.Errorf("none of direct, floor, through")
	}
}

type directClient struct{ socket *websocket.Conn }

func (c directClient) turn(ctx context.Context, prompt string, onMessage func([]byte)) error {
	if err := c.socket.Write(ctx, websocket.MessageText, createOf(prompt)); err != nil {
		return err
	}
	for {
		_, message, err := c.socket.Read(ctx)
		if err != nil {
			return err
		}
		onMessage(message)
		if bytes.Contains(message, completed) {
			return nil
		}
	}
}

func (c directClient) close() { _ = c.socket.CloseNow() }

type floorClient struct{ stream grpc.ClientStream }

func (c floorClient) close() { closeStream(c.stream) }

func (c floorClient) turn(_ context.Context, prompt string, onMessage func([]byte)) error {
	return turnOver(c.stream, createOf(prompt), onMessage)
}

type gatewayClient struct {
	stream grpc.ClientStream
	turns  *int
}

func (c gatewayClient) close() { closeStream(c.stream) }

func openGateway(ctx context.Context, connection *grpc.ClientConn) (client, error) {
	stream, err := connection.NewStream(ctx, &bothWays, gatewayv1.ResponsesService_Connect_FullMethodName)
	if err != nil {
		return nil, err
	}
	opening, err := proto.Marshal(&gatewayv1.ConnectRequest{Message: &gatewayv1.ConnectRequest_Open{
		Open: &gatewayv1.Open{Payload: gatewayv1.PayloadFormat_PAYLOAD_FORMAT_TYPED},
	}})
	if err != nil {
		return nil, err
	}
	if err := stream.SendMsg(&opening); err != nil {
		return nil, err
	}
	var opened []byte
	return gatewayClient{stream, new(int)}, stream.RecvMsg(&opened)
}

func (c gatewayClient) turn(_ context.Context, prompt string, onMessage func([]byte)) error {
	*c.turns++
	start, err := proto.Marshal(&gatewayv1.ConnectRequest{Message: &gatewayv1.ConnectRequest_StartTurn{
		StartTurn: startTurn(fmt.Sprintf("t%d", *c.turns), prompt),
	}})
	if err != nil {
		return err
	}
	return turnOver(c.stream, start, onMessage)
}

func startTurn(id, prompt string) *gatewayv1.StartTurn {
	return &gatewayv1.StartTurn{TurnId: id, Create: &gatewayv1.CreateBody{
		Model: proto.String("metronome"),
		Store: proto.Bool(false),
		Input: []*gatewayv1.InputItem{{Kind: &gatewayv1.InputItem_Message{
			Message: &gatewayv1.Message{Role: "user", Text: &prompt},
		}}},
	}}
}

func turnOver(stream grpc.ClientStream, start []byte, onMessage func([]byte)) error {
	if err := stream.SendMsg(&start); err != nil {
		return err
	}
	for {
		var message []byte
		if err := stream.RecvMsg(&message); err != nil {
			return err
		}
		onMessage(message)
		if bytes.Contains(message, completed) {
			return nil
		}
	}
}

func closeStream(stream grpc.ClientStream) {
	if stream.CloseSend() != nil {
		return
	}
	for {
		var message []byte
		if stream.RecvMsg(&message) != nil {
			return
		}
	}
}

func createOf(prompt string) []byte {
	text, _ := json.Marshal(map[string]any{"type": "response.create", "model": "metronome", "input": prompt})
	return text
}

func dial(target string) (*grpc.ClientConn, error) {
	return grpc.NewClient(target,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		// Otherwise every message is answered with a ping that measures how much a connection holds.
		grpc.WithStaticStreamWindowSize(1<<20), grpc.WithStaticConnWindowSize(8<<20),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(bytesCodec{}), grpc.MaxCallRecvMsgSize(64<<20)))
}

var bothWays = grpc.StreamDesc{ClientStreams: true, ServerStreams: true}

// Messages as the bytes that they are.
type bytesCodec struct{}

var _ encoding.CodecV2 = bytesCodec{}

func (bytesCodec) Name() string { return "proto" }

func (bytesCodec) Marshal(value any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*value.(*[]byte))}, nil
}

func (bytesCodec) Unmarshal(data mem.BufferSlice, value any) error {
	*value.(*[]byte) = data.Materialize()
	return nil
}
