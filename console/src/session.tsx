import { useEffect, useState } from 'preact/hooks';
import type { SessionDetail, TurnView } from '../../src/admin/api.ts';
import { turns as fetchTurns, Refused, session } from './api.ts';
import type { Question } from './confirm.tsx';
import { age, bytes, clock, duration, percent, short } from './format.ts';
import { TurnDetail } from './turn-detail.tsx';
import { Waterfall } from './waterfall.tsx';

interface SessionPageProps {
  readonly id: string;
  readonly onAsk: (question: Question) => void;
}

const REFRESH_MS = 1_000;

export function SessionPage({ id, onAsk }: SessionPageProps) {
  const [detail, setDetail] = useState<SessionDetail | undefined>();
  const [turns, setTurns] = useState<readonly TurnView[]>([]);
  const [problem, setProblem] = useState<string | undefined>();
  const [chosen, setChosen] = useState<string | undefined>();
  const over = detail?.session.state === 'ended';
  useEffect(() => {
    let gone = false;
    const load = async () => {
      if (document.hidden) return;
      try {
        const [found, page] = await Promise.all([session(id), fetchTurns(id)]);
        if (gone) return;
        setDetail(found);
        setTurns(page.turns);
        setProblem(undefined);
      } catch (error) {
        if (!gone) setProblem(error instanceof Refused ? error.message : 'no answer from the gateway');
      }
    };
    void load();
    // What has ended does not change.
    const timer = over ? undefined : setInterval(load, REFRESH_MS);
    return () => {
      gone = true;
      clearInterval(timer);
    };
  }, [id, over]);
  if (detail === undefined) {
    return (
      <main id="main">
        <h1 class="mono">{id}</h1>
        <p role={problem === undefined ? 'status' : 'alert'}>{problem ?? 'Loading…'}</p>
      </main>
    );
  }
  const turn = turns.find(({ turnId }) => turnId === chosen);
  return (
    <main id="main" class="session">
      <Head detail={detail} turns={turns} onAsk={onAsk} />
      {problem !== undefined && <p role="alert">{problem}</p>}
      <Waterfall detail={detail} turns={turns} chosen={chosen} onChoose={setChosen} />
      {turn !== undefined && (
        <TurnDetail
          turn={turn}
          nowMs={detail.session.endedAtMs ?? detail.nowMs}
          onClose={() => setChosen(undefined)}
          onCancel={() =>
            onAsk({
              title: 'Cancel this turn',
              text: `${turn.turnId} ends as CANCELLED; what the upstream still says of it is thrown away. The session goes on.`,
              button: 'Cancel the turn',
              danger: true,
              path: `/sessions/${encodeURIComponent(id)}/turns/${encodeURIComponent(turn.turnId)}/cancel`,
              body: { confirm: turn.turnId },
            })
          }
        />
      )}
      <Turns turns={turns} chosen={chosen} onChoose={setChosen} dropped={detail.dropped} />
      {detail.tools.length > 0 && <Tools detail={detail} />}
    </main>
  );
}

interface HeadProps {
  readonly detail: SessionDetail;
  readonly turns: readonly TurnView[];
  readonly onAsk: (question: Question) => void;
}

function Head({ detail, turns, onAsk }: HeadProps) {
  const { session: row, traceUrl } = detail;
  const shares = loopShares(turns);
  const facts: readonly (readonly [string, string])[] = [
    ['Tenant', row.tenant],
    ['Client', [row.client, row.clientVersion].filter(Boolean).join(' ') || '–'],
    ['Upstream', row.upstream ?? '–'],
    ['Model', row.model ?? '–'],
    ['Turns', `${short(row.turnsTotal)}${row.failures > 0 ? `, ${row.failures} failed` : ''}`],
    [
      'Input',
      `${short(row.inputTokens)} (${percent(row.cachedInputTokens / Math.max(1, row.inputTokens))} cached)`,
    ],
    ['Output', short(row.outputTokens)],
    ...(row.cost === undefined ? [] : [['Cost', `${row.cost.amount} ${row.cost.currency}`] as const]),
    ['Not sent again', bytes(row.bytesSaved)],
    ['Started', `${clock(row.startedAtMs)}, ${age(detail.nowMs - row.startedAtMs)} ago`],
    ['Model · tools · gateway', shares],
  ];
  return (
    <div class="sessionhead">
      <div class="pagehead">
        <h1 class="mono">{row.id}</h1>
        <span class={`pill ${row.state}`} data-test="state">
          {row.state}
        </span>
        {row.durable === true && <span class="pill">durable</span>}
        {Object.entries(row.labels).map(([name, value]) => (
          <span key={name} class="chip">
            {name}={value}
          </span>
        ))}
        <span class="spring" />
        {traceUrl !== undefined && (
          <a class="button" href={traceUrl} target="_blank" rel="noreferrer">
            Trace ↗
          </a>
        )}
        <button
          type="button"
          disabled={row.state === 'ended'}
          onClick={() =>
            onAsk({
              title: 'Drain this session',
              text: 'Its running turns may finish within drain.timeout, and its client is told to go elsewhere.',
              button: 'Drain the session',
              danger: true,
              path: `/sessions/${encodeURIComponent(row.id)}/drain`,
              body: { confirm: row.id },
            })
          }
        >
          Drain session…
        </button>
      </div>
      <dl class="strip">
        {facts.map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
    </div>
  );
}

/** Where the time of the agent's loop went. */
function loopShares(turns: readonly TurnView[]): string {
  const sum = (value: (turn: TurnView) => number | undefined) =>
    turns.reduce((total, turn) => total + (value(turn) ?? 0), 0);
  const model = sum(({ upstreamMs }) => upstreamMs);
  const tools = sum(({ toolsMs }) => toolsMs);
  const gateway = sum(({ queueMs }) => queueMs) + sum(({ rebuildMs }) => rebuildMs);
  const all = model + tools + gateway;
  return all === 0 ? '–' : [model, tools, gateway].map((part) => percent(part / all)).join(' · ');
}

/** Calls by tool, with what the upstream attributes to them. */
function Tools({ detail: { tools, session: row } }: { readonly detail: SessionDetail }) {
  const attributed = tools.some(({ inputTokens, outputTokens }) => inputTokens + outputTokens > 0);
  const priced = tools.some(({ cost }) => cost !== undefined);
  return (
    <section class="panel turnlist" data-test="tools">
      <h2>Tools</h2>
      <div class="tablescroll" tabIndex={0} role="group" aria-label="Table of tools">
        <table class="plain">
          <thead>
            <tr>
              <th scope="col">Tool</th>
              <th scope="col" class="num">
                Calls
              </th>
              {attributed && (
                <>
                  <th scope="col" class="num">
                    Written, tokens
                  </th>
                  <th scope="col" class="num">
                    Read again
                  </th>
                  <th scope="col" class="num">
                    Cached
                  </th>
                </>
              )}
              {priced && (
                <th scope="col" class="num">
                  Cost, {row.cost?.currency}
                </th>
              )}
            </tr>
          </thead>
          <tbody>
            {tools.map((use) => (
              <tr key={use.tool}>
                <td class="mono">{use.tool}</td>
                <td class="num">{short(use.calls)}</td>
                {attributed && (
                  <>
                    <td class="num">{short(use.outputTokens)}</td>
                    <td class="num">{short(use.inputTokens)}</td>
                    <td class="num">{short(use.cachedInputTokens)}</td>
                  </>
                )}
                {priced && <td class="num">{use.cost ?? '–'}</td>}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {!attributed && (
        <p class="note">The upstream does not tell which tokens went to which item, so tools have no cost.</p>
      )}
    </section>
  );
}

interface TurnsProps {
  readonly turns: readonly TurnView[];
  readonly chosen: string | undefined;
  readonly onChoose: (turnId: string) => void;
  readonly dropped: number;
}

function Turns({ turns, chosen, onChoose, dropped }: TurnsProps) {
  return (
    <section class="panel turnlist">
      <h2>Turns</h2>
      <div class="tablescroll" tabIndex={0} role="group" aria-label="Table of turns">
        <table class="plain">
          <thead>
            <tr>
              <th scope="col">Turn</th>
              <th scope="col">Lane</th>
              <th scope="col">Outcome</th>
              <th scope="col" class="num">
                Tools before
              </th>
              <th scope="col" class="num">
                Queue
              </th>
              <th scope="col" class="num">
                First token
              </th>
              <th scope="col" class="num">
                Total
              </th>
              <th scope="col" class="num">
                In / out
              </th>
              <th scope="col">Calls</th>
            </tr>
          </thead>
          <tbody>
            {turns.toReversed().map((turn) => (
              <tr key={turn.turnId} class={turn.turnId === chosen ? 'chosen' : undefined}>
                <td>
                  <button type="button" class="plainlink mono" onClick={() => onChoose(turn.turnId)}>
                    {turn.turnId}
                  </button>
                </td>
                <td>{turn.laneId || '–'}</td>
                <td class={turn.failure === undefined ? undefined : 'bad'}>
                  {(turn.outcome ?? turn.state).toLowerCase()}
                  {turn.failure !== undefined && <small>{turn.failure.reason}</small>}
                </td>
                <td class="num">{duration(turn.toolsMs)}</td>
                <td class="num">{duration(turn.queueMs)}</td>
                <td class="num">
                  {duration(turn.firstOutputAtMs && turn.firstOutputAtMs - turn.acceptedAtMs)}
                </td>
                <td class="num">{duration(turn.endedAtMs && turn.endedAtMs - turn.acceptedAtMs)}</td>
                <td class="num">
                  {turn.usage === undefined
                    ? '–'
                    : `${short(turn.usage.inputTokens)} / ${short(turn.usage.outputTokens)}`}
                </td>
                <td>{turn.tools.join(', ') || '–'}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {dropped > 0 && (
        <p class="note">{short(dropped)} older turns, links and marks are no longer remembered.</p>
      )}
    </section>
  );
}
