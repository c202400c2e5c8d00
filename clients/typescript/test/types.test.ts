import { expect, expectTypeOf, test } from 'vitest';
import { z } from 'zod';
import {
  type Event,
  type GatewayError,
  type Outcome,
  type Session,
  type StreamError,
  type Turn,
  type TurnError,
  type TurnRequest,
  tool,
} from '../src/index.ts';
import { parseAddress } from '../src/options.ts';
import type { OutputTextDelta } from '../src/proto.ts';

test('the payload narrows by its case', () => {
  const look = (event: Event) => {
    const { payload } = event;
    if (payload.case === 'outputTextDelta') expectTypeOf(payload.value).toEqualTypeOf<OutputTextDelta>();
    if (payload.case === undefined) expectTypeOf(event.json).toEqualTypeOf<Uint8Array>();
  };
  expectTypeOf(look).parameter(0).toEqualTypeOf<Event>();
  expectTypeOf<Event['outcome']>().toEqualTypeOf<Outcome | undefined>();
  expectTypeOf<Event['seq']>().toEqualTypeOf<number>();
});

test('a turn is an async iterable of events, a session is disposed of', () => {
  expectTypeOf<Turn>().toExtend<AsyncIterable<Event>>();
  expectTypeOf<Session>().toExtend<AsyncDisposable>();
  expectTypeOf<Turn>().toExtend<Disposable>();
  expectTypeOf<Turn>().not.toHaveProperty('then');
});

test('errors of turns and of streams are told apart', () => {
  expectTypeOf<TurnError>().toExtend<GatewayError>();
  expectTypeOf<StreamError>().toExtend<GatewayError>();
  expectTypeOf<TurnError['replay']>().toEqualTypeOf<'safe' | 'unsafe' | 'unknown'>();
  expectTypeOf<StreamError['replay']>().toEqualTypeOf<undefined>();
});

test('a tool gets what its schema puts out', () => {
  tool({
    name: 'f',
    input: z.object({ n: z.number(), s: z.string().default('x') }),
    run: (input) => expectTypeOf(input).toEqualTypeOf<{ n: number; s: string }>(),
  });
  // @ts-expect-error the arguments of a function are an object
  expect(() => tool({ name: 'f', input: z.string(), run: () => '' })).not.toThrow();
});

test('requests know their fields', () => {
  expectTypeOf<{ input: string; temperature: number }>().toExtend<TurnRequest>();
  // @ts-expect-error a field that the client has no option for goes into extra
  const request: TurnRequest = { input: 'hi', temprature: 1 };
  expect(request.input).toBe('hi');
});

test.each([
  ['127.0.0.1:50051', '127.0.0.1:50051', true],
  ['localhost:1', 'localhost:1', true],
  ['[::1]:1', '[::1]:1', true],
  ['gateway.internal:443', 'gateway.internal:443', false],
  ['http://gateway.internal:80/', 'gateway.internal:80', true],
  ['https://127.0.0.1:443', '127.0.0.1:443', false],
  ['unix:/run/gateway.sock', 'unix:/run/gateway.sock', true],
  ['dns:///gateway.internal:443', 'dns:///gateway.internal:443', false],
])('the address %s', (address, target, plain) => {
  expect(parseAddress(address)).toEqual({ target, plain });
});
