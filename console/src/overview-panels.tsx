import type { BoardView, SampleView } from '../../src/admin/api.ts';
import { age, bytes, duration, percent, short } from './format.ts';

const BREAKERS = { closed: 'ok', halfOpen: 'trying', open: 'open' } as const;
const BREAKER_TONES = { closed: 'good', halfOpen: 'warn', open: 'bad' } as const;

export function UpstreamsPanel({ upstreams }: Pick<BoardView, 'upstreams'>) {
  return (
    <section class="panel">
      <h2>Upstreams</h2>
      <table class="plain">
        <thead>
          <tr>
            <th scope="col">Name</th>
            <th scope="col">Circuit</th>
            <th scope="col" class="num">
              Dials
            </th>
            <th scope="col" class="num">
              Connect
            </th>
            <th scope="col" class="num">
              Ping
            </th>
          </tr>
        </thead>
        <tbody>
          {upstreams.map((upstream) => (
            <tr key={upstream.name}>
              <td>
                <b>{upstream.name}</b>
                <small>{upstream.transport ?? 'not tried'}</small>
              </td>
              <td>
                <span class={`pill ${BREAKER_TONES[upstream.breaker]}`} data-test="breaker">
                  {BREAKERS[upstream.breaker]}
                  {upstream.openMs !== undefined && ` ${age(upstream.openMs)}`}
                </span>
              </td>
              <td class="num">
                {short(upstream.dials)}
                {upstream.failedDials > 0 && (
                  <small class="bad" title={failure(upstream)}>
                    {short(upstream.failedDials)} failed: {upstream.lastFailure?.reason ?? ''}
                  </small>
                )}
                {upstream.failedDials === 0 && <small>{short(upstream.readyLinks)} ready</small>}
              </td>
              <td class="num">{duration(upstream.lastDialMs)}</td>
              <td class="num">{duration(upstream.rttMs)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}

function failure({ lastFailure }: BoardView['upstreams'][number]): string {
  if (lastFailure === undefined) return '';
  const { reason, httpStatus, errno, atMs } = lastFailure;
  return [reason, httpStatus, errno, `${age(Date.now() - atMs)} ago`].filter(Boolean).join(' · ');
}

const AGES: Readonly<Record<string, string>> = {
  lt_1m: 'under 1 min',
  lt_10m: '1 to 10 min',
  lt_30m: '10 to 30 min',
  lt_55m: '30 to 55 min',
  ge_55m: '55 min and more',
};

interface LinksPanelProps extends Pick<BoardView, 'links'> {
  readonly past: readonly SampleView[];
}

export function LinksPanel({ links, past }: LinksPanelProps) {
  const connecting = links
    .filter(({ state }) => state === 'connecting')
    .reduce((sum, one) => sum + one.links, 0);
  const open = links.filter(({ state }) => state === 'open');
  const total = open.reduce((sum, one) => sum + one.links, 0);
  const count = (name: 'recoveries' | 'rotations' | 'replays' | 'resumes') =>
    short(past.reduce((sum, { counts }) => sum + counts[name], 0));
  return (
    <section class="panel">
      <h2>Links by age</h2>
      <p class="headline">
        <b>{short(total)}</b> open · {short(connecting)} connecting
      </p>
      <div class="stackbar" aria-hidden="true">
        {open.map(({ age: name, links: size }, index) => (
          <i key={name} class={`age${index}`} style={{ flexGrow: size }} hidden={size === 0} />
        ))}
      </div>
      <dl class="rows">
        {open.map(({ age: name, links: size }, index) => (
          <div key={name}>
            <dt>
              <i class={`swatch age${index}`} />
              {AGES[name] ?? name}
            </dt>
            <dd>{short(size)}</dd>
          </div>
        ))}
      </dl>
      <dl class="facts">
        <div>
          <dt>Recoveries</dt>
          <dd>{count('recoveries')}</dd>
        </div>
        <div>
          <dt>Rotations</dt>
          <dd>{count('rotations')}</dd>
        </div>
        <div>
          <dt>Replays</dt>
          <dd>{count('replays')}</dd>
        </div>
        <div>
          <dt>Resumes</dt>
          <dd>{count('resumes')}</dd>
        </div>
      </dl>
    </section>
  );
}

const SHOWN_ROWS = 12;

export function UsagePanel({ usage }: Pick<BoardView, 'usage'>) {
  const most = Math.max(1, ...usage.map(({ lastHour }) => lastHour.inputTokens + lastHour.outputTokens));
  const rest = usage.length - SHOWN_ROWS;
  const priced = usage.some(({ currency }) => currency !== undefined);
  return (
    <section class="panel usage">
      <h2>Last hour by tenant and model</h2>
      {usage.length === 0 ? (
        <p class="empty">No turn has ended yet.</p>
      ) : (
        <table class="plain">
          <thead>
            <tr>
              <th scope="col">Tenant</th>
              <th scope="col">Model</th>
              <th scope="col" class="num">
                Turns
              </th>
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
                  Cost
                </th>
              )}
              <th scope="col" class="num wide">
                Not sent again
              </th>
            </tr>
          </thead>
          <tbody>
            {usage.slice(0, SHOWN_ROWS).map(({ tenant, model, lastHour, currency }) => (
              <tr key={`${tenant} ${model}`}>
                <td>
                  <b>{tenant}</b>
                  <i class="share" aria-hidden="true">
                    <i
                      style={{ width: `${((lastHour.inputTokens + lastHour.outputTokens) / most) * 100}%` }}
                    />
                  </i>
                </td>
                <td>{model}</td>
                <td class="num">{short(lastHour.turns)}</td>
                <td class="num">{short(lastHour.inputTokens)}</td>
                <td class="num">{percent(lastHour.cachedInputTokens / Math.max(1, lastHour.inputTokens))}</td>
                <td class="num">{short(lastHour.outputTokens)}</td>
                {priced && (
                  <td class="num">
                    {currency === undefined ? '–' : `${lastHour.cost.toPrecision(3)} ${currency}`}
                  </td>
                )}
                <td class="num wide">{bytes(lastHour.bytesSaved)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
      {rest > 0 && <p class="note">and {rest} more</p>}
    </section>
  );
}
