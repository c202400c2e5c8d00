/** The conformance runner of this client: clients/conformance/README.md has its protocol and the steps. */
import { performance } from 'node:perf_hooks';
import { CaseRun, type Step } from './case-run.ts';

interface Case {
  readonly name: string;
  readonly steps: readonly Step[];
}

const control = process.env['CONFORMANCE_CONTROL_URL'];
if (!control) throw new Error('CONFORMANCE_CONTROL_URL is not set');

const cases = (await (await fetch(`${control}/cases`)).json()) as Case[];
for (const { name, steps } of cases) {
  const started = performance.now();
  const error = await run(name, steps).catch((problem: unknown) => textOf(problem));
  console.log(
    JSON.stringify({ case: name, ok: error === undefined, error, ms: performance.now() - started }),
  );
}

async function run(name: string, steps: readonly Step[]): Promise<string | undefined> {
  const { address } = (await post('/start', { case: name })) as { address: string };
  const run = new CaseRun(address, (action) => post('/control', { case: name, action }));
  const problem = await run.steps(steps).then(
    () => undefined,
    (error: unknown) => textOf(error),
  );
  await run.close();
  const finished = (await post('/finish', { case: name })) as { ok: boolean; error?: string };
  return problem ?? (finished.ok ? undefined : (finished.error ?? 'finish failed'));
}

async function post(path: string, body: unknown): Promise<unknown> {
  const response = await fetch(`${control}${path}`, { method: 'POST', body: JSON.stringify(body) });
  const text = await response.text();
  if (response.status !== 200) throw new Error(`${path}: ${text}`);
  return text === '' ? undefined : JSON.parse(text);
}

function textOf(problem: unknown): string {
  return problem instanceof Error ? `${problem.name}: ${problem.message}` : String(problem);
}
