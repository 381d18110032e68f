import type { AuditEventType } from './event.ts';

/** A record of the log on its way out, as plain data. What is stored may be younger than this program. */
export type ExportRecord = {
  readonly index: number;
  /** Lower-case hex: what proves the record, see `audit prove`. */
  readonly leafHash: string;
  /** The exact text of the leaf. */
  readonly leaf: string;
  readonly event: Readonly<Record<string, unknown>>;
  /** Values that may identify a person: empty unless they were asked for by somebody who may read them. */
  readonly personal: Readonly<Record<string, string>>;
};

/** Who sends records. */
export type ExportSource = {
  /** The name of the log. */
  readonly origin: string;
  /** Of this program. */
  readonly version: string;
};

/** How much a record matters to whoever watches. */
export type ExportSeverity = 'info' | 'low' | 'medium' | 'high';

/** What every format says of a record. */
export type ExportHead = {
  /** Of the log, or of a later version. */
  readonly type: string;
  /** RFC 3339. */
  readonly time: string;
  /** Milliseconds since 1970. */
  readonly timeMs: number;
  /** `<type>.<action or verdict>`: stable. */
  readonly code: string;
  /** What the record is about, or empty. */
  readonly subject: string;
  readonly severity: ExportSeverity;
};

/** Reads what every format says of a record. */
export function readExportHead({ event }: ExportRecord): ExportHead {
  const type = textOf(event['type']);
  const time = textOf(event['time']);
  const what = textOf(event['action']) || textOf(event['verdict']);
  const name = isKnown(type) ? subjects[type] : '';
  return {
    type,
    time,
    timeMs: Date.parse(time) || 0,
    code: what === '' ? type : `${type}.${what}`,
    subject: name === '' ? '' : textOf(event[name]),
    severity: severityOf(type, event),
  };
}

/** Whether this program knows what records of the type hold. */
export function isKnown(type: string): type is AuditEventType {
  return Object.hasOwn(subjects, type);
}

/** A text, a number as text, or empty. */
export function textOf(value: unknown): string {
  if (typeof value === 'number') return `${value}`;
  return typeof value === 'string' ? value : '';
}

function severityOf(type: string, event: ExportRecord['event']): ExportSeverity {
  if (type === 'loss' || type === 'alarm') return 'high';
  const action = textOf(event['action']);
  if (action === 'tainted' || action === 'forced') return 'high';
  if (textOf(event['breakGlass']) !== '' || type === 'ban' || action === 'evicted') return 'medium';
  if (type === 'admin') return action === 'refused' ? 'medium' : 'info';
  return type === 'refusal' || action === 'refused' || event['verdict'] === 'deny' ? 'low' : 'info';
}

/** The field that names what a record is about. A type that is new has no row here, and does not compile. */
const subjects: Record<AuditEventType, string> = {
  issuance: 'spiffeId',
  refusal: 'resource',
  entry_change: 'entryId',
  policy_change: 'policy',
  policy_text: 'policy',
  policy_revision: 'number',
  policy_rollout: 'rollout',
  decision: 'destination',
  allowed_calls: 'destination',
  candidate_calls: 'destination',
  outcome: 'destination',
  outcomes: 'destination',
  connections: 'destination',
  alarm: 'claimedSource',
  proxy_verdict: 'destination',
  proxy_verdicts: 'destination',
  proxy_coverage: 'destination',
  loss: 'what',
  authority: 'keyId',
  admin: 'route',
  lifecycle: '',
  ban: 'value',
  jwt_issuance: 'spiffeId',
  jwt_key: 'keyId',
  node: 'node',
  node_alias_change: 'alias',
  grant_change: 'grant',
  retention: '',
};
