import { useEffect, useRef, useState } from 'preact/hooks';
import type { LinkView, MarkView, SessionDetail, TurnView } from '../../src/admin/api.ts';
import { duration } from './format.ts';
import { type Timeline, timeline } from './timeline.ts';

interface WaterfallProps {
  readonly detail: SessionDetail;
  readonly turns: readonly TurnView[];
  readonly chosen: string | undefined;
  readonly onChoose: (turnId: string) => void;
}

const LANE_PX = 46;
const LINK_PX = 30;
const AXIS_PX = 28;
const MAX_ZOOM = 64;

/** Lanes as rows, turns as bars, links below; forks and steers between them. */
export function Waterfall({ detail, turns, chosen, onChoose }: WaterfallProps) {
  const [zoom, setZoom] = useState(1);
  const [shorten, setShorten] = useState(true);
  const [width, setWidth] = useState(900);
  const scroll = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const element = scroll.current;
    if (element === null) return;
    const observer = new ResizeObserver(() => setWidth(element.clientWidth));
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  const { laneIds, links, marks, nowMs } = detail;
  const endMs = detail.session.endedAtMs ?? nowMs;
  const line = timeline(turns, marks, endMs, shorten);
  const inner = Math.max(200, width - 24) * zoom;
  const px = (atMs: number) => 8 + (line.place(atMs) / line.length) * inner;
  const lanesHeight = laneIds.length * LANE_PX;
  const shownLinks = links.slice(-12);
  const height = AXIS_PX + lanesHeight + shownLinks.length * LINK_PX + 8;
  const zoomTo = (next: number) => setZoom(Math.max(1, Math.min(MAX_ZOOM, next)));
  return (
    <section class="panel waterfall" aria-label="Waterfall of the session">
      <header>
        <Legend />
        <span class="spring" />
        <label class="check">
          <input
            type="checkbox"
            checked={shorten}
            onChange={({ currentTarget }) => setShorten(currentTarget.checked)}
          />
          Shorten pauses
        </label>
        <div class="segmented" role="group" aria-label="Zoom">
          <button type="button" aria-label="Zoom out" onClick={() => zoomTo(zoom / 2)}>
            −
          </button>
          <button type="button" onClick={() => zoomTo(1)}>
            Fit
          </button>
          <button type="button" aria-label="Zoom in" onClick={() => zoomTo(zoom * 2)}>
            +
          </button>
        </div>
      </header>
      <div class="chart">
        <div class="names" style={{ paddingTop: `${AXIS_PX}px` }}>
          {laneIds.map((lane) => (
            <div key={lane} style={{ height: `${LANE_PX}px` }} title={lane}>
              {lane === '' ? <i>unnamed lane</i> : lane}
            </div>
          ))}
          {shownLinks.map((link) => (
            <div key={`${link.linkId}`} class="link" style={{ height: `${LINK_PX}px` }}>
              link {link.linkId}
            </div>
          ))}
        </div>
        <div
          class="scroll"
          ref={scroll}
          tabIndex={0}
          role="group"
          aria-label="Time line; plus and minus zoom"
          onKeyDown={(event) => {
            if (event.key === '+' || event.key === '=') zoomTo(zoom * 2);
            else if (event.key === '-') zoomTo(zoom / 2);
            else if (event.key === '0') zoomTo(1);
          }}
          onWheel={(event) => {
            if (!event.ctrlKey) return;
            event.preventDefault();
            zoomTo(zoom * (event.deltaY < 0 ? 1.25 : 0.8));
          }}
        >
          <div class="canvas" style={{ width: `${inner + 16}px`, height: `${height}px` }}>
            <Axis line={line} inner={inner} height={height} />
            {laneIds.map((lane, index) => (
              <div
                key={lane}
                class="lane"
                style={{ top: `${AXIS_PX + index * LANE_PX}px`, height: `${LANE_PX}px` }}
              />
            ))}
            <Forks turns={turns} laneIds={laneIds} px={px} height={height} />
            {turns.map((turn) => (
              <TurnBar
                key={turn.turnId}
                turn={turn}
                top={AXIS_PX + laneIds.indexOf(turn.laneId) * LANE_PX}
                px={px}
                nowMs={endMs}
                chosen={turn.turnId === chosen}
                onChoose={() => onChoose(turn.turnId)}
              />
            ))}
            {marks
              .filter(({ kind }) => kind === 'steered')
              .map((mark, index) => (
                <Steer
                  key={`${mark.startedAtMs} ${index}`}
                  mark={mark}
                  turns={turns}
                  laneIds={laneIds}
                  px={px}
                />
              ))}
            {shownLinks.map((link, index) => (
              <LinkBar
                key={`${link.linkId}`}
                link={link}
                top={AXIS_PX + lanesHeight + index * LINK_PX}
                px={px}
                endMs={endMs}
              />
            ))}
            {marks.map((mark, index) => (
              <LinkMark
                key={`${mark.kind} ${mark.startedAtMs} ${index}`}
                mark={mark}
                links={shownLinks}
                top={AXIS_PX + lanesHeight}
                px={px}
              />
            ))}
          </div>
        </div>
      </div>
    </section>
  );
}

function Axis({ line, inner, height }: { line: Timeline; inner: number; height: number }) {
  const x = (at: number) => 8 + (at / line.length) * inner;
  return (
    <>
      {line.ticks(Math.max(2, Math.floor(inner / 120))).map(({ at, label }) => (
        <div key={at} class="tick" style={{ left: `${x(at)}px`, height: `${height}px` }}>
          {label}
        </div>
      ))}
      {line.breaks.map(({ at, skippedMs }) => (
        <div
          key={at}
          class="break"
          style={{ left: `${x(at)}px`, height: `${height - AXIS_PX}px`, top: `${AXIS_PX}px` }}
          title={`${duration(skippedMs)} in which nothing happened`}
        />
      ))}
    </>
  );
}

interface TurnBarProps {
  readonly turn: TurnView;
  readonly top: number;
  readonly px: (atMs: number) => number;
  readonly nowMs: number;
  readonly chosen: boolean;
  readonly onChoose: () => void;
}

function TurnBar({ turn, top, px, nowMs, chosen, onChoose }: TurnBarProps) {
  const parts = segments(turn, nowMs);
  const left = px(turn.acceptedAtMs);
  const end = px(turn.endedAtMs ?? nowMs);
  const { toolsMs } = turn;
  const toolsLeft = toolsMs === undefined ? left : px(turn.acceptedAtMs - toolsMs);
  return (
    <>
      {toolsMs !== undefined && left - toolsLeft > 1 && (
        <div
          class="tools"
          style={{ left: `${toolsLeft}px`, width: `${left - toolsLeft}px`, top: `${top + 12}px` }}
          title={`tools: ${duration(toolsMs)}`}
        >
          {left - toolsLeft > 46 && <span>{duration(toolsMs)}</span>}
        </div>
      )}
      <button
        type="button"
        class={`bar ${tone(turn)}${chosen ? ' chosen' : ''}`}
        style={{ left: `${left}px`, width: `${Math.max(5, end - left)}px`, top: `${top + 8}px` }}
        aria-label={describe(turn, nowMs)}
        aria-pressed={chosen}
        title={describe(turn, nowMs)}
        data-turn={turn.turnId}
        onClick={onChoose}
      >
        {parts.map(({ kind, startMs, endMs }) => (
          <i
            key={kind}
            class={kind}
            style={{ left: `${px(startMs) - left}px`, width: `${Math.max(0.5, px(endMs) - px(startMs))}px` }}
          />
        ))}
      </button>
    </>
  );
}

export interface Segment {
  readonly kind: 'queue' | 'rebuild' | 'wait' | 'output';
  readonly startMs: number;
  readonly endMs: number;
}

/** Queue, rebuild, upstream until the first token, output. */
export function segments(turn: TurnView, nowMs: number): readonly Segment[] {
  const endMs = turn.endedAtMs ?? nowMs;
  const sentMs = Math.min(turn.sentAtMs ?? endMs, endMs);
  const rebuiltMs = Math.min(sentMs + (turn.rebuildMs ?? 0), endMs);
  const firstMs = Math.max(rebuiltMs, Math.min(turn.firstOutputAtMs ?? endMs, endMs));
  const all: readonly Segment[] = [
    { kind: 'queue', startMs: turn.acceptedAtMs, endMs: sentMs },
    { kind: 'rebuild', startMs: sentMs, endMs: rebuiltMs },
    { kind: 'wait', startMs: rebuiltMs, endMs: firstMs },
    { kind: 'output', startMs: firstMs, endMs },
  ];
  return all.filter((part) => part.endMs > part.startMs);
}

function tone({ outcome, state }: TurnView): string {
  if (outcome === 'FAILED' || outcome === 'DEADLINE_EXCEEDED') return 'failed';
  if (outcome === 'CANCELLED') return 'cancelled';
  return state === 'ended' ? 'done' : 'running';
}

function describe(turn: TurnView, nowMs: number): string {
  const { turnId, outcome, state, tools, failure } = turn;
  const total = duration((turn.endedAtMs ?? nowMs) - turn.acceptedAtMs);
  const called = tools.length === 0 ? '' : `, calls ${tools.join(', ')}`;
  return `${turnId}: ${(outcome ?? state).toLowerCase()}${failure === undefined ? '' : ` (${failure.reason})`}, ${total}${called}`;
}

interface ForksProps {
  readonly turns: readonly TurnView[];
  readonly laneIds: readonly string[];
  readonly px: (atMs: number) => number;
  readonly height: number;
}

/** From the response that a turn names to the turn, where that is not simply the one before it. */
function Forks({ turns, laneIds, px, height }: ForksProps) {
  const byResponse = new Map(turns.flatMap((turn) => turn.responseIds.map((id) => [id, turn] as const)));
  const middle = (lane: string) => AXIS_PX + laneIds.indexOf(lane) * LANE_PX + LANE_PX / 2;
  const paths = turns.flatMap((turn, index) => {
    const parent = turn.fromResponseId === undefined ? undefined : byResponse.get(turn.fromResponseId);
    if (parent?.endedAtMs === undefined) return [];
    const before = turns.slice(0, index).findLast(({ laneId }) => laneId === turn.laneId);
    if (before === parent) return [];
    const [x1, y1, x2, y2] = [
      px(parent.endedAtMs),
      middle(parent.laneId),
      px(turn.acceptedAtMs),
      middle(turn.laneId),
    ];
    const bend = Math.max(14, (x2 - x1) / 2);
    return [
      { id: turn.turnId, d: `M${x1} ${y1} C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}`, x2, y2 },
    ];
  });
  if (paths.length === 0) return null;
  return (
    <svg class="forks" width="100%" height={height} aria-hidden="true">
      {paths.map(({ id, d, x2, y2 }) => (
        <g key={id} data-fork={id}>
          <path d={d} />
          <circle cx={x2} cy={y2} r="3" />
        </g>
      ))}
    </svg>
  );
}

interface SteerProps {
  readonly mark: MarkView;
  readonly turns: readonly TurnView[];
  readonly laneIds: readonly string[];
  readonly px: (atMs: number) => number;
}

function Steer({ mark, turns, laneIds, px }: SteerProps) {
  const turn = turns.find(({ turnId }) => turnId === mark.turnId);
  const lane = laneIds.indexOf(mark.laneId ?? turn?.laneId ?? '');
  if (lane < 0) return null;
  return (
    <i
      class="steer"
      role="img"
      aria-label={`steered ${mark.turnId ?? ''}`}
      title={`steered${mark.turnId === undefined ? '' : `: ${mark.turnId}`}`}
      style={{ left: `${px(mark.startedAtMs)}px`, top: `${AXIS_PX + lane * LANE_PX + 1}px` }}
    />
  );
}

interface LinkBarProps {
  readonly link: LinkView;
  readonly top: number;
  readonly px: (atMs: number) => number;
  readonly endMs: number;
}

function LinkBar({ link, top, px, endMs }: LinkBarProps) {
  const dialed = px(link.dialedAtMs);
  const up = px(link.upAtMs ?? link.downAtMs ?? endMs);
  const down = px(link.downAtMs ?? endMs);
  const said = [
    `link ${link.linkId} to ${link.upstream ?? 'nobody'}, for ${link.purpose}`,
    link.pooled ? 'had waited ready' : `dialled in ${duration((link.upAtMs ?? endMs) - link.dialedAtMs)}`,
    link.downReason === undefined
      ? 'open'
      : `ended: ${link.downReason}${link.closeCode === undefined ? '' : ` (${link.closeCode})`}`,
  ].join(' · ');
  return (
    <div
      class={`linkbar${link.upAtMs === undefined ? ' never' : ''}${link.downAtMs === undefined ? ' open' : ''}`}
      style={{ left: `${dialed}px`, width: `${Math.max(3, down - dialed)}px`, top: `${top + 7}px` }}
      title={said}
      role="img"
      aria-label={said}
    >
      <i style={{ width: `${up - dialed}px` }} />
      {down - up > 150 && (
        <span style={{ left: `${up - dialed + 6}px` }}>
          {link.upstream ?? ''} {link.downReason !== undefined && <b>{link.downReason}</b>}
        </span>
      )}
    </div>
  );
}

const SIGNS: Readonly<Record<string, string>> = {
  recovered: '✚',
  rotated: '↻',
  replayed: '≫',
  resumed: '⤶',
  takenOver: '⇄',
  refused: '✕',
  paused: '‖',
  durabilityLost: '!',
};

interface LinkMarkProps {
  readonly mark: MarkView;
  readonly links: readonly LinkView[];
  readonly top: number;
  readonly px: (atMs: number) => number;
}

function LinkMark({ mark, links, top, px }: LinkMarkProps) {
  const sign = SIGNS[mark.kind];
  if (sign === undefined || links.length === 0) return null;
  const row = Math.max(
    0,
    links.findIndex(({ linkId }) => linkId === mark.linkId),
  );
  const took = mark.endedAtMs - mark.startedAtMs;
  const said = [
    mark.kind,
    mark.reason,
    took > 0 ? duration(took) : undefined,
    mark.bytes > 0 ? `${mark.bytes} bytes` : undefined,
  ]
    .filter((part) => part !== undefined)
    .join(' · ');
  return (
    <b
      class={`mark ${mark.kind}`}
      style={{ left: `${px(mark.endedAtMs)}px`, top: `${top + row * LINK_PX + 6}px` }}
      title={said}
      role="img"
      aria-label={said}
      data-mark={mark.kind}
    >
      {sign}
    </b>
  );
}

function Legend() {
  const names = [
    ['queue', 'queue'],
    ['rebuild', 'rebuild'],
    ['wait', 'until first token'],
    ['output', 'output'],
    ['toolswatch', 'tools'],
  ] as const;
  return (
    <ul class="legend">
      {names.map(([style, name]) => (
        <li key={name}>
          <i class={`swatch ${style}`} />
          {name}
        </li>
      ))}
    </ul>
  );
}
