/** What a link that waits costs: its socket's buffers, TLS and the objects around it. */
const READY_LINK_BYTES = 64 * 1024;

/** The part of a session that shedding uses. */
export interface SheddableSession {
  readonly core: { readonly transcriptBytes: number; readonly keptEventBytes: number };
  readonly driver: {
    /** Milliseconds of the clock since when no turn runs or waits; undefined: one does. */
    readonly idleSinceMs: number | undefined;
    readonly attached: boolean;
    /** Whether it remembers full histories, to read the next one faster. They are the transcript's texts, if it has one. */
    readonly keepsHistories: boolean;
    shed(what: 'transcript' | 'keptEvents'): void;
  };
}

export interface Shed {
  readonly readyLinks: number;
  readonly transcriptBytes: number;
  readonly keptEventBytes: number;
}

/**
 * Gives up what is kept for a faster or a safer time, until some `bytes` are free: links that wait ready, then
 * transcripts of idle sessions, then events kept for resumes, of those whose client is there first. What has been idle
 * for longest goes first.
 */
export function shedMemory(
  sessions: readonly SheddableSession[],
  bytes: number,
  shedReadyLinks: () => number,
): Shed {
  const readyLinks = shedReadyLinks();
  let left = bytes - readyLinks * READY_LINK_BYTES;
  const idle = sessions
    .filter(({ driver }) => driver.idleSinceMs !== undefined)
    .sort((a, b) => (a.driver.idleSinceMs ?? 0) - (b.driver.idleSinceMs ?? 0));
  const shed = (
    among: readonly SheddableSession[],
    what: 'transcript' | 'keptEvents',
    sizeOf: (session: SheddableSession) => number,
  ): number => {
    let freed = 0;
    for (const session of among) {
      if (left <= 0) break;
      const before = sizeOf(session);
      if (before === 0 && !(what === 'transcript' && session.driver.keepsHistories)) continue;
      session.driver.shed(what);
      freed += before - sizeOf(session);
      left -= before - sizeOf(session);
    }
    return freed;
  };
  const transcriptBytes = shed(idle, 'transcript', ({ core }) => core.transcriptBytes);
  const present = idle.filter(({ driver }) => driver.attached);
  const away = idle.filter(({ driver }) => !driver.attached);
  const keptEventBytes = shed([...present, ...away], 'keptEvents', ({ core }) => core.keptEventBytes);
  return { readyLinks, transcriptBytes, keptEventBytes };
}
