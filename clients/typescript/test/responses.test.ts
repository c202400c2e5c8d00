import { create } from '@bufbuild/protobuf';
import { Server, ServerCredentials, type ServerWritableStream, status } from '@grpc/grpc-js';
import { expect, onTestFinished, test } from 'vitest';
import { Client, StreamError } from '../src/index.ts';
import {
  type CreateResponseRequest,
  type CreateResponseResponse,
  CreateResponseResponseSchema,
  responsesServiceDefinition,
} from '../src/proto.ts';

// More than a stream of grpc-js keeps by itself.
const MANY = 100;

async function failingGateway(): Promise<Client> {
  const server = new Server();
  server.addService(responsesServiceDefinition, {
    createResponse: (call: ServerWritableStream<CreateResponseRequest, CreateResponseResponse>) => {
      for (let number = 1; number <= MANY; number += 1) {
        const events = [
          {
            type: 'response.output_text.delta',
            payload: {
              case: 'outputTextDelta' as const,
              value: { delta: 'a', sequenceNumber: BigInt(number) },
            },
          },
        ];
        const fail = () => call.emit('error', { code: status.UNAVAILABLE, details: 'said the gateway' });
        const batch = create(CreateResponseResponseSchema, { events });
        call.write(batch, () => {
          // A failure overtakes what has not left.
          if (number === MANY) setTimeout(fail, 50);
        });
      }
    },
  });
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
      error ? reject(error) : resolve(bound),
    ),
  );
  const client = new Client({ address: `127.0.0.1:${port}` });
  onTestFinished(() => {
    client.close();
    server.forceShutdown();
  });
  return client;
}

test('all that came before a failure is read, and the failure stays', async () => {
  const client = await failingGateway();
  const stream = client.responses.create({ input: 'go' });
  const readSlowly = async () => {
    let isFirst = true;
    for await (const _ of stream) {
      if (isFirst) await new Promise((resolve) => setTimeout(resolve, 300));
      isFirst = false;
    }
  };
  await expect(readSlowly()).rejects.toBeInstanceOf(StreamError);
  expect(stream.lastSequenceNumber).toBe(MANY);
  await expect(stream.final()).rejects.toMatchObject({ code: 'UNAVAILABLE' });
  await expect(stream.final()).rejects.toMatchObject({ code: 'UNAVAILABLE' });
});
