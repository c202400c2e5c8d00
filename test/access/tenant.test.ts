import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { inspect } from 'node:util';
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import { createAccessControl } from '../../src/access/access.ts';
import { ASSUMED_OUTPUT_TOKENS } from '../../src/access/lease.ts';
import { ANY, BLUE, NOW_MS, open, quietMemory, RED, refusal, turn, usedOf } from './support.ts';

describe('response ids', () => {
  test('only what this tenant was given; foreign and unknown are told apart by nobody', () => {
    const { access } = open({}, [{ id: 'blue', limits: { turnsInFlight: 3 } }, { id: 'red' }]);
    const mine = access.admitSession(BLUE, ANY);
    const theirs = access.admitSession(RED, ANY);
    mine.ownResponse('resp_blue');
    theirs.ownResponse('resp_red');
    mine.admitTurn(turn({ responseIds: ['resp_blue'] }));
    access.admitSession({ ...BLUE, subject: 'another' }, ANY).admitTurn(turn({ responseIds: ['resp_blue'] }));
    const [foreign, unknown] = ['resp_red', 'resp_none'].map((id) =>
      refusal(() => mine.admitTurn(turn({ responseIds: ['resp_blue', id] }))),
    );
    expect(foreign?.reason).toBe('UNKNOWN_RESPONSE');
    expect([foreign?.message, foreign?.metadata]).toEqual([unknown?.message, unknown?.metadata]);
    mine.admitTurn(turn());
    expect(refusal(() => mine.admitTurn(turn())).metadata).toMatchObject({ limit: 'turns_in_flight' });
  });

  test('stored ids may be allowed, but never those of another tenant', () => {
    const { access } = open({}, [{ id: 'blue', storedIds: 'allow' }, { id: 'red' }]);
    const mine = access.admitSession(BLUE, ANY);
    access.admitSession(RED, ANY).ownResponse('resp_red');
    mine.admitTurn(
      turn({ responseIds: ['resp_from_yesterday'], conversation: true, input: ['{"id":"msg_1"}'] }),
    );
    expect(refusal(() => mine.admitTurn(turn({ responseIds: ['resp_red'] }))).reason).toBe(
      'UNKNOWN_RESPONSE',
    );
  });

  test('are forgotten least recently used first, each tenant within its own bytes', () => {
    const { access } = open({ maxOwnedIdBytes: 130 * 3 });
    const mine = access.admitSession(BLUE, ANY);
    const theirs = access.admitSession(RED, ANY);
    theirs.ownResponse('resp_red_');
    for (const id of ['resp_1', 'resp_2', 'resp_3']) mine.ownResponse(id);
    mine.admitTurn(turn({ responseIds: ['resp_1'] }));
    mine.ownResponse('resp_4');
    mine.admitTurn(turn({ responseIds: ['resp_1', 'resp_3', 'resp_4'] }));
    expect(refusal(() => mine.admitTurn(turn({ responseIds: ['resp_2'] }))).reason).toBe('UNKNOWN_RESPONSE');
    theirs.admitTurn(turn({ responseIds: ['resp_red_'] }));
    for (let n = 0; n < 10_000; n++) mine.ownResponse(`resp_${n}`);
    mine.ownResponse('x'.repeat(1_000_000));
    mine.admitTurn(turn({ responseIds: ['resp_9998', 'resp_9999'] }));
    for (const id of ['resp_9996', 'x'.repeat(1_000_000)])
      expect(refusal(() => mine.admitTurn(turn({ responseIds: [id] }))).reason).toBe('UNKNOWN_RESPONSE');
  });

  test.each([
    ['a conversation', { conversation: true }],
    ['an item reference', { input: ['{"type":"item_reference","id":"msg_1"}'] }],
    ['an id that is no text', { input: ['{"type":"reasoning","id":7}'] }],
    ['an item reference without a type', { input: ['{"id":"msg_1"}'] }],
    ['an item reference with a null type', { input: ['{"type":"message","type":null,"id":"msg_1"}'] }],
    ['an escaped item reference', { input: ['{"type":"item\\u005freference","id":"msg_1"}'] }],
  ])('%s is refused, since nobody knows whose it is', (_, facts) => {
    const { access } = open();
    const error = refusal(() => access.admitSession(BLUE, ANY).admitTurn(turn(facts)));
    expect(error.reason).toBe('PERMISSION_DENIED');
  });

  test('a steer cannot bring in what a turn cannot', () => {
    const session = open().access.admitSession(BLUE, ANY);
    session.admitInput(['{"role":"user","content":"more"}']);
    expect(refusal(() => session.admitInput(['{"id":"msg_1"}'])).reason).toBe('PERMISSION_DENIED');
  });

  const BY_ID: readonly (readonly [string, object])[] = [
    ['reasoning', { type: 'reasoning', id: 'x_1', summary: [{ type: 'summary_text', text: 'so' }] }],
    ['reasoning with empty content', { type: 'reasoning', id: 'x_1', encrypted_content: '', content: [] }],
    ['a generated image', { type: 'image_generation_call', id: 'x_1', status: 'completed' }],
    ['a web search', { type: 'web_search_call', id: 'x_1', action: { type: 'search', query: 'q' } }],
    ['a file search', { type: 'file_search_call', id: 'x_1', queries: ['q'], results: null }],
    ['code that ran', { type: 'code_interpreter_call', id: 'x_1', code: 'x', outputs: null }],
    ['an MCP call', { type: 'mcp_call', id: 'x_1', name: 'n', arguments: '{}' }],
    ['a list of tools', { type: 'mcp_list_tools', id: 'x_1', server_label: 's' }],
    ['a message', { type: 'message', id: 'x_1', role: 'assistant', content: [] }],
    ['a message without a type', { id: 'x_1', role: 'assistant' }],
    ['a call', { type: 'function_call', id: 'x_1', call_id: 'c' }],
    ['a compaction', { type: 'compaction', id: 'x_1' }],
    ['a kind that is not known', { type: 'hologram_call', id: 'x_1', anything: 'else' }],
    ['a reference', { type: 'item_reference', id: 'x_1' }],
  ];

  test.each(BY_ID)('%s by its id alone is the tenant’s own, or nobody’s', (_, item) => {
    const { access } = open();
    const input = [JSON.stringify(item)];
    const mine = access.admitSession(BLUE, ANY);
    const theirs = access.admitSession(RED, ANY);
    const unknown = refusal(() => mine.admitTurn(turn({ input })));
    expect(unknown).toMatchObject({ reason: 'PERMISSION_DENIED', metadata: { field: 'input[0]' } });
    theirs.ownItem('x_1');
    const foreign = refusal(() => mine.admitTurn(turn({ input })));
    expect({ ...foreign }).toEqual({ ...unknown });
    expect(foreign.message).toBe(unknown.message);
    expect(refusal(() => mine.admitInput(input)).message).toBe(unknown.message);
    theirs.admitTurn(turn({ input }));
    mine.ownItem('x_1');
    mine.admitTurn(turn({ input }));
    mine.admitInput(input);
  });

  test('where stored ids are allowed, another tenant’s items are still refused', () => {
    const { access } = open({}, [{ id: 'blue', storedIds: 'allow' }, { id: 'red' }]);
    const session = access.admitSession(BLUE, ANY);
    access.admitSession(RED, ANY).ownItem('rs_red');
    const naming = (id: string) => turn({ input: [JSON.stringify({ type: 'reasoning', id })] });
    session.admitTurn(naming('rs_elsewhere'));
    expect(refusal(() => session.admitTurn(naming('rs_red'))).reason).toBe('PERMISSION_DENIED');
  });

  test('a tenant that is alone sends back what it likes, but no bare names', () => {
    const { access } = open({}, [{ id: 'blue', alone: true }, { id: 'red' }]);
    const session = access.admitSession(BLUE, ANY);
    session.admitTurn(turn({ input: ['{"type":"reasoning","id":"rs_1","summary":[]}'] }));
    expect(refusal(() => session.admitInput(['{"type":"item_reference","id":"rs_1"}'])).reason).toBe(
      'PERMISSION_DENIED',
    );
  });

  test('items that carry ids of their own, and their content, are no references', () => {
    const { access } = open();
    const input = [
      '{"type":"message","id":"msg_1","role":"assistant","content":"said"}',
      '{"role":"user","id":"m","content":[{"type":"input_text","text":""}]}',
      '{"type":"function_call_output","id":"o","call_id":"c","output":""}',
      '{"type":"function_call","id":"f","call_id":"c","name":"n","arguments":""}',
      '{"type":"reasoning","id":"rs","summary":[],"encrypted_content":"gAAA"}',
      '{"type":"reasoning","id":"rs","summary":[],"content":[{"type":"reasoning_text","text":"so"}]}',
      '{"type":"image_generation_call","id":"ig","result":"AAAA"}',
      '{"type":"reasoning","summary":[],"id":null}',
      '{"type":"reasoning","summary":[]}',
      'no JSON',
      '7',
      'null',
    ];
    access.admitSession(BLUE, ANY).admitTurn(turn({ input }));
  });
});

describe('models and upstreams', () => {
  test('the model is checked on every turn', () => {
    const { access } = open({}, [
      { id: 'blue', models: ['gpt-6*', 'o9'] },
      { id: 'red', models: ['*'] },
    ]);
    const session = access.admitSession(BLUE, ANY);
    session.admitTurn(turn({ model: 'gpt-6-mini' }));
    session.admitTurn(turn({ model: 'o9' }));
    for (const model of ['gpt-5', 'o9-pro', 'GPT-6', undefined]) {
      expect(refusal(() => session.admitTurn(turn({ model })))).toMatchObject({
        reason: 'MODEL_NOT_ALLOWED',
        message: expect.stringContaining('allowed: gpt-6*, o9'),
      });
    }
    access.admitSession(RED, ANY).admitTurn(turn({ model: undefined }));
  });

  const json = (value: unknown) => JSON.stringify(value);
  const imageTool = (more: object) =>
    json([
      { type: 'function', name: 'f' },
      { type: 'image_generation', ...more },
    ]);

  test.each<[string, Readonly<Record<string, string>>, readonly string[], string]>([
    ['an image tool', { tools: imageTool({ model: 'gpt-image-2' }) }, [], 'tools[1].model'],
    ['an image tool’s default', { tools: imageTool({}) }, [], 'tools[1].model'],
    ['an image tool’s null', { tools: imageTool({ model: null }) }, [], 'tools[1].model'],
    ['a list of models', { tools: imageTool({ model: ['gpt-6'] }) }, [], 'tools[1].model'],
    ['an SVG tool', { tools: imageTool({ model: 'gpt-6', svg: { model: 'o3' } }) }, [], 'tools[1].svg.model'],
    ['an SVG tool’s default', { tools: imageTool({ model: 'gpt-6', svg: {} }) }, [], 'tools[1].svg.model'],
    ['a tool that is not known', { tools: json([{ type: 'x', model: 'o3' }]) }, [], 'tools[0].model'],
    [
      'another spelling',
      { tools: '[{"type":"image_generation","model":"gpt-6","Model":"o3"}]' },
      [],
      'tools[0].model',
    ],
    ['an escaped spelling', { tools: '[{"type":"x","m\\u006fdel":"o3"}]' }, [], 'tools[0].model'],
    ['a kind spelled otherwise', { tools: '[{"Type":"image\\u005fgeneration"}]' }, [], 'tools[0].model'],
    [
      'a tool in a namespace',
      { tools: json([{ type: 'namespace', tools: [{ type: 'x', model: 'o3' }] }]) },
      [],
      'tools[0].tools[0].model',
    ],
    ['moderation', { moderation: json({ model: 'omni-moderation' }) }, [], 'moderation.model'],
    ['moderation’s default', { moderation: json({ policy: {} }) }, [], 'moderation.model'],
    ['a stored prompt', { prompt: json({ id: 'pmpt_1' }) }, [], 'prompt'],
    ['fallbacks of another upstream', { models: json(['o3']) }, [], 'models'],
    [
      'tools that are input',
      {},
      [json({ type: 'additional_tools', tools: [{ type: 'image_generation' }] })],
      'input[0].tools[0].model',
    ],
    [
      'settings that are input',
      {},
      [json({ role: 'user', content: 'x' }), json({ type: 'configuration_update', model: 'o3' })],
      'input[1].model',
    ],
  ])('a tenant limited to models is limited in %s', (_, fields, input, field) => {
    const { access } = open({}, [{ id: 'blue', models: ['gpt-6*'] }, { id: 'red' }]);
    const facts = turn({ fields: new Map(Object.entries(fields)), input });
    const session = access.admitSession(BLUE, ANY);
    expect(refusal(() => session.admitTurn(facts))).toMatchObject({
      reason: 'MODEL_NOT_ALLOWED',
      metadata: { field },
    });
    if (input.length > 0) expect(refusal(() => session.admitInput(input)).reason).toBe('MODEL_NOT_ALLOWED');
    access.admitSession(RED, ANY).admitTurn(facts);
  });

  test('and may use all of these with its own models', () => {
    const { access } = open({}, [{ id: 'blue', models: ['gpt-6*'] }, { id: 'red' }]);
    const fields = new Map([
      ['model', '"gpt-6"'],
      ['tools', imageTool({ model: 'gpt-6-image', svg: { model: 'gpt-6' } })],
      ['moderation', json({ model: 'gpt-6-moderation' })],
      ['prompt', 'null'],
      ['metadata', json({ model: 'o3' })],
      ['instructions', json('use the "model": o3')],
    ]);
    const input = [
      json({ role: 'user', content: 'the "model": o3' }),
      json({ type: 'function_call', call_id: 'c', name: 'f', arguments: '{"model":"o3"}' }),
      json({
        type: 'additional_tools',
        tools: [{ type: 'function', name: 'f', parameters: { properties: { model: {} } } }],
      }),
    ];
    access.admitSession(BLUE, ANY).admitTurn(turn({ fields, input }));
  });

  test('an upstream that is not allowed and one that does not exist get the same answer', () => {
    const { access } = open({ upstreamNames: ['openai', 'azure-eu', 'azure-us'] }, [
      { id: 'blue', upstreams: ['azure-*'] },
      { id: 'red' },
    ]);
    const refused = ['openai', 'nowhere', ''].map((upstream) =>
      refusal(() => access.admitSession(BLUE, { ...ANY, upstream })),
    );
    expect(new Set(refused.map(({ reason, message }) => `${reason} ${message}`)).size).toBe(1);
    expect(refused[0]).toMatchObject({
      reason: 'UPSTREAM_NOT_ALLOWED',
      message: expect.stringContaining('allowed: azure-eu, azure-us'),
    });
    expect(access.admitSession(BLUE, { ...ANY, upstream: 'azure-us' }).upstream).toBe('azure-us');
    const session = access.admitSession(BLUE, ANY);
    expect(refusal(() => session.admitTurn(turn({ upstream: 'openai' }))).reason).toBe(
      'UPSTREAM_NOT_ALLOWED',
    );
  });

  test('a restricted tenant’s dials are held to its upstreams', () => {
    const { access } = open({ upstreamNames: ['openai', 'azure-eu', 'azure-us'] }, [
      { id: 'blue', upstreams: ['azure-*'] },
      { id: 'red' },
    ]);
    expect(access.admitSession(BLUE, ANY)).toMatchObject({
      upstream: undefined,
      allowedUpstreams: ['azure-eu', 'azure-us'],
    });
    expect(access.admitSession(RED, ANY).allowedUpstreams).toBeUndefined();
  });

  test('a tenant without a usable upstream is refused at start', () => {
    expect(() => open({}, [{ id: 'blue', upstreams: ['x*'] }, { id: 'red' }])).toThrow(
      'tenants[0].upstreams',
    );
  });
});

describe('provider keys', () => {
  const KEY = 'sk-planted-0123456789';

  test('from the environment, shown nowhere but in reveal', () => {
    vi.stubEnv('BLUE_PROVIDER_KEY', `${KEY}\n`);
    onTestFinished(() => void vi.unstubAllEnvs());
    const source = { kind: 'env', name: 'BLUE_PROVIDER_KEY' } as const;
    const { access } = open({}, [{ id: 'blue', credentials: [{ upstream: '*', source }] }, { id: 'red' }]);
    const { credential } = access.admitSession(BLUE, ANY);
    expect(credential?.reveal()).toBe(KEY);
    const shown = [
      String(credential),
      JSON.stringify({ credential }),
      inspect(credential, { depth: 9, showHidden: true }),
      credential?.fingerprint,
    ];
    for (const text of shown) expect(text).not.toContain('planted');
    expect(access.admitSession(BLUE, ANY).credential?.fingerprint).toBe(credential?.fingerprint);
    expect(access.admitSession(RED, ANY).credential).toBeUndefined();
  });

  test.each([undefined, '', 'two words', 'bell\u0007', 'ключ'])(
    'refuses %j in the environment at start',
    (value) => {
      vi.stubEnv('BLUE_PROVIDER_KEY', value);
      onTestFinished(() => void vi.unstubAllEnvs());
      const source = { kind: 'env', name: 'BLUE_PROVIDER_KEY' } as const;
      expect(() => open({}, [{ id: 'blue', credentials: [{ upstream: '*', source }] }])).toThrow(
        'tenants[0].credentials[0].source',
      );
    },
  );

  test('from a file that is read again when it changes', () => {
    const folder = mkdtempSync(join(tmpdir(), 'keys-'));
    onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
    const path = join(folder, 'key');
    writeFileSync(path, `${KEY}-1\n`, { mode: 0o600 });
    let nowMs = NOW_MS;
    const tenants = [
      { id: 'blue', credentials: [{ upstream: '*', source: { kind: 'file', path } as const }] },
    ];
    const { access, warnings } = open(
      { now: () => nowMs, auth: [{ kind: 'none', tenant: 'blue' }] },
      tenants,
    );
    const current = () => access.admitSession(BLUE, ANY).credential?.reveal();
    expect(current()).toBe(`${KEY}-1`);
    writeFileSync(path, `${KEY}-second\n`);
    expect(current()).toBe(`${KEY}-1`);
    nowMs += 1_000;
    expect(current()).toBe(`${KEY}-second`);
    rmSync(path);
    nowMs += 1_000;
    expect(current()).toBe(`${KEY}-second`);
    expect(warnings.map(({ code }) => code)).toEqual(['AUTH_NONE', 'CREDENTIAL_FILE_UNREADABLE']);
    expect(JSON.stringify(warnings)).not.toContain('planted');
  });

  test('a file that everybody can read is a warning', () => {
    const folder = mkdtempSync(join(tmpdir(), 'keys-'));
    onTestFinished(() => rmSync(folder, { recursive: true }));
    const path = join(folder, 'key');
    writeFileSync(path, KEY);
    chmodSync(path, 0o644);
    const { warnings } = open({}, [
      { id: 'blue', credentials: [{ upstream: '*', source: { kind: 'file', path } }] },
      { id: 'red' },
    ]);
    expect(warnings.map(({ code }) => code)).toEqual(['CREDENTIAL_FILE_READABLE']);
  });

  test('a key goes to the upstreams it is for, and nobody guesses', () => {
    vi.stubEnv('KEY_OPENAI', 'sk-openai');
    vi.stubEnv('KEY_XAI', 'sk-xai');
    onTestFinished(() => void vi.unstubAllEnvs());
    const credentials = [
      { upstream: 'openai', source: { kind: 'env', name: 'KEY_OPENAI' } as const },
      { upstream: 'x*', source: { kind: 'env', name: 'KEY_XAI' } as const },
    ];
    const { access } = open({ upstreamNames: ['openai', 'xai', 'local'] }, [
      { id: 'blue', credentials, limits: { sessions: 4 } },
      { id: 'red' },
    ]);
    const keyFor = (upstream?: string) =>
      access.admitSession(BLUE, { ...ANY, upstream }).credential?.reveal();
    expect([keyFor('openai'), keyFor('xai'), keyFor('local')]).toEqual(['sk-openai', 'sk-xai', undefined]);
    expect(refusal(() => keyFor())).toMatchObject({
      reason: 'INVALID_FIELD',
      metadata: { field: 'upstream' },
    });
    expect(keyFor('local')).toBeUndefined();
    expect(refusal(() => keyFor('local')).metadata).toMatchObject({ limit: 'sessions' });
  });

  test('callers bring their own only where they may, and then to one upstream', () => {
    const { access } = open({ upstreamNames: ['openai', 'xai'] }, [
      { id: 'blue', passThrough: 'allowed' },
      { id: 'red', passThrough: 'required' },
    ]);
    const mine = { upstream: 'openai', upstreamKey: 'sk-mine' };
    expect(access.admitSession(BLUE, mine).credential?.reveal()).toBe('sk-mine');
    expect(access.admitSession(BLUE, ANY).credential).toBeUndefined();
    expect(refusal(() => access.admitSession(BLUE, { ...mine, upstream: undefined })).reason).toBe(
      'INVALID_FIELD',
    );
    expect(refusal(() => access.admitSession(RED, ANY)).reason).toBe('PERMISSION_DENIED');
    const broken = refusal(() => access.admitSession(BLUE, { ...mine, upstreamKey: 'sk-a b\r\nx: y' }));
    expect(broken.reason).toBe('INVALID_FIELD');
    expect(broken.message).not.toContain('sk-a');
    const { access: strict } = open();
    expect(refusal(() => strict.admitSession(BLUE, mine)).reason).toBe('PERMISSION_DENIED');
  });
});

describe('who owns a session', () => {
  test('a proof that has run out starts no turns, a fresh one of the same caller renews', () => {
    let nowMs = NOW_MS;
    const { access } = open({ now: () => nowMs });
    const session = access.admitSession({ ...BLUE, expiresAtMs: NOW_MS + 1_000 }, ANY);
    session.admitTurn(turn());
    nowMs += 1_000;
    expect(refusal(() => session.admitTurn(turn())).code).toBe('UNAUTHENTICATED');
    expect(refusal(() => session.renew(RED)).reason).toBe('PERMISSION_DENIED');
    expect(refusal(() => session.renew({ ...BLUE, subject: 'else' })).reason).toBe('PERMISSION_DENIED');
    session.renew({ ...BLUE, expiresAtMs: NOW_MS + 2_000 });
    session.admitTurn(turn());
    expect(session.principal.expiresAtMs).toBe(NOW_MS + 2_000);
  });

  test('a tenant that does not exist gets no session', () => {
    const { access } = open();
    expect(refusal(() => access.admitSession({ tenantId: 'green', subject: 's' }, ANY)).reason).toBe(
      'PERMISSION_DENIED',
    );
  });

  test('content is captured only where the tenant agreed', () => {
    const { access } = open({}, [{ id: 'blue', captureContent: true }, { id: 'red' }]);
    expect(access.admitSession(BLUE, ANY).captureContent).toBe(true);
    expect(access.admitSession(RED, ANY).captureContent).toBe(false);
  });
});

describe('memory', () => {
  test('above the high mark new sessions and turns are refused, under the low mark all is well', () => {
    vi.useFakeTimers();
    onTestFinished(() => void vi.useRealTimers());
    let heapBytes = 10;
    const { access, warnings } = open({
      memoryGuard: {
        probe: () => ({ ...quietMemory(), heapBytes }),
        sampleIntervalMs: 100,
        retryAfterMs: 3_000,
      },
    });
    const session = access.admitSession(BLUE, ANY);
    const running = session.admitTurn(turn());
    const sampleAt = (bytes: number) => {
      heapBytes = bytes;
      vi.advanceTimersByTime(100);
    };
    sampleAt(84);
    expect(access.overload()).toBeUndefined();
    sampleAt(85);
    expect(access.overload()).toMatchObject({
      reason: 'OVERLOADED',
      code: 'RESOURCE_EXHAUSTED',
      retryAfterMs: 3_000,
    });
    expect(refusal(() => access.admitSession(RED, ANY)).reason).toBe('OVERLOADED');
    expect(refusal(() => session.admitTurn(turn())).reason).toBe('OVERLOADED');
    sampleAt(75);
    expect(access.overload()?.reason).toBe('OVERLOADED');
    sampleAt(74);
    expect(access.overload()).toBeUndefined();
    session.admitTurn(turn());
    running.abandon();
    expect(warnings.map(({ code }) => code)).toEqual(['MEMORY_HIGH', 'MEMORY_NORMAL']);
    expect(access.memoryShare).toBe(0.74);
  });

  test('the resident set counts as well, and marks have to make sense', () => {
    const { access } = open({ memoryGuard: { probe: () => ({ ...quietMemory(), rssBytes: 99 }) } });
    expect(access.overload()?.reason).toBe('OVERLOADED');
    for (const marks of [{ lowMark: 0.9 }, { highMark: 1.1 }, { lowMark: 0 }, { highMark: Number.NaN }]) {
      expect(() => open({ memoryGuard: marks })).toThrow('memoryGuard');
    }
  });

  test('the real probe sees this process well under its limit', async () => {
    const access = createAccessControl({
      auth: [{ kind: 'none', tenant: 'blue' }],
      tenants: [{ id: 'blue' }],
      upstreamNames: ['openai'],
      loopbackOnly: true,
    });
    expect(access.memoryShare).toBeGreaterThan(0);
    expect(access.memoryShare).toBeLessThan(1);
    await access.close();
  });
});

test('a turn without max_output_tokens holds the assumed number', () => {
  const { access } = open({}, [{ id: 'blue', limits: { tokensPerMinute: 1e6 } }, { id: 'red' }]);
  access.admitSession(BLUE, ANY).admitTurn(turn({ inputBytes: 5, maxOutputTokens: undefined }));
  expect(usedOf(access, 'tokens_per_minute')).toBe(2 + ASSUMED_OUTPUT_TOKENS);
});
