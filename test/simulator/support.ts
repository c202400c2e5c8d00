import OpenAI from 'openai';
import { ResponsesWS } from 'openai/resources/responses/ws';
import { onTestFinished } from 'vitest';
import { WebSocket } from 'ws';
import {
  type ResponseStore,
  type Simulator,
  type SimulatorOptions,
  startSimulator,
} from '../../src/simulator/index.ts';

export type Frame = Record<string, unknown> & { type: string };

/** A simulator that is closed when the test ends. */
export async function simulator(options: SimulatorOptions = {}, store?: ResponseStore): Promise<Simulator> {
  const running = await startSimulator(options, store);
  onTestFinished(() => running.close());
  return running;
}

export function sdk(running: Simulator, apiKey = 'sk-test'): OpenAI {
  return new OpenAI({ apiKey, baseURL: running.httpUrl, maxRetries: 0 });
}

/** The official SDK's socket, open. */
export async function sdkSocket(running: Simulator): Promise<ResponsesWS> {
  const socket = new ResponsesWS(sdk(running));
  onTestFinished(() => socket.close());
  // Unheard errors of the SDK's emitter end the process; tests that expect some add their own listener.
  socket.on('error', () => {});
  for await (const { type } of socket) if (type === 'open' || type === 'close') break;
  return socket;
}

/** A bare WebSocket that keeps all frames in order. */
export class RawClient {
  readonly socket: WebSocket;
  readonly frames: Frame[] = [];
  readonly texts: string[] = [];
  readonly closed: Promise<{ code: number; reason: string }>;
  #taken = 0;
  #wake: (() => void) | null = null;
  #isClosed = false;

  constructor(socket: WebSocket) {
    this.socket = socket;
    socket.on('message', (data, isBinary) => {
      const text = String(data);
      this.texts.push(isBinary ? `binary:${text}` : text);
      try {
        this.frames.push(JSON.parse(text) as Frame);
      } catch {
        this.frames.push({ type: 'test.malformed', text });
      }
      this.#wake?.();
    });
    this.closed = new Promise((resolve) => {
      socket.on('close', (code, reason) => {
        this.#isClosed = true;
        this.#wake?.();
        resolve({ code, reason: reason.toString() });
      });
    });
    socket.on('error', () => {});
  }

  static async open(
    running: Simulator,
    options: ConstructorParameters<typeof WebSocket>[2] = {},
  ): Promise<RawClient> {
    const client = new RawClient(new WebSocket(`${running.url}/responses`, options));
    onTestFinished(() => client.socket.terminate());
    await new Promise<void>((resolve, reject) => {
      client.socket.once('open', resolve);
      client.socket.once('error', reject);
    });
    return client;
  }

  send(frame: unknown): void {
    this.socket.send(typeof frame === 'string' ? frame : JSON.stringify(frame));
  }

  create(fields: Record<string, unknown> = {}): void {
    this.send({ type: 'response.create', model: 'gpt-5.5', store: false, ...fields });
  }

  steer(previousResponseId: string, input: unknown): void {
    this.send({ type: 'response.steer', previous_response_id: previousResponseId, input });
  }

  /** The next frame in order; with `wanted`, skips up to the next one that fits. */
  async next(wanted: (frame: Frame) => boolean = () => true): Promise<Frame> {
    for (;;) {
      while (this.#taken < this.frames.length) {
        const frame = this.frames[this.#taken++];
        if (frame !== undefined && wanted(frame)) return frame;
      }
      if (this.#isClosed) throw new Error('the connection closed first');
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  type(type: string, lane?: string): Promise<Frame> {
    return this.next(
      (frame) => frame.type === type && (lane === undefined || (frame.stream_id ?? '') === lane),
    );
  }

  terminal(lane?: string): Promise<Frame> {
    return this.next(
      (frame) => TERMINALS.has(frame.type) && (lane === undefined || (frame.stream_id ?? '') === lane),
    );
  }

  /** Sends a create and returns its terminal's response, which must be completed. */
  async turn(fields: Record<string, unknown>): Promise<ResponseObject> {
    this.create(fields);
    const lane = typeof fields.stream_id === 'string' ? fields.stream_id : '';
    const frame = await this.terminal(lane);
    if (frame.type !== 'response.completed')
      throw new Error(`not completed: ${JSON.stringify(frame).slice(0, 500)}`);
    return responseOf(frame);
  }
}

export interface ResponseObject {
  id: string;
  status: string;
  output: Record<string, unknown>[];
  usage: { input_tokens: number; output_tokens: number; input_tokens_details: { cached_tokens: number } };
  previous_response_id: string | null;
  incomplete_details: { reason: string } | null;
  error: { code: string; message: string } | null;
  tools: unknown[];
}

export function responseOf(frame: Frame): ResponseObject {
  return frame.response as ResponseObject;
}

export function errorOf(frame: Frame): {
  type: string;
  code: string | null;
  message: string;
  param?: string | null;
} {
  return frame.error as { type: string; code: string | null; message: string; param?: string | null };
}

export const TERMINALS: ReadonlySet<string> = new Set([
  'response.completed',
  'response.failed',
  'response.incomplete',
  'error',
]);

export function functionTool(
  name: string,
  properties: Record<string, unknown> = { city: { type: 'string' } },
): object {
  return {
    type: 'function',
    name,
    parameters: {
      type: 'object',
      properties,
      required: Object.keys(properties),
      additionalProperties: false,
    },
    strict: true,
  };
}
