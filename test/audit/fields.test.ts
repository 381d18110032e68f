import { readFileSync } from 'node:fs';
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

describe('docs/audit-events.md', () => {
  const page = readFileSync(new URL('../../docs/audit-events.md', import.meta.url), 'utf8');
  const sections = new Map(
    page
      .slice(page.indexOf('## Fields'))
      .split(/^### /m)
      .slice(1)
      .map((section) => [section.slice(0, section.indexOf('\n')), section] as const),
  );

  test('has a section for each type, and no other', () => {
    expect([...sections.keys()]).toEqual(Object.keys(eventFields));
  });

  test.each(auditEventTypes)('says of %s which fields it has, and what they hold', (type) => {
    const rows = [
      ...(sections.get(type) ?? '').matchAll(/^\| `(\w+)` +\| (\w+)(, optional)? +\| \S.* \|$/gm),
    ];
    const kinds = Object.entries(eventFields[type]);
    expect(rows.map(([, name, kind]) => [name, kind])).toEqual(kinds);
    // What an ordinary event lacks is optional.
    const optional = rows.filter(([, , , isOptional]) => isOptional !== undefined).map(([, name]) => name);
    const event = oneOfEach.find((one) => one.type === type) ?? {};
    expect(
      kinds.map(([name]) => name).filter((name) => !Object.hasOwn(event, name) && !optional.includes(name)),
    ).toEqual([]);
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
