import type { Attributes } from '@opentelemetry/api';
import type { StartTurn, TurnRecord, UpstreamFrame } from '../core/types.ts';
import { contentAttributes } from './content.ts';
import type { ContentCapture } from './types.ts';

export interface Capture extends ContentCapture {
  turn(turn: StartTurn): void;
  /** What was seen of this turn, as attributes of its span; forgets it. */
  take(record: TurnRecord): Attributes | undefined;
}

// Turns that wait for their end; a session that has more at once loses the content of the oldest.
const MAX_TURNS = 256;

/** Keeps content from when it passes until its turn ends, at most `maxBytes` of each part. */
export function createCapture(maxBytes: number): Capture {
  const inputs = new Map<string, Attributes>();
  const outputs = new Map<string, Attributes>();
  // Items of the running response of each lane, for upstreams whose last event does not repeat them. By link first:
  // where a link carries one lane (Azure, xAI), its frames name none.
  const items = new Map<number, Map<string | undefined, string[]>>();

  return {
    turn({ turnId, create }: StartTurn) {
      const instructions = create.fields.get('instructions');
      remember(inputs, turnId, {
        ...(instructions !== undefined && contentAttributes('instructions', instructions, maxBytes)),
        ...contentAttributes('input', `[${create.input.join(',')}]`, maxBytes),
      });
    },
    frame(linkId: number, frame: UpstreamFrame) {
      switch (frame.type) {
        case 'response.created':
          // One that ended by an error, or was given up, had no terminal.
          items.get(linkId)?.delete(frame.streamId);
          return;
        case 'response.output_item.done': {
          const lanes = items.get(linkId) ?? new Map<string | undefined, string[]>();
          const lane = lanes.get(frame.streamId) ?? [];
          lane.push(JSON.stringify(frame.json()['item'] ?? null));
          remember(lanes, frame.streamId, withinBytes(lane, maxBytes));
          items.set(linkId, lanes);
          return;
        }
        case 'response.completed':
        case 'response.incomplete':
        case 'response.failed': {
          const lanes = items.get(linkId);
          const seen = lanes?.get(frame.streamId) ?? [];
          lanes?.delete(frame.streamId);
          const { id, output } = responseOf(frame);
          if (id === undefined) return;
          const json = output.length > 0 ? JSON.stringify(output) : `[${seen.join(',')}]`;
          remember(outputs, id, contentAttributes('output', json, maxBytes));
          return;
        }
      }
    },
    linkGone(linkId: number) {
      items.delete(linkId);
    },
    take({ turnId, responseId = '' }) {
      const input = inputs.get(turnId);
      const output = outputs.get(responseId);
      inputs.delete(turnId);
      outputs.delete(responseId);
      return input === undefined && output === undefined ? undefined : { ...input, ...output };
    },
  };
}

function remember<K, V>(map: Map<K, V>, key: K, value: V): void {
  map.delete(key);
  map.set(key, value);
  if (map.size <= MAX_TURNS) return;
  for (const oldest of map.keys()) {
    map.delete(oldest);
    return;
  }
}

/** The newest items that fit, and always the newest one: it is cut down when it becomes an attribute. */
function withinBytes(items: readonly string[], maxBytes: number): string[] {
  const kept: string[] = [];
  let bytes = 0;
  for (const item of items.toReversed()) {
    bytes += item.length;
    if (kept.length > 0 && bytes > maxBytes) break;
    kept.unshift(item);
  }
  return kept;
}

function responseOf(frame: UpstreamFrame): { id: string | undefined; output: readonly unknown[] } {
  const response = frame.json()['response'];
  if (typeof response !== 'object' || response === null) return { id: undefined, output: [] };
  const { id, output } = response as { readonly id?: unknown; readonly output?: unknown };
  return { id: typeof id === 'string' ? id : undefined, output: Array.isArray(output) ? output : [] };
}
