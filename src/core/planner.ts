import type { HistoryRefusal } from '../dialect/history-refusal.ts';
import { GatewayError } from '../errors.ts';
import { carriedFor, holdsSteers, withoutAnswered } from './carry.ts';
import type { Core } from './core.ts';
import { proveHistory, referenceIn } from './delta.ts';
import { type Lane, NOTHING_CARRIED } from './lane.ts';
import type { LinkSlot, Up } from './link-slot.ts';
import { canRead, hasHalfCall, milderForm, type ReplayForm, replayable } from './replay.ts';
import type { TranscriptNode } from './transcript.ts';
import type { SendPlan, Turn } from './turn.ts';

export interface Planned {
  readonly plan: SendPlan;
  /** Set when a full history could not be cut down. */
  readonly fullInputReason: string | undefined;
}

/**
 * How a turn reaches its parent on this link: by the parent's id, by the id of the nearest ancestor that the
 * upstream still has plus what came after it, or with the whole path as input.
 */
export function planTurn(core: Core, lane: Lane, link: LinkSlot, up: Up, turn: Turn): Planned | GatewayError {
  const { create, inputMode } = turn.request;
  const parentId = parentOf(lane, turn);
  if (parentId === undefined) {
    return { plan: fresh(withOwnItems(core, up, create.input)), fullInputReason: undefined };
  }

  if (inputMode === 'fullHistory') {
    const proof = proveHistory(core.transcript, parentId, lane.id, create.input);
    if (!proof.ok) {
      return { plan: fresh(withOwnItems(core, up, create.input)), fullInputReason: proof.reason };
    }
    return planned(reach(core, lane, link, up, turn, parentId, withOwnItems(core, up, proof.delta)));
  }
  return planned(reach(core, lane, link, up, turn, parentId, withOwnItems(core, up, create.input)));
}

/**
 * References to items that this session's responses said are replaced by the items, where the upstream did not store
 * them: the transcript holds what they name.
 */
function withOwnItems(core: Core, up: Up, input: readonly string[]): readonly string[] {
  let own: string[] | undefined;
  for (const [at, text] of input.entries()) {
    const item = ownItem(core, up, text, input);
    if (item !== undefined) own ??= input.slice(0, at);
    if (own !== undefined) own.push(...(item ?? [text]));
  }
  return own ?? input;
}

/** Undefined: the text stays as it is. */
function ownItem(core: Core, up: Up, text: string, input: readonly string[]): readonly string[] | undefined {
  const id = referenceIn(text);
  const found = id === undefined ? undefined : core.transcript.item(id);
  if (found === undefined) return undefined;
  const { node } = found;
  if (node.stored && up.capabilities.storesResponses && node.upstream === up.route.upstream) return undefined;
  const step = { node, input: [], output: [found.text] };
  return replayable([step], input, up.route, core.replayForms.of(up.route));
}

/** How what was said so far reaches a link that the lane may move to. What the lane carries belongs to the create after it. */
export function planWarmUp(
  core: Core,
  lane: Lane,
  link: LinkSlot,
  up: Up,
  nodeId: string,
): SendPlan | GatewayError {
  return reach(core, lane, link, up, undefined, nodeId, []);
}

function planned(plan: SendPlan | GatewayError): Planned | GatewayError {
  return plan instanceof GatewayError ? plan : { plan, fullInputReason: undefined };
}

/** The response that the turn continues, before anything is known about links. */
export function parentOf(lane: Lane, turn: Turn): string | undefined {
  const { chain, create } = turn.request;
  if (create.usesConversation || chain.kind === 'newConversation') return undefined;
  if (chain.kind === 'from') return chain.responseId;
  return create.previousResponseId ?? lane.headId;
}

/**
 * After the upstream refused the history: the form to send it in once more. Undefined when it would be the same again, or
 * the history was not ours.
 */
export function milderReplay(
  core: Core,
  up: Up,
  turn: Turn,
  refusal: HistoryRefusal,
): ReplayForm | undefined {
  const { plan } = turn;
  if (plan === undefined || plan.replayedBytes === 0 || plan.parentId === undefined) return undefined;
  const before = turn.replayForm ?? core.replayForms.of(up.route);
  const form = milderForm(before, refusal);
  const path = core.transcript.pathSince(plan.parentId, (id) => id === plan.stoppedAt, {
    canRead: (node) => canRead(node, up.route),
    laneId: turn.laneId,
  });
  if (path === undefined) return undefined;
  const answers = [...plan.carried.outputs, ...plan.ownInput];
  const [was, now] = [before, form].map((each) => replayable(path.steps, answers, up.route, each).join());
  return was === now ? undefined : form;
}

/**
 * The upstream refuses to go on from a response because of a call in it that was cut off: told in full, without the call,
 * the conversation goes on.
 */
export function canTellWithoutHalfCall(core: Core, turn: Turn): boolean {
  const { plan } = turn;
  if (plan?.parentId === undefined || plan.wireParentId === undefined) return false;
  const path = core.transcript.pathSince(plan.parentId, () => false, { laneId: turn.laneId });
  return path !== undefined && hasHalfCall(path.steps, [...plan.carried.outputs, ...plan.ownInput]);
}

/** The lane whose cache entry stands for this response. */
export function cachedLane(link: LinkSlot, nodeId: string): string | undefined {
  for (const [laneId, entry] of link.cache) if (entry.nodeId === nodeId) return laneId;
  return undefined;
}

function reach(
  core: Core,
  lane: Lane,
  link: LinkSlot,
  up: Up,
  turn: Turn | undefined,
  parentId: string,
  input: readonly string[],
): SendPlan | GatewayError {
  const usable = (id: string) => wireIdOf(core, lane, link, up, turn, id) !== undefined;
  const options = { canRead: (node: TranscriptNode) => canRead(node, up.route), laneId: lane.id };
  // To name a response commits the steers that wait for it here: only the create that continues it may do so.
  const isFree = (id: string) => id === parentId || !holdsSteers(lane, link, id);
  const since =
    core.transcript.pathSince(parentId, (id) => usable(id) && isFree(id), options) ??
    core.transcript.pathSince(parentId, usable, options);
  const known = core.transcript.get(parentId, lane.id) !== undefined;
  if (since === undefined && (known || turn?.avoidIds?.has(parentId) === true)) {
    return new GatewayError(
      'CHAIN_LOST',
      'the upstream has forgotten the conversation and its transcript was not kept',
      {
        metadata: { lane_id: lane.id },
      },
    );
  }
  // An id that this session has not seen is the caller's word; the upstream decides.
  const wire =
    since === undefined
      ? { id: parentId, cachedIn: undefined }
      : wireOf(core, lane, link, up, turn, since.stoppedAt);
  const carried = turn === undefined ? NOTHING_CARRIED : carriedFor(lane, parentId);
  if (carried === NOTHING_CARRIED && (since === undefined || since.steps.length === 0))
    return byName(parentId, wire, since?.stoppedAt, input);
  const outputs = withoutAnswered(carried.outputs, input);
  const form = turn?.replayForm ?? core.replayForms.of(up.route);
  const answers = [...outputs, ...input];
  const replayed = since === undefined ? [] : replayable(since.steps, answers, up.route, form);
  // The upstream adds what it holds for a response to the create that names it.
  const isNamed = wire.id === parentId;
  const isHere = (heldBy: number | undefined) => isNamed && heldBy === link.id;
  const steers = carried.steers.flatMap((steer) => steer.input);
  const unsent = carried.steers.flatMap((steer) => (isHere(steer.heldBy) ? [] : steer.input));
  return {
    parentId,
    input: [...steers, ...outputs, ...input],
    ownInput: input,
    carried,
    wireParentId: wire.id,
    stoppedAt: since?.stoppedAt,
    cachedIn: wire.cachedIn,
    replayedItems: [...replayed, ...unsent, ...outputs],
    replayedBytes: replayed.reduce((sum, item) => sum + item.length, 0),
    replayReason: replayed.length === 0 ? undefined : (turn?.replayReason ?? lane.lostReason ?? 'not_cached'),
  };
}

/** Most turns: the parent is named, and nothing has to be said again. */
function byName(
  parentId: string,
  wire: { readonly id: string | undefined; readonly cachedIn: string | undefined },
  stoppedAt: string | undefined,
  input: readonly string[],
): SendPlan {
  return {
    parentId,
    input,
    ownInput: input,
    carried: NOTHING_CARRIED,
    wireParentId: wire.id,
    stoppedAt,
    cachedIn: wire.cachedIn,
    replayedItems: NOTHING_REPLAYED,
    replayedBytes: 0,
    replayReason: undefined,
  };
}

const NOTHING_REPLAYED: readonly string[] = [];

function wireOf(
  core: Core,
  lane: Lane,
  link: LinkSlot,
  up: Up,
  turn: Turn | undefined,
  id: string | undefined,
): { id: string | undefined; cachedIn: string | undefined } {
  return (
    (id === undefined ? undefined : wireIdOf(core, lane, link, up, turn, id)) ?? {
      id: undefined,
      cachedIn: undefined,
    }
  );
}

/** The id to name on this link for a response, if the upstream should still know it (upstream.md#previous-response). */
function wireIdOf(
  core: Core,
  lane: Lane,
  link: LinkSlot,
  up: Up,
  turn: Turn | undefined,
  nodeId: string,
): { id: string; cachedIn: string | undefined } | undefined {
  const cachedIn = cachedLane(link, nodeId);
  const cached = cachedIn === undefined ? undefined : link.cache.get(cachedIn);
  if (cached !== undefined && turn?.avoidIds?.has(cached.responseId) !== true)
    return { id: cached.responseId, cachedIn };
  const node = core.transcript.get(nodeId, lane.id);
  // Who has lost one stored response has lost those before it: asking for each would be a refusal each.
  const hydrates =
    turn?.avoidIds === undefined &&
    node?.stored === true &&
    up.capabilities.storesResponses &&
    node.upstream === up.route.upstream;
  return hydrates ? { id: nodeId, cachedIn: undefined } : undefined;
}

function fresh(input: readonly string[]): SendPlan {
  return {
    parentId: undefined,
    input,
    ownInput: input,
    carried: NOTHING_CARRIED,
    wireParentId: undefined,
    stoppedAt: undefined,
    cachedIn: undefined,
    replayedItems: [],
    replayedBytes: 0,
    replayReason: undefined,
  };
}
