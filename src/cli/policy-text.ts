import type { PolicyView } from '../http/policy-routes.ts';
import { span } from './check-result.ts';
import { formatTable } from './text.ts';

/** Policies as a table; who answers for them and when they end only where some say so. */
export function formatPolicies(items: readonly PolicyView[], now: Date): string {
  const columns: readonly (readonly [string, (policy: PolicyView) => string])[] = [
    ['NAME', ({ key }) => key],
    ['REVISION', ({ revision }) => `${revision}`],
    ['FROM', ({ file, line }) => `${file}:${line}`],
    ['SHA-256', ({ sha256 }) => sha256.slice(0, 16)],
    ['OWNER', ({ terms }) => terms?.owner ?? ''],
    ['TICKET', ({ terms }) => terms?.ticket ?? ''],
    ['IN FORCE', ({ terms }) => describeWindow(terms, now)],
    ['BREAK GLASS', ({ terms }) => describeGlass(terms)],
  ];
  const shown = columns.filter(([name, read]) => always.has(name) || items.some((one) => read(one) !== ''));
  return formatTable(
    shown.map(([name]) => name),
    items.map((one) => shown.map(([, read]) => read(one))),
  );
}

const always: ReadonlySet<string> = new Set(['NAME', 'REVISION', 'FROM', 'SHA-256']);

/** The terms of one policy in a line; empty when it has none. */
export function describeTerms(terms: PolicyView['terms'], now: Date): string {
  const { owner = null, ticket = null } = terms ?? {};
  const parts = [
    describeGlass(terms),
    describeWindow(terms, now),
    ...(owner === null ? [] : [`owner ${owner}`]),
    ...(ticket === null ? [] : [`ticket ${ticket}`]),
  ];
  return parts.filter((part) => part !== '').join(', ');
}

/** A grant with its reason, a DENY that one outweighs, or nothing. */
function describeGlass(terms: PolicyView['terms']): string {
  const { breakGlass = null, liftable = false } = terms ?? {};
  return breakGlass === null ? (liftable ? 'liftable' : '') : `grant: ${breakGlass}`;
}

/** `for 3 days (until ...)`, `in 2 hours (from ...)`, `expired (...)`; empty when it always is in force. */
function describeWindow(terms: PolicyView['terms'], now: Date): string {
  const { notBefore = null, expiresAt = null } = terms ?? {};
  const leftMs = (moment: string): number => Date.parse(moment) - now.getTime();
  const until = expiresAt === null ? '' : ` until ${expiresAt}`;
  if (expiresAt !== null && leftMs(expiresAt) <= 0) return `expired (${expiresAt})`;
  if (notBefore !== null && leftMs(notBefore) > 0) {
    return `in ${span(leftMs(notBefore))} (from ${notBefore}${until})`;
  }
  return expiresAt === null ? '' : `for ${span(leftMs(expiresAt))} (${until.trim()})`;
}
