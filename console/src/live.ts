import { useEffect, useState } from 'preact/hooks';
import type { BoardView, SampleView } from '../../src/admin/api.ts';
import { overview, Refused, watchBoard } from './api.ts';

/** How the page and the gateway stand with each other. */
export type Connection = 'connecting' | 'live' | 'lost' | 'refused';

export interface Range {
  readonly label: string;
  readonly seconds: number;
  readonly step: number;
}

export const RANGES: readonly Range[] = [
  { label: '5 min', seconds: 300, step: 1 },
  { label: '1 hour', seconds: 3_600, step: 10 },
];

const RECONNECT_MS = 1_500;

/** The board of this second, again and again; reconnects by itself. `attempt` starts anew, with another token. */
export function useBoard(attempt: number) {
  const [board, setBoard] = useState<BoardView | undefined>();
  const [connection, setConnection] = useState<Connection>('connecting');
  const [refusal, setRefusal] = useState<Refused | undefined>();
  useEffect(() => {
    const abort = new AbortController();
    const onBoard = (next: BoardView) => {
      setBoard(next);
      setConnection('live');
      setRefusal(undefined);
    };
    const run = async () => {
      while (!abort.signal.aborted) {
        try {
          await watchBoard(onBoard, abort.signal);
        } catch (error) {
          if (abort.signal.aborted) return;
          if (error instanceof Refused && (error.status === 401 || error.status === 403)) {
            setRefusal(error);
            setConnection('refused');
            return;
          }
        }
        if (abort.signal.aborted) return;
        setConnection('lost');
        await new Promise((resolve) => setTimeout(resolve, RECONNECT_MS));
      }
    };
    void run();
    return () => abort.abort();
  }, [attempt]);
  return { board, connection, refusal };
}

/** The past of a range, to which each second is added. */
export function usePast({ seconds, step }: Range, board: BoardView | undefined, connection: Connection) {
  const [past, setPast] = useState<readonly SampleView[]>([]);
  useEffect(() => {
    if (connection !== 'live') return;
    let over = false;
    const load = () =>
      overview({ step, seconds }).then(
        (answer) => {
          if (!over) setPast(answer.past);
        },
        () => undefined,
      );
    void load();
    // Longer steps are made where percentiles can be added up.
    const timer = step > 1 ? setInterval(load, step * 1_000) : undefined;
    return () => {
      over = true;
      clearInterval(timer);
    };
  }, [seconds, step, connection]);
  const sample = board?.sample;
  useEffect(() => {
    if (sample === undefined || step > 1) return;
    setPast((known) => {
      if ((known.at(-1)?.atS ?? 0) >= sample.atS) return known;
      return [...known, sample].filter(({ atS }) => atS > sample.atS - seconds);
    });
  }, [sample, step, seconds]);
  return past;
}
