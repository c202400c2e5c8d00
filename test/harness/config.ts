import { loadConfig } from '../../src/config/load.ts';

/** The configuration of a gateway on ports of its own, as its file would have these settings; undefined: not there. */
export function configOf(settings: Readonly<Record<string, unknown>>) {
  const values = { listen: '127.0.0.1:0', admin: { listen: '127.0.0.1:0' }, ...settings };
  const flags = Object.entries(values)
    .filter(([, value]) => value !== undefined)
    .map(([path, value]) => ({ path: [path], value, origin: { kind: 'default' } as const }));
  return loadConfig({ file: undefined, environment: {}, flags }).config;
}
