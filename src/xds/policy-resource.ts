import { createHash } from 'node:crypto';
import type { ProxyPolicy } from '../authz/proxy-policy.ts';
import { SpiffeId } from '../spiffe/id.ts';
import { Action, Action_RbacAction } from '../wire/rbac.ts';
import { RBAC } from '../wire/rbac_filter.ts';
import { RBAC as NetworkRBAC } from '../wire/rbac_network_filter.ts';
import type { Matcher } from '../wire/xds_matcher.ts';
import { TypedExtensionConfig } from '../wire/xds_core.ts';
import type { Resource } from './resource.ts';

/** The type URL of the only resource that ECDS carries: a filter's configuration under its name. */
export const extensionTypeUrl = 'type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig';

/** What a proxy asks for: the policy of one of its identities, for one of its filters. */
export type PolicyName = {
  readonly filter: 'http' | 'tcp';
  /** Null: the caller's default identity. */
  readonly id: string | null;
};

/**
 * Reads the name of a resource: `countersign.policy` and `countersign.tcp-policy` are those of the default identity, with
 * `/spiffe://...` after them those of that identity. Undefined for every other name.
 */
export function readPolicyName(name: string): PolicyName | undefined {
  for (const filter of ['http', 'tcp'] as const) {
    const stem = stems[filter];
    if (name === stem) return { filter, id: null };
    if (!name.startsWith(`${stem}/`)) continue;
    const id = name.slice(stem.length + 1);
    return isWorkloadId(id) ? { filter, id } : undefined;
  }
  return undefined;
}

/** The name of the resource for an identity; the default one when it is null. */
export function policyNameOf({ filter, id }: PolicyName): string {
  return id === null ? stems[filter] : `${stems[filter]}/${id}`;
}

/** The resource of a name, made once for a policy. */
export function policyResource(name: string, filter: PolicyName['filter'], policy: ProxyPolicy): Resource {
  const known = made.get(policy) ?? new Map<string, Resource>();
  made.set(policy, known);
  const resource = known.get(name) ?? resourceOf(name, filter, policy[filter], policy.leaves.allow > 0);
  known.set(name, resource);
  return resource;
}

/** Why a caller is given a policy that is about no call in particular. */
export type FixedPolicy =
  /** Every call is denied: the caller has no such identity, or that is banned. */
  | { readonly verdict: 'deny'; readonly reason: 'identity_none' | 'identity_banned' }
  /** Every call is asked about. */
  | { readonly verdict: 'ask'; readonly reason: 'capability_lacking' };

/** A policy that says the same of every call. */
export function fixedResource(name: string, filter: PolicyName['filter'], fixed: FixedPolicy): Resource {
  const matcher = fixedMatcher(fixed);
  const bytes =
    filter === 'http'
      ? RBAC.encode({ ...emptyHttp, matcher }).finish()
      : NetworkRBAC.encode({ ...emptyTcp, matcher }).finish();
  return resourceOf(name, filter, bytes, false);
}

function fixedMatcher({ verdict, reason }: FixedPolicy): Matcher {
  const action = verdict === 'deny' ? Action_RbacAction.DENY : Action_RbacAction.ALLOW;
  const value = Buffer.from(Action.encode({ name: `${verdict}:${reason}`, action }).finish());
  return {
    matcherType: undefined,
    onNoMatch: {
      onMatch: {
        $case: 'action',
        action: { name: 'action', typedConfig: { typeUrl: actionTypeUrl, value } },
      },
      keepMatching: false,
    },
  };
}

function resourceOf(
  name: string,
  filter: PolicyName['filter'],
  bytes: Uint8Array,
  hasAllow: boolean,
): Resource {
  const typedConfig = { typeUrl: filterTypeUrls[filter], value: Buffer.from(bytes) };
  return {
    name,
    version: createHash('sha256').update(`${filter}\n`).update(bytes).digest('hex').slice(0, 32),
    holdsKey: false,
    // What allows nothing does no harm, however old it becomes.
    expires: hasAllow,
    value: Buffer.from(TypedExtensionConfig.encode({ name, typedConfig }).finish()),
  };
}

function isWorkloadId(text: string): boolean {
  try {
    return SpiffeId.parseWorkload(text).text === text;
  } catch {
    return false;
  }
}

const stems = { http: 'countersign.policy', tcp: 'countersign.tcp-policy' } as const;
const filterTypeUrls = {
  http: 'type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC',
  tcp: 'type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC',
} as const;
const actionTypeUrl = 'type.googleapis.com/envoy.config.rbac.v3.Action';

const emptyHttp = {
  shadowRulesStatPrefix: '',
  shadowMatcher: undefined,
  rulesStatPrefix: '',
  trackPerRuleStats: false,
};
const emptyTcp = {
  statPrefix: 'countersign_tcp',
  enforcementType: 0,
  shadowRulesStatPrefix: '',
  shadowMatcher: undefined,
} as const;

const made = new WeakMap<ProxyPolicy, Map<string, Resource>>();
