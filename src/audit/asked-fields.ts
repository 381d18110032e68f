import { verdictTypes } from './columns.ts';
import type { AuditEventType } from './event.ts';
import { eventFields, fieldsOf } from './fields.ts';

/** Values that may identify a person; a leaf holds only commitments to them. */
export const personalFieldNames: ReadonlySet<string> = new Set(['path', 'sourceAddress']);

/**
 * Fields that every event has: from the columns of the log. `source` is the caller of a call, or the owner of a
 * certificate or an entry; `serial` that of the certificate in question. `hour` and `day`, UTC, are the span of time that
 * an event is in; it can be counted by them.
 */
export const columnFields = ['type', 'source', 'destination', 'verdict', 'serial'] as const;
export const spanFields = ['hour', 'day'] as const;

/**
 * Fields of which a list is kept, for events that are not about calls: one equality is found at once. INVARIANT: what was
 * released stays in its place, for the number of a field is its place in this list. New ones come at the end.
 */
export const factFields = [
  'source',
  'policy',
  'entryId',
  'keyId',
  'issuerKeyId',
  'spkiSha256',
  'certificateSha256',
  'action',
  'code',
  'door',
  'kind',
  'value',
  'node',
  'grant',
  'alias',
  'route',
  'trustDomain',
  'actor.kind',
  'actor.uid',
  'actor.tokenId',
  'actor.spiffeId',
  'actor.serial',
  'actor.issuer',
  'actor.subject',
  'caller.node',
  'caller.certificate',
  'audiences',
  'what',
  'cause',
  'breakGlass',
  'resource',
] as const;

/** All names of fields there are, without those that follow `before` and `after`. */
export const auditFieldNames: readonly string[] = [
  ...new Set<string>([
    ...columnFields,
    'outcome',
    'time',
    ...Object.keys(eventFields).flatMap((type) => fieldsOf(type as AuditEventType).map(({ name }) => name)),
  ]),
].sort();

/** Whether a question may name a field. */
export function isAuditField(name: string): boolean {
  return known.has(name) || (name.length <= maxNameLength && stateField.test(name));
}

/** The types of events that can have a field. */
export function typesWith(name: string): readonly AuditEventType[] {
  const types = Object.keys(eventFields) as AuditEventType[];
  if (everywhere.has(name)) return types;
  if (name === 'verdict') return types.filter((type) => verdictTypes.has(type));
  const told = columnsFrom.get(name) ?? [name.split('.', 1)[0] ?? ''];
  return types.filter((type) => told.some((field) => hasField(type, field)));
}

/** Whether events of a type can have a field of this name, not of a part of one. */
export function hasField(type: AuditEventType, name: string): boolean {
  return Object.hasOwn(eventFields[type], name);
}

const everywhere: ReadonlySet<string> = new Set(['type', 'outcome', 'time', ...spanFields]);
// The fields that columns are made of, see `auditColumns`.
const columnsFrom: ReadonlyMap<string, readonly string[]> = new Map([
  ['source', ['source', 'spiffeId', 'value']],
  ['serial', ['serial', 'sourceSerial', 'jwtId', 'value']],
]);
const known: ReadonlySet<string> = new Set(auditFieldNames);
const stateField = /^(?:before|after)(?:\.[A-Za-z0-9_-]{1,64}){1,8}$/;
const maxNameLength = 256;
