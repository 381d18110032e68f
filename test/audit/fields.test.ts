import { describe, expect, test } from 'vitest';
import type { AuditEvent } from '../../src/audit/event.ts';
import {
  actorParts,
  callerParts,
  eventFields,
  type FieldKind,
  fieldsOf,
  personalFieldsOf,
} from '../../src/audit/fields.ts';
import { auditEventTypes } from '../../src/audit/question.ts';
import { decision, oneOfEach } from './events.ts';

describe('the fields of events', () => {
  test('every type of event has its own, and there are no others', () => {
    expect(Object.keys(eventFields).toSorted()).toEqual([...auditEventTypes].toSorted());
  });

  test.each(oneOfEach.map((event) => [event.type, event] as const))(
    '%s holds what they say',
    (type, event) => {
      const kinds: Readonly<Record<string, FieldKind>> = eventFields[type];
      for (const [name, value] of Object.entries(event) as [string, unknown][]) {
        if (name !== 'type') expect([name, holds(kinds[name], value)]).toEqual([name, true]);
      }
    },
  );

  test.each<[AuditEvent['type'], readonly string[]]>([
    ['decision', ['path', 'sourceAddress']],
    ['admin', ['sourceAddress']],
    ['node', ['sourceAddress']],
    ['issuance', []],
    ['allowed_calls', []],
  ])('%s has personal fields %j, in the order of their salts', (type, names) => {
    expect(personalFieldsOf(type)).toEqual(names);
  });

  test('an actor and a caller are named by their parts', () => {
    const names = fieldsOf('jwt_issuance').map(({ name }) => name);
    expect(names).toEqual(
      expect.arrayContaining(['caller.uid', 'caller.node', 'actor.subject', 'audiences']),
    );
    expect(names).not.toContain('caller');
    expect(names).not.toContain('type');
    expect(fieldsOf(decision().type)).toContainEqual({ name: 'path', kind: 'personal' });
  });
});

function holds(kind: FieldKind | undefined, value: unknown): boolean {
  switch (kind) {
    case 'text':
      return typeof value === 'string';
    case 'number':
      return Number.isSafeInteger(value);
    case 'time':
      return value === null || value instanceof Date;
    case 'texts':
      return Array.isArray(value) && value.every((item) => typeof item === 'string');
    case 'personal':
      return typeof value === 'object' && value !== null && Object.keys(value).join() === 'personal';
    case 'actor':
      return Object.keys(value as object).every((part) => part in actorParts);
    case 'caller':
      return Object.keys(value as object).every((part) => part in callerParts);
    case 'state':
      return value !== undefined;
    case undefined:
      return false;
    default:
      return kind satisfies never;
  }
}
