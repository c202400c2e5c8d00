import { z } from 'zod';

const count = z.int().min(1);
const eventIndex = z
  .int()
  .min(0)
  .describe('index of the event of the response before which the fault strikes; 0 is response.created');

/** Where and how often a fault applies. Every condition given must hold; none given means everywhere. */
const scope = {
  transport: z.enum(['ws', 'http']).optional().describe('only there'),
  connection: count
    .optional()
    .describe('n-th WebSocket connection (for handshake faults: n-th attempt), from 1'),
  request: count.optional().describe('n-th request on its connection, from 1'),
  totalRequest: count.optional().describe('n-th request of the process, from 1'),
  lane: z.string().optional().describe('lane name; the empty string is the default lane'),
  probability: z.number().min(0).max(1).optional().describe('chance, drawn from the seeded generator'),
  times: count.optional().describe('how often it applies in all; unlimited by default'),
};

const errorFields = {
  status: z.int().min(400).max(599).default(500),
  code: z.string().nullable().default(null),
  type: z.string().optional(),
  message: z.string().default('The server had an error while processing your request.'),
  param: z.string().nullable().optional(),
  headers: z.record(z.string(), z.string()).optional(),
};

const handshakeFault = z.discriminatedUnion('kind', [
  z
    .strictObject({ kind: z.literal('delay-handshake'), ms: z.int().min(0), ...scope })
    .describe('the answer to the upgrade comes later'),
  z
    .strictObject({
      kind: z.literal('refuse'),
      status: z.int().min(400).max(599),
      retryAfterSeconds: z.number().min(0).optional(),
      code: z.string().nullable().default(null),
      message: z.string().default('The request was refused.'),
      ...scope,
    })
    .describe('the upgrade is refused'),
]);

const eventFault = z.discriminatedUnion('kind', [
  z
    .strictObject({ kind: z.literal('cut'), atEvent: eventIndex.default(0), ...scope })
    .describe('the connection breaks without a close'),
  z
    .strictObject({
      kind: z.literal('close'),
      atEvent: eventIndex.default(0),
      code: z.int().min(1000).max(4999).default(1011),
      reason: z.string().max(120).default(''),
      ...scope,
    })
    .describe('the connection is closed'),
  z
    .strictObject({
      kind: z.literal('error'),
      atEvent: eventIndex.default(0),
      ...errorFields,
      shape: z.enum(['nested', 'flat']).optional(),
      streamId: z
        .union([z.literal('own'), z.literal('none'), z.strictObject({ name: z.string() })])
        .default('own'),
      thenClose: z.int().min(1000).max(4999).optional(),
      ...scope,
    })
    .describe('an error frame, or HTTP error, ends the request'),
  z
    .strictObject({
      kind: z.literal('failed'),
      atEvent: eventIndex.default(2),
      code: z.string().default('server_error'),
      message: z.string().default('The model failed to generate a response.'),
      ...scope,
    })
    .describe('response.failed ends the response'),
  z
    .strictObject({ kind: z.literal('malformed'), atEvent: eventIndex.default(1), ...scope })
    .describe('half a JSON document between two events'),
  z
    .strictObject({ kind: z.literal('binary'), atEvent: eventIndex.default(1), ...scope })
    .describe('a binary frame between two events'),
  z
    .strictObject({
      kind: z.literal('unknown-event'),
      atEvent: eventIndex.default(1),
      event: z
        .record(z.string(), z.unknown())
        .default({ type: 'response.from_the_future', detail: { n: 1 } }),
      streamId: z.enum(['own', 'none']).default('own'),
      ...scope,
    })
    .describe('an event of a kind that nobody knows'),
  z
    .strictObject({
      kind: z.literal('stray-lane'),
      atEvent: eventIndex.default(1),
      name: z.string().default('no_such_lane'),
      ...scope,
    })
    .describe('an event of a lane that does not exist'),
  z
    .strictObject({
      kind: z.literal('giant'),
      atEvent: eventIndex.default(1),
      bytes: count.max(256 * 1024 * 1024),
      ...scope,
    })
    .describe('an event of so many bytes'),
  z
    .strictObject({ kind: z.literal('hang'), atEvent: eventIndex.default(1), ...scope })
    .describe('nothing more comes'),
  z
    .strictObject({ kind: z.literal('stall'), atEvent: eventIndex.default(1), ms: count, ...scope })
    .describe('nothing comes for a while'),
  z
    .strictObject({
      kind: z.literal('sequence'),
      atEvent: eventIndex.default(1),
      add: z.int().default(7),
      ...scope,
    })
    .describe('sequence numbers jump'),
  z
    .strictObject({ kind: z.literal('repeat-event'), atEvent: eventIndex.default(1), ...scope })
    .describe('an event comes twice'),
  z
    .strictObject({ kind: z.literal('drop-event'), atEvent: eventIndex.default(1), ...scope })
    .describe('an event is missing'),
  z
    .strictObject({ kind: z.literal('connection-limit'), atEvent: eventIndex.default(1), ...scope })
    .describe('the connection has reached its age'),
]);

const requestFault = z.discriminatedUnion('kind', [
  z
    .strictObject({
      kind: z.literal('previous-response-not-found'),
      codeless: z.boolean().default(false).describe('the live variant without code and param'),
      ...scope,
    })
    .describe('the parent of the request is unknown'),
  z
    .strictObject({ kind: z.literal('successor-fails'), ...scope })
    .describe('a steered response finds no successor'),
  z
    .strictObject({
      kind: z.literal('call-fails'),
      ...errorFields,
      cut: z.boolean().default(false).describe('its connection breaks, instead of an answer'),
      ...scope,
    })
    .describe('an HTTP call about responses or models that creates none gets this answer'),
]);

export const FaultSchema = z.discriminatedUnion('kind', [handshakeFault, requestFault, eventFault]);
export type Fault = z.output<typeof FaultSchema>;
export type FaultInput = z.input<typeof FaultSchema>;
export type HandshakeFault = z.output<typeof handshakeFault>;
export type RequestFault = z.output<typeof requestFault>;
export type EventFault = z.output<typeof eventFault>;

/** What a fault slips in between two events; it is not part of any response. */
export function oddFrame(fault: EventFault, lane: string): string {
  const stream = lane === '' ? {} : { stream_id: lane };
  const stray = {
    type: 'response.output_text.delta',
    sequence_number: 4,
    item_id: 'msg_stray',
    output_index: 0,
  };
  switch (fault.kind) {
    case 'unknown-event':
      return JSON.stringify({ ...fault.event, ...(fault.streamId === 'own' ? stream : {}) });
    case 'stray-lane':
      return JSON.stringify({
        ...stray,
        stream_id: fault.name,
        content_index: 0,
        delta: 'stray',
        logprobs: [],
      });
    case 'giant':
      return JSON.stringify({ type: 'response.giant', ...stream, padding: 'x'.repeat(fault.bytes) });
    case 'binary':
      return JSON.stringify({ ...stray, ...stream, content_index: 0, delta: 'binary', logprobs: [] });
    default:
      return '{"type":"response.output_text.delta","delta":"unfinis';
  }
}

export interface FaultSite {
  transport: 'ws' | 'http';
  connection: number;
  request: number;
  totalRequest: number;
  lane: string;
}

/** Decides which faults strike where. Draws from one seeded generator, so a run can be repeated. */
export class FaultPlan {
  readonly #random: () => number;
  #faults: { fault: Fault; left: number }[] = [];

  constructor(seed: number) {
    this.#random = seededRandom(seed);
  }

  set(faults: readonly Fault[]): void {
    this.#faults = faults.map((fault) => ({ fault, left: fault.times ?? Number.POSITIVE_INFINITY }));
  }

  handshake(attempt: number): HandshakeFault[] {
    const site = { transport: 'ws' as const, connection: attempt, request: 0, totalRequest: 0, lane: '' };
    return this.#take(site, isHandshakeFault);
  }

  request(site: FaultSite, kind: RequestFault['kind']): RequestFault | undefined {
    const isWanted = (fault: Fault): fault is RequestFault => fault.kind === kind;
    return this.#take(site, isWanted)[0];
  }

  /** The faults inside a response's event sequence, earliest first. */
  events(site: FaultSite): EventFault[] {
    return this.#take(site, isEventFault).sort((a, b) => a.atEvent - b.atEvent);
  }

  #take<T extends Fault>(site: FaultSite, wanted: (fault: Fault) => fault is T): T[] {
    const taken: T[] = [];
    for (const slot of this.#faults) {
      const { fault } = slot;
      if (slot.left <= 0 || !wanted(fault) || !applies(fault, site)) continue;
      if (fault.probability !== undefined && this.#random() >= fault.probability) continue;
      slot.left -= 1;
      taken.push(fault);
    }
    return taken;
  }
}

function applies(fault: Fault, site: FaultSite): boolean {
  return (
    (fault.transport === undefined || fault.transport === site.transport) &&
    (fault.connection === undefined || fault.connection === site.connection) &&
    (fault.request === undefined || fault.request === site.request) &&
    (fault.totalRequest === undefined || fault.totalRequest === site.totalRequest) &&
    (fault.lane === undefined || fault.lane === site.lane)
  );
}

function isHandshakeFault(fault: Fault): fault is HandshakeFault {
  return fault.kind === 'delay-handshake' || fault.kind === 'refuse';
}

function isEventFault(fault: Fault): fault is EventFault {
  return 'atEvent' in fault;
}

/** mulberry32: small, good enough for tests, the same numbers for the same seed everywhere. */
function seededRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}
