import type { AuditEvent, AuditEventType } from './event.ts';

/** What the log can be searched by. A projection of the event: the leaf alone is evidence. */
export type AuditColumns = {
  readonly type: AuditEventType;
  readonly timeMs: number;
  /** Caller of a decision, owner of a certificate or an entry, or whom a ban names; null when there is none. */
  readonly source: string | null;
  readonly destination: string | null;
  readonly verdict: 'allow' | 'deny' | null;
  /** Of the certificate that was issued, made an authority, banned, or presented in a decision; a token's `jti`. */
  readonly serial: string | null;
  /** The ID of a decision, of it or of an outcome, as ours are made; another one cannot be asked for, and is null. */
  readonly decisionId: string | null;
};

/** Whether a text can be the ID of a decision: 1 to 64 of `A-Za-z0-9._-`. */
export function isDecisionId(text: string): boolean {
  return /^[A-Za-z0-9._-]{1,64}$/.test(text);
}

/** A certificate as an issuance event promises it: until when whom it lets in, and under which entry. */
export type CertificateColumns = {
  readonly serial: string;
  readonly spiffeId: string;
  readonly entryId: string;
  readonly issuerKeyId: string;
  /** Of its public key, lower-case hex. */
  readonly spkiSha256: string;
  readonly notAfterMs: number;
};

/** A token as its issuance event promises it: the key is needed until then. */
export type TokenColumns = { readonly keyId: string; readonly expiresAtMs: number };

/** The types of events that have a verdict. */
export const verdictTypes: ReadonlySet<AuditEventType> = new Set([
  'decision',
  'allowed_calls',
  'proxy_verdict',
  'proxy_verdicts',
]);

/** The types of events about calls between workloads: they tell who calls whom. */
export const callTypes: ReadonlySet<AuditEventType> = new Set([
  ...verdictTypes,
  'candidate_calls',
  'outcome',
  'outcomes',
  'connections',
  'proxy_coverage',
]);

/** The columns of an event. A refusal has no source: whoever was refused proved no identity. */
export function auditColumns(event: AuditEvent): AuditColumns {
  const common = { type: event.type, timeMs: event.time.getTime(), ...none };
  switch (event.type) {
    case 'issuance':
      return { ...common, source: event.spiffeId, serial: event.serial };
    case 'jwt_issuance':
      return { ...common, source: event.spiffeId, serial: event.jwtId };
    case 'entry_change':
      return { ...common, source: event.spiffeId };
    case 'decision':
      return {
        ...common,
        source: presence(event.source),
        destination: presence(event.destination),
        verdict: event.verdict,
        serial: presence(event.sourceSerial),
        decisionId: isDecisionId(event.decisionId) ? event.decisionId : null,
      };
    case 'allowed_calls':
      return {
        ...common,
        source: presence(event.source),
        destination: presence(event.destination),
        verdict: 'allow',
        serial: presence(event.sourceSerial),
      };
    case 'proxy_verdict':
    case 'proxy_verdicts':
      return {
        ...common,
        source: presence(event.source),
        destination: presence(event.destination),
        verdict: event.verdict,
        serial: presence(event.sourceSerial),
      };
    case 'proxy_coverage':
      return { ...common, destination: presence(event.destination) };
    case 'loss':
      return { ...common, destination: presence(event.service ?? '') };
    case 'outcome':
      return {
        ...common,
        source: presence(event.source),
        destination: presence(event.destination),
        serial: presence(event.sourceSerial),
        decisionId: isDecisionId(event.decisionId) ? event.decisionId : null,
      };
    // What a peer claimed and nobody verified is in no column.
    case 'outcomes':
    case 'connections':
      return {
        ...common,
        source: presence(event.source),
        destination: presence(event.destination),
        serial: presence(event.sourceSerial),
      };
    case 'candidate_calls':
    case 'policy_rollout':
      return { ...common, source: presence(event.source), destination: presence(event.destination) };
    case 'alarm':
      return { ...common, destination: presence(event.destination), serial: presence(event.serial) };
    case 'authority':
    case 'node':
      return { ...common, serial: presence(event.serial) };
    case 'ban':
      return {
        ...common,
        source: event.kind === 'spiffe-id' ? event.value : null,
        serial: event.kind === 'serial' ? event.value : null,
      };
    case 'refusal':
    case 'policy_change':
    case 'policy_text':
    case 'policy_revision':
    case 'admin':
    case 'lifecycle':
    case 'jwt_key':
    case 'node_alias_change':
    case 'grant_change':
    case 'retention':
      return common;
    default:
      return event satisfies never;
  }
}

/** The certificate an event announces, or null for any other event than an issuance. */
export function certificateColumns(event: AuditEvent): CertificateColumns | null {
  if (event.type !== 'issuance') return null;
  return {
    serial: event.serial,
    spiffeId: event.spiffeId,
    entryId: event.entryId,
    issuerKeyId: event.issuerKeyId,
    spkiSha256: event.spkiSha256,
    notAfterMs: event.notAfter.getTime(),
  };
}

/** The key and the end of the token an event announces, or null for any other event than a token's issuance. */
export function tokenColumns(event: AuditEvent): TokenColumns | null {
  if (event.type !== 'jwt_issuance') return null;
  return { keyId: event.keyId, expiresAtMs: event.notAfter.getTime() };
}

function presence(text: string): string | null {
  return text === '' ? null : text;
}

const none = { source: null, destination: null, verdict: null, serial: null, decisionId: null } as const;
