import type { AlarmEvent, ConnectionsEvent, OutcomeEvent, OutcomesEvent } from './access-event.ts';
import type { PolicyChangeEvent, PolicyRevisionEvent, PolicyTextEvent } from './policy-event.ts';
import type { ProxyCoverageEvent, ProxyVerdictEvent, ProxyVerdictsEvent } from './proxy-event.ts';
import type { RetentionEvent } from './retention-event.ts';
import type { CandidateCallsEvent, PolicyRolloutEvent } from './rollout-event.ts';

/**
 * The closed union of what the log records, version 1. Later versions add fields or members; what is stored never
 * changes. `audit/canonical.ts` turns an event into the exact bytes of a leaf.
 *
 * Fields typed {@link Personal} are stored in the leaf only as salted commitments.
 */
export type AuditEvent =
  | IssuanceEvent
  | RefusalEvent
  | EntryChangeEvent
  | PolicyChangeEvent
  | PolicyTextEvent
  | PolicyRevisionEvent
  | PolicyRolloutEvent
  | DecisionEvent
  | AllowedCallsEvent
  | CandidateCallsEvent
  | OutcomeEvent
  | OutcomesEvent
  | ConnectionsEvent
  | AlarmEvent
  | ProxyVerdictEvent
  | ProxyVerdictsEvent
  | ProxyCoverageEvent
  | LossEvent
  | AuthorityEvent
  | AdminEvent
  | LifecycleEvent
  | BanEvent
  | JwtIssuanceEvent
  | JwtKeyEvent
  | NodeEvent
  | NodeAliasChangeEvent
  | GrantChangeEvent
  | RetentionEvent;

export type AuditEventType = AuditEvent['type'];

/** A value that may identify a person: the leaf holds SHA-256(salt || value), the value lives in a table beside it. */
export type Personal = { readonly personal: string };

/** A value JSON can carry without loss: no floats, no undefined. */
export type CanonicalJson =
  null | boolean | number | string | readonly CanonicalJson[] | { readonly [key: string]: CanonicalJson };

/** Who changed something, or tried to. */
export type Actor =
  | { readonly kind: 'system' }
  | { readonly kind: 'uid'; readonly uid: number; readonly role: string }
  | { readonly kind: 'token'; readonly tokenId: string; readonly role: string }
  /** A certificate of ours; `serial` is its number, lower-case hex. */
  | { readonly kind: 'svid'; readonly spiffeId: string; readonly serial: string; readonly role: string }
  /** An ID token; the subject is the issuer's, and anything. */
  | { readonly kind: 'oidc'; readonly issuer: string; readonly subject: string; readonly role: string }
  | { readonly kind: 'anonymous' };

/** The process a certificate was made for, or refused to. */
export type Caller = {
  readonly pid: number;
  readonly uid: number;
  readonly gid: number;
  /** The node whose agent saw the process; absent for one of the machine of the authority itself. */
  readonly node?: string;
  /** The serial of the certificate that this agent showed when it asked, lower-case hex: its `node` event says on what evidence. */
  readonly nodeCertificate?: string;
  /**
   * The serial of the certificate that it has shown over the network, lower-case hex; nobody has seen its process then,
   * and pid, uid and gid are zero.
   */
  readonly certificate?: string;
};

/** Written before the certificate exists: a crash may lose the certificate, never this record. */
export type IssuanceEvent = {
  readonly type: 'issuance';
  readonly time: Date;
  readonly profile: 'x509-svid';
  readonly spiffeId: string;
  readonly serial: string;
  readonly notBefore: Date;
  readonly notAfter: Date;
  readonly tbsSha256: string;
  readonly spkiSha256: string;
  /** The issuing CA's subject key identifier, lower-case hex. */
  readonly issuerKeyId: string;
  readonly entryId: string;
  readonly entryRevision: number;
  /** The number of the policy revision in force; absent before there was one. */
  readonly policyRevision?: number;
  readonly selectors: readonly string[];
  readonly caller: Caller;
};

/** A certificate or a stream that was not given. Repeats within a minute are counted, not repeated. */
export type RefusalEvent = {
  readonly type: 'refusal';
  readonly time: Date;
  readonly door: 'sds' | 'ext_authz' | 'access_log' | 'issue' | 'workload_api';
  readonly code: string;
  readonly message: string;
  readonly resource: string;
  readonly selectors: readonly string[];
  readonly caller: Caller;
  readonly count: number;
};

export type EntryChangeEvent = {
  readonly type: 'entry_change';
  readonly time: Date;
  readonly action: 'created' | 'updated' | 'deleted';
  readonly entryId: string;
  readonly spiffeId: string;
  readonly revision: number;
  readonly actor: Actor;
  readonly before: CanonicalJson;
  readonly after: CanonicalJson;
};

/** One answer of the policy engine to a proxy. */
export type DecisionEvent = {
  readonly type: 'decision';
  readonly time: Date;
  readonly decisionId: string;
  readonly verdict: 'allow' | 'deny';
  /** A closed code: see authz/decision.ts. */
  readonly reason: string;
  /** `namespace/name rule[n]`, or empty. */
  readonly rule: string;
  readonly why: string;
  /** The policy revision that decided. */
  readonly revision: number;
  /** The caller's SPIFFE ID, or empty when it had none. */
  readonly source: string;
  readonly destination: string;
  /** `http` or `tcp`. */
  readonly protocol: string;
  readonly method: string;
  readonly host: string;
  readonly path: Personal;
  readonly port: number;
  /** Serial of the peer certificate, lower-case hex, or empty. */
  readonly sourceSerial: string;
  /** SHA-256 of what was signed of the peer certificate, as its issuance has it; absent when nobody told. */
  readonly sourceTbsSha256?: string;
  readonly sourceAddress: Personal;
  /** The proxy that asked. */
  readonly caller: Caller;
  /** The reason and ticket of the break-glass grant that allowed the call, and what it lifted; absent for all others. */
  readonly breakGlass?: string;
  /** The rollout whose candidate decided in place of the revision in force; absent for all others. */
  readonly rollout?: string;
};

/**
 * Allowed calls that agree in all that is told here, counted together. Denials, calls that an AUDIT rule marks and those that a
 * break-glass grant let pass are never among them: each is a {@link DecisionEvent}.
 */
export type AllowedCallsEvent = {
  readonly type: 'allowed_calls';
  /** Of the last of them, like `to`. */
  readonly time: Date;
  readonly from: Date;
  readonly to: Date;
  /** At least 1. */
  readonly count: number;
  /** A closed code: see authz/decision.ts. */
  readonly reason: string;
  /** `namespace/name rule[n]`, or empty. */
  readonly rule: string;
  /** The policy revision that decided. */
  readonly revision: number;
  readonly source: string;
  readonly destination: string;
  /** `http` or `tcp`. */
  readonly protocol: string;
  readonly method: string;
  /** The value of the rule's `paths` that the path fits, or `*`. */
  readonly pathPattern: string;
  readonly port: number;
  /** Serial of the peer certificate, lower-case hex, or empty. */
  readonly sourceSerial: string;
  /** SHA-256 of what was signed of the peer certificate, as its issuance has it; absent when nobody told. */
  readonly sourceTbsSha256?: string;
  /** The proxy that asked. */
  readonly caller: Caller;
};

/** Records that could not be kept, as an entry of their own. */
export type LossEvent = {
  readonly type: 'loss';
  readonly time: Date;
  /** `proxy_verdict`: calls that proxies have counted and not told of, see {@link ProxyCoverageEvent}. */
  readonly what: 'decision' | 'refusal' | 'access_log' | 'proxy_verdict';
  readonly count: number;
  readonly from: Date;
  readonly to: Date;
  readonly cause: string;
  /** Of `proxy_verdict`: whom the proxy stands for. Absent for all others. */
  readonly service?: string;
};

export type AuthorityEvent = {
  readonly type: 'authority';
  readonly time: Date;
  /**
   * `forced`: activated or retired without the evidence it takes. `requested`: a key was made and waits for a certificate
   * from elsewhere; then serial and digest are empty, and both dates are the time of the event.
   */
  readonly action: 'requested' | 'created' | 'prepared' | 'activated' | 'retired' | 'tainted' | 'forced';
  /** Absent in events of the first version, which recorded only what the system created. */
  readonly actor?: Actor;
  /** What the step was permitted on, in words; empty when it needs none. */
  readonly evidence?: string;
  readonly kind: 'root' | 'intermediate';
  readonly trustDomain: string;
  readonly serial: string;
  readonly keyId: string;
  readonly notBefore: Date;
  readonly notAfter: Date;
  readonly certificateSha256: string;
};

/**
 * Access to the admin API: every call, refused ones included. `called` stands for any that has no action of its own;
 * its code is that of the error it was answered with, or empty.
 */
export type AdminEvent = {
  readonly type: 'admin';
  readonly time: Date;
  readonly action: 'refused' | 'token_created' | 'token_revoked' | 'audit_read' | 'called';
  readonly actor: Actor;
  readonly method: string;
  /** The route's pattern, never the raw URL. */
  readonly route: string;
  readonly code: string;
  readonly detail: string;
  readonly sourceAddress: Personal;
};

export type LifecycleEvent = {
  readonly type: 'lifecycle';
  readonly time: Date;
  /** `restored`: the first start of a data directory that was made from a backup. */
  readonly action: 'started' | 'stopped' | 'restored';
  readonly version: string;
  /** Of `restored`: when the backup was made, and how many entries its log had. Absent for all others. */
  readonly backupMadeAt?: Date;
  readonly backupSize?: number;
};

/** A ban that was made (or made to last longer), or lifted. One that runs out has no event: `until` told of it. */
export type BanEvent = {
  readonly type: 'ban';
  readonly time: Date;
  readonly action: 'created' | 'lifted';
  readonly kind: 'spiffe-id' | 'serial' | 'key';
  /** A SPIFFE ID, a serial or the SHA-256 of a public key (SPKI); the latter two in lower-case hex. */
  readonly value: string;
  readonly reason: string;
  /** Null for a ban that stands until it is lifted. */
  readonly until: Date | null;
  readonly revision: number;
  readonly actor: Actor;
};

/** Written before the token is signed: a crash may lose the token, never this record. The token itself is in no record. */
export type JwtIssuanceEvent = {
  readonly type: 'jwt_issuance';
  readonly time: Date;
  readonly spiffeId: string;
  readonly audiences: readonly string[];
  /** The `kid` of the token. */
  readonly keyId: string;
  /** Its `jti`, lower-case hex. */
  readonly jwtId: string;
  readonly issuedAt: Date;
  readonly notAfter: Date;
  /** Of its first two parts with the dot between them, as they are signed; lower-case hex. */
  readonly signingInputSha256: string;
  readonly entryId: string;
  readonly entryRevision: number;
  /** The number of the policy revision in force; absent before there was one. */
  readonly policyRevision?: number;
  /** Empty when an operator asked. */
  readonly selectors: readonly string[];
  /** The process it was made for; or else `actor`, the operator who asked for it. */
  readonly caller?: Caller;
  readonly actor?: Actor;
};

/** A step in the life of a key that signs tokens. */
export type JwtKeyEvent = {
  readonly type: 'jwt_key';
  readonly time: Date;
  /** `tainted`: withdrawn at once; `forced`: activated or withdrawn without the evidence it takes. */
  readonly action: 'created' | 'prepared' | 'activated' | 'retired' | 'tainted' | 'forced';
  readonly actor: Actor;
  /** What the step was permitted on, in words; empty when it needs none. */
  readonly evidence: string;
  readonly trustDomain: string;
  readonly keyId: string;
  readonly keyType: 'ec-p256' | 'rsa-2048';
  readonly spkiSha256: string;
  /** Of the bundle that followed. */
  readonly sequence: number;
};

/** A machine that was let in, or not, and join tokens. A ban of a node is a {@link BanEvent}. */
export type NodeEvent = {
  readonly type: 'node';
  readonly time: Date;
  readonly action:
    'token_created' | 'token_revoked' | 'attested' | 'renewed' | 'refused' | 'evicted' | 'forgotten';
  /** Its name; empty, or not proven, for one that was refused. */
  readonly node: string;
  /** Empty when the attempt did not come that far. */
  readonly method: 'join_token' | 'x509pop' | 'k8s_psat' | '';
  readonly selectors: readonly string[];
  /** Of the certificate it was renewed with, lower-case hex, or empty. */
  readonly serial: string;
  /** Why it was refused, or empty. A Kubernetes token has codes of its own, of which the node is not told. */
  readonly code: string;
  readonly actor: Actor;
  readonly sourceAddress: Personal;
};

/** A grant to administer that was given, changed or taken away. */
export type GrantChangeEvent = {
  readonly type: 'grant_change';
  readonly time: Date;
  readonly action: 'created' | 'updated' | 'deleted';
  readonly grant: string;
  readonly revision: number;
  readonly actor: Actor;
  /** `{subject: {kind, issuer, value}, role, namespaces}`, or null when there was or is none. */
  readonly before: CanonicalJson;
  readonly after: CanonicalJson;
};

/** A name for nodes that was given other nodes to stand for, or taken away. */
export type NodeAliasChangeEvent = {
  readonly type: 'node_alias_change';
  readonly time: Date;
  readonly action: 'created' | 'updated' | 'deleted';
  readonly alias: string;
  readonly revision: number;
  readonly actor: Actor;
  /** The selectors it asked for, and asks for; empty when there was or is none. */
  readonly before: CanonicalJson;
  readonly after: CanonicalJson;
};

/**
 * Makes events durable, in order, and answers with their indexes in the log.
 * When it rejects, nothing of the batch is in the log.
 */
export type RecordEvents = (events: readonly AuditEvent[]) => Promise<readonly number[]>;

/**
 * Makes an event durable and answers with the proof that it is in the log, a `.tlog-proof` that holds the entry, under the
 * checkpoint that was committed with it; null while nobody signs the log.
 */
export type RecordProven = (event: AuditEvent) => Promise<string | null>;
