// Package gateway is the Go client of responses-gateway.
//
// Five nouns: a [Client] holds the connection, a [Session] is one stream with its own upstream connection, a
// [Lane] is one line of conversation in a session, a [Turn] is one response and everything until its end, and an
// [Event] is one thing that happened.
//
//	client, err := gateway.NewClient() // address from RESPONSES_GATEWAY_ADDR
//	session, err := client.Connect(ctx, gateway.WithModel("gpt-5.5"))
//	defer session.Close()
//	turn, err := session.Start(ctx, gateway.Request{Input: gateway.Text("Hello")})
//	for event, err := range turn.Events(ctx) { … }   // or: result, err := turn.Final(ctx)
//
// A context bounds the call that it is given to: the end of the context of [Turn.Events] or [Turn.Final] ends the
// wait and loses nothing, and the context of [Session.Start] may end after Start has returned. Work ends by
// [Turn.Cancel], by [Request].Timeout or by [Session.Close].
//
// A lost stream is resumed by itself, without gap or repeat, as long as the gateway keeps the session (see
// [Session.Limits]). A turn that may have run is never run again. All methods may be called from any goroutine,
// but one turn has one reader at a time.
package gateway
