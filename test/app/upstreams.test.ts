import { expect, test } from 'vitest';
import { chooseUpstreams, upstreamOptions } from '../../src/app/upstreams.ts';
import { loadConfig } from '../../src/config/load.ts';
import { currentCredential } from '../../src/upstream/credential.ts';

/** Each provider's, so that one that goes astray can be told. */
const KEYS = {
  OPENAI_API_KEY: 'sk-openai',
  AZURE_OPENAI_API_KEY: 'azure',
  XAI_API_KEY: 'xai',
  MY_KEY: 'mine',
};

async function keysOf(
  upstreams: readonly Readonly<Record<string, unknown>>[],
  environment: Readonly<Record<string, string>> = KEYS,
) {
  const { config } = loadConfig({
    file: undefined,
    environment,
    flags: [{ path: ['upstreams'], value: upstreams, origin: { kind: 'default' } }],
  });
  const warnings: string[] = [];
  const choice = chooseUpstreams(config, environment);
  const options = upstreamOptions(choice, undefined, environment, ({ code }) => warnings.push(code));
  const keys = await Promise.all(
    options.map(async (each) => (await currentCredential(each.credential))?.reveal()),
  );
  return {
    keys,
    warnings,
    shown: choice.kind === 'simulator' ? [] : choice.upstreams.map((each) => each.keySource),
  };
}

test('no provider is sent another one’s key, and a compatible server none at all', async () => {
  const { keys, warnings, shown } = await keysOf([
    { name: 'openai' },
    { name: 'azure', provider: 'azure', url: 'https://mine.openai.azure.com' },
    { name: 'xai', provider: 'xai', url: 'wss://api.x.ai/v1' },
    { name: 'local', provider: 'compatible', url: 'http://127.0.0.1:8000/v1' },
  ]);
  expect(keys).toEqual(['sk-openai', 'azure', 'xai', undefined]);
  expect(shown.at(-1)).toBe('no key');
  expect(warnings).toEqual([]);
});

test('a compatible server gets the key that is named for it', async () => {
  const { keys, warnings } = await keysOf([
    { name: 'local', provider: 'compatible', url: 'http://127.0.0.1:8000/v1', api_key_env: 'MY_KEY' },
  ]);
  expect([keys, warnings]).toEqual([['mine'], []]);
});

test('null: no key, whatever the provider', async () => {
  const { keys, warnings } = await keysOf([
    { name: 'mock', url: 'https://mock.example/v1', api_key_env: null },
  ]);
  expect([keys, warnings]).toEqual([[undefined], []]);
});

test('a key that lies ready and goes nowhere is told', async () => {
  const { warnings } = await keysOf([
    { name: 'local', provider: 'compatible', url: 'http://127.0.0.1:8000/v1' },
  ]);
  expect(warnings).toEqual(['API_KEY_UNUSED']);
});

test('a provider’s key that goes in clear to another server is told', async () => {
  const { keys, warnings } = await keysOf([
    { name: 'a', url: 'ws://127.0.0.1:8000/v1' },
    { name: 'b', url: 'wss://proxy.example/v1' },
    { name: 'c', url: 'ws://127.0.0.1:8000/v1', api_key_env: 'MY_KEY' },
  ]);
  expect(keys).toEqual(['sk-openai', 'sk-openai', 'mine']);
  expect(warnings).toEqual(['API_KEY_IN_CLEAR']);
});

test('a variable that is named has to be there', () => {
  const upstream = {
    name: 'a',
    provider: 'compatible',
    url: 'http://127.0.0.1:8000/v1',
    api_key_env: 'MY_KEY',
  };
  expect(() =>
    loadConfig({
      file: undefined,
      environment: {},
      flags: [{ path: ['upstreams'], value: [upstream], origin: { kind: 'default' } }],
    }),
  ).toThrow(/MY_KEY is not set/);
});

test('the multi-agent beta is asked for beside those that are configured', () => {
  const { config } = loadConfig({
    file: undefined,
    environment: KEYS,
    flags: [
      {
        path: ['upstreams'],
        value: [
          { name: 'plain' },
          { name: 'agents', capabilities: { multi_agent: true } },
          { name: 'both', headers: { 'openai-beta': 'a=1', X: 'y' }, capabilities: { multi_agent: true } },
        ],
        origin: { kind: 'default' },
      },
    ],
  });
  const options = upstreamOptions(chooseUpstreams(config, KEYS), undefined, KEYS, () => undefined);
  expect(options.map(({ headers, capabilities }) => [headers, capabilities?.injecting])).toEqual([
    [{}, undefined],
    [{ 'OpenAI-Beta': 'responses_multi_agent=v1' }, true],
    [{ X: 'y', 'OpenAI-Beta': 'a=1, responses_multi_agent=v1' }, true],
  ]);
});
