import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { AuditEvent } from '../../src/audit/event.ts';
import { auditColumns, certificateColumns, tokenColumns } from '../../src/audit/columns.ts';
import { formatCursor, parseCursor } from '../../src/audit/cursor.ts';
import { parseMoment } from '../../src/audit/moment.ts';
import { type AuditQueryFields, auditEventTypes, parseAuditQuery } from '../../src/audit/question.ts';
import { decision, issuance, jwtIssuance, noon, oneOfEach } from './events.ts';

const code = (name: string) => expect.objectContaining({ code: name });
const nothing = {
  types: [],
  since: null,
  until: null,
  source: null,
  destination: null,
  verdict: null,
  serial: null,
  where: [],
  text: null,
  limit: 100,
  order: 'newest',
  cursor: null,
};

describe('a question', () => {
  test.each<[AuditQueryFields, object]>([
    [{}, {}],
    [{ types: ['decision'] }, { types: ['decision'] }],
    [{ types: ['decision,refusal', 'decision'] }, { types: ['decision', 'refusal'] }],
    [{ since: '10m' }, { since: new Date('2026-01-31T11:50:00.000Z') }],
    [
      { since: '7d', until: '2h' },
      { since: new Date('2026-01-24T12:00:00Z'), until: new Date('2026-01-31T10:00:00Z') },
    ],
    [{ until: '2026-01-31' }, { until: new Date('2026-01-31T00:00:00Z') }],
    [{ source: 'spiffe://example.org/a' }, { source: 'spiffe://example.org/a' }],
    [{ destination: 'spiffe://example.org' }, { destination: 'spiffe://example.org' }],
    [{ verdict: 'deny' }, { verdict: 'deny' }],
    [{ serial: 'AA:bb:0C' }, { serial: 'aabb0c' }],
    [
      { limit: '1000', order: 'oldest' },
      { limit: 1_000, order: 'oldest' },
    ],
    [{ limit: 1 }, { limit: 1 }],
  ])('%j', (fields, expected) => {
    expect(parseAuditQuery(fields, noon)).toEqual({ ...nothing, ...expected });
  });

  test.each<[AuditQueryFields, RegExp]>([
    [{ types: ['decisions'] }, /^type: "decisions"/],
    [{ types: [''] }, /^type/],
    [{ types: ['constructor'] }, /^type/],
    [{ types: ['decision,'.repeat(40)] }, /^type: names too many/],
    [{ since: '' }, /^since/],
    [{ since: '10' }, /^since/],
    [{ since: '-10m' }, /^since/],
    [{ since: '10y' }, /^since/],
    [{ since: '999999w' }, /^since/],
    [{ since: '2026-02-31T00:00:00Z' }, /^since/],
    [{ since: '2026-01-31T12:00:00' }, /^since/],
    [{ since: '2026-01-31T25:00:00Z' }, /^since/],
    [{ until: 'yesterday' }, /^until/],
    [{ since: '1h', until: '2h' }, /^until: is not later/],
    [{ since: '1h', until: '1h' }, /^until: is not later/],
    [{ source: 'example.org/a' }, /^source: SPIFFE ID/],
    [{ source: '' }, /^source/],
    [{ destination: 'spiffe://example.org/a/' }, /^destination/],
    [{ verdict: 'DENY' }, /^verdict/],
    [{ serial: '' }, /^serial/],
    [{ serial: '0x1' }, /^serial/],
    [{ serial: 'a'.repeat(81) }, /^serial/],
    [{ serial: `${'a'.repeat(79)}!` }, /^serial/],
    [{ limit: '0' }, /^limit/],
    [{ limit: '1001' }, /^limit/],
    [{ limit: '1e9' }, /^limit/],
    [{ limit: 1.5 }, /^limit/],
    [{ limit: Number.NaN }, /^limit/],
    [{ limit: '' }, /^limit/],
    [{ order: 'random' }, /^order/],
  ])('refuses %j', (fields, message) => {
    expect(() => parseAuditQuery(fields, noon)).toThrow(
      expect.objectContaining({ code: 'audit_query_invalid', message: expect.stringMatching(message) }),
    );
  });

  test('may name every type there is', () => {
    expect(oneOfEach.map(({ type }) => type)).toEqual(auditEventTypes);
    expect(parseAuditQuery({ types: [auditEventTypes.join(',')] }, noon).types).toEqual(auditEventTypes);
  });

  test('takes a cursor of its own order only', () => {
    const cursor = formatCursor({ order: 'newest', index: 7, since: new Date(0), until: null });
    expect(parseAuditQuery({ cursor, since: '1h' }, noon)).toEqual({
      ...nothing,
      cursor,
      since: new Date(0),
    });
    expect(() => parseAuditQuery({ cursor, order: 'oldest' }, noon)).toThrow(code('audit_cursor_invalid'));
  });

  test('of any text is answered or refused by code', () => {
    const text = fc.option(fc.string({ unit: 'binary' }), { nil: undefined });
    const fields = fc.record({
      since: text,
      until: text,
      source: text,
      serial: text,
      limit: text,
      cursor: text,
    });
    fc.assert(
      fc.property(fields, (given) => {
        try {
          parseAuditQuery(given, noon);
        } catch (error) {
          expect(error).toEqual(expect.objectContaining({ name: 'MeshError', kind: 'invalid' }));
        }
      }),
    );
  });
});

describe('a cursor', () => {
  const anyTime = fc.option(fc.date({ noInvalidDate: true }));
  const cursors = fc.record({
    order: fc.constantFrom('newest' as const, 'oldest' as const),
    index: fc.maxSafeNat(),
    since: anyTime,
    until: anyTime,
  });

  test('comes back as it was written, in at most 100 characters', () => {
    fc.assert(
      fc.property(cursors, (cursor) => {
        const token = formatCursor(cursor);
        expect(token).toMatch(/^[A-Za-z0-9_-]{1,100}$/);
        expect(parseCursor(token)).toEqual(cursor);
      }),
    );
  });

  const b64 = (text: string) => Buffer.from(text).toString('base64url');
  test.each([
    '',
    'x',
    b64('audit1/newest/1/'),
    b64('audit2/newest/1//'),
    b64('audit1/newest/-1//'),
    b64('audit1/newest/01//'),
    b64('audit1/newest/9007199254740992//'),
    b64('audit1/both/1//'),
    b64('audit1/newest/1/x/'),
    b64('audit1/newest/1//\n'),
    b64('audit1/newest/1//').replace('a', ' a'),
    `${b64('audit1/newest/1//')}=`,
    `${b64('audit1/newest/1//')}!`,
    b64(`audit1/newest/${'1'.repeat(200)}//`),
  ])('%j is refused', (token) => {
    expect(() => parseCursor(token)).toThrow(code('audit_cursor_invalid'));
  });
});

describe('a moment', () => {
  test.each([
    ['0s', '2026-01-31T12:00:00.000Z'],
    ['90s', '2026-01-31T11:58:30.000Z'],
    ['4w', '2026-01-03T12:00:00.000Z'],
    ['2024-02-29', '2024-02-29T00:00:00.000Z'],
    ['2026-01-31t13:00:00+01:00', '2026-01-31T12:00:00.000Z'],
    ['2026-01-31T12:00:00.123456789Z', '2026-01-31T12:00:00.123Z'],
    ['0000-01-01T00:00:00Z', '0000-01-01T00:00:00.000Z'],
  ])('%s', (text, expected) => {
    expect(parseMoment(text, noon)?.toISOString()).toBe(expected);
  });

  test.each([
    '2023-02-29',
    '2026-00-10',
    '2026-1-1',
    '0000-01-01T00:00:00+01:00',
    '2026-01-31 12:00:00Z',
    '٣m',
    '10m ',
    '+10m',
    '1.5h',
  ])('%j is none', (text) => {
    expect(parseMoment(text, noon)).toBeUndefined();
  });
});

describe('columns', () => {
  const none = { source: null, destination: null, verdict: null, serial: null, decisionId: null };
  const columns = { timeMs: noon.getTime(), ...none };
  const web = 'spiffe://example.org/ns/shop/sa/web';
  const ledger = 'spiffe://example.org/ns/pay/sa/ledger';
  test.each([
    ['issuance', { source: web, serial: issuance().serial }],
    ['refusal', {}],
    ['entry_change', { source: web }],
    ['policy_change', {}],
    ['policy_text', {}],
    ['policy_revision', {}],
    ['decision', { source: web, destination: ledger, verdict: 'deny', serial: '0a1b', decisionId: 'd-1' }],
    ['loss', {}],
    ['authority', { serial: '01' }],
    ['admin', {}],
    ['lifecycle', {}],
    ['ban', { source: web }],
    ['jwt_issuance', { source: web, serial: '4a'.repeat(16) }],
    ['jwt_key', {}],
    ['node_alias_change', {}],
  ])('%s', (type, expected) => {
    const event = oneOfEach.find((one) => one.type === type)!;
    expect(auditColumns(event)).toEqual({ ...columns, type, ...expected });
  });

  test.each([
    ['serial', { serial: '40ab' }],
    ['key', {}],
  ] as const)('a ban of a %s', (kind, expected) => {
    const ban = oneOfEach.find((one) => one.type === 'ban')!;
    const event: AuditEvent = { ...ban, kind, value: '40ab' };
    expect(auditColumns(event)).toEqual({ ...columns, type: 'ban', ...expected });
  });

  test('an empty source is none', () => {
    const anonymous = decision({ source: '', destination: '', sourceSerial: '' });
    expect(auditColumns(anonymous)).toEqual({
      ...columns,
      type: 'decision',
      verdict: 'deny',
      decisionId: 'd-1',
    });
  });

  test('only an issuance announces a certificate', () => {
    expect(oneOfEach.map((event) => certificateColumns(event)?.entryId)).toEqual([
      'web',
      ...Array(oneOfEach.length - 1).fill(undefined),
    ]);
  });

  test('only the issuance of a token says until when a key is needed', () => {
    const announced = oneOfEach.map(tokenColumns).filter((token) => token !== null);
    const { keyId, notAfter } = jwtIssuance();
    expect(announced).toEqual([{ keyId, expiresAtMs: notAfter.getTime() }]);
  });
});
