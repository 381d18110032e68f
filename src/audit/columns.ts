import type { AuditEvent, AuditEventType } from './event.ts';

/** What the log can be searched by. A projection of the event: the leaf alone is evidence. */
export type AuditColumns = {
  readonly type: AuditEventType;
  readonly timeMs: number;
  /** Caller of a decision, owner of a certificate or an entry, or whom a ban names; null when there is none. */
  readonly source: string | null;
  readonly destination: string | null;
  readonly verdict: 'allow' | 'deny' | null;
  /** Of the certificate that was issued, made an authority, banned, or presented by the caller of a decision. */
  readonly serial: string | null;
};

/** A certificate as an issuance event promises it: until when whom it lets in, and under which entry. */
export type CertificateColumns = {
  readonly serial: string;
  readonly spiffeId: string;
  readonly entryId: string;
  readonly issuerKeyId: string;
  readonly notAfterMs: number;
};

/** The columns of an event. A refusal has no source: whoever was refused proved no identity. */
export function auditColumns(event: AuditEvent): AuditColumns {
  const common = { type: event.type, timeMs: event.time.getTime(), ...none };
  switch (event.type) {
    case 'issuance':
      return { ...common, source: event.spiffeId, serial: event.serial };
    case 'entry_change':
      return { ...common, source: event.spiffeId };
    case 'decision':
      return {
        ...common,
        source: presence(event.source),
        destination: presence(event.destination),
        verdict: event.verdict,
        serial: presence(event.sourceSerial),
      };
    case 'authority':
      return { ...common, serial: event.serial };
    case 'ban':
      return {
        ...common,
        source: event.kind === 'spiffe-id' ? event.value : null,
        serial: event.kind === 'serial' ? event.value : null,
      };
    case 'refusal':
    case 'policy_change':
    case 'loss':
    case 'admin':
    case 'lifecycle':
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
    notAfterMs: event.notAfter.getTime(),
  };
}

function presence(text: string): string | null {
  return text === '' ? null : text;
}

const none = { source: null, destination: null, verdict: null, serial: null } as const;
