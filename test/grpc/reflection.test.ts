import { once } from 'node:events';
import { Client, credentials, Server, ServerCredentials } from '@grpc/grpc-js';
import { loadSync, type MessageTypeDefinition } from '@grpc/proto-loader';
import descriptor from 'protobufjs/ext/descriptor/index.js';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { addReflection } from '../../src/grpc/reflection.ts';
import { grpcFrame, openCall, openHttp2, outcomeOf } from '../hostile/raw.ts';

interface Answer {
  readonly message_response: string;
  readonly list_services_response?: { readonly service: readonly { readonly name: string }[] };
  readonly file_descriptor_response?: { readonly file_descriptor_proto: readonly Buffer[] };
  readonly all_extension_numbers_response?: { readonly extension_number: readonly number[] };
  readonly error_response?: { readonly error_code: number };
}

let server: Server;
let port: number;
let client: Client;

beforeEach(async () => {
  server = new Server();
  addReflection(server);
  port = await new Promise<number>((resolve, reject) => {
    server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) => {
      if (error === null) resolve(bound);
      else reject(error);
    });
  });
  client = new Client(`127.0.0.1:${port}`, credentials.createInsecure());
});

afterEach(() => {
  client.close();
  server.forceShutdown();
});

function ask(version: string, request: object): Promise<Answer> {
  const definitions = loadSync(
    `node_modules/@grpc/reflection/build/proto/grpc/reflection/${version}/reflection.proto`,
    { keepCase: true, oneofs: true },
  );
  const type = (name: string) =>
    definitions[`grpc.reflection.${version}.${name}`] as unknown as MessageTypeDefinition<object, object>;
  const stream = client.makeBidiStreamRequest(
    `/grpc.reflection.${version}.ServerReflection/ServerReflectionInfo`,
    (message: object) => type('ServerReflectionRequest').serialize(message),
    (bytes) => type('ServerReflectionResponse').deserialize(bytes) as Answer,
  );
  return new Promise((resolve, reject) => {
    stream.on('data', resolve);
    stream.on('error', reject);
    stream.write(request);
    stream.end();
  });
}

function filesOf(answer: Answer) {
  const files = answer.file_descriptor_response?.file_descriptor_proto ?? [];
  return files.map((bytes) =>
    descriptor.FileDescriptorProto.toObject(descriptor.FileDescriptorProto.decode(bytes)),
  );
}

test.each(['v1', 'v1alpha'])('%s lists our service and health', async (version) => {
  const { list_services_response: list } = await ask(version, { list_services: '' });
  expect(list?.service).toEqual([
    { name: 'responses.gateway.v1.ResponsesService' },
    { name: 'grpc.health.v1.Health' },
  ]);
});

test.each([
  'responses.gateway.v1.ResponsesService',
  'responses.gateway.v1.ResponsesService.Connect',
  'responses.gateway.v1.Opened.resume_grace',
  'grpc.health.v1.HealthListResponse',
])('the files of %s come with all that they import', async (symbol) => {
  const files = filesOf(await ask('v1', { file_containing_symbol: symbol }));
  const names = new Set(files.map(({ name }) => name));
  expect(files.flatMap(({ dependency = [] }) => dependency).filter((name) => !names.has(name))).toEqual([]);
  expect(JSON.stringify(files)).not.toContain('".responses.gateway.v1.json');
});

test('files are found by name, extensions by number', async () => {
  const file = filesOf(await ask('v1', { file_by_filename: 'google/protobuf/duration.proto' }));
  expect(file.map(({ name }) => name)).toEqual(['google/protobuf/duration.proto']);
  const type = 'google.protobuf.FieldOptions';
  const numbers = (await ask('v1', { all_extension_numbers_of_type: type })).all_extension_numbers_response
    ?.extension_number;
  expect(numbers?.length).toBeGreaterThan(2);
  const request = { containing_type: type, extension_number: numbers?.[0] };
  const [options] = filesOf(await ask('v1', { file_containing_extension: request }));
  expect(options?.['name']).toBe('responses/gateway/v1/options.proto');
});

test('a client that does not read is read no further, and loses nothing', async () => {
  const http2 = await openHttp2(port);
  const path = '/grpc.reflection.v1.ServerReflection/ServerReflectionInfo';
  const call = openCall(http2, { ':path': path });
  call.pause();
  const outcome = outcomeOf(call);
  const closed = once(call, 'close');
  // ServerReflectionRequest { file_by_filename = 3 }
  const name = 'google/protobuf/duration.proto';
  const request = grpcFrame(Buffer.concat([Buffer.from([0x1a, name.length]), Buffer.from(name)]));
  // Several times HTTP/2's window, in which what is not read waits.
  const requests = 8_000;
  for (let sent = 0; sent < requests; sent += 1) call.write(request);
  call.end();
  for (let before = -1; before !== call.writableLength; ) {
    before = call.writableLength;
    await new Promise((resolve) => setTimeout(resolve, 300));
  }
  expect(call.writableLength).toBeGreaterThan((requests * request.length) / 4);

  let answers = 0;
  call.on('data', (chunk: Buffer) => {
    for (let at = chunk.indexOf(name); at !== -1; at = chunk.indexOf(name, at + 1)) answers += 1;
  });
  call.resume();
  expect(await outcome).toBe('status 0');
  await closed;
  // Each holds it twice: in the request that it repeats, and in the file.
  expect(answers).toBeGreaterThan(1.9 * requests);
  http2.close();
});

test.each([
  [{ file_containing_symbol: 'no.such.Thing' }, 5],
  [{ file_by_filename: 'nothing.proto' }, 5],
  [{ file_containing_extension: { containing_type: 'no.such.Thing', extension_number: 1 } }, 5],
  [{ all_extension_numbers_of_type: 'no.such.Thing' }, 5],
  [{}, 3],
])('%j is answered with code %i', async (request, code) => {
  expect((await ask('v1', request)).error_response?.error_code).toBe(code);
});
