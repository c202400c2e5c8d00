import { expect, test } from 'vitest';
import type { Input } from '../../src/core/types.ts';
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
    feed: (input: Input) => {
      if (input.kind !== 'shed') throw new Error(input.kind);
      seen.push(input.what);
      if (input.what === 'transcript') core.transcriptBytes = 0;
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
