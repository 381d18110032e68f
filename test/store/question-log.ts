import { randomBytes } from 'node:crypto';
import fc from 'fast-check';
import { encodeEvent } from '../../src/audit/canonical.ts';
import { type AuditColumns, auditColumns } from '../../src/audit/columns.ts';
import type { AuditEvent } from '../../src/audit/event.ts';
import { type FieldFilter, dayMs, hourMs } from '../../src/audit/filter.ts';
import type { AuditQuery } from '../../src/audit/query.ts';
import { auditEventTypes } from '../../src/audit/question.ts';
import { allowedCalls, decision, issuance, noon, oneOfEach } from '../audit/events.ts';

// A log to ask, and what the answers must be by looking at every event.

export const ids = ['web', 'orders', 'ledger'].map((name) => `spiffe://example.org/ns/shop/sa/${name}`);

/** 3,000 events whose times wander back and forth over 100 minutes, so that several blocks overlap in time. */
export const events: readonly AuditEvent[] = Array.from({ length: 3_000 }, (_, i) => {
  const time = new Date(noon.getTime() - 6_000_000 + i * 2_000 + ((i * 7_919) % 601) * 1_000);
  const [source, destination] = [ids[i % 3]!, ids[(i >> 2) % 3]!];
  if (i % 10 === 0) return issuance({ time, spiffeId: source, serial: i.toString(16).padStart(8, '0') });
  if (i % 10 === 1)
    return { ...oneOfEach[((i / 10) % oneOfEach.length) | 0]!, time, serial: `ff${i}` } as AuditEvent;
  if (i % 10 === 2) return allowedCalls({ time, source, destination, sourceSerial: (i - 2).toString(16) });
  return decision({
    time,
    source: i % 7 === 0 ? '' : source,
    destination,
    verdict: i % 13 === 0 ? 'deny' : 'allow',
    sourceSerial: (i - (i % 10)).toString(16).padStart(8, '0'),
  });
});

/** Some of the fields, those of columns, counts, facts and leaves among them. */
export const someFields = [
  ...['type', 'source', 'destination', 'verdict', 'outcome', 'reason', 'rule', 'action', 'policy', 'entryId'],
  ...[
    'actor.uid',
    'actor.kind',
    'caller.uid',
    'selectors',
    'audiences',
    'count',
    'code',
    'after',
    'until',
    'hour',
  ],
  ...[
    'decisionId',
    'time',
    'issuerKeyId',
    'spiffeId',
    'jwtId',
    'sourceSerial',
    'what',
    'cause',
    'day',
    'protocol',
  ],
] as const;

const conditions: fc.Arbitrary<FieldFilter> = fc.record({
  field: fc.constantFrom(...someFields),
  op: fc.constantFrom('is' as const, 'is' as const, 'is_not' as const, 'contains' as const),
  value: fc.constantFrom(
    ...[
      'decision',
      ids[0]!,
      ids[1]!,
      'allow',
      'deny',
      'no_allow_rule',
      'created',
      'shop/orders',
      'web',
      '0',
      'uid',
    ],
    ...[
      '1000',
      'unix:uid:1000',
      'db',
      '117',
      'identity_none',
      '{"id"',
      'null',
      '2026-01-31T11:00:00.000Z',
      'd-1',
      '',
    ],
    ...['SPIFFE', 'ef'.repeat(20), '4a'.repeat(16), '00000064', 'queue full'],
  ),
});
const times = fc.option(
  fc.integer({ min: -110, max: 20 }).map((minutes) => new Date(noon.getTime() + minutes * 60_000)),
);

/** Any question. */
export const queries: fc.Arbitrary<AuditQuery> = fc.record({
  types: fc.subarray([...auditEventTypes]),
  since: times,
  until: times,
  source: fc.option(fc.constantFrom(...ids, 'spiffe://example.org/none')),
  destination: fc.option(fc.constantFrom(...ids)),
  verdict: fc.option(fc.constantFrom('allow' as const, 'deny' as const)),
  serial: fc.option(fc.constantFrom('00000000', '00000064', 'dead'), { freq: 1 }),
  where: fc.array(conditions, { maxLength: 2 }),
  text: fc.option(fc.constantFrom('no entry', 'entry', 'matches', 'shop', 'created web', 'web created'), {
    freq: 4,
  }),
  limit: fc.constantFrom(1, 7, 100, 1_000),
  order: fc.constantFrom('newest' as const, 'oldest' as const),
  cursor: fc.constant(null),
});

type Leaf = Readonly<Record<string, unknown>>;
type Row = { readonly at: number; readonly columns: Omit<AuditColumns, 'decisionId'>; readonly leaf: Leaf };

const rows: readonly Row[] = events.map((event, at) => {
  const { leaf } = encodeEvent(event, randomBytes);
  return { at, columns: auditColumns(event), leaf: JSON.parse(Buffer.from(leaf).toString()) as Leaf };
});

/** The events that answer a question, in the order of the log. */
export function naiveRows(query: Omit<AuditQuery, 'limit' | 'order' | 'cursor'>): readonly Row[] {
  return rows.filter(
    ({ columns, leaf }) =>
      (query.types.length === 0 || query.types.includes(columns.type)) &&
      (query.since === null || columns.timeMs >= query.since.getTime()) &&
      (query.until === null || columns.timeMs < query.until.getTime()) &&
      (query.source === null || columns.source === query.source) &&
      (query.destination === null || columns.destination === query.destination) &&
      (query.verdict === null || columns.verdict === query.verdict) &&
      (query.serial === null || columns.serial === query.serial) &&
      query.where.every((filter) => holds(textsOf({ columns, leaf }, filter.field), filter)) &&
      (query.text === null ||
        allTexts(leaf).some((text) =>
          text
            .split(/[^a-z0-9]+/)
            .join(' ')
            .match(`\\b${query.text}\\b`),
        )),
  );
}

/** The texts of a field of an event. */
export function textsOf({ columns, leaf }: Omit<Row, 'at'>, field: string): readonly string[] {
  const column: Leaf = { ...columns };
  if (field === 'hour' || field === 'day') {
    const width = field === 'hour' ? hourMs : dayMs;
    return [new Date(Math.floor(columns.timeMs / width) * width).toISOString()];
  }
  if (field === 'outcome') return outcomesOf(leaf);
  const found =
    field in column
      ? (column[field] ?? undefined)
      : field.split('.').reduce<unknown>((at, name) => (at as Leaf | undefined)?.[name], leaf);
  if (found === undefined) return [];
  return [found].flat().map((one) => (typeof one === 'string' ? one : JSON.stringify(one)));
}

function holds(texts: readonly string[], { op, value }: FieldFilter): boolean {
  if (texts.length === 0) return false;
  if (op === 'contains') return texts.some((text) => text.toLowerCase().includes(value.toLowerCase()));
  return texts.includes(value) === (op === 'is');
}

function outcomesOf({ type, verdict, outcome, action, what, kind }: Leaf): readonly string[] {
  if (type === 'allowed_calls') return ['allow'];
  if (type === 'refusal') return ['refused'];
  if (type === 'issuance' || type === 'jwt_issuance') return ['issued'];
  const told = verdict ?? outcome ?? action ?? what ?? kind;
  return typeof told === 'string' ? [told] : [];
}

function allTexts(value: unknown, name = ''): readonly string[] {
  if (name === 'type') return [];
  if (typeof value === 'string') return [value.toLowerCase()];
  return Object.entries(value ?? {}).flatMap(([key, inner]) => allTexts(inner, key));
}
