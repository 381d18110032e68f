import { publicError, quote } from '../errors.ts';
import { maxIdBytes, maxTrustDomainBytes, SpiffeId } from './id.ts';
import { collectFindings, type Findings, type Inspection } from './inspect-rules.ts';

/** What a SPIFFE ID says; null where it says nothing that can be told apart. */
export type IdFacts = {
  readonly id: string;
  readonly kind: 'workload' | 'trust domain' | 'invalid';
  readonly trustDomain: string | null;
  readonly path: string | null;
};

/**
 * Takes a text apart as a SPIFFE ID and names every rule it breaks, not only the first. Nothing is broken exactly when
 * {@link SpiffeId.parse} takes it.
 * @param text any length; the first 2,048 bytes are shown
 */
export function inspectId(text: string): Inspection<IdFacts> {
  const findings = collectFindings();
  const { trustDomain, path } = checkIdText(text, findings);
  const broken = findings.list();
  const kind = broken.length > 0 ? 'invalid' : path === '' ? 'trust domain' : 'workload';
  return { facts: { id: text.slice(0, maxIdBytes), kind, trustDomain, path }, broken };
}

/** Notes every rule of SPIFFE-ID that a text breaks. Time grows in step with the text. */
export function checkIdText(
  text: string,
  findings: Findings,
): { readonly trustDomain: string | null; readonly path: string | null } {
  const before = findings.list().length;
  if (text.length > maxIdBytes) {
    findings.add('spiffe-id-2.3-length', `the ID has more than ${maxIdBytes} bytes`);
  }
  if (!text.startsWith(scheme)) {
    findings.add('spiffe-id-2-scheme', `${quote(text.slice(0, shown))} does not begin with ${scheme}`);
  }
  const parts = /^[^/?#]*:\/\/(?<authority>[^/?#]*)(?<path>[^?#]*)(?<query>\?[^#]*)?(?<fragment>#.*)?$/s.exec(
    text,
  )?.groups;
  if (parts === undefined) return { trustDomain: null, path: null };
  if (parts['query'] !== undefined) findings.add('spiffe-id-2-no-query', 'the ID has a query');
  if (parts['fragment'] !== undefined) findings.add('spiffe-id-2-no-fragment', 'the ID has a fragment');
  const trustDomain = checkAuthority(parts['authority'] ?? '', findings);
  const path = parts['path'] ?? '';
  checkPath(path, findings);
  agreeWithParser(text, before, findings);
  return { trustDomain: trustDomain.slice(0, maxTrustDomainBytes), path: path.slice(0, maxIdBytes) };
}

function checkAuthority(authority: string, findings: Findings): string {
  const at = authority.lastIndexOf('@');
  if (at !== -1) findings.add('spiffe-id-2.1-no-userinfo', 'the ID has a user before its trust domain');
  const host = authority.slice(at + 1);
  const colon = host.indexOf(':');
  if (colon !== -1) findings.add('spiffe-id-2.1-no-port', 'the ID has a colon after its trust domain');
  const name = colon === -1 ? host : host.slice(0, colon);
  if (name === '') findings.add('spiffe-id-2-trust-domain-present', 'the ID has no trust domain');
  else if (!/^[a-z0-9._-]*$/.test(name)) {
    const what = /^[A-Za-z0-9._-]*$/.test(name) ? 'upper case' : 'other characters than a-z 0-9 . - _';
    findings.add(
      'spiffe-id-2.1-trust-domain-char',
      `the trust domain ${quote(name.slice(0, shown))} has ${what}`,
    );
  }
  if (name.length > maxTrustDomainBytes) {
    findings.add(
      'spiffe-id-2.3-trust-domain-length',
      `the trust domain has more than ${maxTrustDomainBytes} bytes`,
    );
  }
  return name;
}

function checkPath(path: string, findings: Findings): void {
  if (path === '') return;
  const segments = path.slice(1).split('/');
  if (segments.at(-1) === '') findings.add('spiffe-id-2.2-no-trailing-slash', 'the ID ends with a slash');
  if (segments.slice(0, -1).includes('')) {
    findings.add('spiffe-id-2.2-no-empty-segment', 'the path has two slashes together');
  }
  const dot = segments.find((segment) => segment === '.' || segment === '..');
  if (dot !== undefined)
    findings.add('spiffe-id-2.2-no-dot-segment', `the path has the segment ${quote(dot)}`);
  const odd = segments.find((segment) => !/^[A-Za-z0-9._-]*$/.test(segment));
  if (odd !== undefined) {
    findings.add('spiffe-id-2.2-path-char', `the segment ${quote(odd.slice(0, shown))} has other characters`);
  }
}

// INVARIANT: what the parser of the house refuses never looks right here, whatever this file overlooks.
function agreeWithParser(text: string, before: number, findings: Findings): void {
  if (findings.list().length > before) return;
  try {
    SpiffeId.parse(text);
  } catch (error) {
    findings.add('spiffe-id-2-scheme', publicError(error).message);
  }
}

const scheme = 'spiffe://';
const shown = 80;
