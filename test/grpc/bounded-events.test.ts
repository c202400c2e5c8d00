import { expect, it } from 'vitest';
import { readFailedResponse, toGatewayError } from '../../src/dialect/upstream-error.ts';
import { boundedMessages } from '../../src/grpc/bounded-events.ts';
import { createWire } from '../../src/translate/index.ts';
import { frameFromBytes } from '../../src/translate/peek.ts';
import { decode, eventOf, TYPED } from '../translate/support.ts';

const MAX_BYTES = 64 * 1024;

it('a failure fits however much its upstream says with it, and keeps its reason', () => {
  const wire = createWire();
  const error = { code: 'server_error', message: `it broke ${'x'.repeat(200_000)}` };
  const output = [{ type: 'message', content: [{ type: 'output_text', text: 'y'.repeat(200_000) }] }];
  const response = { id: 'resp_1', status: 'failed', error, output };
  const frame = frameFromBytes(Buffer.from(JSON.stringify({ type: 'response.failed', response })));
  const event = {
    ...eventOf(frame),
    outcome: 'FAILED',
    turnFailed: { error: toGatewayError(readFailedResponse(frame)), replay: 'UNSAFE', phase: 'CREATED' },
  } as const;
  const messages = boundedMessages([event], {
    wire,
    format: TYPED,
    maxMessageBytes: MAX_BYTES,
    encode: wire.events,
  });
  expect(messages).toHaveLength(1);
  const [message = new Uint8Array()] = messages;
  expect(message.length).toBeLessThanOrEqual(MAX_BYTES);
  const { events } = decode('ConnectResponse', message) as unknown as {
    events: { events: Record<string, unknown>[] };
  };
  expect(Number(events.events[0]?.['omitted_bytes'])).toBeGreaterThan(400_000);
  expect(events.events[0]?.['turn_failed']).toMatchObject({
    message: expect.stringMatching(/^it broke x/),
    upstream_error: { code: 'server_error' },
  });
});
