import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { eventFields } from '../../src/audit/fields.ts';
import { encodeEvent } from '../../src/audit/canonical.ts';
import { countedFilters, type CountQuery, mergeCounts } from '../../src/audit/count.ts';
import { formatCountCursor, parseCountCursor } from '../../src/audit/count-cursor.ts';
import { type CountQueryFields, parseCountQuery } from '../../src/audit/count-question.ts';
import { auditFieldNames, factFields, isAuditField, typesWith } from '../../src/audit/asked-fields.ts';
import { mayMeet, meets, textsAt } from '../../src/audit/filter.ts';
import { eventOfLeaf, rolledTexts, rollupOf } from '../../src/audit/rollup.ts';
import { parseCountField, parseText, parseWhere } from '../../src/audit/where.ts';
import { holdsWords, leafWords, wordsOf } from '../../src/audit/words.ts';
import { noon, oneOfEach } from './events.ts';
import { hostileEvents } from './hostile-events.ts';

const refused = (message: RegExp) =>
  expect.objectContaining({ code: 'audit_query_invalid', message: expect.stringMatching(message) });

describe('a condition', () => {
  test.each([
    ['policy=shop/orders', 'policy', 'is', 'shop/orders'],
    ['actor.subject!=ann', 'actor.subject', 'is_not', 'ann'],
    ['rule~rule[0]', 'rule', 'contains', 'rule[0]'],
    ['why=a=b~c', 'why', 'is', 'a=b~c'],
    ['rule=', 'rule', 'is', ''],
    ['after.labels.app=web', 'after.labels.app', 'is', 'web'],
    ['source~/ns/shop/', 'source', 'contains', '/ns/shop/'],
    ['path=/a', 'path', 'is', '/a'],
    ['detail=\ud800', 'detail', 'is', '\ufffd'],
  ])('%s', (text, field, op, value) => {
    expect(parseWhere([text])).toEqual([{ field, op, value }]);
  });

  test.each<[string, RegExp, string?]>([
    ['', /is no condition/],
    ['policy', /is no condition/],
    ['=x', /is no condition/],
    ['policy>3', /is no condition/],
    ['a b=c', /is no condition/],
    [`policy=${'x'.repeat(3_000)}`, /is no condition/],
    ['polcy=x', /no field "polcy"/, 'did you mean policy?'],
    ['subject=x', /no field "subject"/, 'did you mean actor.subject?'],
    ['actor=x', /no field "actor"/],
    ['actor.constructor=x', /no field/],
    ['__proto__=x', /no field/],
    ["after.x'--=x", /is no condition/],
    ['idx=1', /no field "idx"/],
    ['root~x', /no field "root"/],
    [`after${'.a'.repeat(9)}=x`, /no field/],
    ['rule~', /asks for nothing/],
    ['path~admin', /may identify a person/],
    ['sourceAddress!=10.0.0.7', /may identify a person/],
  ])('%s is refused', (text, message, fix) => {
    expect(() => parseWhere([text])).toThrow(refused(message));
    if (fix !== undefined)
      expect(() => parseWhere([text])).toThrow(
        expect.objectContaining({ fix: expect.stringContaining(fix) }),
      );
  });

  test('on a name that no object has of its own is met by none', () => {
    expect(textsAt(JSON.parse('{"after":{"a":[1]}}'), 'after.__proto__')).toEqual([]);
    expect(textsAt(JSON.parse('{"after":{"a":[1]}}'), 'after.a.length')).toEqual(['1']);
  });

  test('and sixteen others is one too many', () => {
    expect(parseWhere(Array(16).fill('rule=a'))).toHaveLength(16);
    expect(() => parseWhere(Array(17).fill('rule=a'))).toThrow(refused(/17 conditions are too many/));
  });

  test('of any text is parsed or refused by code', () => {
    const text = fc.oneof(
      fc.string({ unit: 'binary' }),
      fc
        .tuple(fc.constantFrom(...auditFieldNames), fc.constantFrom('=', '!=', '~'), fc.string())
        .map((parts) => parts.join('')),
    );
    fc.assert(
      fc.property(text, (given) => {
        try {
          for (const { field } of parseWhere([given])) expect(isAuditField(field)).toBe(true);
        } catch (error) {
          expect(error).toEqual(expect.objectContaining({ name: 'MeshError', kind: 'invalid' }));
        }
      }),
    );
  });
});

test.each([
  ['a record of several texts has one', ['a', 'b'], 'is', 'b', true],
  ['none of several is', ['a', 'b'], 'is_not', 'b', false],
  ['contains in any case', ['xAbc'], 'contains', 'aB', true],
  ['what is not there is not another', [], 'is_not', 'b', false],
] as const)('%s', (_, texts, op, value, met) => {
  expect(meets(texts, { field: 'x', op, value })).toBe(met);
});

describe('of every event', () => {
  const leaves = oneOfEach.map((event) => {
    const { leaf, fitted } = encodeEvent(event, (count) => new Uint8Array(count));
    const text = Buffer.from(leaf).toString();
    return { event: fitted, text, leaf: JSON.parse(text) as Record<string, unknown> };
  });

  test.each(leaves)('$event.type: all fields are known, and counted as they are', ({ event, leaf, text }) => {
    const names = Object.keys(leaf).filter((name) => !['v', 'type', 'time'].includes(name));
    for (const name of names) expect(Object.keys(eventFields[event.type])).toContain(name);
    const rollup = rollupOf(event);
    expect(rollupOf(eventOfLeaf(leaf))).toEqual(rollup);
    for (const field of Object.keys(eventFields[event.type])) {
      const rolled = rolledTexts(rollup, field);
      // The columns are another matter: they are null when they are empty.
      if (rolled === undefined || ['source', 'destination', 'verdict'].includes(field)) continue;
      expect([field, ...rolled]).toEqual([field, ...textsAt(leaf, field)]);
      for (const value of rolled) expect(mayMeet(text, { field, op: 'is', value })).toBe(true);
    }
  });

  test('the documentation lists those that are found at once', () => {
    const document = readFileSync(join(import.meta.dirname, '../../docs/audit-questions.md'), 'utf8');
    for (const field of factFields) expect(document).toContain(`\`${field}\``);
  });

  test('facts are kept of fields that there are', () => {
    for (const field of factFields) expect(isAuditField(field)).toBe(true);
    expect(new Set(factFields).size).toBe(factFields.length);
  });

  test('no field of a leaf that holds a value is passed over unparsed, and its words are found', () => {
    fc.assert(
      fc.property(hostileEvents, (event) => {
        const text = Buffer.from(encodeEvent(event, (count) => new Uint8Array(count)).leaf).toString();
        const leaf = JSON.parse(text) as Record<string, unknown>;
        for (const field of Object.keys(eventFields[event.type])) {
          for (const value of textsAt(leaf, field))
            expect(mayMeet(text, { field, op: 'is', value }) || typeof leaf[field] === 'object').toBe(true);
        }
        const low = text.toLowerCase();
        for (const words of leafWords(leaf)) for (const word of words.split(' ')) expect(low).toContain(word);
      }),
      { numRuns: 60 },
    );
  });
});

describe('words', () => {
  test.each([
    ['CHG-1234: Üben', 'chg 1234 üben'],
    ['spiffe://example.org/ns/shop', 'spiffe example org ns shop'],
    ['a\u0000b\u001b[31m', 'a b 31m'],
    ['"\\\'', ''],
  ])('of %j are %j', (text, words) => {
    expect(wordsOf(text)).toBe(words);
  });

  test.each([
    ['host taken over', 'taken over', true],
    ['host taken over', 'taken', true],
    ['host taken over', 'take', false],
    ['host taken over', 'host over', false],
  ])('%j holds %j: %s', (words, asked, held) => {
    expect(holdsWords(words, asked)).toBe(held);
  });

  test.each(['', ' ', '"*"', '-', 'x'.repeat(257)])('%j is nothing to search for', (text) => {
    expect(() => parseText(text)).toThrow(refused(/^text: /));
  });
});

describe('a question for counts', () => {
  test.each<[CountQueryFields, readonly string[]]>([
    [{}, []],
    [{ by: ['source,destination', 'verdict'] }, ['source', 'destination', 'verdict']],
    [{ by: ['hour', 'hour'] }, ['hour']],
  ])('%j', (fields, by) => {
    expect(parseCountQuery(fields, noon).by).toEqual(by);
  });

  test.each([
    [['sorce'], /^by: the log has no field "sorce"/],
    [[''], /^by: the log has no field ""/],
    [['path'], /may identify a person/],
    [['type,type,type,type,type,type,type'], /names too many/],
  ])('by %j is refused', (by, message) => {
    expect(() => parseCountQuery({ by }, noon)).toThrow(refused(message));
  });

  test.each(['AAAA', '', 'x'.repeat(500)])('with the cursor %j is refused', (cursor) => {
    expect(() => parseCountQuery({ cursor }, noon)).toThrow(
      expect.objectContaining({ code: 'audit_cursor_invalid' }),
    );
  });

  test('keeps its window with a cursor', () => {
    const going = { way: 'walk', part: 0, at: 7, since: new Date(5), until: null } as const;
    const cursor = formatCountCursor(going);
    expect(parseCountCursor(cursor)).toEqual(going);
    expect(parseCountQuery({ cursor, since: '1h' }, noon).filters).toMatchObject({
      since: new Date(5),
      until: null,
    });
  });

  test('leaves out what can have none of the fields', () => {
    const query = (by: readonly string[], types: CountQuery['filters']['types'] = []): CountQuery => ({
      ...parseCountQuery({}, noon),
      by,
      filters: { ...parseCountQuery({}, noon).filters, types },
    });
    expect(countedFilters(query(['policy']))?.types).toEqual(['policy_change', 'policy_text']);
    expect(countedFilters(query(['policy'], ['ban']))).toBeNull();
    expect(countedFilters(query(['type', 'policy']))?.types).toEqual([]);
    expect(typesWith('verdict')).toEqual(['decision', 'allowed_calls', 'proxy_verdict', 'proxy_verdicts']);
    expect(parseCountField('hour')).toBe('hour');
  });

  test('parts add up', () => {
    const group = {
      values: ['a'],
      count: 2,
      records: 1,
      firstIndex: 3,
      lastIndex: 3,
      first: noon,
      last: noon,
    };
    const later = new Date(noon.getTime() + 1);
    expect(mergeCounts([[group], [{ ...group, lastIndex: 9, firstIndex: 9, last: later }]])).toEqual([
      { ...group, count: 4, records: 2, lastIndex: 9, last: later },
    ]);
  });
});
