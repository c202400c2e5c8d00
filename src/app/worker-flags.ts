const PERCENTAGE = /^--max[-_]old[-_]space[-_]size[-_]percentage=(.+)$/;

/** Node's flags for each of so many processes that share a container: its memory is divided, what has a size is not. */
export function workerFlags(flags: readonly string[], workers: number): string[] {
  return flags.map((flag) => {
    const percentage = Number(PERCENTAGE.exec(flag)?.[1]);
    return percentage > 0 ? `--max-old-space-size-percentage=${percentage / workers}` : flag;
  });
}
