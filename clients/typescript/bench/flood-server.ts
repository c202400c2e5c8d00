/**
 * Answers each turn with deltas as fast as they are taken, without a gateway, so that only the client is measured. The
 * turn's input is "EVENTS BATCH". Prints its address.
 */
import { create } from '@bufbuild/protobuf';
import { Server, ServerCredentials, type ServerDuplexStream } from '@grpc/grpc-js';
import {
  type ConnectRequest,
  type ConnectResponse,
  ConnectResponseSchema,
  ResumeOutcome,
  responsesServiceDefinition,
  type StartTurn,
  TurnOutcome,
} from '../src/proto.ts';

/** About what a token is. */
const DELTA = 'words ';

const server = new Server();
server.addService(responsesServiceDefinition, { connect });
server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, port) => {
  if (error) throw error;
  console.log(`127.0.0.1:${port}`);
});

type Call = ServerDuplexStream<ConnectRequest, ConnectResponse>;

function connect(call: Call): void {
  let seq = 0n;
  call.on('error', () => {});
  call.on('end', () => call.end());
  call.on('data', ({ message }: ConnectRequest) => {
    if (message.case === 'open') {
      call.write(
        create(ConnectResponseSchema, {
          message: { case: 'opened', value: { sessionId: 's', resumeOutcome: ResumeOutcome.NEW } },
        }),
      );
    } else if (message.case === 'startTurn') void flood(message.value);
  });

  async function flood({ turnId, laneId, create: body }: StartTurn): Promise<void> {
    const kind = body?.input[0]?.kind;
    const text = kind?.case === 'message' ? (kind.value.text ?? '') : '';
    const [events = 0, batch = 1] = text.split(' ').map(Number);
    for (let sent = 0; sent < events; sent += batch) {
      const size = Math.min(batch, events - sent);
      const more = write(
        Array.from({ length: size }, () => ({
          seq: ++seq,
          turnId,
          laneId,
          type: 'response.output_text.delta',
          payload: {
            case: 'outputTextDelta' as const,
            value: { delta: DELTA, itemId: 'msg_0123456789abcdef', sequenceNumber: seq },
          },
        })),
      );
      if (!more) await new Promise((resolve) => call.once('drain', resolve));
    }
    const outcome = TurnOutcome.COMPLETED;
    write([{ seq: ++seq, turnId, laneId, type: 'response.completed', outcome }]);
  }

  function write(events: readonly object[]): boolean {
    return call.write(
      create(ConnectResponseSchema, { message: { case: 'events', value: { events: [...events] } } }),
    );
  }
}
