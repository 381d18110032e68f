import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { verifyRevision } from '../../src/identity/policy-signature.ts';
import type { TokenName } from './callers.ts';
import { policy } from './documents.ts';
import { type Harness, startHarness, trustDomain } from './harness.ts';

let harness: Harness;
beforeAll(async () => {
  harness = await startHarness();
  await apply('admin', 'all of us', policy('all', 'bank'), policy('all', 'shop'));
  await apply('shopAuthor', 'shop alone', policy('more', 'shop'));
  await apply('admin', 'a secret of the bank', policy('more', 'bank'));
});
afterAll(() => harness.close());

const ask = (by: TokenName, method: string, path: string, body?: unknown) =>
  harness.overTls({ method, path, ...(body === undefined ? {} : { body }) }, by);
async function apply(by: TokenName, message: string, ...texts: readonly string[]) {
  const files = texts.map((text, i) => ({ file: `${i}.yaml`, text }));
  const answer = await ask(by, 'POST', '/v1/apply', { files, message });
  expect(answer.status).toBe(200);
}
const revisions = '/v1/policy-revisions';

test('the log tells who and why, and its signatures hold', async () => {
  const { json } = await ask('viewer', 'GET', revisions);
  expect(
    json.items.map((item: Record<string, unknown>) => [item['number'], item['message'], item['active']]),
  ).toEqual([
    [3, 'a secret of the bank', true],
    [2, 'shop alone', false],
    [1, 'all of us', false],
  ]);
  expect(json.items[1].author).toMatchObject({ kind: 'token', role: 'policy-author' });
  expect(json.items[2].changes).toEqual({ created: 2, updated: 0, deleted: 0 });
  expect(json.trustDomain).toBe(trustDomain.name);
  for (const item of json.items) {
    expect(verifyRevision(trustDomain, { ...item, time: new Date(item.time) })).toBe(true);
  }
});

test('it comes in pages', async () => {
  const first = await ask('viewer', 'GET', `${revisions}?limit=2`);
  expect([first.json.items.length, first.json.next]).toEqual([2, '2']);
  const rest = await ask('viewer', 'GET', `${revisions}?limit=2&cursor=2`);
  expect([rest.json.items[0].number, rest.json.next]).toEqual([1, null]);
});

test('of what somebody may not see they learn that it happened, and no more', async () => {
  const { json } = await ask('shopViewer', 'GET', revisions);
  expect(
    json.items.map((item: Record<string, unknown>) => [item['author'] === null, item['message']]),
  ).toEqual([
    [true, null],
    [false, 'shop alone'],
    [false, 'all of us'],
  ]);
  expect(json.items[0].changes).toEqual({ created: 0, updated: 0, deleted: 0 });
  expect(json.items[2].changes).toEqual({ created: 1, updated: 0, deleted: 0 });
  const past = await ask('shopViewer', 'GET', '/v1/policies?policyRevision=1');
  expect(past.json.items.map(({ key }: { key: string }) => key)).toEqual(['shop/all']);
  expect(JSON.stringify(json)).not.toContain('secret');
});

describe('is refused', () => {
  test.each<[TokenName, string, string, unknown, number, string]>([
    ['viewer', 'GET', `${revisions}/9`, undefined, 404, 'policy_revision_not_found'],
    ['viewer', 'GET', `${revisions}/0`, undefined, 404, 'policy_revision_not_found'],
    ['viewer', 'GET', `${revisions}/-1`, undefined, 404, 'policy_revision_not_found'],
    ['viewer', 'GET', `${revisions}/1e0`, undefined, 404, 'policy_revision_not_found'],
    ['viewer', 'GET', `${revisions}/previous`, undefined, 404, 'policy_revision_not_found'],
    ['viewer', 'GET', `${revisions}/99999999999999999999`, undefined, 404, 'policy_revision_not_found'],
    ['viewer', 'GET', `${revisions}?cursor=x`, undefined, 400, 'query_invalid'],
    ['viewer', 'GET', `${revisions}?limit=0`, undefined, 400, 'query_invalid'],
    ['viewer', 'GET', '/v1/policies?policyRevision=9', undefined, 404, 'policy_revision_not_found'],
    ['viewer', 'GET', '/v1/policies?revision=1', undefined, 400, 'query_invalid'],
    ['viewer', 'GET', '/v1/policies/shop/more?policyRevision=1', undefined, 404, 'policy_not_found'],
    ['shopViewer', 'GET', '/v1/policies/bank/all?policyRevision=1', undefined, 403, 'forbidden'],
    ['viewer', 'POST', `${revisions}/1/activate`, {}, 403, 'forbidden'],
    ['operator', 'POST', `${revisions}/1/activate`, {}, 403, 'forbidden'],
    ['shopAuthor', 'POST', `${revisions}/1/activate`, {}, 403, 'forbidden'],
    ['shopAuthor', 'POST', `${revisions}/1/activate`, { dryRun: true }, 403, 'forbidden'],
    ['shopAuthor', 'POST', `${revisions}/previous/activate`, {}, 403, 'forbidden'],
    ['policy-author', 'POST', `${revisions}/active/activate`, {}, 404, 'policy_revision_not_found'],
    ['policy-author', 'POST', `${revisions}/9/activate`, {}, 404, 'policy_revision_not_found'],
    ['policy-author', 'POST', `${revisions}/1/activate`, { expectActive: 2 }, 409, 'revision_conflict'],
    ['policy-author', 'POST', `${revisions}/1/activate`, { message: 'a\nb' }, 400, 'policy_message_invalid'],
    ['policy-author', 'POST', `${revisions}/1/activate`, { force: true }, 400, 'body_invalid'],
    ['policy-author', 'POST', `${revisions}/renumber`, { after: 9 }, 403, 'forbidden'],
    ['operator', 'POST', `${revisions}/renumber`, { after: 9 }, 403, 'forbidden'],
    ['admin', 'POST', `${revisions}/renumber`, { after: 2 }, 400, 'policy_number_invalid'],
    ['admin', 'POST', `${revisions}/renumber`, { after: 9_000_000_000 }, 400, 'policy_number_invalid'],
    ['admin', 'POST', `${revisions}/renumber`, {}, 400, 'body_invalid'],
    ['shopAuthor', 'DELETE', '/v1/policies/shop/more?message=%00', undefined, 400, 'policy_message_invalid'],
    [
      'shopAuthor',
      'POST',
      '/v1/apply',
      { files: [{ file: 'a', text: policy('x', 'shop') }], message: '\u202e' },
      400,
      'policy_message_invalid',
    ],
  ])('%s %s %s %j', async (by, method, path, body, status, code) => {
    const answer = await ask(by, method, path, body);
    expect([answer.status, answer.json.code]).toEqual([status, code]);
    expect((await ask('viewer', 'GET', `${revisions}/active`)).json.number).toBe(3);
  });

  test('with the name of the namespace, and not of what is in it', async () => {
    const { json } = await ask('shopAuthor', 'POST', `${revisions}/1/activate`, {});
    expect(json.detail).toContain('the namespace "bank"');
    expect(json.detail).not.toContain('bank/more');
  });
});

test('back and forth, with what changed, and an event of each', async () => {
  const tried = await ask('policy-author', 'POST', `${revisions}/1/activate`, { dryRun: true });
  expect([tried.json.active.number, tried.json.changes.length]).toEqual([3, 2]);
  const back = await ask('policy-author', 'POST', `${revisions}/1/activate`, { message: 'it broke' });
  expect(back.json).toMatchObject({
    active: { number: 4 },
    restores: 1,
    changes: [
      { key: 'bank/more', action: 'deleted' },
      { key: 'shop/more', action: 'deleted' },
    ],
  });
  const forth = await ask('policy-author', 'POST', `${revisions}/3/activate`, { expectActive: 4 });
  expect(forth.json.active).toMatchObject({ number: 5, id: tried.json.active.id });
  const own = await ask('shopAuthor', 'DELETE', '/v1/policies/shop/more?message=unused');
  expect(own.status).toBe(204);
  const moved = await ask('shopAuthor', 'POST', `${revisions}/previous/activate`, {});
  expect(moved.json).toMatchObject({
    active: { number: 7 },
    changes: [{ key: 'shop/more', action: 'created' }],
  });
  const events = await harness.events('policy_revision');
  expect(events.map(({ action, number, restores, message }) => [action, number, restores, message])).toEqual([
    ['edited', 1, 0, 'all of us'],
    ['edited', 2, 0, 'shop alone'],
    ['edited', 3, 0, 'a secret of the bank'],
    ['activated', 4, 1, 'it broke'],
    ['activated', 5, 3, ''],
    ['edited', 6, 0, 'unused'],
    ['activated', 7, 5, ''],
  ]);
});
