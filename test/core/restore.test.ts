import { describe, expect, it } from 'vitest';
import type { SavedState } from '../../src/core/journal.ts';
import { DEFAULT_SESSION_LIMITS } from '../../src/core/limits.ts';
import { Session } from '../../src/core/session.ts';
import { toFrame, userItem } from './fake-upstream.ts';
import { World } from './world.ts';

const NOTHING: SavedState = {
  commit: 0,
  heardSeq: 0,
  lanes: [],
  nodes: [],
  running: [],
  ended: [],
  outcomes: [],
  lostCommit: 0,
  outbox: [],
};

/** Of a session that was talking on one lane. */
const TALKING: SavedState = {
  ...NOTHING,
  lanes: [{ laneId: '', headId: 'resp_1', carried: [] }],
  nodes: [
    {
      id: 'resp_1',
      parentId: undefined,
      stored: false,
      upstream: 'main',
      items: { input: [userItem('Hello')], output: [], compactionIndex: undefined },
    },
  ],
};

function restored(state: SavedState): Session {
  return Session.restore(
    {
      state,
      fence: 2,
      heard: { lastSeq: 5, lastCommit: 0 },
      frameOf: (json) => toFrame(JSON.parse(json)),
    },
    {
      random: () => 0.5,
      transcriptBudget: { tryTake: () => true, give: () => undefined },
      limits: DEFAULT_SESSION_LIMITS,
      journal: { keepsContent: true, open: true },
    },
    1_000,
  );
}

function dialsOf(session: Session): readonly string[] {
  return session.takeOutputs().flatMap((output) => (output.kind === 'dial' ? [output.purpose] : []));
}

function start(session: Session): void {
  session.handle(
    {
      kind: 'startTurn',
      laneId: '',
      turnId: 'next',
      create: {
        fields: new Map([['model', '"m"']]),
        input: [userItem('go on')],
        previousResponseId: undefined,
        model: 'm',
        store: false,
        generate: true,
        usesConversation: false,
      },
      chain: { kind: 'automatic' },
      inputMode: 'incremental',
      timeoutMs: undefined,
      waitOnRateLimit: false,
      traceContext: undefined,
    },
    1_001,
  );
}

describe('a session that goes on here', () => {
  it.each([
    ['with a conversation to recover', TALKING, 'recovery'],
    ['without one as a new session', NOTHING, 'session'],
  ])('dials %s when its first turn needs it, and not before', (_, state, purpose) => {
    const session = restored(state);
    session.handle({ kind: 'attach', lastSeq: 5 }, 1_000);
    expect(dialsOf(session)).toEqual([]);
    start(session);
    expect(dialsOf(session)).toEqual([purpose]);
  });
});

it('dials anywhere for the first turn when its first dial failed before that', () => {
  const world = new World();
  world.failDial();
  world.start();
  expect(world.outputs.flatMap((output) => (output.kind === 'dial' ? [output.purpose] : []))).toEqual([
    'session',
    'session',
  ]);
});

describe('a session whose process goes while its store is away', () => {
  const goAways = ({ outputs }: World) =>
    outputs.flatMap((output) =>
      output.kind === 'goAway' ? [{ movable: output.movable, timeLeftMs: output.timeLeftMs }] : [],
    );
  const drained = () => {
    const world = new World({}, undefined, { keepsContent: true, open: false });
    world.answerDial();
    world.start();
    world.settle();
    world.feed({ kind: 'drain', deadlineMs: world.now + 10_000 });
    world.advance(4_000);
    expect(goAways(world)).toEqual([]);
    expect(world.session.closed).toBe(false);
    return world;
  };

  it('moves when the store comes back in time', () => {
    const world = drained();
    world.feed({ kind: 'journalBack' });
    expect(goAways(world)).toEqual([{ movable: true, timeLeftMs: 6_000 }]);
    world.read();
    expect(world.outputs).toContainEqual({ kind: 'closed', record: 'release' });
  });

  it('ends when half of its time has passed, and takes turns until then', () => {
    const world = drained();
    const turn = world.start();
    world.settle();
    expect(world.outcomes(turn).map(({ outcome }) => outcome)).toEqual(['COMPLETED']);
    world.advance(1_000);
    expect(goAways(world)).toEqual([{ movable: false, timeLeftMs: 5_000 }]);
    world.read();
    expect(world.outputs).toContainEqual({ kind: 'closed', record: 'end' });
  });
});
