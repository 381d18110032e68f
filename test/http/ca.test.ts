import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Harness, listIssuers, startHarness } from './harness.ts';

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
  ['rotate', { scope: 'jws' }, 400, 'body_invalid'],
  ['rotate', { scope: 'root', force: true }, 400, 'body_invalid'],
  ['activate', {}, 409, 'rotation_unproven'],
  ['activate', { force: true }, 409, 'rotation_unproven'],
  ['activate', { force: 'yes' }, 400, 'body_invalid'],
  ['activate', { scope: 'jwt' }, 409, 'rotation_out_of_order'],
  ['activate', { scope: 'root' }, 400, 'body_invalid'],
  ['retire', { scope: 'jwt', force: true }, 409, 'rotation_out_of_order'],
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

describe('GET /v1/ca/crl', () => {
  const labels = (text: string) => text.match(/-----BEGIN X509 CRL-----/g)?.length;

  test('gives a viewer one list of each CA, or that of one', async () => {
    const all = await harness.overTls({ path: '/v1/ca/crl' }, 'viewer');
    expect([all.status, all.headers['content-type'], labels(all.text)]).toEqual([
      200,
      'application/x-pem-file',
      2,
    ]);
    const keyId = listIssuers[1]?.issuer.certificate.keyId;
    const one = await harness.overTls({ path: `/v1/ca/crl?keyId=${keyId}` }, 'viewer');
    expect([one.status, labels(one.text)]).toEqual([200, 1]);
    const headers = { accept: 'application/pkix-crl' };
    const asDer = await harness.overTls({ path: `/v1/ca/crl?keyId=${keyId}`, headers }, 'viewer');
    expect([asDer.status, asDer.headers['content-type']]).toEqual([200, 'application/pkix-crl']);
  });

  test.each<[string, Record<string, string>, number, string]>([
    [`?keyId=${keyId}`, {}, 404, 'authority_not_found'],
    ['?keyId=xyz', {}, 400, 'query_invalid'],
    ['?key=1', {}, 400, 'query_invalid'],
    ['', { accept: 'application/pkix-crl' }, 400, 'query_invalid'],
  ])('%s is refused', async (query, headers, status, code) => {
    const answer = await harness.overTls({ path: `/v1/ca/crl${query}`, headers }, 'viewer');
    expect([answer.status, answer.json.code]).toEqual([status, code]);
  });
});
