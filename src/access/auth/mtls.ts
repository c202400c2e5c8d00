import type { X509Certificate } from 'node:crypto';
import { compileGlob, compilePathGlob, type Glob } from '../../ground/glob.ts';
import { AccessOptionsError, type MtlsAuth, type MtlsRule } from '../options.ts';
import type { Principal } from '../types.ts';
import type { Method, Presented, Refused } from './method.ts';

export interface AltName {
  readonly type: string;
  readonly value: string;
}

export function mtls(options: MtlsAuth, path: string): Method {
  const rules = options.rules.map((rule, at) => compileRule(rule, `${path}.rules[${at}]`));
  return {
    kind: 'mtls',
    fits: ({ certificate, authorization }) => certificate !== undefined && !authorization,
    verify: (presented: Presented, nowMs: number) =>
      Promise.resolve(identify(presented.certificate, rules, nowMs)),
  };
}

/**
 * The form that Node prints: `DNS:a, URI:b`, a value with a comma, quote or control character in it as a JSON
 * string. Undefined when a part is not of that form: names are not guessed.
 */
export function parseAltNames(text: string | undefined): readonly AltName[] | undefined {
  const names: AltName[] = [];
  let rest = text ?? '';
  while (rest !== '') {
    const found = /^([A-Za-z ]+):("(?:[^"\\]|\\.)*"|[^",]*)(?:, |$)/.exec(rest);
    if (found === null) return undefined;
    const [whole, type = '', raw = ''] = found;
    names.push({ type, value: raw.startsWith('"') ? String(JSON.parse(raw)) : raw });
    rest = rest.slice(whole.length);
  }
  return names;
}

function identify(
  certificate: X509Certificate | undefined,
  rules: readonly CompiledRule[],
  nowMs: number,
): Principal | Refused {
  if (certificate === undefined) return { why: 'no_certificate' };
  // The handshake checked it once; a connection may be older than its certificate.
  const expiresAtMs = certificate.validToDate.getTime();
  if (nowMs >= expiresAtMs) return { why: 'expired' };
  if (nowMs < certificate.validFromDate.getTime()) return { why: 'not_valid_yet' };
  const names = parseAltNames(certificate.subjectAltName);
  if (names === undefined) return { why: 'unreadable_names' };
  for (const rule of rules) {
    const name = rule.find(names);
    if (name !== undefined)
      return { tenantId: rule.tenantId, subject: `${name.type}:${name.value}`, expiresAtMs };
  }
  return { why: 'no_rule_fits' };
}

interface CompiledRule {
  readonly tenantId: string;
  find(names: readonly AltName[]): AltName | undefined;
}

/** Throws AccessOptionsError. */
export function compileRule({ match, tenant }: MtlsRule, path: string): CompiledRule {
  if (match.kind === 'san') {
    const fits: Glob = match.type === 'URI' ? compilePathGlob(match.value) : compileGlob(match.value);
    return {
      tenantId: tenant,
      find: (names) => names.find((name) => name.type === match.type && fits(name.value)),
    };
  }
  if (!/^spiffe:\/\/[a-z0-9._-]+(\/|$)/.test(match.id)) {
    throw new AccessOptionsError(`${path}.match.id`, 'is not spiffe://<trust domain>/<path>');
  }
  const fits = compilePathGlob(match.id);
  return {
    tenantId: tenant,
    find: (names) => {
      // X.509-SVID: exactly one URI name, or it is not a SPIFFE identity.
      const uris = names.filter((name) => name.type === 'URI');
      const only = uris.length === 1 ? uris[0] : undefined;
      return only !== undefined && fits(only.value) ? only : undefined;
    },
  };
}
