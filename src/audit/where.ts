import { MeshError, quote } from '../errors.ts';
import { closestName } from '../yaml-suggest.ts';
import { auditFieldNames, isAuditField, personalFieldNames, spanFields } from './asked-fields.ts';
import type { FieldFilter } from './filter.ts';
import { maxFieldFilters } from './query.ts';
import { rollupFields } from './rollup.ts';
import { wordsOf } from './words.ts';

/**
 * Parses conditions on fields: `field=value`, `field!=value` or `field~text`. What follows the sign is taken as it is.
 * @throws MeshError `audit_query_invalid` naming the condition, and for an unknown field the nearest known one
 */
export function parseWhere(texts: readonly string[]): readonly FieldFilter[] {
  if (texts.length > maxFieldFilters)
    refuse(`where: ${texts.length} conditions are too many`, `give at most ${maxFieldFilters}`);
  return texts.map(parseCondition);
}

/** Parses a field that counts are made by. @throws MeshError `audit_query_invalid` */
export function parseCountField(name: string): string {
  const isKnown = isAuditField(name) || [...rollupFields, ...spanFields].some((other) => other === name);
  if (!isKnown) refuseField('by', name);
  if (personalFieldNames.has(name))
    refuse(`by: ${quote(name)} may identify a person`, 'it can be asked for with where, not counted by');
  return name;
}

/** Parses words to search for. @returns them as `wordsOf` @throws MeshError `audit_query_invalid` */
export function parseText(text: string): string {
  const words = text.length > maxValueLength ? '' : wordsOf(text);
  if (words === '')
    refuse(
      `text: ${quote(text)} has no words to search for`,
      `give 1 to ${maxValueLength} characters, letters or digits among them`,
    );
  return words;
}

function parseCondition(text: string): FieldFilter {
  const match = text.length <= maxConditionLength ? condition.exec(text) : null;
  if (match?.groups === undefined)
    refuse(`where: ${quote(text)} is no condition`, 'write field=value, field!=value or field~text');
  const { field = '', sign = '', value = '' } = match.groups;
  if (!isAuditField(field)) refuseField('where', field);
  const op = sign === '=' ? 'is' : sign === '~' ? 'contains' : 'is_not';
  if (op !== 'is' && personalFieldNames.has(field))
    refuse(`where: ${quote(field)} may identify a person`, `ask for one value of it: ${field}=value`);
  if (op === 'contains' && value === '') refuse(`where: ${quote(text)} asks for nothing`, 'give a text');
  return { field, op, value: value.toWellFormed() };
}

function refuseField(place: string, name: string): never {
  const nearest =
    auditFieldNames.find((known) => known.endsWith(`.${name}`)) ?? closestName(name, auditFieldNames);
  refuse(
    `${place}: the log has no field ${quote(name)}`,
    nearest === undefined
      ? 'docs/audit-events.md lists the fields'
      : `did you mean ${nearest}? docs/audit-events.md lists the fields`,
  );
}

function refuse(message: string, fix: string): never {
  throw new MeshError('audit_query_invalid', message, { fix });
}

const condition = /^(?<field>[A-Za-z0-9_.-]{1,256})(?<sign>!=|=|~)(?<value>[^]*)$/;
const maxConditionLength = 2_400;
const maxValueLength = 256;
