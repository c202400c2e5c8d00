/** A pause of this process counts for one of them, however long it was. */
const SLICES = 20;

/**
 * A time-out for what others have to do, in the time in which this process could have noticed that they did: what passes
 * while the machine is too busy to run it, or while it is stopped, is not counted. What has arrived is read before.
 * Returns what cancels it.
 */
export function afterAwakeMs(timeoutMs: number, onTimeout: () => void): () => void {
  let left = SLICES;
  let timer: NodeJS.Timeout;
  let immediate: NodeJS.Immediate | undefined;
  const wait = () => {
    timer = setTimeout(() => {
      left -= 1;
      // Sockets are read before immediates run.
      if (left === 0) immediate = setImmediate(onTimeout);
      else wait();
    }, timeoutMs / SLICES);
  };
  wait();
  return () => {
    clearTimeout(timer);
    clearImmediate(immediate);
  };
}
