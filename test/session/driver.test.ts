import { describe, expect, it, vi } from 'vitest';
import type {
  Input,
  LinkDown,
  Output,
  SessionEvent,
  StartTurn,
  UpstreamFrame,
} from '../../src/core/types.ts';
import { frameText, type OutgoingFrame } from '../../src/dialect/frames.ts';
import { GatewayError } from '../../src/errors.ts';
import { Admission } from '../../src/session/admission.ts';
import { type ClientStream, type SessionCore, SessionDriver } from '../../src/session/driver.ts';
import { FairShare } from '../../src/session/fair-share.ts';
import { FlushQueue } from '../../src/session/flush.ts';
import type { ContentCapture } from '../../src/telemetry/types.ts';
import type { DialRequest, Link, LinkListener } from '../../src/upstream/types.ts';
import { OpenAccess, RecordedTelemetry } from '../harness/fakes.ts';

/** A core that does what the test says. */
class ScriptedCore implements SessionCore {
  readonly inputs: Input[] = [];
  readonly outputs: Output[] = [];
  readonly events: SessionEvent[] = [];
  readonly onInput = new Map<Input['kind'], (input: Input) => void>();
  heldInputBytes = 0;
  waitingEventBytes = 0;
  readonly pumpDue = false;
  deadlineMs: number | undefined;

  handle(input: Input): void {
    this.inputs.push(input);
    this.onInput.get(input.kind)?.(input);
  }

  takeOutputs(): readonly Output[] {
    return this.outputs.splice(0);
  }

  takeEvents(maxEvents: number): readonly SessionEvent[] {
    return this.events.splice(0, maxEvents);
  }

  get pendingEvents(): number {
    return this.events.length;
  }

  nextDeadline(): number | undefined {
    return this.deadlineMs;
  }

  kinds(): readonly string[] {
    return this.inputs.map((input) => input.kind);
  }
}

class Sink implements ClientStream {
  hasRoom = true;
  /** Room for so many deliveries. */
  room = Number.POSITIVE_INFINITY;
  readonly batches: (readonly number[])[] = [];
  readonly goAways: string[] = [];
  readonly ends: (GatewayError | undefined)[] = [];

  deliver(events: readonly SessionEvent[]): void {
    this.batches.push(events.map((event) => event.seq));
    this.room -= 1;
    this.hasRoom = this.room > 0;
  }

  goAway(reason: string): void {
    this.goAways.push(reason);
  }

  end(error: GatewayError | undefined): void {
    this.ends.push(error);
  }
}

class FakeLink implements Link {
  readonly calls: string[] = [];
  readonly listener: LinkListener;
  readonly request: DialRequest;
  onSend: () => void = () => {};

  constructor(request: DialRequest, listener: LinkListener) {
    this.request = request;
    this.listener = listener;
  }

  send(sent: OutgoingFrame): void {
    const text = frameText(sent);
    this.calls.push(`send ${text}`);
    this.onSend();
  }

  pause(): void {
    this.calls.push('pause');
  }

  resume(): void {
    this.calls.push('resume');
  }

  close(code: number): void {
    this.calls.push(`close ${code}`);
  }

  abort(streamId: string | undefined): void {
    this.calls.push(`abort ${streamId}`);
  }
}

function setUp(fairShare = new FairShare(() => performance.now()), capture?: ContentCapture) {
  const core = new ScriptedCore();
  const access = new OpenAccess();
  const telemetry = new RecordedTelemetry();
  const links: FakeLink[] = [];
  const closed: string[] = [];
  const bugs: unknown[] = [];
  const lease = access.admitSession({ tenantId: 't', subject: 's' }, { upstream: undefined });
  const driver = new SessionDriver({
    core,
    dialer: {
      dial: (request, listener) => {
        const link = new FakeLink(request, listener);
        links.push(link);
        return link;
      },
      call: () => Promise.reject(new Error('not here')),
      follow: () => {
        throw new Error('not here');
      },
      route: () => undefined,
      shedReadyLinks: () => 0,
      retire: () => {},
      close: () => Promise.resolve(),
    },
    dial: { upstream: undefined, tenantId: 't', credential: undefined },
    model: 'from-open',
    maxUnreadBytes: 1_000,
    admission: new Admission(lease, undefined),
    telemetry: {
      ...telemetry.session({
        sessionId: 's',
        tenantId: 't',
        method: 'm',
        traceContext: undefined,
        captureContent: capture !== undefined,
        serverAddress: undefined,
      }),
      capture,
    },
    flushQueue: new FlushQueue(),
    fairShare,
    clock: () => performance.now(),
    onBug: (error) => bugs.push(error),
    onClosed: (status) => closed.push(status),
  });
  return { core, access, telemetry, links, closed, bugs, driver };
}

/** Flushes run in setImmediate; one queued after them runs after them. */
const flushed = () => new Promise<void>((resolve) => setImmediate(resolve));

const event = (seq: number): SessionEvent => ({
  seq,
  laneId: '',
  turnId: 't1',
  type: 'response.output_text.delta',
  outcome: undefined,
  frame: undefined,
  turnFailed: undefined,
  notice: undefined,
  commit: undefined,
  byteLength: 10,
});

const frame: UpstreamFrame = {
  type: 'x',
  streamId: undefined,
  bytes: new Uint8Array(),
  byteLength: 0,
  json: () => ({}),
};

const startTurn = (turnId: string): StartTurn => ({
  kind: 'startTurn',
  laneId: '',
  turnId,
  create: {
    fields: new Map([['max_output_tokens', '64']]),
    input: ['{"a":1}'],
    previousResponseId: 'resp_2',
    model: 'gpt-6',
    store: true,
    generate: true,
    usesConversation: false,
  },
  chain: { kind: 'from', responseId: 'resp_1' },
  inputMode: 'incremental',
  timeoutMs: undefined,
  waitOnRateLimit: false,
  traceContext: undefined,
});

const accepted = (core: ScriptedCore) =>
  core.onInput.set('startTurn', (input) => {
    const { laneId, turnId, create } = input as StartTurn;
    core.outputs.push(
      { kind: 'fact', fact: { kind: 'laneOpened', laneId } },
      {
        kind: 'fact',
        fact: { kind: 'turnAccepted', laneId, turnId, model: create.model, traceContext: undefined, atMs: 0 },
      },
    );
  });

const frameOf = (body: string): OutgoingFrame => ({
  kind: 'create',
  streamId: undefined,
  head: '',
  body: [body],
  bytes: body.length,
});

describe('SessionDriver', () => {
  it('turns outputs into calls on links and inputs into calls on the core', async () => {
    const { core, links, driver } = setUp();
    core.outputs.push({ kind: 'dial', linkId: 7, purpose: 'session', attempt: 0 });
    const sink = new Sink();
    driver.attach(sink, undefined);
    const link = links[0] as FakeLink;
    expect(link.request).toMatchObject({ purpose: 'session', model: 'from-open', current: undefined });

    const route = { upstream: 'main', provider: 'openai', serverAddress: 'x', serverPort: 1, pooled: false };
    link.listener.onUp({} as never, route);
    core.outputs.push(
      { kind: 'send', linkId: 7, frame: frameOf('{}'), turnId: 't1' },
      { kind: 'pauseLink', linkId: 7 },
      { kind: 'resumeLink', linkId: 7 },
      { kind: 'abort', linkId: 7, streamId: 'a' },
      { kind: 'dial', linkId: 8, purpose: 'lanes', attempt: 0 },
      { kind: 'closeLink', linkId: 7, code: 1000, reason: 'x' },
      { kind: 'goAway', reason: 'draining', timeLeftMs: 1, movable: false },
    );
    driver.feed({ kind: 'time' });
    expect(link.calls).toEqual(['send {}', 'pause', 'resume', 'abort a', 'close 1000']);
    expect(links[1]?.request).toMatchObject({ purpose: 'lanes', current: 'main' });
    expect(sink.goAways).toEqual(['draining']);

    // The link was given up: what it still says is not heard.
    const before = core.inputs.length;
    link.listener.onFrame(frame);
    link.listener.onDown({ during: 'open' } as LinkDown);
    expect(core.inputs).toHaveLength(before);
  });

  it('tells the capture of content which link a frame came by, and when a link is gone', () => {
    const seen: string[] = [];
    const { core, links, driver } = setUp(undefined, {
      frame: (linkId, { type }) => seen.push(`${type} by ${linkId}`),
      linkGone: (linkId) => seen.push(`${linkId} gone`),
    });
    for (const linkId of [7, 8]) core.outputs.push({ kind: 'dial', linkId, purpose: 'session', attempt: 0 });
    driver.attach(new Sink(), undefined);
    links[0]?.listener.onFrame(frame);
    links[1]?.listener.onFrame(frame);
    links[0]?.listener.onDown({ during: 'open' } as LinkDown);
    core.outputs.push({ kind: 'closeLink', linkId: 8, code: 1000, reason: 'x' });
    driver.feed({ kind: 'time' });
    links[1]?.listener.onFrame(frame);
    expect(seen).toEqual(['x by 7', 'x by 8', '7 gone', '8 gone']);
  });

  it('delivers what one tick brought as one batch', async () => {
    const { core, links, driver } = setUp();
    core.outputs.push({ kind: 'dial', linkId: 1, purpose: 'session', attempt: 0 });
    const sink = new Sink();
    driver.attach(sink, undefined);
    let seq = 0;
    core.onInput.set('frame', () => core.events.push(event(++seq)));
    for (let i = 0; i < 5; i++) links[0]?.listener.onFrame(frame);
    expect(sink.batches).toEqual([]);
    await flushed();
    expect(sink.batches).toEqual([[1, 2, 3, 4, 5]]);
  });

  it('does not wait for the end of the tick with more than a batch', () => {
    const { core, links, driver } = setUp();
    core.outputs.push({ kind: 'dial', linkId: 1, purpose: 'session', attempt: 0 });
    const sink = new Sink();
    driver.attach(sink, undefined);
    let seq = 0;
    core.onInput.set('frame', () => {
      core.events.push(event(++seq));
      if (seq === 3) core.outputs.push({ kind: 'pauseLink', linkId: 1 });
    });
    const big = { ...frame, bytes: new Uint8Array(100_000), byteLength: 100_000 };
    for (let i = 0; i < 3; i++) links[0]?.listener.onFrame(big);
    expect(links[0]?.calls).toEqual(['pause']);
    expect(sink.batches).toEqual([[1, 2, 3]]);
  });

  it('leaves events in the core while the stream has no room, and goes on when it has', async () => {
    const { core, driver } = setUp();
    const sink = new Sink();
    sink.room = 1;
    driver.attach(sink, undefined);
    for (let seq = 1; seq <= 600; seq++) core.events.push(event(seq));
    await flushed();
    expect(sink.batches).toHaveLength(1);
    expect(core.pendingEvents).toBe(600 - 256);
    sink.room = 10;
    sink.hasRoom = true;
    driver.room();
    await flushed();
    expect(sink.batches.flat()).toHaveLength(600);
  });

  it('ends the stream only when its last event is out, and at once when it can be resumed', async () => {
    const { core, closed, driver } = setUp();
    const sink = new Sink();
    sink.room = 1;
    driver.attach(sink, undefined);
    for (let seq = 1; seq <= 300; seq++) core.events.push(event(seq));
    core.outputs.push(
      { kind: 'endStream', error: undefined, resumable: false },
      { kind: 'closed', record: 'end' },
    );
    await flushed();
    expect(closed).toEqual(['OK']);
    expect(sink.ends).toEqual([]);
    sink.hasRoom = true;
    sink.room = 5;
    driver.room();
    await flushed();
    expect(sink.batches.flat()).toHaveLength(300);
    expect(sink.ends).toEqual([undefined]);

    const slow = setUp();
    const slowSink = new Sink();
    slowSink.hasRoom = false;
    slow.driver.attach(slowSink, undefined);
    slow.core.events.push(event(1));
    const error = new GatewayError('SLOW_CONSUMER', 'too slow');
    slow.core.outputs.push({ kind: 'endStream', error, resumable: true });
    slow.driver.feed({ kind: 'time' });
    expect(slowSink.ends).toEqual([error]);
    expect(slow.core.kinds()).toEqual(['attach', 'time', 'detach']);
    expect(slow.core.pendingEvents).toBe(1);
    expect(slow.closed).toEqual([]);
  });

  it('has no stream once it is over: nobody would tell it anything', () => {
    const { driver, core } = setUp();
    core.onInput.set('time', () => core.outputs.push({ kind: 'closed', record: 'end' }));
    driver.feed({ kind: 'time' });
    expect(() => driver.attach(new Sink(), 0)).toThrow(
      expect.objectContaining({ reason: 'SESSION_EXPIRED' }),
    );
  });

  it('fences the earlier stream when another attaches, and ignores its departure', () => {
    const { core, driver } = setUp();
    const first = new Sink();
    const second = new Sink();
    driver.attach(first, undefined);
    driver.attach(second, 3);
    expect(first.ends.map((error) => error?.reason)).toEqual(['SESSION_SUPERSEDED']);
    driver.detach(first);
    expect(core.kinds()).toEqual(['attach', 'attach']);
    driver.detach(second);
    expect(core.kinds()).toEqual(['attach', 'attach', 'detach']);
  });

  it('holds the client back while a link is blocked or too much waits, and lets it go on', async () => {
    const { core, links, driver } = setUp();
    core.outputs.push({ kind: 'dial', linkId: 1, purpose: 'session', attempt: 0 });
    driver.attach(new Sink(), undefined);
    const gone = new AbortController();
    await driver.inputReady(gone.signal);

    links[0]?.listener.onBlocked();
    expect(driver.inputBlocked).toBe(true);
    let ready = false;
    const waiting = driver.inputReady(gone.signal).then(() => {
      ready = true;
    });
    await flushed();
    expect(ready).toBe(false);
    links[0]?.listener.onWritable();
    await waiting;

    core.heldInputBytes = 33 * 1024 * 1024;
    expect(driver.inputBlocked).toBe(true);
    const left = driver.inputReady(gone.signal);
    gone.abort();
    await left;

    // A link that goes down while it is blocked blocks nobody.
    core.heldInputBytes = 0;
    links[0]?.listener.onBlocked();
    const after = driver.inputReady(new AbortController().signal);
    links[0]?.listener.onDown({ during: 'open' } as LinkDown);
    await after;
  });

  it('reads nothing more from a client that leaves its events unread, until it has read some', async () => {
    const { core, driver } = setUp();
    const sink = new Sink();
    sink.hasRoom = false;
    driver.attach(sink, undefined);
    expect(driver.eventsUnread).toBe(false);
    core.waitingEventBytes = 1_001;
    expect(driver.eventsUnread).toBe(true);
    // Requests have a bound of their own.
    expect(driver.inputBlocked).toBe(false);
    let read = false;
    const reading = driver.eventsRead(new AbortController().signal).then(() => {
      read = true;
    });
    driver.room();
    await flushed();
    expect(read).toBe(false);
    core.waitingEventBytes = 1_000;
    driver.room();
    await reading;
  });

  it('takes outputs that arise within a send in order, without nesting', () => {
    const { core, links, driver } = setUp();
    core.outputs.push({ kind: 'dial', linkId: 1, purpose: 'session', attempt: 0 });
    driver.attach(new Sink(), undefined);
    const link = links[0] as FakeLink;
    link.onSend = () => link.listener.onBlocked();
    core.onInput.set('linkBlocked', () => core.outputs.push({ kind: 'pauseLink', linkId: 1 }));
    core.outputs.push(
      { kind: 'send', linkId: 1, frame: frameOf('a'), turnId: 't' },
      { kind: 'send', linkId: 1, frame: frameOf('b'), turnId: 't' },
    );
    driver.feed({ kind: 'time' });
    expect(link.calls).toEqual(['send a', 'send b', 'pause', 'pause']);
  });

  it('lets others have their turn when many deadlines come together', async () => {
    let nowMs = 0;
    const fairShare = new FairShare(() => nowMs);
    let over = 0;
    let overBefore: number | undefined;
    const deadlineMs = performance.now() + 50;
    for (let n = 0; n < 100; n += 1) {
      const { core, driver } = setUp(fairShare);
      core.deadlineMs = deadlineMs;
      core.onInput.set('time', () => {
        core.deadlineMs = undefined;
        nowMs += 0.3;
        over += 1;
        // Somebody else comes while the first one is at it.
        if (over === 1)
          setImmediate(() =>
            fairShare.run({}, () => {
              overBefore = over;
            }),
          );
      });
      driver.attach(new Sink(), undefined);
    }
    await flushed();
    // All are due when the event loop comes to its timers.
    while (performance.now() < deadlineMs + 10);
    await vi.waitUntil(() => over === 100 && overBefore !== undefined);
    expect(overBefore).toBeLessThan(20);
  });

  it('arms one timer for the next deadline', async () => {
    const { core, driver } = setUp();
    core.deadlineMs = performance.now() + 5;
    driver.attach(new Sink(), undefined);
    await new Promise<void>((resolve) => {
      core.onInput.set('time', () => {
        core.deadlineMs = undefined;
        resolve();
      });
    });
    expect(core.kinds()).toEqual(['attach', 'time']);
  });

  it('ends a session in which something of ours broke, and no other', () => {
    const { core, access, closed, bugs, links, driver } = setUp();
    core.outputs.push({ kind: 'dial', linkId: 1, purpose: 'session', attempt: 0 });
    const sink = new Sink();
    driver.attach(sink, undefined);
    core.onInput.set('time', () => {
      throw new TypeError('secret prompt');
    });
    driver.feed({ kind: 'time' });
    expect(sink.ends[0]).toMatchObject({ reason: 'INTERNAL', message: 'internal error' });
    expect(bugs).toHaveLength(1);
    expect(closed).toEqual(['INTERNAL']);
    expect(links[0]?.calls).toEqual(['close 1000']);
    expect(access.openSessions).toBe(0);
  });

  it('admits a turn before the core sees it and settles it once', () => {
    const { core, access, driver } = setUp();
    accepted(core);
    driver.attach(new Sink(), undefined);
    driver.startTurn(startTurn('t1'));
    expect(access.admitted).toEqual([
      {
        model: 'gpt-6',
        upstream: undefined,
        inputBytes: 'max_output_tokens'.length + 2 + 7,
        maxOutputTokens: 64,
        responseIds: ['resp_1', 'resp_2'],
        conversation: false,
        fields: new Map([['max_output_tokens', '64']]),
        input: ['{"a":1}'],
        admittedItems: 0,
      },
    ]);
    expect(access.openLanes).toBe(1);
    const record = { turnId: 't1', outcome: 'CANCELLED' } as never;
    const usage = { outputTokens: 5 } as never;
    core.outputs.push(
      { kind: 'fact', fact: { kind: 'responseCreated', turnId: 't1', responseId: 'resp_3', atMs: 0 } },
      { kind: 'fact', fact: { kind: 'turnEnded', record } },
      { kind: 'fact', fact: { kind: 'lateUsage', turnId: 't1', usage } },
      { kind: 'fact', fact: { kind: 'laneClosed', laneId: '' } },
      { kind: 'closed', record: 'end' },
    );
    driver.feed({ kind: 'time' });
    expect(access.owned).toEqual(['resp_3']);
    expect(access.settled).toEqual([record]);
    expect(access.late).toEqual([usage]);
    expect(access.abandoned).toBe(0);
    expect(access.openLanes).toBe(0);
    expect(access.openSessions).toBe(0);
  });

  it('refuses a turn that is not admitted, and gives back what the core does not take', () => {
    const { core, access, driver } = setUp();
    driver.attach(new Sink(), undefined);
    access.onTurn = () => {
      throw new GatewayError('MODEL_NOT_ALLOWED', 'not this one');
    };
    driver.startTurn(startTurn('t1'));
    expect(core.inputs.at(-1)).toMatchObject({
      kind: 'refuse',
      turnId: 't1',
      error: { reason: 'MODEL_NOT_ALLOWED' },
    });
    access.onTurn = () => {};
    driver.startTurn(startTurn('t2'));
    expect(core.inputs.at(-1)?.kind).toBe('startTurn');
    expect(access.abandoned).toBe(1);
    expect(access.openLanes).toBe(0);
  });
});
