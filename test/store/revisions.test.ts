import { join } from 'node:path';
import SqliteDatabase from 'better-sqlite3';
import { expect, test } from 'vitest';
import type { MeshChange, PolicyDocument } from '../../src/identity/mesh.ts';
import { noon } from '../audit/events.ts';
import { unsignedRevision } from '../harness/policy-signer.ts';
import { newDirectory, openTestStore } from './directories.ts';

const policy: PolicyDocument = {
  key: 'shop/a',
  source: 'kind: AuthorizationPolicy\n',
  file: 'p.yaml',
  line: 1,
  sha256: 'ab'.repeat(32),
  revision: 1,
};
const first = unsignedRevision(undefined, [policy], noon);
const step = (change: Partial<MeshChange>): MeshChange => ({
  expectRevision: 0,
  revision: 1,
  putEntries: [],
  deleteEntries: [],
  putPolicies: [],
  deletePolicies: [],
  putBans: [],
  deleteBans: [],
  putAliases: [],
  deleteAliases: [],
  events: [],
  ...change,
});
const next = { expectRevision: 1, revision: 2 };

test.each<[string, Partial<MeshChange>]>([
  ['a policy without a revision', { putPolicies: [{ ...policy, key: 'shop/b' }] }],
  ['a policy that goes without a revision', { deletePolicies: ['shop/a'] }],
  ['a number that was taken', { policyRevision: first }],
  [
    'a revision that follows none',
    { policyRevision: { record: { ...first.record, number: 2 }, changes: [] } },
  ],
  [
    'a revision that follows a later one',
    {
      policyRevision: { record: { ...first.record, number: 9, parent: { number: 8, id: '' } }, changes: [] },
    },
  ],
  [
    'a revision before the one it follows',
    {
      policyRevision: { record: { ...first.record, number: 1, parent: { number: 1, id: '' } }, changes: [] },
    },
  ],
])('is refused, and nothing of it is kept: %s', async (_, change) => {
  const store = await openTestStore();
  await store.commitMesh(step({ putPolicies: [policy], policyRevision: first }));
  const before = await store.loadMesh();
  await expect(store.commitMesh(step({ ...next, ...change }))).rejects.toMatchObject({ code: 'internal' });
  expect(await store.loadMesh()).toEqual(before);
  expect(await store.keptRevisions()).toEqual([{ number: 1, endedMs: null }]);
});

test.each([
  ['changed', "UPDATE policy_revisions SET message = 'x'"],
  ['deleted while it is in force', 'DELETE FROM policy_revisions'],
])('a revision is not %s by any statement', async (_, sql) => {
  const dataDir = newDirectory();
  const store = await openTestStore(dataDir);
  await store.commitMesh(step({ putPolicies: [policy], policyRevision: { ...first, changes: [] } }));
  await store.close();
  const db = new SqliteDatabase(join(dataDir, 'countersign.db'));
  expect(() => db.exec(sql)).toThrow(/never changes|stays/);
  db.close();
});

test('a text is stored once, whoever has it, and goes with the last who did', async () => {
  const dataDir = newDirectory();
  const store = await openTestStore(dataDir);
  const twin = { ...policy, key: 'shop/b' };
  await store.commitMesh(step({ putPolicies: [policy, twin], policyRevision: first }));
  const second = unsignedRevision(first.record, [policy], noon);
  await store.commitMesh(step({ ...next, deletePolicies: ['shop/b'], policyRevision: second }));
  await store.dropRevisions(1, []);
  expect(await store.policyOf(2, 'shop/a')).toEqual(policy);
  const third = unsignedRevision(second.record, [], noon);
  const last = { expectRevision: 2, revision: 3, deletePolicies: ['shop/a'], policyRevision: third };
  await store.commitMesh(step(last));
  expect(await store.policyPast(2)).toEqual({ documents: [policy], newer: [] });
  await store.dropRevisions(2, []);
  await store.close();
  const db = new SqliteDatabase(join(dataDir, 'countersign.db'), { readonly: true });
  const count = (table: string) => db.prepare(`SELECT count(*) FROM ${table}`).pluck().get();
  expect(['policy_texts', 'policy_versions', 'policy_revisions'].map(count)).toEqual([0, 0, 1]);
  db.close();
});
