interface SparklineProps {
  readonly values: readonly (number | null)[];
  readonly color: string;
}

const WIDTH = 160;
const HEIGHT = 36;
const MAX_POINTS = 80;

/** The shape of the range in a few points; what it says in words stands beside it. */
export function Sparkline({ values, color }: SparklineProps) {
  const points = thinned(values);
  const max = Math.max(...points, 1e-9);
  const step = WIDTH / Math.max(1, points.length - 1);
  const line = points
    .map(
      (value, index) =>
        `${(index * step).toFixed(1)},${(HEIGHT - 2 - (value / max) * (HEIGHT - 6)).toFixed(1)}`,
    )
    .join(' ');
  return (
    <svg class="spark" viewBox={`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" aria-hidden="true">
      <polygon points={`0,${HEIGHT} ${line} ${WIDTH},${HEIGHT}`} fill={`var(${color})`} opacity="0.14" />
      <polyline
        points={line}
        fill="none"
        stroke={`var(${color})`}
        stroke-width="1.5"
        vector-effect="non-scaling-stroke"
      />
    </svg>
  );
}

function thinned(values: readonly (number | null)[]): number[] {
  const known = values.map((value) => value ?? 0);
  const size = Math.max(1, Math.ceil(known.length / MAX_POINTS));
  const points: number[] = [];
  for (let at = 0; at < known.length; at += size) {
    const part = known.slice(at, at + size);
    points.push(part.reduce((sum, value) => sum + value, 0) / part.length);
  }
  return points.length < 2 ? [0, ...points, 0].slice(0, 2) : points;
}
