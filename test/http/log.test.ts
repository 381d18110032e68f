import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openCheckpoint } from '../../src/audit/checkpoint.ts';
import { verifyConsistency, verifyInclusion } from '../../src/audit/merkle-proof.ts';
import { formatTilePath } from '../../src/audit/tile-path.ts';
import { parseTlogProof, verifyTlogProof } from '../../src/audit/tlog-proof.ts';
import { verifyLog } from '../../src/audit/verify-log.ts';
import { summarise } from '../../src/cli/audit-summary.ts';
import { decision } from '../audit/events.ts';
import { logKey, logSigner } from '../audit/log-files.ts';
import { type Harness, startHarness } from './harness.ts';

let harness: Harness;
beforeAll(async () => {
  harness = await startHarness();
  await harness.store.recordEvents(
    Array.from({ length: 600 }, (_, at) => decision({ decisionId: `d-${at}` })),
  );
});
afterAll(() => harness.close());

const ask = (path: string, role: Parameters<Harness['overTls']>[1] = 'auditor') =>
  harness.overTls({ path: `/v1/audit/${path}` }, role);
const bytes = (hex: string) => Buffer.from(hex, 'hex');

async function head() {
  return openCheckpoint((await ask('log/checkpoint')).text, logKey);
}

test('checkpoint, key and proofs belong together', async () => {
  const before = await head();
  expect((await ask('log/key')).text).toBe(`${logSigner.verifierKey}\n`);
  const proof = (await ask('proof/300')).json;
  const { root, size } = openCheckpoint(proof.checkpoint, logKey);
  expect(proof).toMatchObject({ index: 300, size });
  const path = proof.hashes.map(bytes);
  expect(verifyInclusion({ index: 300, size, leafHash: bytes(proof.leafHash), path, root })).toBe(true);
  const shown = (await harness.overTls({ path: '/v1/audit?type=decision&order=oldest&limit=1' }, 'auditor'))
    .json.items[0];
  const again = (await ask(`proof/${shown.index}`)).json;
  expect(again.leafHash).toBe(shown.leafHash);
  const consistency = (await ask(`consistency?from=${before.size}`)).json;
  const now = openCheckpoint(consistency.checkpoint, logKey);
  expect(
    verifyConsistency({
      from: before.size,
      to: now.size,
      fromRoot: before.root,
      toRoot: now.root,
      path: consistency.hashes.map(bytes),
    }),
  ).toBe(true);
  expect(consistency.fromRoot).toBe(Buffer.from(before.root).toString('hex'));
});

test('a proof as a file holds the entry, for those who may read it', async () => {
  const file = parseTlogProof((await ask('proof/300?format=tlog-proof')).text);
  expect(JSON.parse(Buffer.from(file.extra!).toString())).toMatchObject({ type: 'decision' });
  const { json } = await ask('proof/300', 'viewer');
  expect(verifyTlogProof(file, bytes(json.leafHash), logKey).size).toBeGreaterThan(600);
  expect(parseTlogProof((await ask('proof/300?format=tlog-proof', 'viewer')).text).extra).toBeNull();
});

test('tiles are those of the log, and may be kept by whoever asked', async () => {
  const checkpoint = await head();
  await verifyLog(checkpoint, async (tile) => (await harness.store.auditTile(tile)) ?? undefined);
  const seen = [
    await ask('log/tile/0/000'),
    await ask('log/tile/entries/002.p/88'),
    await ask('log/tile/1/000.p/2'),
  ];
  expect(
    seen.map(({ status, headers }) => [status, headers['content-type'], headers['cache-control']]),
  ).toEqual([
    [200, 'application/octet-stream', 'private, max-age=31536000, immutable'],
    [200, 'application/octet-stream', 'private, max-age=3600, immutable'],
    [200, 'application/octet-stream', 'private, max-age=3600, immutable'],
  ]);
  expect(Number(seen[0]!.headers['content-length'])).toBe(8_192);
  const checkpointAnswer = await ask('log/checkpoint');
  expect([checkpointAnswer.headers['content-type'], checkpointAnswer.headers['cache-control']]).toEqual([
    'text/plain; charset=utf-8',
    'no-store',
  ]);
});

describe('there is no', () => {
  test.each([
    ['tile beyond', `log/${formatTilePath({ level: 0, index: 900, width: 1 })}`, 404, 'audit_tile_not_found'],
    ['tile of a level beyond', 'log/tile/9/000.p/1', 404, 'audit_tile_not_found'],
    ['tile without a path', 'log/tile/', 404, 'audit_tile_not_found'],
    ['tile with another path', 'log/tile/0/0', 404, 'audit_tile_not_found'],
    ['tile above', 'log/tile/0/..%2f..%2fcheckpoint', 404, 'audit_tile_not_found'],
    ['tile with an escape', 'log/tile/0/%1b%5b2J', 404, 'audit_tile_not_found'],
    ['tile with a query that is long', `log/tile/0/${'x000/'.repeat(400)}000`, 404, 'audit_tile_not_found'],
    ['full tile where it is narrow', 'log/tile/entries/003', 404, 'audit_tile_not_found'],
    ['entry beyond', 'proof/100000', 404, 'audit_entry_not_found'],
    ['negative entry', 'proof/-1', 404, 'audit_entry_not_found'],
    ['entry with a leading zero', 'proof/01', 404, 'audit_entry_not_found'],
    ['entry that no number holds', 'proof/9007199254740993', 404, 'audit_entry_not_found'],
    ['proof of another format', 'proof/1?format=der', 400, 'query_invalid'],
    ['consistency with more than there is', 'consistency?from=100000', 409, 'audit_log_shorter'],
    ['consistency with nothing', 'consistency', 400, 'query_invalid'],
    ['consistency with half an entry', 'consistency?from=1.5', 400, 'query_invalid'],
    ['consistency with two', 'consistency?from=1&from=2', 400, 'query_invalid'],
  ])('%s', async (_, path, status, code) => {
    harness.clock.move(61_000);
    const answer = await ask(path);
    expect([answer.status, answer.json.code]).toEqual([status, code]);
    expect(answer.text).not.toContain('\u001b');
  });

  test.each([
    ['log/tile/0/000?pruned=all', 'query_invalid'],
    ['questions/certificates?since=never', 'audit_query_invalid'],
    ['consistency?from=9999999999999999', 'audit_entry_not_found'],
  ])('reading where a question cannot be read: %s', async (path, code) => {
    harness.clock.move(61_000);
    const reads = async () =>
      (await harness.events('admin')).filter(({ action }) => action === 'audit_read').length;
    const before = await reads();
    expect((await ask(path)).json.code).toBe(code);
    expect(await reads()).toBe(before);
  });
});

describe('bundles of entries', () => {
  test.each([
    ['viewer', 403],
    ['operator', 200],
    ['auditor', 200],
    ['admin', 200],
    ['policy-author', 403],
  ] as const)('for a %s: %i', async (role, status) => {
    const answer = await ask('log/tile/entries/000', role);
    expect([answer.status, answer.json?.code]).toEqual([status, status === 200 ? undefined : 'forbidden']);
  });
});

test('reading is recorded by what is read: once for all bundles, once for each proof', async () => {
  harness.clock.move(120_000);
  await ask('log/checkpoint');
  const before = (await harness.events('admin')).length;
  for (const path of ['entries/000', 'entries/001', 'entries/000', '0/000', '0/001'])
    await ask(`log/tile/${path}`);
  for (const index of [5, 6]) await ask(`proof/${index}`);
  const reads = (await harness.events('admin')).slice(before);
  expect(reads.map(({ action, route, detail }) => [action, route, detail])).toEqual([
    ['audit_read', '/v1/audit/log/tile/*', 'entries of the log'],
    ['audit_read', '/v1/audit/log/tile/*', 'hashes of the log'],
    ['audit_read', '/v1/audit/proof/:index', 'proof of entry 5'],
    ['audit_read', '/v1/audit/proof/:index', 'proof of entry 6'],
  ]);
});

describe('shredding', () => {
  const shred = (body: object, role: Parameters<Harness['overTls']>[1] = 'admin') =>
    harness.overTls({ method: 'POST', path: '/v1/audit/shred', body }, role);
  const reason = 'request 4711';

  test.each<[string, object, number, string]>([
    ['nothing that says which', { reason }, 400, 'audit_shred_invalid'],
    ['no reason', { address: '127.0.0.1' }, 400, 'body_invalid'],
    ['an empty reason', { address: '127.0.0.1', reason: ' ' }, 400, 'body_invalid'],
    ['no time', { before: 'yesterday', reason }, 400, 'audit_shred_invalid'],
    ['no index', { index: [], reason }, 400, 'body_invalid'],
    ['an index that is none', { index: [-1], reason }, 400, 'body_invalid'],
    ['a field too many', { address: '127.0.0.1', reason, all: true }, 400, 'body_invalid'],
  ])('is refused with %s', async (_, body, status, code) => {
    expect(await shred(body)).toMatchObject({ status, json: { code } });
  });

  test.each(['viewer', 'auditor', 'operator'] as const)('is not for the role %s', async (role) => {
    expect(await shred({ address: '127.0.0.1', reason }, role)).toMatchObject({ status: 403 });
  });

  test('forgets, says so in every list, and is recorded without the value', async () => {
    const [index] = await harness.store.recordEvents([
      decision({ sourceAddress: { personal: '198.51.100.9:1234' }, path: { personal: '/ann' } }),
    ]);
    const dry = (await shred({ address: '198.51.100.9', reason, dryRun: true })).json;
    expect(dry).toMatchObject({ entries: 1, values: 2, next: null, erased: false });
    const done = (await shred({ address: '198.51.100.9', reason })).json;
    expect(done).toEqual({ entries: 1, values: 2, next: null, erased: true, oldCopies: [] });
    expect((await shred({ address: '198.51.100.9', reason })).json).toMatchObject({ entries: 0, values: 0 });
    const rows = (await harness.overTls({ path: '/v1/audit?type=decision&limit=1' }, 'auditor')).json.items;
    expect(rows[0]).toMatchObject({ index, personal: {}, shredded: ['path', 'sourceAddress'] });
    expect(summarise(rows[0]).at(-1)).toContain('GET (shredded)');
    const [unread] = (await harness.overTls({ path: '/v1/audit?type=admin&limit=1' }, 'viewer')).json.items;
    expect(unread).not.toHaveProperty('shredded');
    const told = (await harness.overTls({ path: '/v1/audit?type=retention' }, 'auditor')).json.items;
    expect(told).toHaveLength(1);
    expect(told[0].event).toMatchObject({
      action: 'shredded',
      class: 'personal',
      first: index,
      last: index,
      entries: 1,
      values: 2,
      by: ['address'],
      reason,
    });
    const everything = JSON.stringify(
      (await harness.overTls({ path: '/v1/audit?limit=1000' }, 'admin')).json.items,
    );
    expect(everything).not.toContain('198.51.100.9');
    await harness.store.auditCheckpoint();
    const proof = (await ask(`proof/${index}`)).json;
    expect(proof.leafHash).toBe(rows[0].leafHash);
  });
});

test('of a bundle that is whole nothing else is left', async () => {
  expect(await ask('log/tile/entries/000?pruned=empty')).toMatchObject({
    status: 404,
    json: { code: 'audit_tile_not_found' },
  });
  expect(await ask('log/tile/entries/000?pruned=all')).toMatchObject({ status: 400 });
});
