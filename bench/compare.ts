/**
 * What users feel, this checkout beside another: `node bench/run.ts compare --against DIR [--rounds N] [--plaintext]
 * [CASE…]`. Each round runs every case on both builds, one after the other, so that a slow spell of the machine hits
 * both; ratios are taken round by round. Without `--against` it only measures.
 */
import { loadavg } from 'node:os';
import { parseArgs } from 'node:util';
import { createApiKey } from '../src/access/auth/api-keys.ts';
import { CASES, type Case, type Numbers, type Target } from './support/cases.ts';
import { ROOT, type Service, startGateway, startScript } from './support/processes.ts';
import { median, publish, type Row, round } from './support/report.ts';
import { CA, CERTIFICATE_FLAGS, SERVER_FILES, TRUST_CA } from './support/tls.ts';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    against: { type: 'string' },
    rounds: { type: 'string', default: '5' },
    plaintext: { type: 'boolean', default: false },
    publish: { type: 'boolean', default: false },
  },
});
const names = positionals.length === 0 ? Object.keys(CASES) : positionals;
const builds = [...(values.against === undefined ? [] : [values.against]), ROOT];
const key = createApiKey();
const access = values.plaintext ? undefined : { ca: CA, key: key.key };
const upstream = await startScript(
  new URL('upstream.ts', import.meta.url),
  values.plaintext ? [] : SERVER_FILES,
);

const rows: Row[] = [];
for (const name of names) {
  const tested = CASES[name];
  if (tested === undefined) throw new Error(`no case ${name}; there are ${Object.keys(CASES).join(', ')}`);
  const results = await compare(tested);
  for (const metric of Object.keys(results[0]?.[0] ?? {})) {
    const [theirs, ours] = builds.length === 2 ? results : [undefined, results[0]];
    const of = (list: readonly Numbers[]) => list.map((numbers) => numbers[metric] ?? Number.NaN);
    const mine = of(ours ?? []);
    const row: Row = {
      case: tested.title,
      of: metric,
      ...(theirs === undefined ? {} : { other: round(median(of(theirs))) }),
      this: round(median(mine)),
      ...(theirs === undefined
        ? {}
        : { 'this/other': round(median(of(theirs).map((value, n) => (mine[n] ?? Number.NaN) / value))) }),
    };
    rows.push(row);
    process.stdout.write(`${Object.values(row).join(' | ')}\n`);
  }
}
await upstream.stop();
if (values.publish) {
  publish({
    name: values.plaintext ? 'compare-plaintext' : 'compare',
    title: 'What users feel, beside an older build',
    notes: [
      `${values.rounds} rounds of each build in turn, medians; ratios round by round. CPU of the gateway process alone.`,
      values.plaintext ? 'Plaintext, no authentication.' : 'TLS on both sides of the gateway, and a key.',
      `Load average at the end ${round(loadavg()[0] ?? 0, 1)}.`,
    ],
    rows,
  });
}
process.exit(0);

/** For each build its numbers, round by round. */
async function compare(tested: Case): Promise<Numbers[][]> {
  const results: Numbers[][] = builds.map(() => []);
  const kept: Target[] = tested.fresh === true ? [] : await Promise.all(builds.map(target));
  // The first round warms up where gateways are kept.
  for (let n = tested.fresh === true ? 0 : -1; n < Number(values.rounds); n += 1) {
    for (const [index, root] of builds.entries()) {
      const on = kept[index] ?? (await target(root));
      const numbers = await tested.run(on);
      if (n >= 0) results[index]?.push(numbers);
      if (tested.fresh === true) await on.gateway.stop();
    }
  }
  for (const { gateway } of kept) await gateway.stop();
  return results;
}

async function target(root: string): Promise<Target> {
  const scheme = values.plaintext ? 'ws' : 'wss';
  const gateway: Service = await startGateway(`${scheme}://${upstream.address}/v1`, flags(), root);
  return { gateway, access };
}

function flags(): readonly string[] {
  const unlimited = ['limits.sessions=null'];
  const tenants = 'tenants=[{"id":"default","limits":{"sessions":null,"lanes":null,"turns_in_flight":null}}]';
  const auth = JSON.stringify([
    { kind: 'api_keys', keys: [{ id: key.id, hash: key.hash, tenant: 'default' }] },
  ]);
  return [
    ...[tenants, ...unlimited].flatMap((each) => ['--set', each]),
    ...(values.plaintext ? [] : [...TRUST_CA, ...CERTIFICATE_FLAGS, '--set', `auth=${auth}`]),
  ];
}
