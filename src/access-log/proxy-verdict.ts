import { isRuleName, otherWord } from '../audit/closed-texts.ts';
import { decisionReasons } from '../authz/decision.ts';
import { parseLeafName } from '../authz/leaf-name.ts';
import type { LoggedMetadata } from '../wire/access_log.ts';
import { Struct } from '../wire/google/protobuf/struct.ts';

/** What the policy in a proxy said of a call. */
export type ProxySaid = {
  /** What a filter for policies said at all, by whatever policy; empty when none judged it. */
  readonly result: 'allowed' | 'denied' | '';
  /** Undefined when it was asked about, when nothing was said, and when what was said is nothing that policies of ours say. */
  readonly verdict: LeafVerdict | undefined;
};

/** A leaf that decided, as the proxy names it. */
export type LeafVerdict = {
  readonly verdict: 'allow' | 'deny';
  readonly reason: string;
  readonly rule: string;
  readonly leaf: string;
  readonly revision: number;
};

/**
 * Reads what Envoy's filters for policies leave in the metadata of an entry, and for TCP why the connection ended. Callers cannot write there, and a proxy can write anything: names are of closed forms, or are nothing.
 * @param ended `CONNECTION_TERMINATION_DETAILS`
 * @see https://www.envoyproxy.io/docs/envoy/v1.40.0/configuration/http/http_filters/rbac_filter#dynamic-metadata
 */
export function readProxyVerdict(metadata: LoggedMetadata | undefined, ended = ''): ProxySaid {
  const [, denying] = /^rbac_access_denied_matched_policy\[(.{1,256})\]$/.exec(ended) ?? [];
  if (denying !== undefined) return { result: 'denied', verdict: verdictOf(denying, 'denied') };
  const space = metadata?.filterMetadata.find(({ key }) => filters.has(key));
  if (space === undefined || space.value.length > maxStructBytes) return unsaid;
  const said = filters.get(space.key);
  let result = '';
  let leaf = '';
  for (const [key, value] of Object.entries(Struct.decode(space.value).fields) as [string, unknown][]) {
    if (typeof value !== 'string') continue;
    // Each filter may put a prefix of its own before them.
    if (key.endsWith(`${said}_engine_result`)) result = value;
    else if (key.endsWith(`${said}_effective_policy_id`)) leaf = value;
  }
  return result === 'allowed' || result === 'denied' ? { result, verdict: verdictOf(leaf, result) } : unsaid;
}

function verdictOf(name: string, result: 'allowed' | 'denied'): LeafVerdict | undefined {
  const known = read.get(name);
  const leaf = known ?? readLeaf(name);
  if (leaf === undefined || (leaf.verdict === 'deny') !== (result === 'denied')) return undefined;
  if (known === undefined) {
    if (read.size >= maxRead) read.clear();
    read.set(name, leaf);
  }
  return leaf;
}

function readLeaf(name: string): LeafVerdict | undefined {
  const said = parseLeafName(name);
  if (said === undefined || said.verdict === 'ask') return undefined;
  const { verdict, rule, reason, revision } = said;
  // INVARIANT: what counts are kept by is of a closed list, or of a form that has a bound.
  // Of a name that was cut, the leaf alone tells.
  const isCut = /~[0-9a-f]{16}\[[0-9]{1,6}\]$/.test(name);
  if (rule !== '' && !isCut && !isRuleName(rule)) return undefined;
  const isKnown = decisionReasons.some((one) => one === reason);
  return { verdict, rule: isCut ? '' : rule, reason: isKnown ? reason : otherWord, leaf: name, revision };
}

const unsaid: ProxySaid = { result: '', verdict: undefined };
/** The same few leaves come with every call. */
const read = new Map<string, LeafVerdict>();
const maxRead = 4_096;
const maxStructBytes = 4_096;
// For TCP Envoy tells what the shadow of a policy said, which is the policy; for HTTP a shadow is a trial, and decides nothing.
const filters: ReadonlyMap<string, 'enforced' | 'shadow'> = new Map([
  ['envoy.filters.http.rbac', 'enforced'],
  ['envoy.filters.network.rbac', 'shadow'],
]);
