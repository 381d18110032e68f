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

/** Whether events of a type can have personal fields; of a type that is not known, they can. */
export function mayHavePersonal(type: string): boolean {
  const known = auditEventTypes.find((one) => one === type);
  return known === undefined || personalFieldsOf(known).length > 0;
}

/** The personal fields of an event of a type whose values are gone; none of a type that is not known. */
export function shreddedFields(type: string, held: readonly PersonalValue['field'][]): readonly string[] {
  const known = auditEventTypes.find((one) => one === type);
  const fields: readonly string[] = known === undefined ? [] : personalFieldsOf(known);
  return fields.filter((field) => !held.includes(field));
}

/** What the log says of contents of a span that it has no more. */
export type Announcement = {
  readonly class: PrunedClass;
  readonly first: number;
  readonly last: number;
  readonly entries: number;
  /** The types of the entries that go. */
  readonly types: readonly string[];
};

/** What a leaf announces of entries that lose their contents; undefined when it announces nothing. */
export function readAnnouncement(leaf: Uint8Array): Announcement | undefined {
  // Of millions of leaves a few are parsed.
  if (leaf.length > maxAnnouncementBytes) return undefined;
  const text = Buffer.from(leaf.buffer, leaf.byteOffset, leaf.length);
  if (!text.includes(mark)) return undefined;
  const event = parse(text.toString('utf8'));
  const { class: pruned, first, last, entries, types } = event;
  const isOne =
    event['type'] === 'retention' &&
    (pruned === 'calls' || pruned === 'records') &&
    isCount(first) &&
    isCount(last) &&
    isCount(entries) &&
    isTexts(types);
  return isOne ? { class: pruned, first, last, entries, types } : undefined;
}

/** Whether a leaf announces that entries of these types went that may be as young as a time. */
export function takesOf(leaf: string, types: readonly string[], from: Date): boolean {
  if (readAnnouncement(Buffer.from(leaf)) === undefined) return false;
  const { types: gone, olderThan } = JSON.parse(leaf) as { types: readonly string[]; olderThan: unknown };
  return new Date(String(olderThan)) > from && gone.some((type) => types.includes(type));
}

/** The type that a leaf says it has, found and not parsed; empty when it says none. */
export function typeOfLeaf(leaf: Uint8Array): string {
  const text = Buffer.from(leaf.buffer, leaf.byteOffset, leaf.length);
  // A quote within a text is escaped.
  const at = text.lastIndexOf(typeMark);
  if (at < 0) return '';
  const begin = at + typeMark.length;
  return text.toString('latin1', begin, Math.max(begin, text.indexOf(0x22, begin)));
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

function isTexts(value: unknown): value is readonly string[] {
  return Array.isArray(value) && value.every((one) => typeof one === 'string');
}

const keptForEver: ReadonlySet<AuditEventType> = new Set(['retention', 'loss']);
const maxAnnouncementBytes = 16_384;
const typeMark = '"type":"';
const mark = `${typeMark}retention"`;
