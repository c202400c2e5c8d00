import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import { describe, expect, it } from 'vitest';
import { GatewayError } from '../../src/errors.ts';
import type { TelemetryOptions } from '../../src/telemetry/options.ts';
import { createTelemetry } from '../../src/telemetry/telemetry.ts';
import { accepted, METHOD, record, start } from './facts.ts';

type Line = Readonly<Record<string, unknown>>;

async function withLogs(logs: TelemetryOptions['logs'] = {}) {
  const written: string[] = [];
  const telemetry = await createTelemetry({
    env: {},
    metrics: { prometheus: false },
    logs: { destination: { write: (line) => void written.push(line) }, ...logs },
  });
  return {
    telemetry,
    logger: telemetry.logger,
    written,
    lines: (): Line[] => written.map((line) => JSON.parse(line)),
  };
}

const TRACE = '0af7651916cd43dd8448eb211c80319c';
const CALLER = { traceparent: `00-${TRACE}-b7ad6b7169203331-01` };

describe('the lines of a session', () => {
  it('are one for each turn and one for the session, with trace ids', async () => {
    const { telemetry, lines } = await withLogs();
    const session = telemetry.session(start({ traceContext: CALLER }));
    session.fact(accepted({ turnId: 'good', atMs: 1_000 }));
    session.fact({ kind: 'turnSent', turnId: 'good', linkId: 1, atMs: 1_100 });
    session.fact({ kind: 'turnEnded', record: record({ turnId: 'good', acceptedAtMs: 1_000 }) });
    session.fact(accepted({ turnId: 'bad', atMs: 5_000 }));
    const error = new GatewayError('UPSTREAM_RATE_LIMITED', 'canary-text', {
      upstream: { code: 'rate_limit_exceeded', message: 'canary-message' },
    });
    session.fact({
      kind: 'turnEnded',
      record: record({
        turnId: 'bad',
        acceptedAtMs: 5_000,
        outcome: 'FAILED',
        failed: { error, replay: 'SAFE', phase: 'SENT' },
        usage: undefined,
      }),
    });
    session.end('OK');
    await telemetry.shutdown();

    expect(lines()).toMatchObject([
      {
        level: 'info',
        msg: 'turn ended',
        session_id: 'session-1',
        turn_id: 'good',
        tenant: 'acme',
        trace_id: TRACE,
        outcome: 'COMPLETED',
        model: 'gpt-5.2',
        response_id: 'resp_good',
        total_ms: 900,
        queue_ms: 100,
        upstream_ms: 800,
        ttft_ms: 400,
        input_tokens: 1_200,
        cached_tokens: 1_000,
        bytes_saved: 48_000,
      },
      {
        msg: 'turn ended',
        turn_id: 'bad',
        outcome: 'FAILED',
        reason: 'UPSTREAM_RATE_LIMITED',
        error_type: 'rate_limit_exceeded',
        fault: 'upstream',
        phase: 'SENT',
        replay: 'SAFE',
      },
      {
        msg: 'session ended',
        session_id: 'session-1',
        method: METHOD,
        status: 'OK',
        turns: 2,
        failures: 1,
        trace_id: TRACE,
      },
    ]);
    expect(JSON.stringify(lines())).not.toContain('canary');
  });

  it('can be added to with the same ids', async () => {
    const { telemetry, lines } = await withLogs();
    const session = telemetry.session(start({ traceContext: CALLER }));
    session.log?.info('hello');
    expect(lines()).toMatchObject([{ msg: 'hello', session_id: 'session-1', trace_id: TRACE }]);
  });
});

describe('secrets', () => {
  it.each([
    ['a key in a text', 'failed with sk-proj-canarycanary1234', undefined],
    ['a bearer token in a field', 'x', { header: 'Bearer canary.canary.canary' }],
    ['a field named so', 'x', { authorization: 'canary' }],
    ['a nested field named so', 'x', { request: { headers: { cookie: 'canary' } } }],
    ['a deeply nested one', 'x', { a: { b: { apiKey: 'canary' } } }],
    ['a JSON Web Token', 'got eyJhbGciOiJSUzI1NiJ9.eyJjYW5hcnkiOiJjYW5hcnkifQ.canary', undefined],
    ['the text of an unexpected error', 'x', { err: new Error('canary') }],
  ])('do not pass: %s', async (_, message, fields) => {
    const { logger, written } = await withLogs();
    if (fields === undefined) logger.error(message);
    else logger.error(fields, message);
    expect(written).toHaveLength(1);
    expect(written.join()).not.toMatch(/canary/i);
    expect(() => JSON.parse(written.join())).not.toThrow();
  });

  it('leave the kind and the place of an error', async () => {
    const { logger, lines } = await withLogs();
    logger.error({ err: new GatewayError('DRAINING', 'canary') }, 'x');
    expect(lines()[0]?.['err']).toMatchObject({ type: 'GatewayError', reason: 'DRAINING' });
    expect(JSON.stringify(lines())).toContain('logs.test.ts');
  });
});

describe('the level', () => {
  it('changes for loggers that exist, children included', async () => {
    const { telemetry, logger, lines } = await withLogs({ level: 'warn' });
    const child = logger.child({ part: 'child' }).child({ deeper: true });
    child.info('before');
    expect(telemetry.setLevel('debug')).toBe(true);
    expect(telemetry.level()).toBe('debug');
    child.debug('after');
    logger.debug('root');
    telemetry.setLevel('silent');
    child.fatal('never');
    expect(lines().map(({ msg }) => msg)).toEqual(['after', 'root']);
  });

  it('stays when asked for one that there is not', async () => {
    const { telemetry } = await withLogs();
    expect(telemetry.setLevel('loud')).toBe(false);
    expect(telemetry.setLevel('__proto__')).toBe(false);
    expect(telemetry.level()).toBe('info');
  });
});

describe('repeated warnings', () => {
  it('are held back, and counted when they come again', async () => {
    const { logger, lines } = await withLogs({ repeatWarnMs: 30 });
    for (let i = 0; i < 5; i += 1) logger.warn({ code: 'breaker_open' }, `number ${i}`);
    logger.warn({ code: 'other' }, 'another');
    const until = performance.now() + 31;
    while (performance.now() < until);
    logger.warn({ code: 'breaker_open' }, 'again');
    expect(lines().map(({ msg, suppressed }) => [msg, suppressed])).toEqual([
      ['number 0', undefined],
      ['another', undefined],
      ['again', 4],
    ]);
  });

  it('do not hold errors back', async () => {
    const { logger, lines } = await withLogs();
    for (let i = 0; i < 3; i += 1) logger.error({ code: 'same' }, 'same');
    expect(lines()).toHaveLength(3);
  });
});

describe('in a terminal', () => {
  it('is text for people, without the control characters of strangers', async () => {
    const { logger, written } = await withLogs({ pretty: true });
    logger.info({ model: '\u001b[2Jevil\u0007\u009b31m' }, 'turn \u001b]0;title\u0007 ended');
    expect(written.join('')).toContain('INFO');
    expect(written.join('')).toContain('evil');
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for.
    expect(written.join('')).not.toMatch(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/);
  });

  it('keeps a backslash that is only text', async () => {
    const { logger, written } = await withLogs({ pretty: true });
    logger.info({ path: 'C:\\u001b' }, 'x');
    expect(written.join('')).toContain('u001b');
  });
});

describe('a process without a terminal', () => {
  /** What it says with a logger of its own, and how it ended. */
  async function said(script: string) {
    const program = `
      import { createLogs } from './src/telemetry/logs.ts';
      const { logger } = await createLogs({ level: 'info', repeatWarnMs: 0 });
      ${script}`;
    const child = spawn(process.execPath, ['--input-type=module', '-e', program], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    const [output, [code, signal]] = await Promise.all([text(child.stderr), once(child, 'exit')]);
    const messages = output
      .split('\n')
      .filter((line) => line.startsWith('{'))
      .map((line) => JSON.parse(line).msg);
    return { messages, end: signal ?? code };
  }

  it('says everything before it exits', async () => {
    expect(await said("logger.info('one'); logger.info('two'); process.exit(3);")).toEqual({
      messages: ['one', 'two'],
      end: 3,
    });
  });

  it('says a warning, and what came before it, at once', async () => {
    const killed = "process.kill(process.pid, 'SIGKILL');";
    expect(await said(`logger.info('one'); logger.warn('two'); ${killed}`)).toEqual({
      messages: ['one', 'two'],
      end: 'SIGKILL',
    });
  });

  it('says the rest soon', async () => {
    const script = "logger.info('one'); setTimeout(() => process.kill(process.pid, 'SIGKILL'), 1_000);";
    expect((await said(script)).messages).toEqual(['one']);
  });

  /** A process that logs `lines` lines of 1 KiB while nobody reads, and tells on standard output when it is done. */
  function talkative(lines: number, after: string) {
    const program = `
      import { createLogs } from './src/telemetry/logs.ts';
      const { logger, dropped } = await createLogs({ level: 'info', repeatWarnMs: 0 });
      const text = 'x'.repeat(1024);
      for (let n = 0; n < ${lines}; n += 1) {
        logger.info({ n }, text);
        if (n % 100 === 0) await new Promise(setImmediate);
      }
      await new Promise((resolve) => setTimeout(resolve, 100));
      process.stdout.write(dropped() + '\\n');
      ${after}`;
    return spawn(process.execPath, ['--input-type=module', '-e', program], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
  }

  it('goes on while nobody reads, and says how many lines that cost', async () => {
    const child = talkative(3_000, '');
    const [printed] = (await once(child.stdout, 'data')) as [Buffer];
    const dropped = Number(printed);
    expect(dropped).toBeGreaterThan(1_000);

    const lines = (await text(child.stderr)).trimEnd().split('\n');
    expect(JSON.parse(lines.pop() ?? '')).toMatchObject({
      level: 'warn',
      code: 'log_lines_dropped',
      lines: dropped,
    });
    expect(lines).toHaveLength(3_000 - dropped);
    expect(lines.map((line) => JSON.parse(line).n)).toEqual(lines.map((_, n) => n));
  });

  it('ends though nobody reads', async () => {
    const child = talkative(3_000, 'process.exit(7);');
    expect(await once(child, 'exit')).toEqual([7, null]);
  });

  it('goes on when whoever read is gone', async () => {
    const child = talkative(3_000, 'process.exit(7);');
    child.stderr.destroy();
    expect(await once(child, 'exit')).toEqual([7, null]);
  });
});
