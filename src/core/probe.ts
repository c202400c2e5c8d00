import { GatewayError } from '../errors.ts';
import { type Core, tell } from './core.ts';
import { unsettle } from './home.ts';
import { type LinkSlot, onlyBusy, restrict, type Up, upOf } from './link-slot.ts';
import { isAwaiting, type Stream } from './stream.ts';
import type { LinkCapabilities, UpstreamFrame } from './types.ts';
import { handleLinkDown } from './upstream-failures.ts';

/**
 * Some upstreams take the name of a lane and answer without it. As long as nobody has seen an upstream name a lane, one
 * turn runs at a time on a link, so that its answer shows which kind it is and cannot be taken for another's.
 */

/** The upstream has named a lane. */
export function lanesProven(core: Core, link: LinkSlot): void {
  if (link.namesLanes) return;
  link.namesLanes = true;
  const up = upOf(link);
  if (up?.capabilities.lanesUnproven !== true) return;
  for (const other of core.links.values()) {
    const otherUp = upOf(other);
    if (otherUp?.route.upstream === up.route.upstream) restrict(other, otherUp, { lanesUnproven: false });
  }
  if (core.lastCapabilities !== undefined)
    core.lastCapabilities = { ...core.lastCapabilities, lanesUnproven: false };
  core.roomVersion += 1;
  core.pumpDue = true;
  tell(core, { kind: 'lanesProven', linkId: link.id });
}

/** They name their response, and a lane not always. */
const NAMELESS = /^response\.(steer|inject)\./;

/** Which stream a frame without a name, or with one that was never given, belongs to. */
export function unnamedAnswer(
  core: Core,
  link: LinkSlot,
  unnamed: Stream | undefined,
  frame: UpstreamFrame,
): Stream | undefined {
  const up = upOf(link);
  if (up?.capabilities.multiplexed !== true || link.namesLanes) return unnamed ?? onlyBusy(link);
  // Where the unnamed lane has been answered, or is owed an answer, that is likelier than one that lost its name.
  if (unnamed !== undefined && (unnamed.state.t !== 'idle' || unnamed.answered || unnamed.owesAnswer))
    return unnamed;
  if (frame.type !== 'response.created' && link.announces) return unnamed;
  if (!frame.type.startsWith('response.') || NAMELESS.test(frame.type)) return unnamed;
  const named = [...link.streams.values()].filter((stream) => stream.laneId !== '' && isAwaiting(stream));
  const [only] = named;
  if (only === undefined) return unnamed;
  lanesRefuted(core, link, up, named.length === 1 ? only.laneId : undefined);
  if (named.length === 1) return only;
  // Several wait, and nothing tells whose answer this is.
  core.outputs.push({ kind: 'closeLink', linkId: link.id, code: 1000, reason: 'no lanes' });
  const error = new GatewayError('UPSTREAM_PROTOCOL', 'the upstream answered without the name of a lane');
  handleLinkDown(core, link, { during: 'open', error, permanent: false });
  return undefined;
}

/** From now on the link serves one lane; the others find links of their own. */
export function lanesRefuted(core: Core, link: LinkSlot, up: Up, laneId: string | undefined): void {
  const single: Partial<LinkCapabilities> = {
    multiplexed: false,
    maxNamedLanes: 0,
    maxInFlight: 1,
    lanesUnproven: false,
  };
  restrict(link, up, single);
  core.lastCapabilities = { ...up.capabilities, ...single };
  link.unnamed = laneId;
  for (const other of [...link.lanes]) {
    const lane = core.lanes.get(other);
    if (other !== laneId && lane !== undefined) unsettle(core, lane, 'not_cached');
  }
  tell(core, { kind: 'lanesRefuted', linkId: link.id });
}
