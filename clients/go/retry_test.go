package gateway

import (
	"context"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	gatewayv1 "github.com/responses-gateway/responses-gateway/clients/go/gen/responses/gateway/v1"
)

func (f *fake) CompactResponse(
	context.Context, *gatewayv1.CompactResponseRequest,
) (*gatewayv1.CompactResponseResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.served++
	if f.served <= len(f.failures) {
		return nil, f.failures[f.served-1]
	}
	return &gatewayv1.CompactResponseResponse{Json: []byte("done")}, nil
}

func refusal(t *testing.T, replay string, wait time.Duration) error {
	t.Helper()
	info := &errdetails.ErrorInfo{
		Reason: ReasonUpstreamOverloaded, Domain: errorDomain, Metadata: map[string]string{"replay": replay},
	}
	refused, err := status.New(codes.Unavailable, "later").WithDetails(
		info, &errdetails.RetryInfo{RetryDelay: durationpb.New(wait)})
	if err != nil {
		t.Fatal(err)
	}
	return refused.Err()
}

// Calls without a session are sent again only where the gateway says that nothing was done.
func TestUnaryCallsAreSentAgainWhereNothingWasDone(t *testing.T) {
	safe := refusal(t, "safe", time.Millisecond)
	for name, test := range map[string]struct {
		failures []error
		calls    int
		code     codes.Code
	}{
		"not done":               {[]error{safe, safe}, 3, codes.OK},
		"four attempts":          {[]error{safe, safe, safe, safe, safe}, 4, codes.Unavailable},
		"may have been done":     {[]error{refusal(t, "unknown", time.Millisecond)}, 1, codes.Unavailable},
		"a broken connection":    {[]error{status.Error(codes.Unavailable, "reset")}, 1, codes.Unavailable},
		"a wait of an hour":      {[]error{refusal(t, "safe", time.Hour)}, 1, codes.Unavailable},
		"longer than the caller": {[]error{refusal(t, "safe", 9*time.Second)}, 1, codes.Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			service := &fake{failures: test.failures}
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
			if name == "longer than the caller" {
				cancel()
				ctx, cancel = context.WithTimeout(context.Background(), 8*time.Second)
			}
			defer cancel()
			_, err := clientOf(t, service).Stub().CompactResponse(ctx, &gatewayv1.CompactResponseRequest{})
			if name == "longer than the caller" && status.Code(err) == codes.DeadlineExceeded && service.served <= 1 {
				return // On a very busy machine even the first call may come too late.
			}
			if status.Code(err) != test.code || service.served != test.calls {
				t.Fatalf("%v after %d calls", err, service.served)
			}
		})
	}
}
