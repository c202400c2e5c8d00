import type { TurnView } from '../../src/admin/api.ts';
import { bytes, clock, duration, short } from './format.ts';
import { segments } from './waterfall.tsx';

interface TurnDetailProps {
  readonly turn: TurnView;
  readonly nowMs: number;
  readonly onClose: () => void;
  readonly onCancel: () => void;
}

const NAMES = { queue: 'queue', rebuild: 'rebuild', wait: 'until first token', output: 'output' } as const;

export function TurnDetail({ turn, nowMs, onClose, onCancel }: TurnDetailProps) {
  const { usage, failure } = turn;
  const total = (turn.endedAtMs ?? nowMs) - turn.acceptedAtMs;
  const parts = segments(turn, nowMs);
  const rows: readonly (readonly [string, string | undefined])[] = [
    ['Lane', turn.laneId || 'unnamed'],
    ['Model', turn.responseModel ?? turn.model],
    ['Upstream', turn.upstream],
    ['Link', turn.linkId === undefined ? undefined : String(turn.linkId)],
    ['Service tier', turn.serviceTier],
    ['Finished', turn.finishReason],
    ['Accepted', clock(turn.acceptedAtMs)],
    ['Tools before', turn.toolsMs === undefined ? undefined : duration(turn.toolsMs)],
    ['Added by the gateway', added(turn)],
    ['Calls', turn.tools.join(', ') || undefined],
    ['Input tokens', usage && `${short(usage.inputTokens)}, ${short(usage.cachedInputTokens)} cached`],
    ['Output tokens', usage && `${short(usage.outputTokens)}, ${short(usage.reasoningTokens)} reasoning`],
    ['Cost', turn.cost && `${turn.cost.amount} ${turn.cost.currency} (prices of ${turn.cost.pricesAsOf})`],
    ['Sent', turn.bytesUp === undefined ? undefined : bytes(turn.bytesUp)],
    ['Not sent again', turn.bytesSaved === undefined ? undefined : bytes(turn.bytesSaved)],
    [
      'Received',
      turn.bytesDown === undefined
        ? undefined
        : `${bytes(turn.bytesDown)}, ${short(turn.events ?? 0)} events`,
    ],
    ['Sends', turn.sends === undefined ? undefined : `${turn.sends}, ${turn.replays ?? 0} with a replay`],
    ['Goes on from', turn.fromResponseId],
  ];
  return (
    <section class="panel detail" aria-label={`Turn ${turn.turnId}`} data-test="turn-detail">
      <header>
        <h2 class="mono">{turn.turnId}</h2>
        <span class={`pill ${failure === undefined ? 'good' : 'bad'}`}>
          {(turn.outcome ?? turn.state).toLowerCase()}
        </span>
        <span class="spring" />
        {turn.traceUrl !== undefined && (
          <a class="button" href={turn.traceUrl} target="_blank" rel="noreferrer">
            Trace ↗
          </a>
        )}
        {turn.state !== 'ended' && (
          <button type="button" class="danger" onClick={onCancel}>
            Cancel turn…
          </button>
        )}
        <button type="button" class="quiet" aria-label="Close" onClick={onClose}>
          ✕
        </button>
      </header>
      {failure !== undefined && (
        <p class="failure" role="note">
          <b>{failure.reason}</b>
          {failure.upstreamCode !== undefined && ` (${failure.upstreamCode})`} · fault: {failure.fault} ·
          phase: {failure.phase} · replay: <b>{failure.replay}</b>
        </p>
      )}
      <div class="split">
        <div class="splitbar" aria-hidden="true">
          {parts.map(({ kind, startMs, endMs }) => (
            <i key={kind} class={kind} style={{ flexGrow: endMs - startMs }} />
          ))}
        </div>
        <ul class="legend">
          {parts.map(({ kind, startMs, endMs }) => (
            <li key={kind}>
              <i class={`swatch ${kind}`} />
              {NAMES[kind]} <b>{duration(endMs - startMs)}</b>
            </li>
          ))}
          <li>
            total <b>{duration(total)}</b>
          </li>
        </ul>
      </div>
      <dl class="pairs">
        {rows
          .filter(([, value]) => value !== undefined)
          .map(([name, value]) => (
            <div key={name}>
              <dt>{name}</dt>
              <dd>{value}</dd>
            </div>
          ))}
        {turn.responseIds.map((id) => (
          <div key={id} class="whole">
            <dt>Response</dt>
            <dd class="mono">{id}</dd>
          </div>
        ))}
      </dl>
      {turn.attribution !== undefined && (
        <Attribution parts={turn.attribution} currency={turn.cost?.currency} />
      )}
    </section>
  );
}

interface AttributionProps {
  readonly parts: NonNullable<TurnView['attribution']>;
  readonly currency: string | undefined;
}

/** What the upstream says its tokens went to. */
function Attribution({ parts, currency }: AttributionProps) {
  const priced = parts.some(({ cost }) => cost !== undefined);
  return (
    <div class="tablescroll" tabIndex={0} role="group" aria-label="Tokens by item and field">
      <table class="plain" data-test="attribution">
        <thead>
          <tr>
            <th scope="col">Item or field</th>
            <th scope="col">Tool</th>
            <th scope="col" class="num">
              Input
            </th>
            <th scope="col" class="num">
              Cached
            </th>
            <th scope="col" class="num">
              Output
            </th>
            {priced && (
              <th scope="col" class="num">
                Cost, {currency}
              </th>
            )}
          </tr>
        </thead>
        <tbody>
          {parts.map((part) => (
            <tr key={`${part.of} ${part.name}`}>
              <td class="mono">{part.of === 'field' ? `${part.name} (field)` : part.name}</td>
              <td>{part.tool ?? '–'}</td>
              <td class="num">{short(part.inputTokens)}</td>
              <td class="num">{short(part.cachedInputTokens)}</td>
              <td class="num">{short(part.outputTokens)}</td>
              {priced && <td class="num">{part.cost ?? '–'}</td>}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function added({ addedUpMs, addedDownMs }: TurnView): string | undefined {
  if (addedUpMs === undefined && addedDownMs === undefined) return undefined;
  return `${duration(addedUpMs)} up, ${duration(addedDownMs)} down`;
}
