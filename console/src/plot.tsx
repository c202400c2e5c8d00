import { useEffect, useRef, useState } from 'preact/hooks';
import uPlot from 'uplot';
import { clock } from './format.ts';

export interface PlotSeries {
  readonly label: string;
  /** Name of a custom property of the theme. */
  readonly color: string;
  readonly values: readonly (number | null)[];
}

interface PlotProps {
  readonly title: string;
  readonly times: readonly number[];
  readonly series: readonly PlotSeries[];
  /** Areas one on the other, the first at the bottom. */
  readonly stacked?: boolean;
  readonly format: (value: number) => string;
  readonly theme: string;
  readonly height?: number;
}

const SYNC = 'overview';

/** Times on one axis for all plots: where the pointer is in one, the others tell their values too. */
export function Plot({ title, times, series, stacked = false, format, theme, height = 148 }: PlotProps) {
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | undefined>(undefined);
  const [at, setAt] = useState<number | undefined>();
  const shown = stacked ? stack(series) : series.map(({ values }) => values);
  const names = series.map(({ label, color }) => `${label} ${color}`).join();

  useEffect(() => {
    const element = place.current;
    if (element === null) return;
    const made = new uPlot(
      options({ element, series, stacked, format, height, onCursor: setAt }),
      [[], ...series.map(() => [])] as uPlot.AlignedData,
      element,
    );
    plot.current = made;
    const observer = new ResizeObserver(() => made.setSize({ width: element.clientWidth, height }));
    observer.observe(element);
    return () => {
      observer.disconnect();
      made.destroy();
      plot.current = undefined;
    };
  }, [theme, names, stacked, height]);

  useEffect(() => {
    plot.current?.setData([[...times], ...drawOrder(shown, stacked)] as uPlot.AlignedData);
  });

  const index = at ?? times.length - 1;
  return (
    <section class="panel plot">
      <header>
        <h2>{title}</h2>
        <ul class="legend">
          {series.map(({ label, color, values }) => (
            <li key={label}>
              <i class="swatch" style={{ background: `var(${color})` }} />
              {label} <b>{tell(values[index], format)}</b>
            </li>
          ))}
        </ul>
      </header>
      <div class="canvas" ref={place} role="img" aria-label={`${title}: ${summary(series, format)}`} />
    </section>
  );
}

function tell(value: number | null | undefined, format: (value: number) => string): string {
  return value === null || value === undefined ? '–' : format(value);
}

function summary(series: readonly PlotSeries[], format: (value: number) => string): string {
  return series.map(({ label, values }) => `${label} ${tell(values.at(-1), format)}`).join(', ');
}

/** Each with those below it. */
function stack(series: readonly PlotSeries[]): number[][] {
  const sums: number[][] = [];
  for (const { values } of series) {
    const below = sums.at(-1);
    sums.push(values.map((value, index) => (value ?? 0) + (below?.[index] ?? 0)));
  }
  return sums;
}

/** The highest first, so that the lower ones are drawn over it. */
function drawOrder<T>(values: readonly T[], stacked: boolean): readonly T[] {
  return stacked ? values.toReversed() : values;
}

interface PlotOptions {
  readonly element: HTMLElement;
  readonly series: readonly PlotSeries[];
  readonly stacked: boolean;
  readonly format: (value: number) => string;
  readonly height: number;
  readonly onCursor: (index: number | undefined) => void;
}

function options({ element, series, stacked, format, height, onCursor }: PlotOptions): uPlot.Options {
  const style = getComputedStyle(document.documentElement);
  const color = (name: string) => style.getPropertyValue(name).trim();
  const axis: uPlot.Axis = {
    stroke: color('--muted'),
    font: `11px ${color('--sans')}`,
    grid: { stroke: color('--grid'), width: 1 },
    ticks: { show: false },
  };
  return {
    width: Math.max(element.clientWidth, 100),
    height,
    // On the right there is half a label of the time axis.
    padding: [8, 28, 0, 0],
    legend: { show: false },
    cursor: {
      sync: { key: SYNC },
      y: false,
      points: { size: 6 },
      drag: { x: false, y: false },
    },
    hooks: { setCursor: [(made) => onCursor(made.cursor.idx ?? undefined)] },
    axes: [
      {
        ...axis,
        grid: { show: false },
        size: 26,
        space: 70,
        values: (_plot, ticks, _axis, _space, step) =>
          ticks.map((tick) => clock(tick * 1_000).slice(0, step < 60 ? 8 : 5)),
      },
      { ...axis, size: 52, space: 34, values: (_plot, values) => values.map(format) },
    ],
    scales: { y: { range: (_plot, _min, max) => [0, max > 0 ? max * 1.12 : 1] } },
    series: [
      {},
      ...drawOrder(series, stacked).map(
        ({ label, color: name }, index): uPlot.Series => ({
          label,
          stroke: color(name),
          width: 1.5,
          spanGaps: true,
          points: { show: false },
          fill: stacked ? color(name) : index === 0 ? `${color(name)}22` : 'transparent',
        }),
      ),
    ],
  } as uPlot.Options;
}
