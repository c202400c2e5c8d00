/**
 * The oldest release of each line of Node with the fixes for HTTP/2 and TLS (CVE-2026-123866 and others) that a peer
 * can reach from outside. `engines` in package.json says the same; scripts/check-runtime.ts holds all places to
 * this one.
 */
export const NODE_FLOORS: readonly string[] = ['22.23.5', '24.22.3', '26.13.1'];

/** The floor that `version` is below; undefined when it is at or above the one of its line, or newer than all lines. */
export function floorAbove(version: string): string | undefined {
  const found = partsOf(version);
  const sameLine = NODE_FLOORS.find((floor) => partsOf(floor)[0] === found[0]);
  const floor = sameLine ?? NODE_FLOORS.find((each) => isBelow(found, partsOf(each)));
  return floor !== undefined && isBelow(found, partsOf(floor)) ? floor : undefined;
}

/** The value of `engines.node`: the lines from their floors on, and everything newer than the newest line's floor. */
export function enginesRange(): string {
  return NODE_FLOORS.map((floor, index) =>
    index === NODE_FLOORS.length - 1 ? `>=${floor}` : `^${floor}`,
  ).join(' || ');
}

type Version = readonly [number, number, number];

function partsOf(version: string): Version {
  const [major = 0, minor = 0, patch = 0] = version.replace(/^v/, '').split(/[.-]/).map(Number);
  return [major, minor, patch];
}

function isBelow(a: Version, b: Version): boolean {
  const at = a.findIndex((part, index) => part !== b[index]);
  return at >= 0 && (a[at] as number) < (b[at] as number);
}
