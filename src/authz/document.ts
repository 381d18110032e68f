import type { Place } from '../errors.ts';
import type { YamlNode } from '../yaml-node.ts';

/** What a condition reads, by the names `when` has for it; what has no such name is named in its manner. */
export const attributes = [
  'source.principal',
  'source.namespace',
  'source.serviceAccount',
  'source.trustDomain',
  'source.ip',
  'remote.ip',
  'request.auth.principal',
  'request.auth.audiences',
  'request.auth.presenter',
  'request.auth.claims',
  'request.headers',
  'request.host',
  'request.method',
  'request.path',
  'destination.ip',
  'destination.port',
  'connection.sni',
  'filter.metadata',
  'time',
] as const;
export type Attribute = (typeof attributes)[number];
/** Those that a condition of the language can read. */
export type WrittenAttribute = Exclude<Attribute, 'time'>;

/** Whether an attribute exists in HTTP only. */
export function isHttpOnly(attribute: Attribute): boolean {
  return attribute.startsWith('request.');
}

/**
 * One field of a source or operation, or one entry of `when`: some of `values` matches, when there are any, and none of
 * `notValues` does. At least one value in one of the two.
 */
export type Condition = {
  readonly attribute: WrittenAttribute;
  /** What stands in brackets: the header; the way to a claim; the filter and its key. Empty for all others. */
  readonly names: readonly string[];
  readonly values: readonly string[];
  readonly notValues: readonly string[];
  /** As its author names it without `not`: `methods`, `request.headers[x]`. */
  readonly field: string;
  readonly place: Place;
  /** The two lists where they stand in the document; undefined when not written. */
  readonly written: Readonly<Record<'values' | 'notValues', YamlNode | undefined>>;
};

/** Matches when any of `from`, any of `to` and all of `when` do; an empty list matches everything. */
export type DocumentRule = {
  readonly from: readonly (readonly Condition[])[];
  readonly to: readonly (readonly Condition[])[];
  readonly when: readonly Condition[];
  readonly place: Place;
};

export const policyActions = ['ALLOW', 'DENY', 'AUDIT', 'CUSTOM'] as const;
export type PolicyAction = (typeof policyActions)[number];

/** What a policy names as its target instead of labels. */
export type TargetRef = {
  readonly group: string;
  readonly kind: string;
  readonly name: string;
  /** Null when none was written: that of the policy. */
  readonly namespace: string | null;
};

/** Of the Gateway API: whose Gateways a policy may name, and whose label says which one a workload is of. */
export const gatewayGroup = 'gateway.networking.k8s.io';

/** An AuthorizationPolicy as it is written, valid and not yet read in either mode. Immutable. */
export type PolicyDocument = {
  readonly namespace: string;
  readonly name: string;
  readonly action: PolicyAction;
  /** With CUSTOM, and only then. */
  readonly provider: string | null;
  /** A workload must carry all of these labels; empty for every workload. */
  readonly selector: ReadonlyMap<string, string>;
  /** At most 16; never beside a selector. */
  readonly targetRefs: readonly TargetRef[];
  /** Evaluated beside the others and enforced by nobody. */
  readonly dryRun: boolean;
  /** At most 512. None: the policy never matches. */
  readonly rules: readonly DocumentRule[];
  readonly place: Place;
};

/** A rule as Envoy's statistics and denials name it. */
export function ruleId(
  { namespace, name }: Pick<PolicyDocument, 'namespace' | 'name'>,
  index: number,
): string {
  return `ns[${namespace}]-policy[${name}]-rule[${index}]`;
}
