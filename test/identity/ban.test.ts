import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { Actor } from '../../src/audit/event.ts';
import { MeshError } from '../../src/errors.ts';
import {
  type BanInput,
  banKey,
  isInForce,
  lastsAsLong,
  parseBan,
  parseBanTarget,
} from '../../src/identity/ban.ts';
import { indexBans, noBans } from '../../src/identity/ban-list.ts';
import { SpiffeId, TrustDomain } from '../../src/spiffe/id.ts';

const now = new Date('2026-01-31T12:00:00.000Z');
const actor: Actor = { kind: 'uid', uid: 0, role: 'admin' };
const trustDomain = TrustDomain.parse('mesh.test');
const web = 'spiffe://mesh.test/ns/shop/sa/web';
const key = 'ab'.repeat(32);

function ban(input: Partial<BanInput> = {}) {
  const whole = { kind: 'spiffe-id', value: web, reason: 'host taken over', ...input };
  return parseBan(whole, trustDomain, { actor, revision: 7, now });
}

test('a ban says what, why, by whom and until when', () => {
  expect(ban({ until: '2h' })).toEqual({
    kind: 'spiffe-id',
    value: web,
    reason: 'host taken over',
    until: new Date('2026-01-31T14:00:00.000Z'),
    createdAt: now,
    actor,
    revision: 7,
  });
  expect(ban().until).toBeNull();
});

test.each([
  ['spiffe-id', web, web],
  ['spiffe-id', 'spiffe://other.test/x', 'spiffe://other.test/x'],
  ['serial', '40ab', '40ab'],
  ['serial', '40AB', '40ab'],
  ['serial', '40:AB:cd', '40abcd'],
  ['serial', '0', undefined],
  ['serial', '00:00', undefined],
  ['serial', 'abc', '0abc'],
  ['serial', '000abc', '0abc'],
  ['serial', 'ff'.repeat(20), 'ff'.repeat(20)],
  ['serial', `00${'ff'.repeat(20)}`, 'ff'.repeat(20)],
  ['serial', `01${'ff'.repeat(20)}`, undefined],
  ['serial', '0x40ab', undefined],
  ['serial', '40 ab', undefined],
  ['serial', '4:0', undefined],
  ['serial', ':40', undefined],
  ['serial', '', undefined],
  ['serial', '١', undefined],
  ['serial', 'a'.repeat(5_000), undefined],
  ['key', key, key],
  ['key', key.toUpperCase(), key],
  ['key', key.match(/../g)!.join(':'), key],
  ['key', key.slice(2), undefined],
  ['key', `${key}00`, undefined],
  ['key', `00${key}`, undefined],
  ['key', 'sha256', undefined],
  ['node', 'x', undefined],
  ['__proto__', 'x', undefined],
  ['', 'x', undefined],
])('the %s %s is read as %s', (kind, value, expected) => {
  if (expected === undefined) {
    expect(() => parseBanTarget(kind, value)).toThrow(
      expect.objectContaining({ code: 'ban_invalid' }) as Error,
    );
  } else expect(parseBanTarget(kind, value)).toEqual({ kind, value: expected });
});

test.each<[string, Partial<BanInput>, string]>([
  ['an ID that is none', { value: 'web' }, 'spiffe_id_scheme'],
  ['a trust domain', { value: 'spiffe://mesh.test' }, 'spiffe_id_path_missing'],
  ['an ID in upper case', { value: web.replace('mesh', 'Mesh') }, 'spiffe_id_trust_domain_char'],
  ['our own identity', { value: 'spiffe://mesh.test/countersign/server' }, 'ban_invalid'],
  ['no reason', { reason: '' }, 'ban_invalid'],
  ['a blank reason', { reason: ' \u00a0 ' }, 'ban_invalid'],
  ['a reason of two lines', { reason: 'a\nb' }, 'ban_invalid'],
  ['a reason with an escape', { reason: '\u001b[2J' }, 'ban_invalid'],
  ['a reason that reorders text', { reason: 'a\u202eb' }, 'ban_invalid'],
  ['a reason of half a character', { reason: '\ud800' }, 'ban_invalid'],
  ['a reason of 513 characters', { reason: 'x'.repeat(513) }, 'ban_invalid'],
  ['an end in the past', { until: '2026-01-31T11:59:59Z' }, 'ban_invalid'],
  ['an end now', { until: '2026-01-31T12:00:00Z' }, 'ban_invalid'],
  ['an end in no time', { until: '0h' }, 'ban_invalid'],
  ['an end on a day', { until: '2027-01-31' }, 'ban_invalid'],
  ['an end on no day', { until: '2027-02-30T00:00:00Z' }, 'ban_invalid'],
  ['an end without a zone', { until: '2027-01-31T00:00:00' }, 'ban_invalid'],
  ['an end beyond the calendar', { until: '999999w' }, 'ban_invalid'],
  ['an end in words', { until: 'tomorrow' }, 'ban_invalid'],
  ['a negative end', { until: '-2h' }, 'ban_invalid'],
])('refuses %s', (_, input, code) => {
  expect(() => ban(input)).toThrow(expect.objectContaining({ code }) as Error);
});

test.each([
  ['90s', '2026-01-31T12:01:30.000Z'],
  ['10m', '2026-01-31T12:10:00.000Z'],
  ['30d', '2026-03-02T12:00:00.000Z'],
  ['4w', '2026-02-28T12:00:00.000Z'],
  ['2027-01-31T13:00:00+01:00', '2027-01-31T12:00:00.000Z'],
])('until %s is %s', (until, expected) => {
  expect(ban({ until }).until?.toISOString()).toBe(expected);
});

test.each([
  [null, '1h', false],
  ['2h', '1h', false],
  ['2h', '2h', true],
  ['2h', '3h', true],
  ['1h', null, true],
  [null, null, true],
])('after a ban until %s one until %s lasts as long: %s', (first, second, expected) => {
  expect(lastsAsLong(ban({ until: first }), ban({ until: second }), now)).toBe(expected);
});

test('a ban that is over counts for nothing', () => {
  const over = ban({ until: '1s' });
  const later = new Date(now.getTime() + 1_000);
  expect(isInForce(over, new Date(later.getTime() - 1))).toBe(true);
  expect(isInForce(over, later)).toBe(false);
  expect(indexBans([over]).find({ id: SpiffeId.parse(web) }, later)).toBeUndefined();
  expect(lastsAsLong(over, ban({ until: '2s' }), later)).toBe(true);
});

describe('the list', () => {
  const bans = [
    ban({ until: '1h' }),
    ban({ kind: 'serial', value: '40ab' }),
    ban({ kind: 'key', value: key, until: '2h' }),
  ];
  const list = indexBans(bans);
  const other = SpiffeId.parse('spiffe://mesh.test/other');

  test.each([
    [{ id: SpiffeId.parse(web) }, 0],
    [{ id: other, serial: '40ab' }, 1],
    [{ id: null, spkiSha256: key }, 2],
    [{ id: other, serial: '40ac', spkiSha256: key.replace('a', 'b') }, undefined],
    [{ id: null, serial: '', spkiSha256: '' }, undefined],
    [{ id: other, serial: key, spkiSha256: '40ab' }, undefined],
    [{}, undefined],
  ])('of %j finds ban %s', (subject, index) => {
    expect(list.find(subject, now)).toBe(index === undefined ? undefined : bans[index]);
    expect(noBans.find(subject, now)).toBeUndefined();
  });

  test('tells when the next one ends', () => {
    const ids = [SpiffeId.parse(web), other];
    expect(list.nextEnd(ids, now)).toEqual(bans[0]?.until);
    expect(list.nextEnd([other], now)).toBeNull();
    expect(list.nextEnd(ids, new Date(now.getTime() + 3_600_000))).toBeNull();
  });
});

test('whatever is given: a target in its one form, or a coded error', () => {
  const kinds = fc.constantFrom('spiffe-id', 'serial', 'key');
  const values = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 80 }),
    fc.stringMatching(/^[0-9A-Fa-f:]{0,70}$/),
    fc.webPath().map((path) => `spiffe://mesh.test${path}`),
  );
  fc.assert(
    fc.property(kinds, values, (kind, value) => {
      try {
        const target = parseBanTarget(kind, value);
        expect(parseBanTarget(target.kind, target.value)).toEqual(target);
        expect(banKey(target)).toBe(`${target.kind} ${target.value}`);
        if (kind !== 'spiffe-id') expect(target.value).toMatch(/^(?!00)(?:[0-9a-f]{2}){1,32}$/);
      } catch (error) {
        expect(error).toBeInstanceOf(MeshError);
        expect((error as MeshError).kind).toBe('invalid');
      }
    }),
  );
});
