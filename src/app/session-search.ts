import type { SessionQuery } from '../admin/api.ts';
import type { SessionHistory } from '../history/session-history.ts';

/** Whether a session is one of those that are asked for. Cheap parts first: there may be ten thousand. */
export function matches(session: SessionHistory, query: SessionQuery): boolean {
  const { start } = session;
  return (
    stateMatches(session, query.state) &&
    (query.tenant === undefined || start.tenantId === query.tenant) &&
    (query.client === undefined || contains(start.clientName, query.client.toLowerCase())) &&
    (query.model === undefined || contains(session.lastModel, query.model.toLowerCase())) &&
    (query.label === undefined || labelMatches(session, query.label)) &&
    (query.lane === undefined || hasLane(session, query.lane)) &&
    (query.response === undefined || hasResponse(session, (id) => id === query.response)) &&
    (query.turn === undefined || session.turns.some(({ turnId }) => turnId === query.turn)) &&
    (query.q === undefined || found(session, query.q.toLowerCase()))
  );
}

function stateMatches(session: SessionHistory, state: SessionQuery['state']): boolean {
  if (state === 'any') return true;
  return state === 'live' ? session.endedAtMs === undefined : session.state === state;
}

function labelMatches({ start }: SessionHistory, label: string): boolean {
  const at = label.indexOf('=');
  if (at === -1) return start.labels?.has(label) === true;
  return start.labels?.get(label.slice(0, at)) === label.slice(at + 1);
}

function hasLane({ turns, lanes }: SessionHistory, lane: string): boolean {
  return lanes?.has(lane) === true || turns.some(({ laneId }) => laneId === lane);
}

function hasResponse({ turns }: SessionHistory, is: (id: string) => boolean): boolean {
  return turns.some(({ responseIds }) =>
    typeof responseIds === 'string' ? is(responseIds) : responseIds?.some(is),
  );
}

function found(session: SessionHistory, part: string): boolean {
  const { start, turns, lanes } = session;
  if (contains(start.sessionId, part) || contains(start.tenantId, part)) return true;
  if (contains(start.clientName, part) || contains(start.clientVersion, part)) return true;
  for (const [name, value] of start.labels ?? []) if (contains(`${name}=${value}`, part)) return true;
  for (const lane of lanes ?? []) if (contains(lane, part)) return true;
  return (
    turns.some(({ laneId, turnId }) => contains(laneId, part) || contains(turnId, part)) ||
    hasResponse(session, (id) => contains(id, part))
  );
}

function contains(text: string | undefined, part: string): boolean {
  return text?.toLowerCase().includes(part) === true;
}
