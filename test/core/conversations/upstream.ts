import type { LinkCapabilities } from '../../../src/core/types.ts';
import { compacted, type Item, keyOf, unpaired } from './items.ts';
import type { Random } from './random.ts';

export type Frame = Readonly<Record<string, unknown>>;

/** Who answers a dial. */
export interface Kind {
  readonly upstream: string;
  readonly capabilities: LinkCapabilities;
  /** It takes the names of lanes and answers without them. */
  readonly answersUnnamed?: boolean;
  /** It takes the names of lanes and answers by its own. */
  readonly answersByOwnNames?: boolean;
}

/** What an upstream of one schedule does besides what the protocol says; each was seen in the field. */
export interface Oddities {
  readonly repeatsTerminals: boolean;
  readonly tellsFailuresTwice: boolean;
  readonly repeatsCreated: boolean;
  readonly endsPrivately: boolean;
  readonly livesTwice: boolean;
  readonly renamesTerminals: boolean;
  readonly endsByStatus: boolean;
  readonly interrupts: boolean;
  readonly announcesAgain: boolean;
  readonly renamesResponses: boolean;
  readonly warns: boolean;
  readonly saysLate: boolean;
  readonly echoesParents: boolean;
  readonly refusesWithoutLane: boolean;
  readonly compacts: boolean;
  readonly listsNoOutput: boolean;
  readonly namesNoSteers: boolean;
}

/** A response as it ran. */
export interface Execution {
  readonly id: string;
  readonly upstream: string;
  /** All that the model read. */
  readonly context: readonly string[];
  readonly input: readonly string[];
  readonly output: readonly Item[];
  readonly warmUp: boolean;
  /** Nobody asked for it. */
  readonly stray: boolean;
}

export type Fault = 'rate_limit' | 'overloaded' | 'bad_request' | 'server_error' | 'not_reached';

interface Create {
  readonly lane: string;
  readonly named: string | undefined;
  readonly previousId: string | undefined;
  readonly input: readonly Item[];
  readonly store: boolean;
  readonly generate: boolean;
  readonly wantsReasoning: boolean;
}

interface Running {
  readonly execution: Execution;
  readonly create: Create;
  readonly publicId: string;
  readonly bursts: (readonly Frame[])[];
  readonly ending: 'completed' | 'incomplete' | 'failed' | 'error';
  readonly steers: Steer[];
}

interface Steer {
  readonly id: string;
  readonly input: readonly Item[];
}

interface Lane {
  cached: { readonly id: string; readonly context: readonly string[] } | undefined;
  running: Running | undefined;
  readonly queue: Create[];
  /** Frames behind a terminal, before the next response of the lane begins. */
  readonly rest: (readonly Frame[])[];
  /** Steers that wait for an explicit create, by the response that it must continue. */
  readonly waiting: Map<string, readonly Item[]>;
}

interface Link {
  readonly kind: Kind;
  readonly lanes: Map<string, Lane>;
  readonly names: Set<string>;
  readonly loose: (readonly Frame[])[];
  limited: boolean;
}

/**
 * An upstream that keeps conversations: what it was told is in `executions`, word for word, and what no upstream may be
 * told is in `violations`. Its rules are those of the protocol (one response a lane in the cache, stored ones by id, steers
 * at a boundary); how it says its answers is as odd as the schedule wants.
 */
export class Upstream {
  readonly executions = new Map<string, Execution>();
  readonly violations: string[] = [];
  readonly oddities: Oddities;
  /** Answers the next create with an error instead of running it. */
  fault: Fault | undefined;
  healthy = false;
  readonly #random: Random;
  readonly #links = new Map<number, Link>();
  readonly #stored = new Map<string, { readonly upstream: string; readonly context: readonly string[] }>();
  #ids = 0;

  constructor(random: Random, oddities: Oddities) {
    this.#random = random;
    this.oddities = oddities;
  }

  get openLinks(): readonly number[] {
    return [...this.#links.keys()];
  }

  open(linkId: number, kind: Kind): void {
    this.#links.set(linkId, { kind, lanes: new Map(), names: new Set(), loose: [], limited: false });
  }

  close(linkId: number): void {
    this.#links.delete(linkId);
  }

  abort(linkId: number, name = ''): void {
    const link = this.#links.get(linkId);
    const lane = link?.lanes.get(name);
    if (link === undefined || lane === undefined) return;
    lane.running = undefined;
    lane.rest.length = 0;
    const others = link.loose.filter(([frame]) => (frame?.['stream_id'] ?? '') !== name);
    link.loose.splice(0, link.loose.length, ...others);
  }

  isLimited(linkId: number): boolean {
    return this.#links.get(linkId)?.limited === true;
  }

  pending(linkId: number): boolean {
    const link = this.#links.get(linkId);
    if (link === undefined) return false;
    return (
      link.loose.length > 0 || [...link.lanes.values()].some((lane) => lane.running || lane.rest.length > 0)
    );
  }

  forgetCaches(linkId: number): void {
    for (const lane of this.#links.get(linkId)?.lanes.values() ?? []) lane.cached = undefined;
  }

  forgetStored(): void {
    this.#stored.clear();
  }

  /** The connection is at its age limit: queued creates are dropped, running responses may finish. */
  announceLimit(linkId: number): readonly Frame[] {
    const link = this.#links.get(linkId);
    if (link === undefined || link.limited) return [];
    link.limited = true;
    for (const lane of link.lanes.values()) {
      lane.cached = undefined;
      lane.queue.length = 0;
      if (lane.running === undefined || this.#hasBegun(lane.running)) continue;
      this.executions.delete(lane.running.publicId);
      lane.running = undefined;
    }
    return [error(undefined, 400, 'websocket_connection_limit_reached', 'limit reached')];
  }

  receive(linkId: number, text: string): void {
    const link = this.#links.get(linkId);
    if (link === undefined) return;
    const frame = JSON.parse(text) as Frame;
    if (frame['type'] === 'response.steer') return this.#steer(link, frame);
    const named = frame['stream_id'] as string | undefined;
    const { capabilities } = link.kind;
    const create: Create = {
      lane: named ?? '',
      named: namedBy(link.kind, named),
      previousId: frame['previous_response_id'] as string | undefined,
      input: frame['input'] as readonly Item[],
      store: frame['store'] !== false,
      generate: frame['generate'] !== false,
      wantsReasoning: JSON.stringify(frame['include'] ?? []).includes('reasoning.encrypted_content'),
    };
    if (named !== undefined) link.names.add(named);
    this.#check(link, create);
    const lane = laneOf(link, create.lane);
    if (this.#isRefused(link, lane, create)) return;
    if (lane.running === undefined && lane.rest.length === 0) this.#run(linkId, link, lane, create);
    else lane.queue.push(create);
    const inFlight = [...link.lanes.values()].reduce(
      (sum, { running, queue }) => sum + queue.length + (running ? 1 : 0),
      0,
    );
    // A successor that came too late for its turn runs beside what is asked for since.
    if (inFlight > capabilities.maxInFlight && !capabilities.steering)
      this.violations.push(`${inFlight} in flight`);
  }

  /** What the socket brings in one piece, of one lane. */
  deliver(linkId: number): readonly Frame[] {
    const link = this.#links.get(linkId);
    if (link === undefined) return [];
    const ready = [...link.lanes.values()].filter(
      (lane) => lane.rest.length > 0 || lane.running !== undefined,
    );
    if (link.loose.length > 0 && (ready.length === 0 || this.#random.chance(0.5)))
      return link.loose.shift() ?? [];
    if (ready.length === 0) return [];
    const lane = this.#random.pick(ready);
    const burst = lane.rest.shift() ?? this.#next(lane);
    if (lane.running === undefined && lane.rest.length === 0) {
      const create = lane.queue.shift();
      if (create !== undefined) this.#run(linkId, link, lane, create);
    }
    return burst;
  }

  #check(link: Link, create: Create): void {
    const { capabilities } = link.kind;
    if (create.lane !== '' && !capabilities.multiplexed)
      this.violations.push('a name where there are no lanes');
    if (
      capabilities.keepsUnstored &&
      capabilities.multiplexed &&
      link.names.size > capabilities.maxNamedLanes
    )
      this.violations.push(`${link.names.size} names`);
    if (!create.generate && !capabilities.warmUp) this.violations.push('a warm-up where there are none');
    const ids = create.store ? [] : create.input.filter((item) => item['id'] !== undefined);
    if (ids.length > 0) this.violations.push(`item ids without storage: ${JSON.stringify(ids[0])}`);
  }

  #isRefused(link: Link, lane: Lane, create: Create): boolean {
    const { fault } = this;
    const overHttp = link.kind.capabilities.transport === 'sse';
    if (fault === undefined || (fault === 'not_reached' && !overHttp)) return false;
    this.fault = undefined;
    if (fault !== 'not_reached' && lane.cached?.id === create.previousId) lane.cached = undefined;
    const lanes =
      this.oddities.refusesWithoutLane && fault === 'bad_request' && !overHttp ? undefined : create.named;
    link.loose.push([FAULTS[fault](lanes)]);
    return true;
  }

  #run(linkId: number, link: Link, lane: Lane, create: Create): void {
    const { previousId } = create;
    const base = previousId === undefined ? [] : this.#lookUp(link, previousId);
    if (base === undefined) {
      if (lane.cached?.id === previousId) lane.cached = undefined;
      link.loose.push([
        error(
          create.named,
          400,
          'previous_response_not_found',
          `Previous response with id '${previousId}' not found.`,
        ),
      ]);
      return;
    }
    const held = previousId === undefined ? [] : (lane.waiting.get(previousId) ?? []);
    const context = [...base, ...held.map(keyOf), ...create.input.map(keyOf)];
    const broken = create.generate ? unpaired(compacted(context)) : [];
    if (broken.length > 0) {
      this.violations.push(`${broken[0]} (link ${linkId})`);
      link.loose.push([error(create.named, 400, null, 'No tool output found')]);
      return;
    }
    if (previousId !== undefined) lane.waiting.delete(previousId);
    this.#begin(link, lane, create, context, create.input.map(keyOf));
  }

  #begin(link: Link, lane: Lane, create: Create, context: readonly string[], input: readonly string[]): void {
    const { oddities } = this;
    const random = this.#random;
    const id = this.#newId();
    const publicId = oddities.renamesResponses ? `public_${id}` : id;
    const output = create.generate ? this.#answer(publicId, create) : [];
    const execution = {
      id: publicId,
      upstream: link.kind.upstream,
      context,
      input,
      output,
      warmUp: !create.generate,
      stray: false,
    };
    this.executions.set(publicId, execution);
    const failing = !this.healthy && create.generate;
    const ending =
      failing && random.chance(0.06)
        ? 'failed'
        : failing && random.chance(0.04)
          ? 'error'
          : random.chance(0.05)
            ? 'incomplete'
            : 'completed';
    const tag = create.named === undefined ? {} : { stream_id: create.named };
    const response = (status: string, of = id) => ({
      id: of,
      status,
      ...(oddities.echoesParents ? { previous_response_id: create.previousId ?? null } : {}),
    });
    const created = {
      type: 'response.created',
      ...tag,
      sequence_number: 0,
      response: response('in_progress'),
    };
    const bursts: (readonly Frame[])[] = [oddities.repeatsCreated ? [created, created] : [created]];
    if (random.chance(0.5))
      bursts.push([{ type: 'response.in_progress', ...tag, response: response('in_progress') }]);
    if (oddities.warns && random.chance(0.3))
      bursts.push([error(create.named, undefined, 'connection_expiring', 'in five minutes')]);
    for (const [index, item] of output.entries()) {
      // A parent gives it away.
      if (
        oddities.interrupts &&
        oddities.echoesParents &&
        create.previousId !== undefined &&
        random.chance(0.3)
      )
        bursts.push(this.#secondLife(tag, { previous_response_id: null }));
      bursts.push([{ type: 'response.output_item.done', ...tag, output_index: index, item }]);
    }
    const end = this.#end(tag, ending, response, publicId, output);
    const announcesAgain = oddities.announcesAgain && ending !== 'error' && ending !== 'failed';
    const again = response('in_progress', `again_${id}`);
    bursts.push(announcesAgain ? [{ type: 'response.created', ...tag, response: again }, ...end] : end);
    lane.running = { execution, create, publicId, bursts, ending, steers: [] };
  }

  #answer(id: string, create: Create): readonly Item[] {
    const random = this.#random;
    const said: Item[] = [];
    if (create.wantsReasoning && random.chance(0.7))
      said.push({ id: `rs_${id}`, type: 'reasoning', summary: [], encrypted_content: `secret of ${id}` });
    if (this.oddities.compacts && random.chance(0.1))
      said.push({ id: `cm_${id}`, type: 'compaction', encrypted_content: `window of ${id}` });
    said.push({
      id: `msg_${id}`,
      type: 'message',
      role: 'assistant',
      status: 'completed',
      content: [{ type: 'output_text', text: `answer ${id}`, annotations: [] }],
    });
    const mayCall = keyOf(create.input.at(-1) ?? {}).includes('with tools');
    for (let n = 0; mayCall && random.chance(0.5) && n < 2; n += 1)
      said.push({
        id: `fc_${id}_${n}`,
        type: 'function_call',
        call_id: `${id}_${n}`,
        name: 'f',
        arguments: '{}',
        status: 'completed',
      });
    return said;
  }

  /** The last frames of a response, and what this upstream says behind them. */
  #end(
    tag: Frame,
    ending: Running['ending'],
    response: (status: string, of?: string) => Frame,
    publicId: string,
    output: readonly Item[],
  ): Frame[] {
    const { oddities } = this;
    const last = { sequence_number: 9 };
    const flat = {
      type: 'error',
      ...tag,
      sequence_number: 8,
      code: 'server_error',
      message: 'boom',
      param: null,
    };
    if (ending === 'error') return [flat];
    const listed = oddities.listsNoOutput ? [] : output;
    const usage = { input_tokens: 1, output_tokens: 1 };
    const failure = ending === 'failed' ? { error: { code: 'server_error', message: 'boom' } } : {};
    const type =
      oddities.renamesTerminals && ending !== 'incomplete' && ending !== 'failed'
        ? 'response.done'
        : oddities.endsByStatus
          ? 'response.completed'
          : `response.${ending}`;
    const terminal = {
      type,
      ...tag,
      ...last,
      response: { ...response(ending, publicId), output: listed, usage, ...failure },
    };
    const frames: Frame[] = [terminal];
    if (ending === 'failed' && oddities.tellsFailuresTwice) frames.push({ ...flat, sequence_number: 10 });
    if (oddities.repeatsTerminals) frames.push(terminal);
    if (oddities.endsPrivately)
      frames.push({
        type: 'response.done',
        ...tag,
        response: this.#random.chance(0.5) ? { id: publicId } : {},
      });
    if (oddities.saysLate) frames.push({ type: 'response.output_text.done', ...tag, text: 'late' });
    if (oddities.livesTwice && ending === 'completed') frames.push(...this.#secondLife(tag));
    return frames;
  }

  #secondLife(tag: Frame, parent: Frame = {}): readonly Frame[] {
    const id = `stray_${this.#newId()}`;
    const item = {
      id: `msg_${id}`,
      type: 'message',
      role: 'assistant',
      content: [{ type: 'output_text', text: `answer ${id}` }],
    };
    return [
      { type: 'response.created', ...tag, response: { id, status: 'in_progress', ...parent } },
      { type: 'response.output_item.done', ...tag, output_index: 0, item },
      { type: 'response.completed', ...tag, response: { id, status: 'completed', output: [item] } },
    ];
  }

  #next(lane: Lane): readonly Frame[] {
    const running = lane.running as Running;
    const burst = running.bursts.shift() ?? [];
    if (running.bursts.length > 0) return burst;
    lane.running = undefined;
    const link = [...this.#links.values()].find(({ lanes }) => [...lanes.values()].includes(lane)) as Link;
    const { execution, create, publicId, ending, steers } = running;
    const { capabilities, upstream } = link.kind;
    const after = compacted([...execution.context, ...execution.output.map(keyOf)]);
    const isUsable = ending === 'completed' || ending === 'incomplete';
    if (!isUsable && lane.cached?.id === create.previousId) lane.cached = undefined;
    if (isUsable && capabilities.keepsUnstored) lane.cached = { id: publicId, context: after };
    if (isUsable && create.store && capabilities.storesResponses)
      this.#stored.set(publicId, { upstream, context: after });
    if (steers.length > 0) this.#decide(link, lane, running, after, isUsable);
    return burst;
  }

  /** The boundary of a steered response: its steers begin a successor, wait for the client, or fail. */
  #decide(link: Link, lane: Lane, running: Running, after: readonly string[], isUsable: boolean): void {
    const { create, publicId, steers } = running;
    const tag = create.named === undefined ? {} : { stream_id: create.named };
    const { namesNoSteers } = this.oddities;
    const facts = ({ id, input }: Steer) => ({
      ...(namesNoSteers ? {} : { id }),
      previous_response_id: publicId,
      input,
    });
    const input = steers.flatMap((steer) => steer.input);
    const needsTools = unpaired(after).length > 0;
    if (!isUsable || (!this.healthy && this.#random.chance(0.15))) {
      const why = {
        type: 'invalid_request_error',
        code: 'successor_creation_failed',
        message: 'send it again',
      };
      for (const steer of steers)
        lane.rest.push([{ type: 'response.steer.failed', ...tag, steer: facts(steer), error: why }]);
    } else if (needsTools) {
      lane.waiting.set(publicId, input);
      for (const steer of steers)
        lane.rest.push([
          {
            type: 'response.steer.pending',
            ...tag,
            steer: facts(steer),
            reason: 'waiting_for_required_input',
          },
        ]);
    } else {
      const successor = { ...create, previousId: publicId, input };
      this.#begin(link, lane, successor, [...after, ...input.map(keyOf)], input.map(keyOf));
    }
  }

  #steer(link: Link, frame: Frame): void {
    if (!link.kind.capabilities.steering) this.violations.push('a steer where there are none');
    const target = frame['previous_response_id'];
    const input = frame['input'] as readonly Item[];
    for (const lane of link.lanes.values()) {
      const { running } = lane;
      if (running === undefined || running.publicId !== target || running.bursts.length < 2 || link.limited)
        continue;
      this.#ids += 1;
      const steer = { id: `steer_${this.#ids}`, input };
      running.steers.push(steer);
      const tag = running.create.named === undefined ? {} : { stream_id: running.create.named };
      const accepted = {
        type: 'response.steer.accepted',
        ...tag,
        steer: { ...(this.oddities.namesNoSteers ? {} : { id: steer.id }), previous_response_id: target },
      };
      running.bursts.splice(running.bursts.length - 1, 0, [accepted]);
      return;
    }
    link.loose.push([
      {
        type: 'response.steer.failed',
        steer: { previous_response_id: target, input },
        error: { type: 'invalid_request_error', code: 'response_not_active', message: 'too late' },
      },
    ]);
  }

  #lookUp(link: Link, id: string): readonly string[] | undefined {
    for (const { cached } of link.lanes.values()) if (cached?.id === id) return cached.context;
    const stored = this.#stored.get(id);
    return stored?.upstream === link.kind.upstream && link.kind.capabilities.storesResponses
      ? stored.context
      : undefined;
  }

  #hasBegun({ bursts }: Running): boolean {
    return !bursts.some((burst) => burst.some(({ type }) => type === 'response.created'));
  }

  #newId(): string {
    this.#ids += 1;
    return `resp_${this.#ids}`;
  }
}

function namedBy(kind: Kind, name: string | undefined): string | undefined {
  if (kind.answersByOwnNames === true) return `own-${name ?? ''}`;
  return kind.answersUnnamed === true ? undefined : name;
}

function laneOf(link: Link, name: string): Lane {
  const known = link.lanes.get(name);
  if (known !== undefined) return known;
  const lane: Lane = { cached: undefined, running: undefined, queue: [], rest: [], waiting: new Map() };
  link.lanes.set(name, lane);
  return lane;
}

function error(
  lane: string | undefined,
  status: number | undefined,
  code: string | null,
  message: string,
): Frame {
  const tag = lane === undefined ? {} : { stream_id: lane };
  const type = 'invalid_request_error';
  return {
    type: 'error',
    ...(status === undefined ? {} : { status }),
    ...tag,
    error: { type, code, message, param: null },
  };
}

const FAULTS: Readonly<Record<Fault, (lane: string | undefined) => Frame>> = {
  rate_limit: (lane) => ({ ...error(lane, 429, 'rate_limit_exceeded', 'try again in 1.5s') }),
  overloaded: (lane) => ({
    ...error(lane, 503, 'server_is_overloaded', 'slow'),
    headers: { 'retry-after': '2' },
  }),
  bad_request: (lane) => error(lane, 400, null, 'no'),
  server_error: (lane) => ({
    type: 'error',
    ...(lane === undefined ? {} : { stream_id: lane }),
    code: 'server_error',
    message: 'boom',
    param: null,
    sequence_number: 0,
  }),
  not_reached: (lane) => ({
    type: 'error',
    ...(lane === undefined ? {} : { stream_id: lane }),
    code: 'upstream_not_reached',
    message: 'not reached',
    param: null,
  }),
};
