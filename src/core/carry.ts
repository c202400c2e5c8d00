import { outlineOf } from '../ground/json-members.ts';
import { memoryOfTexts } from '../ground/text-memory.ts';
import { type Core, emitNotice } from './core.ts';
import { proveHistory } from './delta.ts';
import type { SavedCarried } from './journal.ts';
import { type Carried, type Lane, NOTHING_CARRIED, type WaitingSteer } from './lane.ts';
import type { LinkSlot } from './link-slot.ts';
import type { SendPlan, Turn } from './turn.ts';

/**
 * What the next create from a response must bring along: steers that the upstream accepted and has not used, and outputs
 * of tools whose turn the client gave up. Both were handed over once and are not asked for again.
 */

/** Responses of one lane for which something is kept; conversations that were left do not pile up. */
const MAX_CARRIED_PER_LANE = 16;

export function carriedFor(lane: Lane, parentId: string | undefined): Carried {
  return (parentId === undefined ? undefined : lane.carried.get(parentId)) ?? NOTHING_CARRIED;
}

/** The link's upstream holds steers of the lane, and adds them to the create that names this response. */
export function holdsSteers({ carried }: Lane, link: LinkSlot, responseId: string): boolean {
  return carried.get(responseId)?.steers.some(({ heldBy }) => heldBy === link.id) === true;
}

/** The create that was just written brings it all. */
export function takeCarried(core: Core, lane: Lane, parentId: string | undefined): void {
  if (parentId === undefined) return;
  core.carriedBytes -= bytesOf(lane.carried.get(parentId));
  release(core, bytesOf(lane.carried.get(parentId)));
  lane.carried.delete(parentId);
}

/** A steer waits for the explicit create that commits it (upstream.md#life-of-a-steer, WAITING). */
export function carrySteer(core: Core, lane: Lane, targetId: string, steer: WaitingSteer): void {
  const { steers, outputs } = carriedFor(lane, targetId);
  put(core, lane, targetId, { steers: [...steers, steer], outputs });
}

/** The upstream gives a waiting steer back: its client hears so and will send it again. False: it does not wait here. */
export function dropCarriedSteer(
  core: Core,
  lane: Lane,
  targetId: string,
  isMeant: (steer: WaitingSteer) => boolean,
): boolean {
  const { steers, outputs } = carriedFor(lane, targetId);
  const at = steers.findIndex(isMeant);
  if (at < 0) return false;
  put(core, lane, targetId, { steers: steers.filter((_, index) => index !== at), outputs });
  return true;
}

/** Steers that were not kept and that nobody holds any more: the create goes without them. */
export function tellForgotten(
  core: Core,
  lane: Lane,
  { carried, wireParentId, parentId }: SendPlan,
  linkId: number,
): void {
  const isNamed = wireParentId === parentId;
  const isForgotten = ({ input, heldBy }: WaitingSteer) =>
    input.length === 0 && !(isNamed && heldBy === linkId);
  if (carried.steers.some(isForgotten)) tellLost(core, lane, 'transcript_limit');
}

/** A turn leaves nothing in the conversation: what it brought along waits for the next one. */
export function giveBack(core: Core, lane: Lane, { plan }: Turn, heldBy: number | undefined): void {
  if (plan?.parentId === undefined || plan.carried === NOTHING_CARRIED) return;
  const { steers, outputs } = carriedFor(lane, plan.parentId);
  const back = plan.carried.steers.map((steer) =>
    steer.heldBy === heldBy ? steer : { ...steer, heldBy: undefined },
  );
  put(core, lane, plan.parentId, {
    steers: [...back, ...steers],
    outputs: [...plan.carried.outputs, ...outputs],
  });
}

/** The client gave the turn up; the tools have run all the same, and the model waits for what they said. */
export function keepToolOutputs(core: Core, lane: Lane, turn: Turn, parentId: string | undefined): void {
  if (parentId === undefined) return;
  const brought = ownInputOf(core, turn, parentId).filter(isToolOutput);
  if (brought.length === 0) return;
  const { steers, outputs } = carriedFor(lane, parentId);
  put(core, lane, parentId, { steers, outputs: [...withoutAnswered(outputs, brought), ...brought] });
}

/** What the lane carried at the process that had the session before. Nobody upstream holds it for this one. */
export function restoreCarried(core: Core, lane: Lane, { responseId, steers, outputs }: SavedCarried): void {
  const sent = steers.map((input) => ({ id: undefined, input, heldBy: undefined }));
  put(core, lane, responseId, { steers: sent, outputs });
}

/** What the turn adds to the conversation; a full history that was never written is cut down now. */
function ownInputOf(core: Core, { plan, request }: Turn, parentId: string): readonly string[] {
  if (plan?.parentId === parentId) return plan.ownInput;
  if (request.inputMode === 'incremental') return request.create.input;
  const proof = proveHistory(core.transcript, parentId, request.laneId, request.create.input);
  return proof.ok ? proof.delta : [];
}

/** Outputs that the client sends again by itself are not sent twice. */
export function withoutAnswered(outputs: readonly string[], input: readonly string[]): readonly string[] {
  if (outputs.length === 0) return outputs;
  const answered = new Set(input.filter(isToolOutput).map(callIdOf));
  return outputs.filter((output) => !answered.has(callIdOf(output)));
}

export function forgetCarried(core: Core): void {
  release(core, core.carriedBytes);
  core.carriedBytes = 0;
  for (const lane of core.lanes.values()) lane.carried.clear();
}

function put(core: Core, lane: Lane, targetId: string, carried: Carried): void {
  const before = bytesOf(lane.carried.get(targetId));
  lane.carried.delete(targetId);
  core.carriedBytes -= before;
  release(core, before);
  if (carried.steers.length === 0 && carried.outputs.length === 0) return;
  const bytes = bytesOf(carried);
  if (core.carriedBytes + bytes > core.limits.maxTranscriptBytes || !core.budget.tryTake(bytes)) {
    const held = carried.steers.filter(({ heldBy }) => heldBy !== undefined);
    if (held.length < carried.steers.length) tellLost(core, lane, 'transcript_limit');
    if (held.length === 0) return;
    lane.carried.set(targetId, { steers: held.map((steer) => ({ ...steer, input: [] })), outputs: [] });
  } else {
    core.carriedBytes += bytes;
    lane.carried.set(targetId, carried);
  }
  for (const [oldest, left] of lane.carried) {
    if (lane.carried.size <= MAX_CARRIED_PER_LANE) return;
    takeCarried(core, lane, oldest);
    if (left.steers.length > 0) tellLost(core, lane, 'conversation_left');
  }
}

function tellLost(core: Core, lane: Lane, reason: string): void {
  emitNotice(core, lane.id, '', { kind: 'steer_lost', reason });
}

function release(core: Core, bytes: number): void {
  if (bytes > 0) core.budget.give(bytes);
}

function bytesOf(carried: Carried | undefined): number {
  if (carried === undefined) return 0;
  let bytes = memoryOfTexts(carried.outputs);
  for (const { input } of carried.steers) bytes += memoryOfTexts(input);
  return bytes;
}

/** Every kind of answer to a call; most items are ruled out without parsing them. */
function isToolOutput(text: string): boolean {
  if (!MAY_BE_OUTPUT.test(text)) return false;
  const type = outlineOf(text)?.['type'];
  return typeof type === 'string' && (type.endsWith('_output') || type === 'mcp_approval_response');
}

const MAY_BE_OUTPUT = /_output"|"mcp_approval_response"/;

function callIdOf(text: string): unknown {
  const item = outlineOf(text);
  return item?.['call_id'] ?? item?.['approval_request_id'];
}
