import { canonicalJson } from './canonical-json.ts';
import type { AuditColumns } from './columns.ts';
import { eventOfLeaf, rollupOf } from './rollup.ts';

/** One condition on a field. A record that does not have the field meets none. */
export type FieldFilter = {
  /** See `isAuditField`. */
  readonly field: string;
  /** `contains` takes no notice of case. Of a list, one item must be it or contain it, and none must be for `is_not`. */
  readonly op: 'is' | 'is_not' | 'contains';
  readonly value: string;
};

/** A record as filters see it. */
export type FilteredRecord = {
  readonly columns: Omit<AuditColumns, 'decisionId'>;
  /** The leaf as text, and parsed; asked for only when a filter needs it. */
  readonly leaf: () => string;
  readonly event: () => unknown;
  /** A personal value that is still held. */
  readonly personal: (field: string) => string | undefined;
};

/**
 * The texts that a field of a record has: those of a list each, numbers in decimal, null as `null`, an object as canonical
 * JSON. None: the record does not have the field.
 */
export function fieldTexts(record: FilteredRecord, field: string): readonly string[] {
  switch (field) {
    case 'type':
      return [record.columns.type];
    case 'source':
    case 'destination':
    case 'verdict':
    case 'serial':
      return presence(record.columns[field]);
    case 'hour':
      return [spanStart(record.columns.timeMs, hourMs)];
    case 'day':
      return [spanStart(record.columns.timeMs, dayMs)];
    case 'outcome':
      return presence(rollupOf(eventOfLeaf(record.event())).outcome || null);
    case 'path':
    case 'sourceAddress':
      return presence(record.personal(field) ?? null);
    default:
      return textsAt(record.event(), field);
  }
}

/** The same for a field of a parsed leaf, by its dotted name. Only what the leaf itself has is found. */
export function textsAt(event: unknown, field: string): readonly string[] {
  let value = event;
  for (const name of field.split('.')) {
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, name)) return [];
    value = Reflect.get(value, name) as unknown;
  }
  return Array.isArray(value) ? value.map(textOf) : [textOf(value)];
}

/**
 * Whether a leaf, unparsed, can meet a condition: its text stands in it, as it is or as JSON escapes it. Most leaves of a long
 * walk are told apart by this.
 */
export function mayMeet(leaf: string, { field, op, value }: FieldFilter): boolean {
  if (op !== 'is' || derived.has(field)) return true;
  return leaf.includes(JSON.stringify(value).slice(1, -1)) || leaf.includes(value);
}

/** Whether a field with these texts meets a condition. */
export function meets(texts: readonly string[], { op, value }: FieldFilter): boolean {
  if (texts.length === 0) return false;
  if (op === 'is') return texts.includes(value);
  if (op === 'is_not') return !texts.includes(value);
  const part = value.toLowerCase();
  return texts.some((text) => text.toLowerCase().includes(part));
}

/** The beginning of a span of time, RFC 3339. */
export function spanStart(timeMs: number, widthMs: number): string {
  return new Date(Math.floor(timeMs / widthMs) * widthMs).toISOString();
}

function textOf(value: unknown): string {
  if (typeof value === 'string') return value;
  return typeof value === 'object' && value !== null ? canonicalJson(value) : String(value);
}

function presence(text: string | null): readonly string[] {
  return text === null ? [] : [text];
}

// What is not in a leaf as it is asked for.
const derived: ReadonlySet<string> = new Set([
  'outcome',
  'hour',
  'day',
  'verdict',
  'source',
  'destination',
  'serial',
  'path',
  'sourceAddress',
]);

export const hourMs = 3_600_000;
export const dayMs = 86_400_000;
