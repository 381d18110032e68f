import type { BanView } from '../http/ban-routes.ts';
import type { PolicyMode } from '../authz/policy-mode.ts';
import type { EntryView } from '../http/entry-routes.ts';
import type { Travelled } from '../http/travelled.ts';
import type { PolicyView } from '../http/policy-routes.ts';
import { soonMs } from '../identity/policy-terms.ts';
import type { CheckResult } from './check-report.ts';
import { ends, listed, ok, skipped, warning } from './check-result.ts';

/** Without a policy nobody may call anybody, which is meant by few who have entries. */
export function judgePolicies(entries: number, policies: number, mode: PolicyMode = 'strict'): CheckResult {
  const text = 'there are policies to decide by';
  if (policies > 0) return ok('policies_present', `${text} (${policies})`);
  if (entries === 0) return skipped('policies_present', 'there are no policies, and no entries either');
  const fix = 'write one as docs/policy.md shows, then run countersign apply -f with its file';
  const what = mode === 'strict' ? 'denied' : 'allowed';
  return warning('policies_present', text, `there is none: every call is ${what}`, fix);
}

/** Who has a mesh in Istio mode is told again what that gives up. */
export function judgePolicyMode(mode: PolicyMode): CheckResult {
  if (mode === 'strict')
    return ok('policy_mode', 'calls that no policy allows are denied (policy mode strict)');
  return warning(
    'policy_mode',
    'calls that no policy allows are denied',
    'policies are read in Istio mode: a call that no ALLOW policy is about is allowed, with or without a certificate',
    'run countersign policy lint --istio to see what strict mode would change, then set policyMode: strict',
  );
}

/** Policies that stop to match before long, or have; and break-glass grants, which are to. */
export function judgeTerms(policies: readonly PolicyView[], now: Date): readonly CheckResult[] {
  const ordinary = policies.filter(({ terms }) => (terms?.breakGlass ?? null) === null);
  const ending = ordinary.flatMap(({ key, terms }) => {
    const { expiresAt = null, owner = null } = terms ?? {};
    const leftMs = expiresAt === null ? Number.POSITIVE_INFINITY : Date.parse(expiresAt) - now.getTime();
    return leftMs < soonMs ? [`${key} ${ends(leftMs)}${owner === null ? '' : ` (${owner})`}`] : [];
  });
  const fix = 'write another expiresAt and apply it, or run countersign policy delete';
  const grants = policies.flatMap(({ key, terms }) => {
    const { breakGlass = null, expiresAt = null, ticket = null } = terms ?? {};
    const leftMs = expiresAt === null ? 0 : Date.parse(expiresAt) - now.getTime();
    return breakGlass === null || leftMs <= 0 ? [] : [`${key} ${ends(leftMs)}: ${breakGlass} (${ticket})`];
  });
  const undo =
    'run countersign policy delete as soon as it is not needed; countersign audit list shows its use';
  return [
    listed('policies_last', 'no policy is near its end', ending, fix),
    listed('glass_whole', 'no break-glass grant is in force', grants, undo),
  ];
}

/** Entries whose identity is banned: they get no certificate, and their calls are denied. */
export function judgeBans(entries: readonly EntryView[], bans: readonly Travelled<BanView>[]): CheckResult {
  const text = 'no entry has an identity that is banned';
  const banned = new Map(
    bans.filter(({ kind, inForce }) => kind === 'spiffe-id' && inForce).map((ban) => [ban.value, ban]),
  );
  const hit = entries.filter(({ spiffeId }) => banned.has(spiffeId));
  const found = hit.map(({ id, spiffeId }) => `${id} (${banned.get(spiffeId)?.reason ?? ''})`);
  const fix = `run countersign unban spiffe-id ${hit[0]?.spiffeId ?? ''} to lift it, or delete the entry`;
  return listed('entries_unbanned', text, found, fix);
}

/** A record of the log, as far as this goes by it. */
export type LoggedRefusal = {
  readonly event: {
    readonly code?: string;
    readonly door?: string;
    readonly caller?: { readonly uid?: number; readonly node?: string };
    readonly selectors?: readonly string[];
  };
};

/**
 * Processes that asked for an identity and that no entry matches. A check asks the Workload API itself, here and on
 * other machines: such calls of root, or of this very user, are passed over.
 */
export function judgeCallers(
  refusals: readonly LoggedRefusal[],
  { ownUid, serves }: { readonly ownUid: number; readonly serves: 'machine' | 'nodes' },
): CheckResult {
  const text = 'whoever asked for an identity lately has an entry';
  const strangers = new Map<string, { readonly uid: number; readonly node: string | undefined }>();
  for (const { event } of refusals) {
    const { uid, node } = event.caller ?? {};
    if (event.code !== 'identity_none' || typeof uid !== 'number') continue;
    if (event.door === 'workload_api' && (uid === 0 || uid === ownUid)) continue;
    const path = event.selectors?.find((selector) => selector.startsWith('unix:path:'));
    const what = path === undefined ? '' : ` (${path.slice('unix:path:'.length)})`;
    strangers.set(`uid ${uid}${node === undefined ? '' : ` on ${node}`}${what}`, { uid, node });
  }
  const [first] = strangers.values();
  const onNode = serves === 'nodes' ? ` --node ${first?.node ?? "'*'"}` : '';
  const selector = `--selector unix:uid:${first?.uid ?? ''}${onNode}`;
  return listed(
    'callers_known',
    text,
    [...strangers.keys()],
    `register it: countersign entry create NAME --spiffe-id SPIFFE_ID ${selector}`,
  );
}
