import { MeshError, quote } from '../errors.ts';
import { SpiffeId } from '../spiffe/id.ts';
import { parseCursor } from './cursor.ts';
import type { AuditEventType } from './event.ts';
import { type AuditQuery, maxPageSize } from './query.ts';
import { parseMoment } from './moment.ts';
import { parseText, parseWhere } from './where.ts';

/** A question to the log as it arrives from a URL or a command line: text, nothing checked. */
export type AuditQueryFields = {
  /** Event types; one text may name several, separated by commas. */
  readonly types?: readonly string[] | undefined;
  /** RFC 3339, a date, or a time ago: `90s`, `10m`, `2h`, `7d`, `4w`. */
  readonly since?: string | undefined;
  readonly until?: string | undefined;
  readonly source?: string | undefined;
  readonly destination?: string | undefined;
  readonly verdict?: string | undefined;
  /** Hex; upper case and colons between the bytes are accepted. */
  readonly serial?: string | undefined;
  /** Conditions on fields: `field=value`, `field!=value` or `field~text`. All must hold. */
  readonly where?: readonly string[] | undefined;
  /** Words that stand one after the other in a record. */
  readonly text?: string | undefined;
  /** 1 to 1,000; 100 when it is left out. */
  readonly limit?: string | number | undefined;
  /** `newest` when it is left out. */
  readonly order?: string | undefined;
  readonly cursor?: string | undefined;
};

/** How many rows a page has when the question does not say. */
export const defaultPageSize = 100;

/** The closed list of event types, for help texts and schemas. */
export const auditEventTypes = [
  'issuance',
  'refusal',
  'entry_change',
  'policy_change',
  'policy_text',
  'policy_revision',
  'policy_rollout',
  'decision',
  'allowed_calls',
  'candidate_calls',
  'outcome',
  'outcomes',
  'connections',
  'alarm',
  'proxy_verdict',
  'proxy_verdicts',
  'proxy_coverage',
  'loss',
  'authority',
  'admin',
  'lifecycle',
  'ban',
  'jwt_issuance',
  'jwt_key',
  'node',
  'node_alias_change',
  'grant_change',
  'retention',
] as const satisfies readonly AuditEventType[];

/**
 * Parses a question to the log. With a cursor, `since` and `until` keep the values they had on the first page, so that
 * "10m" does not move while pages are turned.
 * @param now what relative times count back from
 * @throws MeshError `audit_query_invalid` naming the field, `audit_cursor_invalid`
 */
export function parseAuditQuery(fields: AuditQueryFields, now: Date): AuditQuery {
  const order = parseChoice('order', fields.order ?? 'newest', ['newest', 'oldest']);
  const cursor = fields.cursor === undefined ? null : parseCursor(fields.cursor);
  if (cursor !== null && cursor.order !== order) {
    throw new MeshError('audit_cursor_invalid', `the cursor belongs to a list in ${cursor.order} order`, {
      fix: `ask for order=${cursor.order}, or leave the cursor out`,
    });
  }
  const since = cursor === null ? parseTime('since', fields.since, now) : cursor.since;
  const until = cursor === null ? parseTime('until', fields.until, now) : cursor.until;
  if (since !== null && until !== null && since >= until) {
    refuse('until', 'is not later than since', 'swap the two');
  }
  return {
    types: parseTypes(fields.types ?? []),
    since,
    until,
    source: parseId('source', fields.source),
    destination: parseId('destination', fields.destination),
    verdict:
      fields.verdict === undefined
        ? null
        : parseChoice<'allow' | 'deny'>('verdict', fields.verdict, ['allow', 'deny']),
    serial: parseSerial(fields.serial),
    where: (fields.where ?? []).length === 0 ? [] : parseWhere(fields.where ?? []),
    text: fields.text === undefined ? null : parseText(fields.text),
    limit: parseLimit(fields.limit),
    order,
    cursor: fields.cursor ?? null,
  };
}

function parseTypes(texts: readonly string[]): readonly AuditEventType[] {
  const names = texts.flatMap((text) => text.split(',', maxTypes + 1));
  if (names.length > maxTypes) refuse('type', 'names too many types', `name at most ${maxTypes}`);
  return [...new Set(names.map((name) => parseChoice('type', name.trim(), auditEventTypes)))];
}

function parseChoice<T extends string>(field: string, text: string, choices: readonly T[]): T {
  const choice = choices.find((known) => known === text);
  return choice ?? refuse(field, `${quote(text)} is unknown`, `use ${choices.join(', ')}`);
}

function parseTime(field: string, text: string | undefined, now: Date): Date | null {
  if (text === undefined) return null;
  return (
    parseMoment(text, now) ??
    refuse(field, `${quote(text)} is no time`, 'write 10m, 2h, 7d or 2026-01-31T12:00:00Z')
  );
}

function parseId(field: string, text: string | undefined): string | null {
  if (text === undefined) return null;
  try {
    return SpiffeId.parse(text).text;
  } catch (error) {
    if (!(error instanceof MeshError)) throw error;
    throw new MeshError('audit_query_invalid', `${field}: ${error.message}`, {
      ...(error.fix === undefined ? {} : { fix: error.fix }),
      cause: error,
    });
  }
}

function parseSerial(text: string | undefined): string | null {
  if (text === undefined) return null;
  if (text.length > maxSerialLength || !/^[0-9a-f]+(:[0-9a-f]+)*$/i.test(text)) {
    refuse('serial', `${quote(text)} is no serial number`, 'write it in hex, as the log prints it');
  }
  return text.replaceAll(':', '').toLowerCase();
}

function parseLimit(value: string | number | undefined): number {
  if (value === undefined) return defaultPageSize;
  const limit = typeof value === 'number' || /^[0-9]{1,6}$/.test(value) ? Number(value) : 0;
  if (Number.isInteger(limit) && limit >= 1 && limit <= maxPageSize) return limit;
  return refuse('limit', `${quote(String(value))} is out of range`, `use 1 to ${maxPageSize}`);
}

function refuse(field: string, why: string, fix: string): never {
  throw new MeshError('audit_query_invalid', `${field}: ${why}`, { fix });
}

const maxTypes = 32;
const maxSerialLength = 80;
