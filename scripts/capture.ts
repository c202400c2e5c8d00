/**
 * Records how an endpoint of the Responses API speaks: names, kinds and order of what it sends, and none of the content.
 * What it prints can be shared; test/live holds the simulator and the translator against such recordings.
 *
 *   npm run capture -- --model gpt-5.5 [--url https://api.openai.com/v1] [--transport websocket|http]
 *                      [--api-key-env OPENAI_API_KEY] [--out FILE]
 */
import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { createParser } from 'eventsource-parser';
import { WebSocket } from 'ws';
import { SCENARIOS, type Scenario } from './capture/scenarios.ts';
import { type Skeleton, skeletonsOf } from './capture/skeleton.ts';

export interface CaptureOptions {
  /** Base URL; `/responses` is appended. */
  readonly url: string;
  readonly model: string;
  readonly transport: 'websocket' | 'http';
  /** Sent as a bearer token, if there is one. */
  readonly apiKey?: string | undefined;
}

export interface Recording {
  readonly source: string;
  readonly transport: string;
  readonly scenarios: Readonly<Record<string, readonly Skeleton[]>>;
}

/** High effort is silent for minutes. */
const SCENARIO_TIMEOUT_MS = 300_000;

export async function capture(options: CaptureOptions): Promise<Recording> {
  const scenarios: Record<string, readonly Skeleton[]> = {};
  for (const scenario of SCENARIOS) {
    const frames =
      options.transport === 'http' ? overHttp(options, scenario) : overWebSocket(options, scenario);
    scenarios[scenario.name] = skeletonsOf(await frames);
  }
  // The host alone: paths and queries may name an account.
  return { source: new URL(options.url).hostname, transport: options.transport, scenarios };
}

async function overWebSocket(options: CaptureOptions, { create }: Scenario): Promise<readonly unknown[]> {
  const url = `${options.url.replace(/^http/, 'ws').replace(/\/$/, '')}/responses`;
  const socket = new WebSocket(url, { headers: headersOf(options), handshakeTimeout: 30_000 });
  const frames: unknown[] = [];
  const timer = setTimeout(() => socket.terminate(), SCENARIO_TIMEOUT_MS);
  try {
    await new Promise<void>((resolve, reject) => {
      socket.once('open', () => {
        socket.send(
          JSON.stringify({ type: 'response.create', model: options.model, store: false, ...create }),
        );
      });
      socket.on('message', (data) => {
        const frame = parsed(String(data));
        frames.push(frame);
        if (isTerminal(frame)) resolve();
      });
      socket.once('error', reject);
      socket.once('close', (code) => reject(new Error(`the connection was closed with ${code}`)));
    });
  } finally {
    clearTimeout(timer);
    socket.removeAllListeners('close');
    socket.close();
  }
  return frames;
}

async function overHttp(options: CaptureOptions, { create }: Scenario): Promise<readonly unknown[]> {
  const answer = await fetch(`${options.url.replace(/\/$/, '')}/responses`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headersOf(options) },
    body: JSON.stringify({ model: options.model, store: false, stream: true, ...create }),
    signal: AbortSignal.timeout(SCENARIO_TIMEOUT_MS),
  });
  const text = await answer.text();
  if (!(answer.headers.get('content-type') ?? '').startsWith('text/event-stream')) return [parsed(text)];
  const frames: unknown[] = [];
  const parser = createParser({
    onEvent: ({ data }) => frames.push(data === '[DONE]' ? data : parsed(data)),
  });
  parser.feed(text);
  return frames;
}

function headersOf({ apiKey }: CaptureOptions): Record<string, string> {
  return apiKey === undefined ? {} : { authorization: `Bearer ${apiKey}` };
}

/** What is no JSON is a string, of which nothing is kept. */
function parsed(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return text;
  }
}

function isTerminal(frame: unknown): boolean {
  const type = typeof frame === 'object' && frame !== null && 'type' in frame ? frame.type : undefined;
  return (
    typeof type !== 'string' ||
    /^(error|response\.(completed|incomplete|failed|cancel{1,2}ed|done))$/.test(type)
  );
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: {
      url: { type: 'string', default: 'https://api.openai.com/v1' },
      model: { type: 'string', default: '' },
      transport: { type: 'string', default: 'websocket' },
      'api-key-env': { type: 'string', default: 'OPENAI_API_KEY' },
      out: { type: 'string' },
    },
  });
  const { url, model, transport, out } = values;
  const wrong = [
    ...(URL.canParse(url)
      ? []
      : [`--url: found ${url}; allowed: a base URL such as https://api.openai.com/v1`]),
    ...(model === '' ? ['--model: found nothing; allowed: a model of the endpoint'] : []),
    ...(isTransport(transport) ? [] : [`--transport: found ${transport}; allowed: websocket, http`]),
  ];
  for (const problem of wrong) console.error(`capture: ${problem}`);
  if (wrong.length > 0 || !isTransport(transport)) process.exitCode = 2;
  else await write({ url, model, transport, apiKey: process.env[values['api-key-env']] }, out);
}

function isTransport(word: string): word is CaptureOptions['transport'] {
  return word === 'websocket' || word === 'http';
}

async function write(options: CaptureOptions, out: string | undefined): Promise<void> {
  let text: string;
  try {
    text = `${JSON.stringify(await capture(options), null, 1)}\n`;
  } catch (error) {
    console.error(`capture: ${options.url}: ${error instanceof Error ? error.message : String(error)}`);
    process.exitCode = 1;
    return;
  }
  if (out === undefined) process.stdout.write(text);
  else writeFileSync(out, text);
}
