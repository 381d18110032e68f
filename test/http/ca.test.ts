import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Harness, startHarness } from './harness.ts';

let harness: Harness;
beforeAll(async () => {
  harness = await startHarness();
});
afterAll(() => harness.close());

const keyId = 'ab'.repeat(20);

test('a viewer sees the report', async () => {
  const { status, json } = await harness.overTls({ path: '/v1/ca' }, 'viewer');
  expect([status, json.bundleSequence, json.next]).toEqual([200, 2, { step: 'activate', safe: false }]);
});

test.each<[string, unknown, number, string]>([
  ['rotate', { scope: 'root' }, 409, 'rotation_out_of_order'],
  ['rotate', {}, 400, 'body_invalid'],
  ['rotate', { scope: 'jwt' }, 400, 'body_invalid'],
  ['rotate', { scope: 'root', force: true }, 400, 'body_invalid'],
  ['activate', {}, 409, 'rotation_unproven'],
  ['activate', { force: true }, 409, 'rotation_unproven'],
  ['activate', { force: 'yes' }, 400, 'body_invalid'],
  ['retire', {}, 409, 'rotation_unproven'],
  ['retire', { forced: true }, 400, 'body_invalid'],
  ['taint', { keyId }, 404, 'authority_not_found'],
  ['taint', {}, 400, 'body_invalid'],
  ['taint', { keyId: keyId.toUpperCase() }, 400, 'body_invalid'],
  ['taint', { keyId: `${keyId}0` }, 400, 'body_invalid'],
])('POST /v1/ca/%s %j is refused', async (step, body, status, code) => {
  const answer = await harness.overTls({ method: 'POST', path: `/v1/ca/${step}`, body }, 'admin');
  expect([answer.status, answer.json.code]).toEqual([status, code]);
});

test.each(['rotate', 'activate', 'retire', 'taint'])('an operator may not %s', async (step) => {
  const answer = await harness.overTls({ method: 'POST', path: `/v1/ca/${step}`, body: {} }, 'operator');
  expect([answer.status, answer.json.code]).toEqual([403, 'forbidden']);
});
