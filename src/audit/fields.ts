import type { SeenCall } from './access-event.ts';
import { proxyFields } from './proxy-fields.ts';
import type { Actor, AuditEvent, AuditEventType, Caller, Personal } from './event.ts';
import { candidateCallsFields, policyRolloutFields } from './rollout-fields.ts';

/**
 * What a field holds. `texts` is a list of texts, `state` any JSON, and `personal` a commitment in the leaf whose value
 * stands beside the log. The parts of an `actor` and a `caller` are {@link actorParts} and {@link callerParts}.
 */
export type FieldKind = 'text' | 'number' | 'time' | 'texts' | 'state' | 'personal' | 'actor' | 'caller';

/** A field of an event as it is named in questions: `caller.uid` for a part of a field. */
export type EventField = { readonly name: string; readonly kind: FieldKind };

type EventOf<T extends AuditEventType> = Extract<AuditEvent, { readonly type: T }>;
type FieldOf<E> = E extends unknown ? Exclude<keyof E, 'type'> : never;
type ValueOf<E, F> = E extends unknown ? (F extends keyof E ? Exclude<E[F], undefined> : never) : never;
type KindOf<V> = [V] extends [Date | null]
  ? 'time'
  : [V] extends [number]
    ? 'number'
    : [V] extends [string]
      ? 'text'
      : [V] extends [readonly string[]]
        ? 'texts'
        : [V] extends [Personal]
          ? 'personal'
          : [V] extends [Actor]
            ? 'actor'
            : [V] extends [Caller]
              ? 'caller'
              : 'state';
type KindsOf<E> = { readonly [F in FieldOf<E>]: KindOf<ValueOf<E, F>> };

/** What all that proxies tell of calls has, of one call and of many. */
const seenCallFields: KindsOf<SeenCall> = {
  source: 'text',
  destination: 'text',
  protocol: 'text',
  method: 'text',
  port: 'number',
  sourceSerial: 'text',
  outcome: 'text',
  flags: 'text',
  rule: 'text',
  caller: 'caller',
};

/** The fields of every type of event besides `type` and `v`, those that may be absent too. The types hold it to the union. */
export const eventFields: { readonly [T in AuditEventType]: KindsOf<EventOf<T>> } = {
  issuance: {
    time: 'time',
    profile: 'text',
    spiffeId: 'text',
    serial: 'text',
    notBefore: 'time',
    notAfter: 'time',
    tbsSha256: 'text',
    spkiSha256: 'text',
    issuerKeyId: 'text',
    entryId: 'text',
    entryRevision: 'number',
    policyRevision: 'number',
    selectors: 'texts',
    caller: 'caller',
  },
  refusal: {
    time: 'time',
    door: 'text',
    code: 'text',
    message: 'text',
    resource: 'text',
    selectors: 'texts',
    caller: 'caller',
    count: 'number',
  },
  entry_change: {
    time: 'time',
    action: 'text',
    entryId: 'text',
    spiffeId: 'text',
    revision: 'number',
    actor: 'actor',
    before: 'state',
    after: 'state',
  },
  policy_change: {
    time: 'time',
    action: 'text',
    policy: 'text',
    revision: 'number',
    actor: 'actor',
    beforeSha256: 'text',
    afterSha256: 'text',
    document: 'text',
    documentParts: 'number',
    breakGlass: 'text',
  },
  policy_text: {
    time: 'time',
    policy: 'text',
    revision: 'number',
    sha256: 'text',
    part: 'number',
    parts: 'number',
    text: 'text',
  },
  policy_revision: {
    time: 'time',
    action: 'text',
    number: 'number',
    first: 'number',
    id: 'text',
    parent: 'number',
    restores: 'number',
    revision: 'number',
    actor: 'actor',
    message: 'text',
    signature: 'text',
  },
  policy_rollout: policyRolloutFields,
  decision: {
    time: 'time',
    decisionId: 'text',
    verdict: 'text',
    reason: 'text',
    rule: 'text',
    why: 'text',
    revision: 'number',
    source: 'text',
    destination: 'text',
    protocol: 'text',
    method: 'text',
    host: 'text',
    path: 'personal',
    port: 'number',
    sourceSerial: 'text',
    sourceTbsSha256: 'text',
    sourceAddress: 'personal',
    caller: 'caller',
    breakGlass: 'text',
    rollout: 'text',
  },
  allowed_calls: {
    time: 'time',
    from: 'time',
    to: 'time',
    count: 'number',
    reason: 'text',
    rule: 'text',
    revision: 'number',
    source: 'text',
    destination: 'text',
    protocol: 'text',
    method: 'text',
    pathPattern: 'text',
    port: 'number',
    sourceSerial: 'text',
    sourceTbsSha256: 'text',
    caller: 'caller',
  },
  candidate_calls: candidateCallsFields,
  outcome: {
    time: 'time',
    ...seenCallFields,
    decisionId: 'text',
    status: 'number',
    details: 'text',
    upstream: 'text',
    durationMs: 'number',
    bytesReceived: 'number',
    bytesSent: 'number',
  },
  outcomes: {
    time: 'time',
    from: 'time',
    to: 'time',
    count: 'number',
    ...seenCallFields,
    statusClass: 'text',
    longestMs: 'number',
    bytesReceived: 'number',
    bytesSent: 'number',
  },
  connections: {
    time: 'time',
    from: 'time',
    to: 'time',
    count: 'number',
    kind: 'text',
    source: 'text',
    sourceSerial: 'text',
    claimedSource: 'text',
    claimedSerial: 'text',
    failure: 'text',
    destination: 'text',
    port: 'number',
    sourceAddress: 'personal',
    caller: 'caller',
  },
  alarm: {
    time: 'time',
    kind: 'text',
    serial: 'text',
    sourceTbsSha256: 'text',
    claimedSource: 'text',
    destination: 'text',
    seenIn: 'text',
    sourceAddress: 'personal',
    caller: 'caller',
  },
  ...proxyFields,
  loss: {
    time: 'time',
    what: 'text',
    count: 'number',
    from: 'time',
    to: 'time',
    cause: 'text',
    service: 'text',
  },
  authority: {
    time: 'time',
    action: 'text',
    actor: 'actor',
    evidence: 'text',
    kind: 'text',
    trustDomain: 'text',
    serial: 'text',
    keyId: 'text',
    notBefore: 'time',
    notAfter: 'time',
    certificateSha256: 'text',
  },
  admin: {
    time: 'time',
    action: 'text',
    actor: 'actor',
    method: 'text',
    route: 'text',
    code: 'text',
    detail: 'text',
    sourceAddress: 'personal',
  },
  lifecycle: {
    time: 'time',
    action: 'text',
    version: 'text',
    backupMadeAt: 'time',
    backupSize: 'number',
  },
  ban: {
    time: 'time',
    action: 'text',
    kind: 'text',
    value: 'text',
    reason: 'text',
    until: 'time',
    revision: 'number',
    actor: 'actor',
  },
  jwt_issuance: {
    time: 'time',
    spiffeId: 'text',
    audiences: 'texts',
    keyId: 'text',
    jwtId: 'text',
    issuedAt: 'time',
    notAfter: 'time',
    signingInputSha256: 'text',
    entryId: 'text',
    entryRevision: 'number',
    policyRevision: 'number',
    selectors: 'texts',
    caller: 'caller',
    actor: 'actor',
  },
  jwt_key: {
    time: 'time',
    action: 'text',
    actor: 'actor',
    evidence: 'text',
    trustDomain: 'text',
    keyId: 'text',
    keyType: 'text',
    spkiSha256: 'text',
    sequence: 'number',
  },
  node: {
    time: 'time',
    action: 'text',
    node: 'text',
    method: 'text',
    selectors: 'texts',
    serial: 'text',
    code: 'text',
    actor: 'actor',
    sourceAddress: 'personal',
  },
  node_alias_change: {
    time: 'time',
    action: 'text',
    alias: 'text',
    revision: 'number',
    actor: 'actor',
    before: 'state',
    after: 'state',
  },
  grant_change: {
    time: 'time',
    action: 'text',
    grant: 'text',
    revision: 'number',
    actor: 'actor',
    before: 'state',
    after: 'state',
  },
  retention: {
    time: 'time',
    action: 'text',
    class: 'text',
    first: 'number',
    last: 'number',
    entries: 'number',
    values: 'number',
    types: 'texts',
    olderThan: 'time',
    by: 'texts',
    reason: 'text',
    actor: 'actor',
  },
};

/** The parts that an actor may have; which, its `kind` says. */
export const actorParts: KindsOf<Actor> = {
  kind: 'text',
  uid: 'number',
  role: 'text',
  tokenId: 'text',
  spiffeId: 'text',
  serial: 'text',
  issuer: 'text',
  subject: 'text',
};

export const callerParts: KindsOf<Caller> = {
  pid: 'number',
  uid: 'number',
  gid: 'number',
  node: 'text',
  nodeCertificate: 'text',
  certificate: 'text',
};

/** The fields of a type of event that hold one value or a list: an actor and a caller are given as their parts. */
export function fieldsOf(type: AuditEventType): readonly EventField[] {
  return entriesOf(eventFields[type]).flatMap(([name, kind]) => {
    if (kind === 'actor') return partsOf(name, actorParts);
    return kind === 'caller' ? partsOf(name, callerParts) : [{ name, kind }];
  });
}

/** The names of the personal fields of a type of event, in their order. */
export function personalFieldsOf(type: AuditEventType): readonly string[] {
  return personalFields.get(type) ?? [];
}

function partsOf(field: string, parts: Readonly<Record<string, FieldKind>>): readonly EventField[] {
  return entriesOf(parts).map(([part, kind]) => ({ name: `${field}.${part}`, kind }));
}

function entriesOf(kinds: Readonly<Record<string, FieldKind>>): readonly (readonly [string, FieldKind])[] {
  return Object.entries(kinds);
}

const personalFields: ReadonlyMap<string, readonly string[]> = new Map(
  Object.entries(eventFields).map(([type, kinds]) => [
    type,
    entriesOf(kinds)
      .flatMap(([name, kind]) => (kind === 'personal' ? [name] : []))
      .toSorted(),
  ]),
);
