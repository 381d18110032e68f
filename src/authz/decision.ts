import type { SpiffeId } from '../spiffe/id.ts';
import type { CallContext } from './context.ts';
import type { PolicyMode } from './policy-mode.ts';

/** The call to be judged, canonical: `authz/request.ts` makes it, or says why it cannot be made. */
export type AuthzRequest = {
  /** The caller, from its verified certificate; null when it had none. */
  readonly source: SpiffeId | null;
  readonly destination: SpiffeId;
  readonly protocol: 'http' | 'tcp';
  /** Empty for TCP. Case-sensitive token. */
  readonly method: string;
  /** Lower case, without port and trailing dot. Empty for TCP. */
  readonly host: string;
  /** The port of the authority, or null when it named none. */
  readonly hostPort: number | null;
  /** Without query; starts with `/`. Empty for TCP. */
  readonly path: string;
  /** The destination's own port (the port of the connection), 0 when unknown. */
  readonly port: number;
  readonly context: CallContext;
};

/** Why a decision fell as it did. Closed; stable; in the log and in answers to proxies. */
export const decisionReasons = [
  'allow_rule', // an ALLOW rule matched and no DENY rule did
  'allow_by_default', // in Istio mode: no ALLOW policy applies and no DENY rule matched
  'deny_rule', // a DENY rule matched
  'no_allow_rule', // policies apply to the destination, but no ALLOW rule matched
  'custom_unanswered', // a CUSTOM rule matched, and its provider is asked by nobody here
  'no_policy', // no policy applies to the destination (strict mode denies)
  'unauthenticated', // the caller presented no certificate
  'request_ambiguous', // two parts of the mesh could read the request differently
  'request_invalid', // the request could not be understood
  'destination_forged', // the proxy spoke for an identity it is not entitled to
  'caller_unknown', // the proxy itself has no identity here
  'banned', // the caller, its certificate or its key, or the destination is banned
  'engine_failed', // an error of ours; never an allow
] as const;
export type DecisionReason = (typeof decisionReasons)[number];

/** What policies on trial of each action would have said, by themselves; null where there are none. */
export type ShadowVerdict = {
  readonly allow: 'allowed' | 'denied' | null;
  readonly deny: 'allowed' | 'denied' | null;
};

/** The rule that came closest to allowing a denied call, and the predicate it failed on. */
export type NearestRule = {
  /** `namespace/name rule[0]`. */
  readonly rule: string;
  /** `file:line:column` of the predicate. */
  readonly place: string;
  /** For example `methods is GET, the call used POST`. */
  readonly missed: string;
};

/**
 * The joint between authz and every door that answers a proxy. It is total: every call yields one, and only
 * `verdict: 'allow'` is an allow.
 */
export type Decision = {
  readonly verdict: 'allow' | 'deny';
  readonly reason: DecisionReason;
  /** `namespace/name rule[0]`, or empty when no rule decided. */
  readonly rule: string;
  /** One sentence for people: lower case, no full stop. */
  readonly why: string;
  /** The mesh revision of the snapshot that decided. */
  readonly revision: number;
  readonly nearest: NearestRule | null;
  /** The provider of the first CUSTOM rule that matched. */
  readonly custom: string | null;
  /** The first AUDIT rule that matched, or empty. */
  readonly audited: string;
  /** The reason and ticket of the break-glass grant that allowed it, and the DENY rule it lifted; else empty. */
  readonly breakGlass: string;
  /** Null when no policy on trial applies. */
  readonly shadow: ShadowVerdict | null;
  /** How policies were read; strictly when left out. */
  readonly mode?: PolicyMode;
  /** Present while a candidate is tried beside what is in force, and a policy was asked. */
  readonly rollout?: RolloutVerdict;
};

/** What is in force and the candidate of a rollout said of one call. */
export type RolloutVerdict = {
  readonly id: string;
  /** Whose verdict is the answer. `fallback`: that in force, though it was the candidate's turn. */
  readonly applied: 'active' | 'candidate' | 'fallback';
  readonly active: Decision;
  /** The very same where no policy that applies differs. */
  readonly candidate: Decision;
};
