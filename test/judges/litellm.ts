/** LiteLLM's proxy before the simulator: over HTTP, and over WebSocket in both of its modes. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { startSimulator } from '../../src/simulator/index.ts';
import { createCredential } from '../../src/upstream/credential.ts';
import { judgeUpstream, type UpstreamJudge } from './upstream.ts';

const CERTS = fileURLToPath(new URL('../harness/certs/', import.meta.url));
const KEY = 'sk-judge';

/** What starts LiteLLM with these arguments and variables; resolves when it serves. */
export type Serve = (
  args: readonly string[],
  env: Readonly<Record<string, string>>,
) => Promise<{ stop(): Promise<void> }>;

export async function judgeLiteLlm(
  folder: string,
  port: number,
  serve: Serve,
  asked: Omit<UpstreamJudge, 'url' | 'stop' | 'model'>,
): Promise<void> {
  // LiteLLM (1.106) cannot pass a WebSocket on to an upstream without TLS.
  const tls = {
    cert: readFileSync(`${CERTS}server.pem`, 'utf8'),
    key: readFileSync(`${CERTS}server.key`, 'utf8'),
  };
  const simulator = await startSimulator({ tls });
  const base = `https://localhost:${new URL(simulator.httpUrl).port}/v1`;
  const model = (name: string, provider: string) => ({
    model_name: name,
    litellm_params: { model: `${provider}/gpt-5.5`, api_base: base, api_key: KEY },
  });
  const config = join(folder, 'litellm.json');
  writeFileSync(
    config,
    JSON.stringify({
      // It passes WebSockets on to OpenAI, and speaks HTTP to vLLM for them.
      model_list: [model('passed-on', 'openai'), model('managed', 'hosted_vllm')],
      general_settings: { master_key: KEY },
    }),
  );
  const server = await serve(['--config', config, '--host', '127.0.0.1', '--port', String(port)], {
    LITELLM_LOCAL_MODEL_COST_MAP: 'True',
    SSL_CERT_FILE: `${CERTS}ca.pem`,
  });
  const { long, ...rest } = asked;
  const url = `http://127.0.0.1:${port}/v1`;
  const upstream = { credential: createCredential(KEY) };
  const goesOn = { ...rest, url, stop: async () => {} };
  const lanes = { multiplexed: true, maxNamedLanes: 32, maxInFlight: 16 };
  const capabilities = { ...lanes, keepsUnstored: true, storesResponses: true };
  try {
    await judgeUpstream({ ...goesOn, model: 'managed', upstream: { ...upstream, transport: 'websocket' } });
    await judgeUpstream({
      ...goesOn,
      model: 'passed-on',
      upstream: { ...upstream, transport: 'websocket', capabilities },
    });
    await judgeUpstream({
      ...goesOn,
      ...(long !== undefined && { long }),
      stop: () => server.stop(),
      model: 'passed-on',
      upstream: { ...upstream, transport: 'sse' },
    });
  } finally {
    await server.stop();
    await simulator.close();
  }
}
