import { join } from 'node:path';
import SqliteDatabase from 'better-sqlite3';
import { describe, expect, test } from 'vitest';
import type { StoredAuthority } from '../../src/ca/stored.ts';
import type { AdminToken } from '../../src/identity/admin-token.ts';
import type { RegistrationEntry } from '../../src/identity/entry.ts';
import type { MeshChange, PolicyDocument } from '../../src/identity/mesh.ts';
import { withoutReason } from '../../src/identity/policy-revision.ts';
import { parseSelector } from '../../src/identity/selector.ts';
import { SpiffeId } from '../../src/spiffe/id.ts';
import { parseAuditQuery } from '../../src/audit/question.ts';
import { decision, issuance, noon, oneOfEach } from '../audit/events.ts';
import { unsignedRevision } from '../harness/policy-signer.ts';
import { newDirectory, openTestStore, standingClock } from './directories.ts';
import { checkedLog } from './log-check.ts';

const code = (name: string) => expect.objectContaining({ code: name });
const numbered = (id: number) => decision({ decisionId: String(id) });

describe('events', () => {
  test('get indexes in order, without a gap, one of each type', async () => {
    const store = await openTestStore();
    expect(await store.recordEvents([])).toEqual([]);
    expect(await store.recordEvents(oneOfEach)).toEqual(oneOfEach.map((_, index) => index));
    const next = oneOfEach.length;
    expect(await store.recordEvents([numbered(next)])).toEqual([next]);
    const rows = await checkedLog(store);
    expect(rows.map(({ leaf }) => JSON.parse(leaf).type).slice(0, next)).toEqual(
      oneOfEach.map(({ type }) => type),
    );
    const decided = oneOfEach.findIndex(({ type }) => type === 'decision');
    expect(rows[decided]?.personal).toEqual({ path: '/accounts/7', sourceAddress: '127.0.0.1:40000' });
  });

  test('asked for at once share commits and keep their order', async () => {
    const store = await openTestStore();
    const batches = Array.from({ length: 3_000 }, (_, i) =>
      store.recordEvents([numbered(2 * i), numbered(2 * i + 1)]),
    );
    const indexes = (await Promise.all(batches)).flat();
    expect(indexes).toEqual(indexes.map((_, at) => at));
    const rows = await checkedLog(store);
    expect(rows.map(({ leaf }) => Number(JSON.parse(leaf).decisionId))).toEqual(indexes);
  });

  test('survive a close that comes before their commit', async () => {
    const dataDir = newDirectory();
    const store = await openTestStore(dataDir);
    const waiting = Array.from({ length: 500 }, (_, i) => store.recordEvents([numbered(i)]));
    await store.close();
    await store.close();
    expect((await Promise.all(waiting)).flat()).toHaveLength(500);
    expect(store.health()).toMatchObject({ ok: false });
    await expect(store.recordEvents([numbered(1)])).rejects.toThrow(code('store_unavailable'));
    await expect(store.auditSize()).rejects.toThrow(code('store_unavailable'));
    expect(await checkedLog(await openTestStore(dataDir))).toHaveLength(500);
  });

  test('recorded at leisure keep their order, hold up no others, and are refused once it is closed', async () => {
    const store = await openTestStore();
    const events = Array.from({ length: 200 }, (_, i) => numbered(i));
    const many = store.recordAtLeisure(events);
    expect(await store.recordEvents([numbered(200)])).toEqual([0]);
    expect(await many).toEqual(events.map((_, at) => at + 1));
    const ids = (await checkedLog(store)).map(({ leaf }) => Number(JSON.parse(leaf).decisionId));
    expect(ids.slice(1)).toEqual([...events.keys()]);
    const late = store.recordAtLeisure(events);
    await Promise.all([expect(late).rejects.toThrow(code('store_unavailable')), store.close()]);
  });

  test('that cannot be encoded sink only their own batch', async () => {
    const store = await openTestStore();
    const [good, bad, better] = await Promise.allSettled([
      store.recordEvents([numbered(0)]),
      store.recordEvents([numbered(1), decision({ port: 0.5 })]),
      store.recordEvents([numbered(2)]),
    ]);
    expect(good).toMatchObject({ value: [0] });
    expect(bad).toMatchObject({ reason: code('internal') });
    expect(better).toMatchObject({ value: [1] });
    expect(await checkedLog(store)).toHaveLength(2);
  });

  test('are refused when too many wait, and taken again afterwards', async () => {
    const store = await openTestStore();
    const first = store.recordEvents(Array.from({ length: 49_999 }, () => lifecycle));
    await expect(store.recordEvents([lifecycle, lifecycle])).rejects.toThrow(code('store_unavailable'));
    expect(await first).toHaveLength(49_999);
    expect(await store.recordEvents([lifecycle])).toEqual([49_999]);
    expect(store.health()).toEqual({ ok: true });
  }, 60_000);
});

test('a database held by somebody else is waited for, then refused, then used again', async () => {
  const dataDir = newDirectory();
  const store = await openTestStore(dataDir);
  const other = new SqliteDatabase(join(dataDir, 'countersign.db'));
  other.exec('BEGIN IMMEDIATE');
  await expect(store.recordEvents([lifecycle])).rejects.toThrow(code('store_unavailable'));
  expect(store.health()).toEqual({ ok: true });
  other.exec('COMMIT');
  other.close();
  expect(await store.recordEvents([lifecycle])).toEqual([0]);
});

describe('a request refused among others of its transaction', () => {
  test('leaves no trace, and the others are kept', async () => {
    const store = await openTestStore();
    await store.recordEvents([issuance({ serial: 'aa' })]);
    const answers = await Promise.allSettled([
      store.recordEvents([numbered(1)]),
      store.recordEvents([numbered(2), issuance({ serial: 'aa' }), numbered(3)]),
      store.revokeToken('0123456789abcdef', [numbered(4)]),
      store.commitMesh(step(5, { events: [numbered(5)] })),
      store.recordEvents([numbered(6), numbered(7)]),
    ]);
    expect(answers).toMatchObject([
      { value: [1] },
      { reason: code('internal') },
      { reason: code('token_not_found') },
      { reason: code('revision_conflict') },
      { value: [2, 3] },
    ]);
    const rows = await checkedLog(store);
    expect(rows.slice(1).map(({ leaf }) => JSON.parse(leaf).decisionId)).toEqual(['1', '6', '7']);
    expect(store.health()).toEqual({ ok: true });
  });
});

describe('the mesh', () => {
  test('is empty at revision 0', async () => {
    const store = await openTestStore();
    expect(await store.loadMesh()).toEqual({
      revision: 0,
      entries: new Map(),
      policies: new Map(),
      bans: new Map(),
      aliases: new Map(),
      grants: new Map(),
    });
  });

  test('comes back as it was put, by another process too', async () => {
    const dataDir = newDirectory();
    const store = await openTestStore(dataDir);
    const first = unsignedRevision(undefined, [policy], noon);
    await store.commitMesh(
      step(0, { putEntries: [web, ledger], putPolicies: [policy], policyRevision: first }),
    );
    await store.commitMesh(
      step(1, { putEntries: [{ ...web, hint: 'new', revision: 2 }], deleteEntries: ['ledger'] }),
    );
    const expected = {
      policyRevision: withoutReason(first.record),
      revision: 2,
      entries: new Map([['web', { ...web, hint: 'new', revision: 2 }]]),
      policies: new Map([[policy.key, policy]]),
      bans: new Map(),
      aliases: new Map(),
      grants: new Map(),
    };
    expect(await store.loadMesh()).toEqual(expected);
    await store.close();
    const again = await openTestStore(dataDir);
    expect(await again.loadMesh()).toEqual(expected);
    const second = unsignedRevision(first.record, [], noon);
    await again.commitMesh(step(2, { deletePolicies: [policy.key], policyRevision: second }));
    expect((await again.loadMesh()).policies.size).toBe(0);
  });

  test('of two changes that start from one revision one wins, ten times over', async () => {
    const store = await openTestStore();
    for (let revision = 0; revision < 10; revision++) {
      const answers = await Promise.allSettled(
        [web, ledger].map((entry) =>
          store.commitMesh(
            step(revision, {
              putEntries: [{ ...entry, revision: revision + 1 }],
              events: [numbered(revision)],
            }),
          ),
        ),
      );
      expect(answers.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
      expect(answers.find(({ status }) => status === 'rejected')).toMatchObject({
        reason: code('revision_conflict'),
      });
      expect((await store.loadMesh()).revision).toBe(revision + 1);
      expect(await checkedLog(store)).toHaveLength(revision + 1);
    }
  });

  test('with a value no column takes is refused alone', async () => {
    const store = await openTestStore();
    const spoilt = { ...web, hint: undefined } as unknown as RegistrationEntry;
    await expect(store.commitMesh(step(0, { putEntries: [spoilt] }))).rejects.toThrow(code('internal'));
    const wrong = { ...web, ttlSeconds: 0.5 };
    await expect(store.commitMesh(step(0, { putEntries: [wrong] }))).rejects.toThrow(code('internal'));
    await store.commitMesh(step(0, { putEntries: [web] }));
    expect(store.health()).toEqual({ ok: true });
  });

  test('changes by single steps', async () => {
    const store = await openTestStore();
    await expect(store.commitMesh({ ...step(0), revision: 2 })).rejects.toThrow(code('internal'));
    expect((await store.loadMesh()).revision).toBe(0);
  });
});

describe('the rest of the state', () => {
  test('certificates: the latest expiry under an entry', async () => {
    const store = await openTestStore();
    const at = (minutes: number) => new Date(noon.getTime() + minutes * 60_000);
    await store.recordEvents([
      issuance({ serial: '01', notAfter: at(60) }),
      issuance({ serial: '02', notAfter: at(30) }),
      issuance({ serial: '03', notAfter: at(90), entryId: 'other' }),
    ]);
    expect(await store.latestExpiry('web', noon)).toEqual(at(60));
    expect(await store.latestExpiry('web', at(59))).toEqual(at(60));
    expect(await store.latestExpiry('web', at(60))).toBeNull();
    expect(await store.latestExpiry('none', noon)).toBeNull();
  });

  test('certificates a week past their end leave the projection, never the log', async () => {
    const dataDir = newDirectory();
    const store = await openTestStore(dataDir);
    await store.recordEvents([issuance()]);
    await store.close();
    const day = 86_400_000;
    for (const [days, kept] of [
      [7, true],
      [8, false],
    ] as const) {
      const now = () => new Date(noon.getTime() + days * day);
      const later = await openTestStore(dataDir, { ...standingClock, now });
      await later.recordEvents([lifecycle]);
      expect((await later.latestExpiry('web', noon)) !== null).toBe(kept);
      expect((await checkedLog(later))[0]?.leaf).toContain(issuance().serial);
      await later.close();
    }
  });

  test('two active CAs of one kind are refused, and nothing of the change is kept', async () => {
    const store = await openTestStore();
    await store.commitAuthorities([root, intermediate], 1, null, []);
    const second = { ...intermediate, keyId: 'cc' };
    await expect(store.commitAuthorities([second], 2, null, [lifecycle])).rejects.toThrow(code('internal'));
    expect(await store.loadAuthorities()).toEqual([root, intermediate]);
    expect(await store.readMeta('bundle_sequence')).toBe('1');
    expect(await store.auditSize()).toBe(0);
    const stepped = { ...intermediate, state: 'retiring' } as const;
    await store.commitAuthorities([second, stepped], 2, null, [lifecycle]);
    expect(await store.loadAuthorities()).toEqual([root, stepped, second]);
    expect(await store.readMeta('bundle_sequence')).toBe('2');
  });

  test('coverage is put and removed by key; certificates are known with their issuer until they expire', async () => {
    const store = await openTestStore();
    await store.commitCoverage({ put: [{ key: 'a', record: '1' }], remove: [] });
    await store.commitCoverage({ put: [{ key: 'b', record: '2' }], remove: ['a', 'none'] });
    expect(await store.loadCoverage()).toEqual([{ key: 'b', record: '2' }]);
    const { serial, spiffeId, entryId, issuerKeyId, notAfter } = issuance();
    await store.recordEvents([issuance()]);
    expect(await store.unexpiredCertificates(noon)).toEqual([
      { serial, spiffeId, entryId, issuerKeyId, notAfter },
    ]);
    expect(await store.unexpiredCertificates(notAfter)).toEqual([]);
  });

  test('authorities are put by key, with their events', async () => {
    const store = await openTestStore();
    await store.commitAuthorities([root, intermediate], 1, null, [oneOfEach[6]!]);
    await store.commitAuthorities([{ ...intermediate, state: 'retired' }], 1, null, [lifecycle]);
    expect(await store.loadAuthorities()).toEqual([root, { ...intermediate, state: 'retired' }]);
    expect(await store.auditSize()).toBe(2);
  });

  test('a root that is kept elsewhere, what stands below it, and the key that waits', async () => {
    const store = await openTestStore();
    const request = { keyId: 'ef'.repeat(20), csr: new Uint8Array([0x30, 0x01, 0x05]) };
    expect(await store.loadRequest()).toBeNull();
    const upstream = [new Uint8Array([0x30, 0x02, 5, 0]), new Uint8Array([0x30, 0x00])];
    const rows = [
      { ...root, offline: true },
      { ...intermediate, upstream },
    ];
    await store.commitAuthorities(rows, 1, request, []);
    expect(await store.loadAuthorities()).toEqual(rows);
    expect(await store.loadRequest()).toEqual(request);
    await store.commitAuthorities([], 1, null, []);
    expect(await store.loadRequest()).toBeNull();
    await store.commitMeta('authority_request', 'not a request', []);
    await expect(store.loadRequest()).rejects.toThrow(code('store_corrupt'));
  });

  test('names', async () => {
    const store = await openTestStore();
    expect(await store.readMeta('trust_domain')).toBeNull();
    await store.commitMeta('trust_domain', 'example.org', [lifecycle]);
    expect(await store.readMeta('trust_domain')).toBe('example.org');
  });

  test('tokens', async () => {
    const store = await openTestStore();
    await store.createToken(token, [lifecycle]);
    expect(await store.findToken(token.secretSha256)).toEqual(token);
    expect(await store.findToken('00'.repeat(32))).toBeNull();
    expect(await store.listTokens()).toEqual([token]);
    await expect(store.createToken(token, [lifecycle])).rejects.toThrow(code('internal'));
    await expect(store.createToken({ ...token, id: 'f'.repeat(16) }, [lifecycle])).rejects.toThrow(
      code('internal'),
    );
    await store.revokeToken(token.id, [lifecycle]);
    expect(await store.findToken(token.secretSha256)).toBeNull();
    await expect(store.revokeToken(token.id, [lifecycle])).rejects.toThrow(code('token_not_found'));
    expect(await store.auditSize()).toBe(2);
  });

  test('a cursor that is none of ours', async () => {
    const store = await openTestStore();
    const query = { ...parseAuditQuery({}, noon), cursor: 'x' };
    await expect(store.queryAudit(query)).rejects.toThrow(code('audit_cursor_invalid'));
    expect(store.health()).toEqual({ ok: true });
  });
});

const lifecycle = oneOfEach[8]!;

const web: RegistrationEntry = {
  id: 'web',
  spiffeId: SpiffeId.parse('spiffe://example.org/ns/shop/sa/web'),
  selectors: [parseSelector('unix:path:/usr/bin/envoy'), parseSelector('unix:uid:1000')],
  ttlSeconds: 3_600,
  dnsNames: ['web.shop'],
  labels: { app: 'web', constructor: 'x' },
  hint: '',
  expiresAt: null,
  nodes: ['node:web-1'],
  revision: 1,
};

const ledger: RegistrationEntry = {
  ...web,
  id: 'ledger',
  spiffeId: SpiffeId.parse('spiffe://example.org/ns/pay/sa/ledger'),
  expiresAt: noon,
  nodes: [],
};

const policy: PolicyDocument = {
  key: 'pay/ledger',
  source: 'kind: AuthorizationPolicy\n',
  file: 'mesh.yaml',
  line: 7,
  sha256: 'ab'.repeat(32),
  revision: 1,
};

const root: StoredAuthority = {
  kind: 'root',
  keyId: 'aa',
  rootKeyId: 'aa',
  tainted: false,
  publishedIn: 1,
  offline: false,
  upstream: [],
  certificate: new Uint8Array([0x30, 0x00]),
  notBefore: noon,
  notAfter: new Date('2036-01-31T12:00:00.000Z'),
  state: 'active',
};

const intermediate: StoredAuthority = { ...root, kind: 'intermediate', keyId: 'bb' };

const token: AdminToken = {
  id: '0123456789abcdef',
  grants: [{ role: 'operator', namespaces: ['pay', 'shop'] }],
  label: 'ci',
  secretSha256: 'cd'.repeat(32),
  createdAt: noon,
  expiresAt: new Date('2026-03-01T00:00:00.000Z'),
};

function step(from: number, change: Partial<MeshChange> = {}): MeshChange {
  return {
    expectRevision: from,
    revision: from + 1,
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
  };
}
