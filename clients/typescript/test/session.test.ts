import { setTimeout } from 'node:timers/promises';
import { BinaryWriter, WireType } from '@bufbuild/protobuf/wire';
import { Metadata, status } from '@grpc/grpc-js';
import { context, propagation, ROOT_CONTEXT, TraceFlags, trace } from '@opentelemetry/api';
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import { message, StreamError, TurnBusyError, TurnError } from '../src/index.ts';
import { GoAwayReason, ReplayVerdict, ResumeOutcome, TurnOutcome, TurnPhase } from '../src/proto.ts';
import { answer, completed, connectTo, created, delta, fakeGateway, itemDone } from './fake-gateway.ts';

const turn1 = { laneId: '', turnId: 'turn-1' };

describe('a turn', () => {
  test('streams its events and accumulates its result', async () => {
    const session = await connectTo({ model: 'm', labels: { job: '1' } }, async (gateway) => {
      const open = await gateway.accept();
      expect(open).toMatchObject({ model: 'm', metadata: { job: '1' }, schemaRevision: 3 });
      const turn = await gateway.startTurn();
      gateway.events(created(turn, 'resp_1'), delta(turn, 'Hel'));
      gateway.events(delta(turn, 'lo'), itemDone(turn, answer('Hello')), completed(turn, 'resp_1'));
      await gateway.drain();
    });
    const turn = await session.start({ input: 'hi' });
    let text = '';
    for await (const event of turn) text += event.textDelta;
    const result = await turn.final();
    expect(text).toBe('Hello');
    expect(result).toMatchObject({ text: 'Hello', responseId: 'resp_1', outcome: 'completed' });
    expect(result.usage.totalTokens).toBe(7);
    expect(turn.lane.lastResponseId).toBe('resp_1');
    expect(session.stats).toMatchObject({ bufferedBytes: 0, runningTurns: 0, lastSeq: 5 });
  });

  test('has one reader at a time: who takes the result ends a loop that waits for nothing', async () => {
    const session = await connectTo({}, async (gateway) => {
      await gateway.accept();
      const turn = await gateway.startTurn();
      gateway.events(delta(turn, 'one '), delta(turn, 'two '), completed(turn, 'r', answer('one two ')));
      await gateway.drain();
    });
    const turn = await session.start({ input: 'hi' });
    for await (const event of turn) {
      expect(event.seq).toBe(1);
      expect((await turn.final()).text).toBe('one two ');
    }
  });

  test('has one reader at a time, and a loop that was left can be gone on with', async () => {
    const { promise: more, resolve: goOn } = Promise.withResolvers<void>();
    const session = await connectTo({}, async (gateway) => {
      await gateway.accept();
      const turn = await gateway.startTurn();
      gateway.events(delta(turn, 'one '));
      await more;
      gateway.events(delta(turn, 'two '), completed(turn, 'r', answer('one two ')));
      await gateway.drain();
    });
    const turn = await session.start({ input: 'hi' });
    for await (const event of turn) {
      expect(event.seq).toBe(1);
      break;
    }
    const iterator = turn.events();
    const next = iterator.next();
    await expect(turn.final()).rejects.toBeInstanceOf(TurnBusyError);
    await expect(turn.events().next()).rejects.toBeInstanceOf(TurnBusyError);
    goOn();
    expect((await next).value?.seq).toBe(2);
    expect((await turn.final()).text).toBe('one two ');
    expect((await iterator.next()).done).toBe(true);
  });

  test('that failed throws what the gateway said, after its last event', async () => {
    const session = await connectTo({}, async (gateway) => {
      await gateway.accept();
      const turn = await gateway.startTurn();
      gateway.events(created(turn, 'r'), {
        ...turn1,
        type: 'gateway.turn.failed',
        outcome: TurnOutcome.FAILED,
        payload: {
          case: 'turnFailed',
          value: {
            code: 8,
            reason: 'UPSTREAM_RATE_LIMITED',
            message: 'slow down',
            replay: ReplayVerdict.SAFE,
            phase: TurnPhase.SENT,
            retryAfter: { seconds: 7n, nanos: 500_000_000 },
            metadata: { a: 'b' },
            upstreamError: { status: 429, code: 'rate_limit_exceeded' },
          },
        },
      });
      await gateway.drain();
    });
    const turn = await session.start({ input: 'hi' });
    const types: string[] = [];
    const error = await (async () => {
      for await (const { type } of turn) types.push(type);
    })().catch((problem: unknown) => problem);
    expect(types).toEqual(['response.created', 'gateway.turn.failed']);
    expect(error).toBeInstanceOf(TurnError);
    expect(error).toMatchObject({
      code: 'RESOURCE_EXHAUSTED',
      reason: 'UPSTREAM_RATE_LIMITED',
      domain: 'responses-gateway',
      retryAfterMs: 7500,
      replay: 'safe',
      phase: 'sent',
      metadata: { a: 'b' },
      inferred: false,
      upstream: { status: 429, code: 'rate_limit_exceeded' },
    });
    await expect(turn.final()).rejects.toBe(error);
  });

  test('is not lost by a wait that was aborted', async () => {
    const go = Promise.withResolvers<void>();
    const session = await connectTo({}, async (gateway) => {
      await gateway.accept();
      const turn = await gateway.startTurn();
      await go.promise;
      gateway.events(completed(turn, 'r', answer('late')));
      await gateway.drain();
    });
    const turn = await session.start({ input: 'hi' });
    const abort = new AbortController();
    const wait = turn.final({ signal: abort.signal });
    abort.abort(new Error('enough'));
    await expect(wait).rejects.toThrow('enough');
    go.resolve();
    expect((await turn.final()).text).toBe('late');
  });

  test('carries the current span and baggage', async () => {
    const start = Promise.withResolvers<
      { traceparent: string; tracestate: string; baggage: string } | undefined
    >();
    const session = await connectTo({}, async (gateway) => {
      await gateway.accept();
      const turn = await gateway.startTurn();
      start.resolve(turn.traceContext);
      gateway.events(completed(turn, 'r'));
      await gateway.drain();
    });
    const spanContext = {
      traceId: '0af7651916cd43dd8448eb211c80319c',
      spanId: 'b7ad6b7169203331',
      traceFlags: TraceFlags.SAMPLED,
    };
    let active = trace.setSpanContext(ROOT_CONTEXT, spanContext);
    active = propagation.setBaggage(active, propagation.createBaggage({ user: { value: 'a b' } }));
    context.setGlobalContextManager({
      active: () => active,
      with: (_context, run, self, ...args) => run.apply(self, args),
      bind: (_context, target) => target,
      enable() {
        return this;
      },
      disable() {
        return this;
      },
    });
    onTestFinished(() => context.disable());
    await (await session.start({ input: 'hi' })).final();
    expect(await start.promise).toMatchObject({
      traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
      baggage: 'user=a%20b',
    });
  });
});

describe('a lost stream', () => {
  test('is resumed without sending the turn again', async () => {
    const second = Promise.withResolvers<(string | undefined)[]>();
    const session = await connectTo(
      {},
      async (gateway) => {
        await gateway.accept();
        const turn = await gateway.startTurn();
        gateway.events(created(turn, 'resp_1'), delta(turn, 'one '));
        gateway.fail(status.UNAVAILABLE, 'connection lost');
      },
      async (gateway) => {
        const open = await gateway.accept({
          activeTurns: [{ turnId: 'turn-1', phase: TurnPhase.OUTPUT_STARTED }],
        });
        expect(open.resume).toMatchObject({ token: 'token-1', lastSeq: 2n });
        gateway.events(delta(turn1, 'two'), completed(turn1, 'resp_1'));
        second.resolve((await gateway.drain()).map((received) => received.case));
      },
    );
    const result = await (await session.start({ input: 'hi' })).final();
    expect(result.text).toBe('one two');
    expect(session.stats.resumes).toBe(1);
    await session.close();
    expect(await second.promise).toEqual([]);
  });

  test('gets a start that the gateway never saw again, under its id', async () => {
    const session = await connectTo(
      {},
      async (gateway) => {
        await gateway.accept();
        await gateway.startTurn();
        gateway.fail(status.UNAVAILABLE, 'connection lost');
      },
      async (gateway) => {
        await gateway.accept();
        const turn = await gateway.startTurn();
        expect(turn.turnId).toBe('mine');
        gateway.events(completed(turn, 'resp_1', answer('yes')));
        await gateway.drain();
      },
    );
    const turn = await session.start({ input: 'hi', turnId: 'mine' });
    expect((await turn.final()).text).toBe('yes');
  });

  test('of a session that is gone fails its turns with their verdicts', async () => {
    const session = await connectTo(
      {},
      async (gateway) => {
        await gateway.accept();
        const first = await gateway.startTurn();
        await gateway.startTurn();
        gateway.events(created(first, 'resp_1'));
        gateway.fail(status.UNAVAILABLE, 'connection lost');
      },
      async (gateway) => {
        await gateway.accept({ resumeOutcome: ResumeOutcome.GONE });
        await gateway.drain();
      },
    );
    const begun = await session.lane('a').start({ input: 'hi' });
    const sent = await session.lane('b').start({ input: 'hi' });
    const gone = { reason: 'SESSION_EXPIRED', code: 'NOT_FOUND', inferred: true };
    await expect(begun.final()).rejects.toMatchObject({ ...gone, replay: 'unsafe' });
    await expect(sent.final()).rejects.toMatchObject({ ...gone, replay: 'unknown' });
    expect(await session.closed).toMatchObject(gone);
    await expect(session.start({ input: 'more' })).rejects.toMatchObject({ ...gone, replay: 'safe' });
  });

  test('with a hole fails the turns that lost events, and keeps the others', async () => {
    const session = await connectTo(
      {},
      async (gateway) => {
        await gateway.accept();
        const turn = await gateway.startTurn();
        gateway.events(created(turn, 'resp_1'));
        gateway.fail(status.UNAVAILABLE, 'connection lost');
      },
      async (gateway) => {
        await gateway.accept({ resumeOutcome: ResumeOutcome.PARTIAL, oldestSeq: 9n });
        gateway.seq = 8;
        const turn = await gateway.startTurn();
        gateway.events(completed(turn, 'resp_2', answer('fine')));
        await gateway.drain();
      },
    );
    const turn = await session.start({ input: 'hi' });
    await expect(turn.final()).rejects.toMatchObject({
      reason: 'EVENTS_LOST',
      code: 'DATA_LOSS',
      replay: 'unsafe',
    });
    expect((await (await session.start({ input: 'again' })).final()).text).toBe('fine');
  });

  test('that the gateway ended for a reason is not resumed', async () => {
    const metadata = new Metadata();
    metadata.set('grpc-status-details-bin', statusDetails('SESSION_SUPERSEDED', { by: 'another' }));
    const session = await connectTo({}, async (gateway) => {
      await gateway.accept();
      await gateway.startTurn();
      gateway.fail(status.ABORTED, 'another stream resumed it', metadata);
    });
    const turn = await session.start({ input: 'hi' });
    await expect(turn.final()).rejects.toMatchObject({
      reason: 'SESSION_SUPERSEDED',
      replay: 'unknown',
      inferred: true,
    });
    expect(await session.closed).toMatchObject({
      reason: 'SESSION_SUPERSEDED',
      code: 'ABORTED',
      metadata: { by: 'another' },
      retryAfterMs: 1500,
      inferred: false,
    });
  });

  test('delivers what came before the status that ends it, though nobody had read that far', async () => {
    const metadata = new Metadata();
    metadata.set('grpc-status-details-bin', statusDetails('PERMISSION_DENIED', {}));
    const session = await connectTo({ maxBufferedBytes: 1024 }, async (gateway) => {
      await gateway.accept();
      const turn = await gateway.startTurn();
      for (let n = 0; n < 50; n += 1) gateway.events(delta(turn, 'x'.repeat(100)));
      gateway.events(completed(turn, 'r'));
      await gateway.flushed;
      gateway.fail(status.PERMISSION_DENIED, 'no more', metadata);
    });
    const turn = await session.start({ input: 'hi' });
    // The status is there long before what the reader has not taken.
    const events = turn.events();
    await events.next();
    await setTimeout(50);
    await events.return();
    expect((await turn.final()).text).toHaveLength(5_000);
    expect(await session.closed).toMatchObject({ reason: 'PERMISSION_DENIED', inferred: false });
  });

  test('is over as the gateway said, though heartbeats were written after its end', async () => {
    const { client, served } = await fakeGateway({}, async (gateway) => {
      await gateway.accept({ heartbeatInterval: { nanos: 5_000_000 } });
      const turn = await gateway.startTurn();
      gateway.send({ case: 'goAway', value: { reason: GoAwayReason.DRAINING, timeLeft: { seconds: 60n } } });
      for (let n = 0; n < 50; n += 1) gateway.events(delta(turn, 'x'.repeat(1_000)));
      gateway.events(completed(turn, 'resp_1'));
      gateway.call.end();
    });
    const session = await client.connect({ maxBufferedBytes: 2_000 });
    const turn = await session.start({ input: 'hi' });
    await setTimeout(200);
    expect((await turn.final()).text).toHaveLength(50_000);
    expect(await session.closed).toMatchObject({ reason: 'DRAINING', code: 'UNAVAILABLE' });
    expect(served()).toBe(1);
  });

  test('is replaced when it has grown old', async () => {
    const onGoAway = vi.fn();
    const session = await connectTo(
      { onGoAway },
      async (gateway) => {
        await gateway.accept();
        gateway.send({
          case: 'goAway',
          value: { reason: GoAwayReason.MAX_AGE, timeLeft: { seconds: 3n }, resumeToken: 'token-2' },
        });
        await gateway.drain();
      },
      async (gateway) => {
        const open = await gateway.accept();
        expect(open.resume?.token).toBe('token-2');
        const turn = await gateway.startTurn();
        gateway.events(completed(turn, 'r', answer('new')));
        await gateway.drain();
      },
    );
    const turn = await session.start({ input: 'hi' });
    expect((await turn.final()).text).toBe('new');
    expect(onGoAway).toHaveBeenCalledExactlyOnceWith({ draining: false, timeLeftMs: 3000, movable: false });
  });
});

describe('a session', () => {
  test('stops receiving while nobody reads, and acknowledges what it took', async () => {
    const text = 'x'.repeat(20_000);
    const acks: bigint[] = [];
    let written = 0;
    const session = await connectTo({ maxBufferedBytes: 100_000 }, async (gateway) => {
      await gateway.accept();
      const turn = await gateway.startTurn();
      void (async () => {
        for (let received = await gateway.receive(); received; received = await gateway.receive()) {
          if (received.case === 'ack') acks.push(received.value.seq);
        }
        gateway.call.end();
      })();
      for (; written < 1000; written += 1) {
        gateway.seq += 1;
        gateway.send({
          case: 'events',
          value: { events: [{ ...delta(turn, text), seq: BigInt(gateway.seq) } as never] },
        });
        // The one event that this side waits for: the transport takes no more.
        if (gateway.call.writableNeedDrain)
          await new Promise((resolve) => gateway.call.once('drain', resolve));
      }
      gateway.events(completed(turn, 'r'));
    });
    const turn = await session.start({ input: 'hi' });
    await vi.waitFor(() => expect(session.stats.bufferedBytes).toBeGreaterThanOrEqual(100_000));
    expect(session.stats.bufferedBytes).toBeLessThan(150_000);
    expect(written).toBeLessThan(1000);
    expect((await turn.final()).text.length).toBe(20_000_000);
    expect(session.stats.maxBufferedBytes).toBeLessThan(150_000);
    expect(session.stats.bufferedBytes).toBe(0);
    expect(acks.length).toBeGreaterThan(10);
  });

  test('lets starts wait, in their order, while too much is queued', async () => {
    const release = Promise.withResolvers<void>();
    const seen: string[] = [];
    let asked = 0;
    const { client } = await fakeGateway(
      { token: () => `t${++asked}` },
      async (gateway) => {
        await gateway.accept();
        gateway.fail(status.UNAVAILABLE, 'connection lost');
      },
      async (gateway) => {
        await release.promise;
        await gateway.accept();
        for (let count = 0; count < 3; count += 1) {
          const turn = await gateway.startTurn();
          seen.push(turn.turnId);
          gateway.events(completed(turn, `r${count}`));
        }
        await gateway.drain();
      },
    );
    const session = await client.connect({ maxQueuedBytes: 1 });
    onTestFinished(() => session.close());
    // The second token is for the resume: there is no stream now.
    await vi.waitFor(() => expect(asked).toBe(2));
    const abort = new AbortController();
    const starts = ['a', 'b', 'c', 'd'].map((turnId) =>
      session.start({ input: 'hi', turnId }, turnId === 'b' ? { signal: abort.signal } : {}),
    );
    abort.abort(new Error('enough'));
    await expect(starts[1]).rejects.toThrow('enough');
    release.resolve();
    for (const index of [0, 2, 3]) await (await starts[index])?.final();
    expect(seen).toEqual(['a', 'c', 'd']);
  });

  test('cancels what runs when it is closed, and takes nothing more', async () => {
    const received = Promise.withResolvers<(string | undefined)[]>();
    const session = await connectTo({}, async (gateway) => {
      await gateway.accept();
      const turn = await gateway.startTurn();
      gateway.events(created(turn, 'r'));
      received.resolve((await gateway.drain()).map((request) => request.case));
    });
    const turn = await session.start({ input: 'hi' });
    for await (const _ of turn) break;
    await session.close();
    expect(await received.promise).toEqual(['cancelTurn']);
    await expect(turn.final()).rejects.toMatchObject({
      reason: 'SESSION_CLOSED',
      code: 'CANCELLED',
      replay: 'unsafe',
    });
    await expect(session.start({ input: 'more' })).rejects.toMatchObject({
      reason: 'SESSION_CLOSED',
      replay: 'safe',
    });
    await expect(session.lane('').steer('more')).rejects.toBeInstanceOf(StreamError);
    expect(await session.closed).toBeUndefined();
  });

  test('does not wait longer than its close timeout', async () => {
    const session = await connectTo({ closeTimeoutMs: 20 }, async (gateway) => {
      await gateway.accept();
      await new Promise((resolve) => gateway.call.on('cancelled', resolve));
    });
    await session.close();
    expect(await session.closed).toBeUndefined();
  });

  test('refuses what the gateway would not take, and ids that run', async () => {
    const session = await connectTo({}, async (gateway) => {
      await gateway.accept();
      await gateway.drain();
    });
    await expect(session.start({ input: 'x'.repeat(2 << 20) })).rejects.toMatchObject({
      reason: 'MESSAGE_TOO_LARGE',
      replay: 'safe',
      inferred: true,
    });
    await session.start({ input: 'hi', turnId: 'same' });
    await expect(session.start({ input: 'hi', turnId: 'same' })).rejects.toMatchObject({
      reason: 'TURN_ID_REUSED',
    });
  });

  test('forks a lane from its last response, once', async () => {
    const session = await connectTo({}, async (gateway) => {
      await gateway.accept();
      const trunk = await gateway.startTurn();
      gateway.events(completed(trunk, 'resp_1'));
      for (const chain of [{ case: 'previousResponseId', value: 'resp_1' }, { case: undefined }]) {
        const branch = await gateway.startTurn();
        expect(branch.chain).toEqual(chain);
        gateway.events(completed(branch, 'resp_2'));
      }
      await gateway.drain();
    });
    await (await session.lane('trunk').start({ input: [message('user', 'one')] })).final();
    const branch = session.lane('trunk').fork('branch');
    await (await branch.start({ input: 'two' })).final();
    await (await branch.start({ input: 'three' })).final();
  });

  test('is told events of no turn', async () => {
    const onEvent = vi.fn();
    const session = await connectTo({ onEvent }, async (gateway) => {
      await gateway.accept();
      gateway.events({ type: 'gateway.notice', payload: { case: 'notice', value: { kind: 'rotated' } } });
      await gateway.drain();
    });
    await vi.waitFor(() => expect(onEvent).toHaveBeenCalledOnce());
    expect(onEvent.mock.calls[0]?.[0].notice.kind).toBe('rotated');
    await session.close();
  });
});

describe('a client', () => {
  test('sends token and metadata, and asks for the token each time', async () => {
    const seen: string[] = [];
    let asked = 0;
    const { client } = await fakeGateway(
      { token: async () => `t${++asked}`, metadata: { 'x-team': 'blue' } },
      ...[1, 2].map(() => async (gateway: import('./fake-gateway.ts').FakeStream) => {
        const { metadata } = gateway.call;
        seen.push(`${metadata.get('authorization')} ${metadata.get('x-team')}`);
        await gateway.accept();
        await gateway.drain();
      }),
    );
    await client.withSession({}, async () => {});
    await client.withSession({}, async () => {});
    expect(seen).toEqual(['Bearer t1 blue', 'Bearer t2 blue']);
  });

  test('tells why a session could not be opened', async () => {
    const { client } = await fakeGateway({}, async (gateway) => {
      const metadata = new Metadata();
      metadata.set('grpc-status-details-bin', statusDetails('UNAUTHENTICATED', {}));
      gateway.fail(status.UNAUTHENTICATED, 'no', metadata);
    });
    await expect(client.connect()).rejects.toMatchObject({ reason: 'UNAUTHENTICATED', inferred: false });
    const abort = AbortSignal.abort(new Error('enough'));
    await expect(client.connect({ signal: abort })).rejects.toThrow('enough');
  });
});

/** google.rpc.Status with ErrorInfo and RetryInfo (1.5 s), written by hand as any server would. */
function statusDetails(reason: string, facts: Readonly<Record<string, string>>): Buffer {
  const bytes = (field: number, value: Uint8Array) => (writer: BinaryWriter) =>
    writer.tag(field, WireType.LengthDelimited).bytes(value);
  const text = (field: number, value: string) => bytes(field, new TextEncoder().encode(value));
  const write = (...parts: ((writer: BinaryWriter) => BinaryWriter)[]) =>
    parts.reduce((writer, part) => part(writer), new BinaryWriter()).finish();
  const any = (type: string, value: Uint8Array) =>
    write(text(1, `type.googleapis.com/google.rpc.${type}`), bytes(2, value));
  const info = write(
    text(1, reason),
    text(2, 'responses-gateway'),
    ...Object.entries(facts).map(([key, value]) => bytes(3, write(text(1, key), text(2, value)))),
  );
  const delay = new BinaryWriter()
    .tag(1, WireType.Varint)
    .int64(1)
    .tag(2, WireType.Varint)
    .int32(500_000_000)
    .finish();
  return Buffer.from(
    write(
      text(2, 'no'),
      bytes(3, any('ErrorInfo', info)),
      bytes(3, any('RetryInfo', write(bytes(1, delay)))),
    ),
  );
}
