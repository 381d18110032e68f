import type { ProxyReport } from '../http/status-report.ts';
import type { ProxyPolicies } from '../identity/node-presence.ts';
import type { Travelled } from '../http/travelled.ts';
import type { CheckResult } from './check-report.ts';
import { failed, ok, skipped, span, warning } from './check-result.ts';
import { count, printable } from './text.ts';

/** What a status says of proxies that decide by themselves; a server of another version may say nothing. */
export type ProxiesTold = {
  readonly proxies?: readonly Travelled<ProxyReport>[] | undefined;
  readonly proxiesInAll?: number | undefined;
  readonly now: string;
};

/** The proxies that decide by themselves as lines of a status: how many, and those in trouble with why. */
export function proxyPairs(told: ProxiesTold): readonly (readonly [string, string])[] {
  const { proxies = [], proxiesInAll = 0 } = told;
  if (proxiesInAll === 0) return [];
  const troubled = proxies.filter(isTroubled);
  const shown = troubled.slice(0, maxShown);
  const more = troubled.length - shown.length;
  const good = proxiesInAll - troubled.length;
  return [
    [
      'proxy policies',
      `${count(proxiesInAll, 'filter', 'filters')} of proxies, ${good} with the policy of now` +
        (troubled.length === 0 ? '' : `, ${troubled.length} in trouble`),
    ],
    ...shown.map((proxy) => ['proxy', proxyText(proxy, Date.parse(told.now))] as const),
    ...(more > 0 ? [['proxy', `and ${more} more`] as const] : []),
  ];
}

/** What a node tells of its proxies that decide by themselves; an older server or agent says nothing. */
export function nodeProxyPairs(
  policies: ProxyPolicies | null | undefined,
): readonly (readonly [string, string])[] {
  if (policies === null || policies === undefined || policies.filters === 0) return [];
  const { filters, behind, rejecting, lacking, oldestPolicy } = policies;
  const troubles = [
    [behind, 'behind'],
    [rejecting, 'refusing'],
    [lacking, 'lacking what they need'],
  ] as const;
  const told = troubles.filter(([number]) => number > 0).map(([number, what]) => `, ${number} ${what}`);
  const oldest = oldestPolicy === null ? '' : `; policy revision ${oldestPolicy} or later is in force`;
  return [['proxy policies', `${count(filters, 'filter', 'filters')} of proxies${told.join('')}${oldest}`]];
}

/** Whether every proxy that decides by itself does so by the policy of now. */
export function judgeProxies(told: Omit<ProxiesTold, 'now'>, now: Date): CheckResult {
  const { proxies = [], proxiesInAll = 0 } = told;
  const text = 'every proxy that decides by itself has the policy of now';
  if (proxiesInAll === 0) return skipped('proxies_follow', 'no proxy decides by itself');
  const nowMs = now.getTime();
  const rejected = proxies.filter(({ state }) => state === 'rejected');
  const late = proxies.filter(
    ({ state, behindSince }) =>
      state === 'behind' && nowMs - Date.parse(behindSince ?? now.toISOString()) > lateMs,
  );
  const lacking = proxies.filter(({ lacks }) => lacks !== '');
  const [first] = [...rejected, ...late, ...lacking];
  if (first === undefined)
    return ok(
      'proxies_follow',
      `${count(proxiesInAll, 'filter', 'filters')} of proxies have the policy of now`,
    );
  const others = rejected.length + late.length + lacking.length - 1;
  const cause = proxyText(first, nowMs) + (others > 0 ? `; and ${others} more` : '');
  if (rejected.length > 0)
    return failed(
      'proxies_follow',
      text,
      cause,
      'see the log of the proxy and of the agent; calls go on by the policy before',
    );
  if (late.length > 0)
    return warning(
      'proxies_follow',
      text,
      cause,
      'see whether the proxy is overloaded, and restart it if it is stuck',
    );
  return warning(
    'proxies_follow',
    text,
    cause,
    'make its bootstrap anew: countersign envoy bootstrap --decide in-proxy',
  );
}

function isTroubled({ state, lacks }: Travelled<ProxyReport>): boolean {
  return state !== 'current' || lacks !== '';
}

function proxyText(proxy: Travelled<ProxyReport>, nowMs: number): string {
  const { nodeId, pid, name, state, behindSince, rejection, lacks, policyRevision, acknowledged } = proxy;
  const who = `${printable(nodeId)} (pid ${pid})${name === '' ? '' : ` ${printable(name)}`}`;
  const since = behindSince === null ? '' : ` for ${span(Math.max(1, nowMs - Date.parse(behindSince)))}`;
  const has =
    policyRevision === null
      ? acknowledged === ''
        ? 'it has none yet'
        : `it has ${acknowledged.slice(0, 12)}`
      : `it has policy revision ${policyRevision}`;
  switch (state) {
    case 'rejected':
      return `${who}: refuses its policy${since}, ${has}: ${printable(rejection).slice(0, maxRejectionShown)}`;
    case 'behind':
      return `${who}: behind${since}, ${has}`;
    case 'unserved':
      return `${who}: is given no policy: ${printable(lacks)}`;
    case 'current':
      return lacks === ''
        ? `${who}: has the policy of now`
        : `${who}: asks about every call: ${printable(lacks)}`;
    default:
      return state satisfies never;
  }
}

const maxShown = 8;
const maxRejectionShown = 300;
const lateMs = 30_000;
