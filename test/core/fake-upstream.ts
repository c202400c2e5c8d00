import type { UpstreamFrame } from '../../src/core/types.ts';

/** A response as the fake upstream ran it; `context` is the text of every item that the model would have read. */
export interface Execution {
  readonly responseId: string;
  readonly linkId: number;
  readonly lane: string;
  readonly context: readonly string[];
  /** The text of the new input. */
  readonly input: readonly string[];
  readonly output: string;
  readonly warmUp: boolean;
  /** It says a compaction item, and what came before it is not read any more. */
  readonly compacts: boolean;
  /** The steered response that it goes on from by itself. */
  readonly successorOf: string | undefined;
}

/** What one of several upstreams can do; the rules are OpenAI's unless said otherwise. */
export interface FakeKind {
  readonly name: string;
  readonly multiplexed: boolean;
  readonly maxInFlight: number;
  readonly keepsUnstored: boolean;
  readonly storesResponses: boolean;
  readonly steering: boolean;
  readonly warmUp: boolean;
}

export type Fault = 'rate_limit' | 'server_error' | 'not_reached';

const OPENAI_KIND: FakeKind = {
  name: 'main',
  multiplexed: true,
  maxInFlight: 16,
  keepsUnstored: true,
  storesResponses: true,
  steering: true,
  warmUp: true,
};

interface FakeLink {
  readonly kind: FakeKind;
  readonly lanes: Map<string, LaneState>;
  readonly names: Set<string>;
  loose: Frame[];
}

interface Stored {
  readonly upstream: string;
  readonly context: readonly string[];
}

interface LaneState {
  cached: { id: string; context: readonly string[] } | undefined;
  running:
    | {
        id: string;
        create: Create;
        frames: Frame[];
        context: readonly string[];
        output: readonly string[];
        steers: Steer[];
      }
    | undefined;
  queue: Create[];
}

interface Steer {
  readonly id: string;
  readonly texts: readonly string[];
}

type Frame = Record<string, unknown>;

interface Create {
  readonly lane: string;
  readonly previousId: string | undefined;
  readonly input: readonly string[];
  readonly store: boolean;
  readonly generate: boolean;
  readonly compacts: boolean;
}

/** As a compaction item reads. */
export const COMPACTION = 'compaction';

/**
 * A model of the upstream's state rules (upstream.md#state) for one session: enough to notice a lost context, a
 * turn that ran twice and a broken limit. Frames wait until the schedule delivers them.
 */
export class FakeUpstream {
  readonly executions: Execution[] = [];
  readonly violations: string[] = [];
  readonly #stored = new Map<string, Stored>();
  readonly #links = new Map<number, FakeLink>();
  /** Links at their age limit; they close when nothing runs on them any more. */
  readonly limited = new Set<number>();
  #nextId = 1;

  open(linkId: number, kind = OPENAI_KIND): void {
    this.#links.set(linkId, { kind, lanes: new Map(), names: new Set(), loose: [] });
  }

  close(linkId: number): void {
    this.#links.delete(linkId);
    this.limited.delete(linkId);
  }

  /** The request over HTTP is given up: nothing of it comes any more. */
  abort(linkId: number, name = ''): void {
    const link = this.#links.get(linkId);
    const lane = link?.lanes.get(name);
    if (link === undefined || lane === undefined) return;
    lane.running = undefined;
    link.loose = link.loose.filter(({ stream_id = '' }) => stream_id !== name);
  }

  get openLinks(): readonly number[] {
    return [...this.#links.keys()];
  }

  /** Takes one frame of the gateway. `fault` answers a create with an error instead of running it. */
  receive(linkId: number, text: string, fault?: Fault): void {
    const link = this.#links.get(linkId);
    if (link === undefined) return;
    const frame = JSON.parse(text) as Frame;
    if (frame.type === 'response.steer') return this.#steer(link, frame);
    const name = (frame.stream_id as string | undefined) ?? '';
    if (name !== '') link.names.add(name);
    const { kind } = link;
    // Over HTTP a name is the gateway's own.
    if (link.names.size > 32 && kind.keepsUnstored) this.violations.push('33 names on a link');
    if (name !== '' && !kind.multiplexed) this.violations.push('a name on a link without lanes');
    if (frame.generate === false && !kind.warmUp) this.violations.push('a warm-up where there are none');
    const lane = laneState(link.lanes, name);
    const create: Create = {
      lane: name,
      previousId: frame.previous_response_id as string | undefined,
      input: (frame.input as Frame[]).map(textOf),
      store: frame.store !== false,
      generate: frame.generate !== false,
      compacts: frame.context_management !== undefined && frame.generate !== false,
    };
    const inFlight = [...link.lanes.values()].reduce(
      (sum, { running, queue }) => sum + queue.length + (running ? 1 : 0),
      0,
    );
    if (inFlight >= kind.maxInFlight) this.violations.push(`${inFlight + 1} in flight on a link`);
    if (fault !== undefined) {
      const evicts = fault !== 'not_reached' && lane.cached?.id === create.previousId;
      if (create.previousId !== undefined && evicts) lane.cached = undefined;
      link.loose.push(errorFrame(fault, name));
      return;
    }
    if (lane.running === undefined) this.#run(linkId, link, lane, create);
    else lane.queue.push(create);
  }

  /** The next frame of a lane (or of none), as the schedule chooses. */
  deliver(linkId: number, pick: number): UpstreamFrame | undefined {
    const link = this.#links.get(linkId);
    if (link === undefined) return undefined;
    const ready: (() => Frame)[] = [];
    if (link.loose.length > 0) ready.push(() => link.loose.shift() as Frame);
    for (const [name, lane] of link.lanes) {
      if (lane.running !== undefined) ready.push(() => this.#next(linkId, link, name, lane));
    }
    const take = ready[pick % Math.max(1, ready.length)];
    return take === undefined ? undefined : toFrame(take());
  }

  pending(linkId: number): boolean {
    const link = this.#links.get(linkId);
    return (
      link !== undefined &&
      (link.loose.length > 0 || [...link.lanes.values()].some(({ running }) => running !== undefined))
    );
  }

  /** The upstream loses what only its memory held. */
  evictAll(linkId: number): void {
    for (const lane of this.#links.get(linkId)?.lanes.values() ?? []) lane.cached = undefined;
  }

  /** Creates that had no `response.created` yet are dropped unrun; running ones may finish (upstream.md#connection-limit). */
  announceLimit(linkId: number): UpstreamFrame | undefined {
    const link = this.#links.get(linkId);
    if (link === undefined) return undefined;
    this.limited.add(linkId);
    for (const lane of link.lanes.values()) {
      lane.queue = [];
      if (lane.running?.frames[0]?.type !== 'response.created') continue;
      const { id } = lane.running;
      this.executions.splice(
        this.executions.findIndex(({ responseId }) => responseId === id),
        1,
      );
      lane.running = undefined;
    }
    return toFrame({
      type: 'error',
      status: 400,
      error: { type: 'invalid_request_error', code: 'websocket_connection_limit_reached', message: 'limit' },
    });
  }

  #run(linkId: number, link: FakeLink, lane: LaneState, create: Create): void {
    const base = create.previousId === undefined ? [] : this.#lookUp(link, create.previousId);
    if (base === undefined) {
      if (lane.cached?.id === create.previousId) lane.cached = undefined;
      link.loose.push({
        type: 'error',
        status: 400,
        ...(create.lane === '' ? {} : { stream_id: create.lane }),
        error: {
          type: 'invalid_request_error',
          code: 'previous_response_not_found',
          message: 'not found',
          param: 'previous_response_id',
        },
      });
      return;
    }
    this.#begin(linkId, lane, create, [...base, ...create.input], create.previousId);
  }

  #begin(
    linkId: number,
    lane: LaneState,
    create: Create,
    context: readonly string[],
    previousId: string | undefined,
    successorOf?: string,
  ): void {
    const id = `resp_${this.#nextId}`;
    this.#nextId += 1;
    const output = `out:${id}`;
    this.executions.push({
      responseId: id,
      linkId,
      lane: create.lane,
      context,
      input: create.input,
      output,
      warmUp: !create.generate,
      compacts: create.compacts,
      successorOf,
    });
    const response = (status: string) => ({
      id,
      status,
      previous_response_id: previousId ?? null,
      output: [],
    });
    const item = {
      id: `msg_${id}`,
      type: 'message',
      role: 'assistant',
      content: [{ type: 'output_text', text: output }],
    };
    const frames: Frame[] = [
      { type: 'response.created', response: response('in_progress') },
      { type: 'response.in_progress', response: response('in_progress') },
    ];
    if (create.generate) {
      frames.push(
        { type: 'response.output_text.delta', delta: 'a' },
        { type: 'response.output_text.delta', delta: 'b' },
      );
      const compaction = { id: `cm_${id}`, type: COMPACTION, encrypted_content: id };
      for (const [index, each] of (create.compacts ? [compaction, item] : [item]).entries())
        frames.push({ type: 'response.output_item.done', output_index: index, item: each });
    }
    frames.push({
      type: 'response.completed',
      response: { ...response('completed'), usage: { input_tokens: 1, output_tokens: 2 } },
    });
    const said = [...(create.compacts ? [COMPACTION] : []), ...(create.generate ? [output] : [])];
    lane.running = { id, create, frames, context, output: said, steers: [] };
  }

  #next(linkId: number, link: FakeLink, name: string, lane: LaneState): Frame {
    const running = lane.running as NonNullable<LaneState['running']>;
    const frame = running.frames.shift() as Frame;
    const tagged = name === '' ? frame : { ...frame, stream_id: name };
    if (running.frames.length > 0) return tagged;
    const { output } = running;
    const { kind } = link;
    const after = running.create.compacts ? output : [...running.context, ...output];
    if (kind.keepsUnstored) lane.cached = { id: running.id, context: after };
    if (running.create.store && kind.storesResponses)
      this.#stored.set(running.id, { upstream: kind.name, context: after });
    lane.running = undefined;
    if (running.steers.length > 0) {
      const texts = running.steers.flatMap((steer) => steer.texts);
      const successor = { ...running.create, input: texts };
      this.#begin(linkId, lane, successor, [...after, ...texts], running.id, running.id);
      return tagged;
    }
    const next = lane.queue.shift();
    if (next !== undefined) this.#run(linkId, link, lane, next);
    return tagged;
  }

  #steer(link: FakeLink, frame: Frame): void {
    if (!link.kind.steering) this.violations.push('a steer where there are none');
    const target = frame.previous_response_id as string;
    const texts = (frame.input as Frame[]).map(textOf);
    for (const [name, lane] of link.lanes) {
      const tag = name === '' ? {} : { stream_id: name };
      const last = lane.running?.frames.at(-1);
      if (lane.running?.id !== target || last === undefined || lane.running.frames.length < 2) continue;
      const id = `steer_${this.#nextId}`;
      this.#nextId += 1;
      lane.running.steers.push({ id, texts });
      link.loose.push({
        type: 'response.steer.accepted',
        ...tag,
        steer: { id, previous_response_id: target },
      });
      // The accepted frame must come before the terminal: put it into the lane's own order.
      lane.running.frames.splice(lane.running.frames.length - 1, 0, link.loose.pop() as Frame);
      last.type = 'response.incomplete';
      (last.response as Frame).incomplete_details = { reason: 'steered' };
      return;
    }
    link.loose.push({
      type: 'response.steer.failed',
      steer: { previous_response_id: target, input: frame.input },
      error: { type: 'invalid_request_error', code: 'response_already_completed', message: 'too late' },
    });
  }

  #lookUp(link: FakeLink, id: string): readonly string[] | undefined {
    for (const { cached } of link.lanes.values()) if (cached?.id === id) return cached.context;
    const stored = this.#stored.get(id);
    return stored?.upstream === link.kind.name ? stored.context : undefined;
  }
}

export function userItem(text: string): string {
  return JSON.stringify({ type: 'message', role: 'user', content: text });
}

export function toFrame(json: Frame): UpstreamFrame {
  const bytes = Buffer.from(JSON.stringify(json));
  return {
    type: json.type as string,
    streamId: json.stream_id as string | undefined,
    bytes,
    byteLength: bytes.length,
    json: () => json,
  };
}

function errorFrame(fault: Fault, name: string): Frame {
  const tag = name === '' ? {} : { stream_id: name };
  // The link's own word for a request that did not leave the gateway.
  if (fault === 'not_reached')
    return { type: 'error', ...tag, code: 'upstream_not_reached', message: 'not reached', param: null };
  return fault === 'rate_limit'
    ? {
        type: 'error',
        status: 429,
        ...tag,
        error: {
          type: 'rate_limit_error',
          code: 'rate_limit_exceeded',
          message: 'try again in 1.5s',
          param: null,
        },
      }
    : { type: 'error', ...tag, code: 'server_error', message: 'boom', param: null, sequence_number: 3 };
}

function textOf(item: Frame): string {
  if ('id' in item) return `HAS_ID:${String(item.id)}`;
  const { content } = item;
  if (typeof content === 'string') return content;
  if (!Array.isArray(content)) return String(item.output ?? item.type);
  return (content as Frame[]).map(({ text }) => String(text)).join('');
}

function laneState(lanes: Map<string, LaneState>, name: string): LaneState {
  const known = lanes.get(name);
  if (known !== undefined) return known;
  const lane: LaneState = { cached: undefined, running: undefined, queue: [] };
  lanes.set(name, lane);
  return lane;
}
