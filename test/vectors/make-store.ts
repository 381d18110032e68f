import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import SqliteDatabase from 'better-sqlite3';
import type { Clock } from '../../src/clock.ts';
import { mintToken } from '../../src/http/bearer-token.ts';
import { parseEntry } from '../../src/identity/entry-parse.ts';
import { emptyPlan } from '../../src/identity/plan.ts';
import { TrustDomain } from '../../src/spiffe/id.ts';
import { schemaVersion } from '../../src/store/migrations.ts';
import { openStore } from '../../src/store/store.ts';

// Makes the data that a later release must be able to take over. Run it with the code of a release, never again for that
// schema:
//
//   node test/vectors/make-store.ts test/vectors
//
// It writes store-schema-<n>.db.gz, a database as that release left it, and store-schema-<n>.json, what must be found in
// it. test/store/upgrade.test.ts reads every such pair.

const noon = new Date('2026-11-21T12:00:00.000Z');
const clock: Clock = { now: () => noon, sleep: async () => {} };
const trustDomain = TrustDomain.parse('example.org');
const settings = { trustDomain, ttlSeconds: 3_600 };
let drawn = 0;
// Not random: the same release makes the same leaves.
const bytes = (count: number): Uint8Array => {
  drawn += 1;
  const block = createHash('sha512').update(`store ${drawn}`).digest();
  return new Uint8Array(block.subarray(0, count));
};

const directory = mkdtempSync(join(tmpdir(), 'countersign-vector-'));
const dataDir = join(directory, 'data');
const store = await openStore({ dataDir, clock, randomBytes: bytes });
const actor = { kind: 'uid', uid: 1_000, role: 'admin' } as const;
await store.commitMeta('trust_domain', trustDomain.name, [
  { type: 'lifecycle', time: noon, action: 'started', version: '0.1.0' },
]);
const entries = ['web', 'orders'].map((id) =>
  parseEntry(
    { id, spiffeId: `spiffe://example.org/ns/shop/sa/${id}`, selectors: ['unix:uid:1000'], nodes: ['*'] },
    settings,
    1,
  ),
);
const source =
  'apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata:\n  name: all\n  namespace: shop\nspec: {}\n';
const { changes: _, ...nothing } = emptyPlan;
await store.commitMesh({
  ...nothing,
  expectRevision: 0,
  revision: 1,
  putEntries: entries,
  putPolicies: [
    {
      key: 'shop/all',
      source,
      file: 'p.yaml',
      line: 1,
      sha256: createHash('sha256').update(source).digest('hex'),
      revision: 1,
    },
  ],
  putBans: [
    { kind: 'serial', value: '40ab', reason: 'leaked', until: null, createdAt: noon, actor, revision: 1 },
  ],
  policyRevision: {
    record: {
      number: 1,
      id: 'ab'.repeat(32),
      parent: null,
      time: noon,
      recordSha256: 'cd'.repeat(32),
      publicKey: '',
      signature: '',
      author: actor,
      message: 'the first',
      restores: null,
    },
    changes: [{ namespace: 'shop', created: 1, updated: 0, deleted: 0 }],
  },
  events: entries.map(({ id, spiffeId }) => ({
    type: 'entry_change',
    time: noon,
    action: 'created',
    entryId: id,
    spiffeId: spiffeId.text,
    revision: 1,
    actor,
    before: null,
    after: { id },
  })),
});
const tokens: Record<string, string> = {};
for (const role of ['viewer', 'operator', 'admin'] as const) {
  const grants = [{ role, namespaces: null }];
  const { stored, text } = mintToken({ grants, label: `the ${role}`, lifeSeconds: 31_536_000 }, noon, bytes);
  tokens[role] = text;
  await store.createToken(stored, [
    {
      type: 'admin',
      time: noon,
      action: 'token_created',
      actor,
      method: 'POST',
      route: '/v1/tokens',
      code: '',
      detail: `token ${stored.id}`,
      sourceAddress: { personal: 'uid:1000' },
    },
  ]);
}
const node = {
  name: 'web-1',
  method: 'join_token',
  selectors: ['node:join_token:0123456789abcdef'],
  attestedAt: noon,
  renewedAt: noon,
  notAfter: new Date('2026-11-22T12:00:00.000Z'),
  serials: ['40ac'],
  evictedAt: null,
} as const;
await store.putNode(node, []);
await store.createJoinToken(
  {
    id: '0123456789abcdef',
    node: 'web-2',
    secretSha256: 'ab'.repeat(32),
    createdAt: noon,
    expiresAt: new Date('2026-11-21T13:00:00.000Z'),
    usedAt: null,
  },
  [],
);
await store.close();

const file = join(dataDir, 'countersign.db');
const db = new SqliteDatabase(file);
db.pragma('journal_mode = DELETE');
db.exec('VACUUM');
const leafHashes = db
  .prepare<[], Buffer>('SELECT hash FROM audit_leaves ORDER BY idx')
  .pluck()
  .all()
  .map((hash) => hash.toString('hex'));
db.close();
const target = join(process.argv[2] ?? '.', `store-schema-${schemaVersion}`);
writeFileSync(`${target}.db.gz`, gzipSync(readFileSync(file), { level: 9 }));
const expected = { schema: schemaVersion, leafHashes, tokens, entries: ['orders', 'web'], nodes: ['web-1'] };
writeFileSync(`${target}.json`, `${JSON.stringify(expected, null, 2)}\n`);
rmSync(directory, { recursive: true, force: true });
