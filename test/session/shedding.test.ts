import { expect, test } from 'vitest';
import { shedMemory } from '../../src/session/shedding.ts';

const LINK = 64 * 1024;

function session(
  name: string,
  idleSinceMs: number | undefined,
  transcriptBytes: number,
  keptEventBytes: number,
) {
  const core = { transcriptBytes, keptEventBytes };
  const seen: string[] = [];
  const driver = {
    idleSinceMs,
    attached: !name.startsWith('away'),
    keepsHistories: name.startsWith('history'),
    shed: (what: 'transcript' | 'keptEvents') => {
      seen.push(what);
      if (what === 'transcript') core.transcriptBytes = 0;
      else core.keptEventBytes = 0;
    },
  };
  return { core, driver, seen };
}

test('gives up ready links, then the transcripts that were idle for longest, and no more than it needs', () => {
  const young = session('young', 30, 500, 0);
  const old = session('old', 10, 500, 0);
  const busy = session('busy', undefined, 9_999, 9_999);
  const shed = shedMemory([young, busy, old], 2 * LINK + 400, () => 2);
  expect(shed).toEqual({ readyLinks: 2, transcriptBytes: 500, keptEventBytes: 0 });
  expect([old.seen, young.seen, busy.seen]).toEqual([['transcript'], [], []]);
});

test('gives up kept events last, and last of all those that a client may come back for', () => {
  const away = session('away', 10, 0, 300);
  const here = session('here', 20, 100, 300);
  expect(shedMemory([away, here], 400, () => 0)).toEqual({
    readyLinks: 0,
    transcriptBytes: 100,
    keptEventBytes: 300,
  });
  expect([away.seen, here.seen]).toEqual([[], ['transcript', 'keptEvents']]);
  expect(shedMemory([away, here], 1_000, () => 0)).toMatchObject({ keptEventBytes: 300 });
  expect(away.seen).toEqual(['keptEvents']);
});

test('gives up remembered histories of sessions that have no transcript', () => {
  const history = session('history', 10, 0, 0);
  const plain = session('plain', 20, 0, 0);
  shedMemory([history, plain], 1_000, () => 0);
  expect([history.seen, plain.seen]).toEqual([['transcript'], []]);
});
