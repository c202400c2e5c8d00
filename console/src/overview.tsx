import { useState } from 'preact/hooks';
import type { BoardView, SampleView } from '../../src/admin/api.ts';
import { bytes, duration, percent, short } from './format.ts';
import { type Connection, RANGES, usePast } from './live.ts';
import { LinksPanel, UpstreamsPanel, UsagePanel } from './overview-panels.tsx';
import { Plot } from './plot.tsx';
import { Sparkline } from './sparkline.tsx';

interface OverviewProps {
  readonly board: BoardView | undefined;
  readonly connection: Connection;
  readonly theme: string;
}

export function Overview({ board, connection, theme }: OverviewProps) {
  const [rangeAt, setRangeAt] = useState(0);
  const range = RANGES[rangeAt] ?? { label: '', seconds: 300, step: 1 };
  const past = usePast(range, board, connection);
  const recent = past.slice(-Math.ceil(60 / range.step));
  const times = past.map(({ atS }) => atS);
  const rate = (count: (sample: SampleView) => number) => past.map((sample) => count(sample) / sample.spanS);
  const gauges = board?.sample?.gauges;
  const ended = sum(recent, outcomes);
  const failed = sum(recent, ({ counts }) => counts.failed + counts.deadlineExceeded);
  return (
    <main id="main" class="overview">
      <div class="pagehead">
        <h1>Overview</h1>
        <div class="segmented" role="group" aria-label="Range of the plots">
          {RANGES.map(({ label }, index) => (
            <button
              type="button"
              key={label}
              aria-pressed={index === rangeAt}
              onClick={() => setRangeAt(index)}
            >
              {label}
            </button>
          ))}
        </div>
      </div>
      <div class="tiles">
        <Tile
          name="Sessions"
          value={short(gauges?.sessions ?? 0)}
          note={`${short(gauges?.lanes ?? 0)} lanes · ${short(gauges?.links ?? 0)} links`}
          values={past.map(({ gauges: { sessions } }) => sessions)}
          color="--c-sessions"
          test="sessions"
        />
        <Tile
          name="Turns a second"
          value={short(sum(recent, outcomes) / seconds(recent))}
          note={`${short(gauges?.turnsRunning ?? 0)} running now`}
          values={rate(outcomes)}
          color="--c-completed"
          test="turns"
        />
        <Tile
          name="First token"
          value={duration(latest(recent, ({ firstTokenP50Ms }) => firstTokenP50Ms))}
          note={`p95 ${duration(latest(recent, ({ firstTokenP95Ms }) => firstTokenP95Ms))}`}
          values={past.map(({ firstTokenP50Ms }) => firstTokenP50Ms ?? null)}
          color="--c-wait"
          test="first-token"
        />
        <Tile
          name="Queue"
          value={duration(latest(recent, ({ queueP50Ms }) => queueP50Ms))}
          note={`p95 ${duration(latest(recent, ({ queueP95Ms }) => queueP95Ms))}`}
          values={past.map(({ queueP50Ms }) => queueP50Ms ?? null)}
          color="--c-queue"
          test="queue"
        />
        <Tile
          name="Failed"
          value={percent(ended === 0 ? 0 : failed / ended)}
          note={`${short(failed)} of ${short(ended)} in 1 min`}
          values={rate(({ counts }) => counts.failed + counts.deadlineExceeded)}
          color="--c-failed"
          test="failed"
        />
        <Tile
          name="Context not sent again"
          value={bytes(sum(past, ({ counts }) => counts.bytesSaved))}
          note={`${bytes(sum(past, ({ counts }) => counts.bytesUp))} sent in ${range.label}`}
          values={rate(({ counts }) => counts.bytesSaved)}
          color="--c-output"
          test="saved"
        />
      </div>
      <div class="plots">
        <Plot
          title="Turns ended a second"
          theme={theme}
          times={times}
          stacked
          format={short}
          series={[
            { label: 'completed', color: '--c-completed', values: rate(({ counts }) => counts.completed) },
            { label: 'incomplete', color: '--c-incomplete', values: rate(({ counts }) => counts.incomplete) },
            { label: 'cancelled', color: '--c-cancelled', values: rate(({ counts }) => counts.cancelled) },
            {
              label: 'failed',
              color: '--c-failed',
              values: rate(({ counts }) => counts.failed + counts.deadlineExceeded),
            },
          ]}
        />
        <Plot
          title="Time to first token"
          theme={theme}
          times={times}
          format={duration}
          series={[
            {
              label: 'p50',
              color: '--c-wait',
              values: past.map(({ firstTokenP50Ms }) => firstTokenP50Ms ?? null),
            },
            {
              label: 'p95',
              color: '--c-p95',
              values: past.map(({ firstTokenP95Ms }) => firstTokenP95Ms ?? null),
            },
          ]}
        />
        <Plot
          title="Sessions, running turns and links"
          theme={theme}
          times={times}
          format={short}
          series={[
            {
              label: 'sessions',
              color: '--c-sessions',
              values: past.map(({ gauges: { sessions } }) => sessions),
            },
            { label: 'running', color: '--c-completed', values: past.map(({ gauges: g }) => g.turnsRunning) },
            { label: 'links', color: '--c-tools', values: past.map(({ gauges: { links } }) => links) },
          ]}
        />
        <Plot
          title="Tokens a second"
          theme={theme}
          times={times}
          format={short}
          stacked
          series={[
            {
              label: 'cached input',
              color: '--c-cached',
              values: rate(({ counts }) => counts.cachedInputTokens),
            },
            {
              label: 'input',
              color: '--c-wait',
              values: rate(({ counts }) => Math.max(0, counts.inputTokens - counts.cachedInputTokens)),
            },
            { label: 'output', color: '--c-output', values: rate(({ counts }) => counts.outputTokens) },
          ]}
        />
      </div>
      <div class="panels">
        <UpstreamsPanel upstreams={board?.upstreams ?? []} />
        <LinksPanel links={board?.links ?? []} past={past} />
        <UsagePanel usage={board?.usage ?? []} />
      </div>
    </main>
  );
}

interface TileProps {
  readonly name: string;
  readonly value: string;
  readonly note: string;
  readonly values: readonly (number | null)[];
  readonly color: string;
  readonly test: string;
}

function Tile({ name, value, note, values, color, test }: TileProps) {
  return (
    <section class="panel tile" data-test={`tile-${test}`}>
      <h2>{name}</h2>
      <p class="value">{value}</p>
      <p class="note">{note}</p>
      <Sparkline values={values} color={color} />
    </section>
  );
}

function outcomes({ counts }: SampleView): number {
  return counts.completed + counts.incomplete + counts.failed + counts.cancelled + counts.deadlineExceeded;
}

function sum(samples: readonly SampleView[], value: (sample: SampleView) => number): number {
  return samples.reduce((total, sample) => total + value(sample), 0);
}

function seconds(samples: readonly SampleView[]): number {
  return Math.max(
    1,
    sum(samples, ({ spanS }) => spanS),
  );
}

function latest(
  samples: readonly SampleView[],
  value: (sample: SampleView) => number | undefined,
): number | undefined {
  const found = samples.findLast((sample) => value(sample) !== undefined);
  return found && value(found);
}
