import { readFileSync } from 'node:fs';
import type { IncomingMessage } from 'node:http';
import { createParser } from 'eventsource-parser';
import { loadConfig } from '../config/load.ts';
import { formatHostPort, reachable } from '../config/units.ts';
import { http } from '../ground/http.ts';
import type { ConfigFlags } from './flags.ts';

const TIMEOUT_MS = 5_000;

/** The admin port of a gateway that runs, as the same configuration gives it. */
export interface AdminClient {
  readonly address: string;
  /** Rejects with what the gateway said, or with why it said nothing. */
  get<T>(path: string): Promise<T>;
  /** Calls for each event until the stream ends, which resolves. */
  events(path: string, onData: (data: string) => void): Promise<void>;
}

export function adminClient(flags: ConfigFlags, environment: NodeJS.ProcessEnv): AdminClient {
  const { config } = loadConfig({ file: flags.file, flags: flags.settings, environment });
  const { listen, token_file } = config.admin;
  const address = reachable(listen);
  const headers =
    token_file === undefined ? {} : { authorization: `Bearer ${readFileSync(token_file, 'utf8').trim()}` };
  const ask = (path: string) =>
    new Promise<IncomingMessage>((resolve, reject) => {
      const request = http.request({ ...address, path, headers, agent: false }, resolve);
      request.setTimeout(TIMEOUT_MS, () => request.destroy(new Error(`nothing within ${TIMEOUT_MS} ms`)));
      request.on('error', reject);
      request.end();
    });
  return {
    address: formatHostPort(address),
    async get<T>(path: string): Promise<T> {
      const answer = await ask(path);
      const body = await textOf(answer);
      if (answer.statusCode === 200) return JSON.parse(body) as T;
      throw new Error(problemIn(body) ?? `HTTP ${answer.statusCode}`);
    },
    async events(path, onData) {
      const answer = await ask(path);
      if (answer.statusCode !== 200)
        throw new Error(problemIn(await textOf(answer)) ?? `HTTP ${answer.statusCode}`);
      const parser = createParser({ onEvent: ({ data }) => onData(data) });
      answer.setEncoding('utf8');
      for await (const part of answer) parser.feed(String(part));
    },
  };
}

async function textOf(answer: IncomingMessage): Promise<string> {
  let text = '';
  answer.setEncoding('utf8');
  for await (const part of answer) text += String(part);
  return text;
}

function problemIn(body: string): string | undefined {
  try {
    const { error } = JSON.parse(body) as { readonly error?: unknown };
    return typeof error === 'string' ? error : undefined;
  } catch {
    return undefined;
  }
}
