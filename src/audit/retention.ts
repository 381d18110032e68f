import type { PersonalValue } from './canonical.ts';
import { callTypes } from './columns.ts';
import type { AuditEventType } from './event.ts';
import { personalFieldsOf } from './fields.ts';
import { auditEventTypes } from './question.ts';
import type { RetentionEvent } from './retention-event.ts';

/**
 * Kinds of contents that are kept for times of their own. `calls`: entries about calls between workloads. `records`: all
 * other entries. `personal`: the values that entries commit to, whatever their kind.
 */
export type RetentionClass = RetentionEvent['class'];
/** Those of entries. */
export type PrunedClass = Exclude<RetentionClass, 'personal'>;

/** Contents go by spans of this many entries: the first of a span is a multiple of it. */
export const spanEntries = 8_192;

/**
 * The types of events of a class. Never those that tell of what is missing: losses and retention itself, without which
 * nobody could tell an announced gap from a theft.
 */
export function typesOf(pruned: PrunedClass): readonly AuditEventType[] {
  return auditEventTypes.filter(
    (type) => !keptForEver.has(type) && callTypes.has(type) === (pruned === 'calls'),
  );
}

/** The personal fields of an event of a type whose values are gone; none of a type that is not known. */
export function shreddedFields(type: string, held: readonly PersonalValue['field'][]): readonly string[] {
  const known = auditEventTypes.find((one) => one === type);
  const fields: readonly string[] = known === undefined ? [] : personalFieldsOf(known);
  return fields.filter((field) => !held.includes(field));
}

/** What the log says of contents of a span that it has no more. */
export type Announcement = { readonly first: number; readonly last: number; readonly entries: number };

/** What a leaf announces of entries that lose their contents; undefined when it announces nothing. */
export function readAnnouncement(leaf: Uint8Array): Announcement | undefined {
  // Of millions of leaves a few are parsed.
  if (leaf.length > maxAnnouncementBytes) return undefined;
  const text = Buffer.from(leaf.buffer, leaf.byteOffset, leaf.length);
  if (!text.includes(mark)) return undefined;
  const event = parse(text.toString('utf8'));
  const { first, last, entries } = event;
  const isOne =
    event['type'] === 'retention' &&
    (event['class'] === 'calls' || event['class'] === 'records') &&
    isCount(first) &&
    isCount(last) &&
    isCount(entries);
  return isOne ? { first, last, entries } : undefined;
}

function parse(text: string): Readonly<Record<string, unknown>> {
  try {
    return Object(JSON.parse(text)) as Record<string, unknown>;
  } catch {
    return {};
  }
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}

const keptForEver: ReadonlySet<AuditEventType> = new Set(['retention', 'loss']);
const maxAnnouncementBytes = 16_384;
const mark = '"type":"retention"';
