/** What the process ends with; documented in README.md. */
export const EXIT = {
  ok: 0,
  /** Something failed while running: a port in use, an unreachable gateway, a failed health check. */
  failure: 1,
  /** Wrong usage or configuration; nothing was started. */
  usage: 2,
  /** Ended by a second signal, before running turns could finish: 128 + SIGINT or SIGTERM. */
  interrupted: 130,
  terminated: 143,
} as const;
