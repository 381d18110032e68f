import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Harness, startHarness } from './harness.ts';

let harness: Harness;
beforeAll(async () => {
  harness = await startHarness();
});
afterAll(() => harness.close());

const web = 'spiffe://example.org/ns/shop/sa/web';
const body = { kind: 'spiffe-id', value: web, reason: 'host taken over', until: '2h' };
const ban = (change: object = {}) =>
  harness.overTls({ method: 'POST', path: '/v1/bans', body: { ...body, ...change } }, 'operator');
const unban = (kind: string, value: string) =>
  harness.overTls({ method: 'DELETE', path: `/v1/bans/${kind}/${encodeURIComponent(value)}` }, 'operator');

test('a ban is made, listed and lifted, and the log names who', async () => {
  const made = await ban();
  const token = { kind: 'token', tokenId: harness.tokens.operator.slice(4, 20), role: 'operator' };
  expect([made.status, made.json]).toEqual([
    201,
    {
      kind: 'spiffe-id',
      value: web,
      reason: 'host taken over',
      until: '2027-01-01T02:00:00.000Z',
      inForce: true,
      createdAt: '2027-01-01T00:00:00.000Z',
      actor: token,
      revision: 1,
      certificatesValidUntil: null,
    },
  ]);
  const listed = await harness.overTls({ path: '/v1/bans' }, 'viewer');
  expect(listed.json).toEqual({ items: [made.json], next: null, revision: 1 });
  const again = await ban({ until: '1h' });
  expect([again.status, again.json.code]).toEqual([409, 'ban_exists']);
  const lifted = await unban('spiffe-id', web);
  expect([lifted.status, lifted.json]).toEqual([200, made.json]);
  expect((await unban('spiffe-id', web)).json.code).toBe('ban_not_found');
  const events = await harness.events('ban');
  expect(events.map(({ action, value, reason, actor }) => [action, value, reason, actor])).toEqual([
    ['created', web, body.reason, token],
    ['lifted', web, body.reason, token],
  ]);
});

test('of the longest ID can be lifted', async () => {
  const value = `spiffe://example.org/${'a/'.repeat(1_013)}a`;
  expect(Buffer.byteLength(value)).toBe(2_048);
  expect((await ban({ value })).status).toBe(201);
  expect((await unban('spiffe-id', value)).status).toBe(200);
});

test('of a serial is shown in its one form, and is over when its time has come', async () => {
  expect((await ban({ kind: 'serial', value: '40:AB', until: '10s' })).json.value).toBe('40ab');
  harness.clock.move(10_000);
  const { json } = await harness.overTls({ path: '/v1/bans' }, 'viewer');
  expect(json.items).toMatchObject([{ kind: 'serial', value: '40ab', inForce: false }]);
  expect((await unban('serial', '40AB')).status).toBe(200);
});

test('are listed in pages', async () => {
  for (const value of ['0a', '0b', '0c']) await ban({ kind: 'serial', value, until: null });
  const first = await harness.overTls({ path: '/v1/bans?limit=2' }, 'viewer');
  const rest = await harness.overTls({ path: `/v1/bans?limit=2&cursor=${first.json.next}` }, 'viewer');
  const values = [...first.json.items, ...rest.json.items].map(({ value }: { value: string }) => value);
  expect([values, rest.json.next]).toEqual([['0a', '0b', '0c'], null]);
});

describe('refuses', () => {
  test.each<[string, object, string]>([
    ['no reason', { reason: undefined }, 'body_invalid'],
    ['an empty reason', { reason: '' }, 'ban_invalid'],
    ['a reason with an escape', { reason: '\u001b[2J' }, 'ban_invalid'],
    ['a reason of 513 characters', { reason: 'x'.repeat(513) }, 'ban_invalid'],
    ['an unknown kind', { kind: 'node' }, 'ban_invalid'],
    ['an ID that is none', { value: 'web' }, 'spiffe_id_scheme'],
    ['our own ID', { value: 'spiffe://example.org/countersign/server' }, 'ban_invalid'],
    ['a serial that is none', { kind: 'serial', value: 'xyz' }, 'ban_invalid'],
    ['a key that is too short', { kind: 'key', value: '40ab' }, 'ban_invalid'],
    ['an end in the past', { until: '2026-12-31T00:00:00Z' }, 'ban_invalid'],
    ['an end that is a number', { until: 7_200 }, 'body_invalid'],
    ['a field of its own', { actor: { kind: 'system' } }, 'body_invalid'],
    ['a revision', { revision: 1 }, 'body_invalid'],
    ['a list of kinds', { kind: ['serial'] }, 'body_invalid'],
  ])('%s', async (_, change, code) => {
    const before = harness.ports.administration.current();
    const answer = await ban(change);
    expect([answer.status, answer.json.code]).toEqual([400, code]);
    expect(harness.ports.administration.current()).toBe(before);
  });

  test.each([
    ['spiffe-id', 'web', 400, 'spiffe_id_scheme'],
    ['serial', 'ff', 404, 'ban_not_found'],
    ['serial', '..', 400, 'ban_invalid'],
    ['node', 'x', 400, 'ban_invalid'],
    ['serial', 'a'.repeat(7_000), 400, 'ban_invalid'],
  ])('to lift %s %s', async (kind, value, status, code) => {
    const answer = await unban(kind, value);
    expect([answer.status, answer.json.code]).toEqual([status, code]);
  });
});
