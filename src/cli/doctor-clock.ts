import { request as httpsRequest } from 'node:https';
import { chooseUpstreams } from '../app/upstreams.ts';
import { http } from '../ground/http.ts';
import type { DoctorCase, Finding } from './doctor.ts';

const TIMEOUT_MS = 5_000;
/** Tokens with a time (JWT) are refused from about here on; servers tell whole seconds. */
const MAX_OFFSET_MS = 30_000;

/** The time here against the time that an upstream tells with any answer. */
export async function checkClock({ config, environment }: DoctorCase): Promise<readonly Finding[]> {
  const choice = chooseUpstreams(config, environment);
  const check = 'clock';
  const [first] = choice.kind === 'simulator' ? [] : choice.upstreams;
  if (first === undefined) return [{ check, status: 'skipped', found: 'nobody to compare with' }];
  const toldMs = await dateOf(first.url.replace(/^ws/, 'http'));
  if (toldMs === undefined)
    return [{ check, status: 'skipped', found: `${first.name} does not tell the time` }];
  const offsetMs = Date.now() - toldMs;
  const found = `${Math.round(Math.abs(offsetMs) / 1_000)} s ${offsetMs < 0 ? 'behind' : 'ahead of'} ${first.name}`;
  if (Math.abs(offsetMs) <= MAX_OFFSET_MS) return [{ check, status: 'ok', found }];
  return [
    {
      check,
      status: 'warning',
      found,
      advice:
        'Let this machine keep its time (chrony, systemd-timesyncd): tokens with a time are refused or live too long.',
    },
  ];
}

/** Undefined: no answer, or one without a date. No key is sent. */
function dateOf(url: string): Promise<number | undefined> {
  const send = url.startsWith('https:') ? httpsRequest : http.request;
  return new Promise((resolve) => {
    const request = send(url, { method: 'HEAD', agent: false, timeout: TIMEOUT_MS }, (answer) => {
      answer.resume();
      const date = Date.parse(answer.headers.date ?? '');
      resolve(Number.isNaN(date) ? undefined : date);
    });
    request.on('timeout', () => request.destroy());
    request.on('error', () => resolve(undefined));
    request.end();
  });
}
