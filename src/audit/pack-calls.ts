import type { PackManifest } from './pack-manifest.ts';

/** How many calls were allowed and denied, while they are counted. */
export type CallTotals = {
  allowed: number;
  denied: number;
  /** Those that proxies decided by themselves, as they tell: no decisions of ours. In neither of the others. */
  readonly byProxies: { allowed: number; denied: number };
};

/** The types of the records that {@link addCalls} counts. */
export const totalledTypes = ['decision', 'allowed_calls', 'proxy_verdict', 'proxy_verdicts'] as const;

/** Starts with nothing. */
export function noCalls(): CallTotals {
  return { allowed: 0, denied: 0, byProxies: { allowed: 0, denied: 0 } };
}

/** Counts the calls of one record; of any other type it has none. */
export function addCalls(
  totals: CallTotals,
  { type, verdict, count }: Readonly<Record<'type' | 'verdict' | 'count', unknown>>,
): void {
  if (!totalledTypes.some((known) => known === type)) return;
  const isAllowed = type === 'allowed_calls' || verdict === 'allow';
  const of = type === 'proxy_verdict' || type === 'proxy_verdicts' ? totals.byProxies : totals;
  of[isAllowed ? 'allowed' : 'denied'] += typeof count === 'number' ? count : 1;
}

/** Calls in words: `3 allowed and 1 denied calls`, and those that proxies decided by themselves when there are any. */
export function describeCalls({ allowed, denied, byProxies }: NonNullable<PackManifest['calls']>): string {
  const own = `${allowed} allowed and ${denied} denied calls`;
  if (byProxies === undefined || byProxies.allowed + byProxies.denied === 0) return own;
  return `${own}, and ${byProxies.allowed} allowed and ${byProxies.denied} denied that proxies told of having decided`;
}
