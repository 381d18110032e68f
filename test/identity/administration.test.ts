import { mkdtempSync, rmSync } from 'node:fs';
import { randomBytes } from 'node:crypto';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { Actor, AuditEvent } from '../../src/audit/event.ts';
import { decide } from '../../src/authz/decide.ts';
import type { AuthzRequest } from '../../src/authz/decision.ts';
import { canonicalizeHttp, isRejection } from '../../src/authz/request.ts';
import type { ErrorCode } from '../../src/errors.ts';
import { type Administration, createAdministration } from '../../src/identity/administration.ts';
import { compileStoredMesh, createMeshHolder, type MeshHolder } from '../../src/identity/current-mesh.ts';
import { SpiffeId, TrustDomain } from '../../src/spiffe/id.ts';
import { openStore, type Store } from '../../src/store/store.ts';
import { manualClock } from '../harness/manual-clock.ts';
import { makePolicySigner } from '../harness/policy-signer.ts';

const settings = {
  trustDomain: TrustDomain.parse('mesh.test'),
  rootNamespace: 'istio-system',
  ttlSeconds: 3_600,
};
const actor: Actor = { kind: 'uid', uid: 0, role: 'admin' };
const clock = manualClock();
const signer = makePolicySigner();

let directory: string;
let store: Store;
let holder: MeshHolder;
let mesh: Administration;

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'cs-mesh-'));
  await open();
});

afterEach(async () => {
  await store.close();
  rmSync(directory, { recursive: true, force: true });
});

async function open(): Promise<void> {
  store = await openStore({
    dataDir: join(directory, 'data'),
    clock,
    randomBytes: (size) => randomBytes(size),
  });
  holder = createMeshHolder(compileStoredMesh(await store.loadMesh(), settings));
  mesh = createAdministration({
    holder,
    settings,
    commit: store.commitMesh,
    signer,
    history: { revision: store.policyRevision, past: store.policyPast },
    latestExpiry: store.latestExpiry,
    latestExpiries: store.latestExpiries,
    clock,
  });
}

const entry = (name: string, extra = '') => `apiVersion: countersign.dev/v1
kind: RegistrationEntry
metadata:
  name: ${name}
spec:
  spiffeId: spiffe://mesh.test/ns/shop/sa/${name}
  selectors: [unix:uid:1000]
${extra}`;

const policy = (name: string, method = 'GET') => `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: ${name}
  namespace: shop
spec:
  rules:
    - to: [{ operation: { methods: [${method}] } }]
`;

/** `web` calls itself. */
function toWeb(method: string): AuthzRequest {
  const web = SpiffeId.parse('spiffe://mesh.test/ns/shop/sa/web');
  const made = canonicalizeHttp({
    source: web,
    destination: web,
    method,
    path: '/',
    authority: 'a',
    port: 80,
  });
  if (isRejection(made)) throw new Error(made.why);
  return made;
}

const documents = (...texts: readonly string[]) => [{ file: 'mesh.yaml', text: texts.join('---\n') }];
const apply = (...texts: readonly string[]) => mesh.apply(documents(...texts), actor, { dryRun: false });

/** What must hold after every step: what is in force is what is stored, and each change has its event. */
async function checkInvariants(): Promise<void> {
  const stored = await store.loadMesh();
  const current = mesh.current();
  expect(current.revision).toBe(stored.revision);
  expect(new Map(current.entries)).toEqual(new Map(stored.entries));
  expect(new Map(current.policies)).toEqual(new Map(stored.policies));
  expect(holder.current().snapshot.revision).toBe(stored.revision);
  expect(holder.current().registry.size).toBe(stored.entries.size);
  expect(holder.current().policies.size).toBe(stored.policies.size);
  expect(new Map(current.bans)).toEqual(new Map(stored.bans));
  expect(holder.current().bans.size).toBe(stored.bans.size);
}

async function events(): Promise<string[]> {
  const { rows } = await store.queryAudit({
    types: ['entry_change', 'policy_change', 'ban'],
    since: null,
    until: null,
    source: null,
    destination: null,
    verdict: null,
    serial: null,
    where: [],
    text: null,
    limit: 100,
    order: 'oldest',
    cursor: null,
  });
  return rows.map(({ leaf }) => {
    const event = JSON.parse(leaf) as Record<string, unknown>;
    return `${String(event['action'])} ${String(event['entryId'] ?? event['policy'] ?? event['value'])} r${String(event['revision'])}`;
  });
}

test('a scenario: each step is whole, stored, and told', async () => {
  expect((await apply(entry('web'), policy('orders'))).changes.map(({ action }) => action)).toEqual([
    'created',
    'created',
  ]);
  await checkInvariants();
  expect((await apply(entry('web'), policy('orders'))).changes.map(({ action }) => action)).toEqual([
    'unchanged',
    'unchanged',
  ]);
  await checkInvariants();
  expect(mesh.current().revision).toBe(1);
  await apply(entry('web', '  ttlSeconds: 60\n'), policy('orders', 'PUT'));
  await checkInvariants();
  await mesh.createEntry({ id: 'api', spiffeId: 'spiffe://mesh.test/api', selectors: ['unix:uid:7'] }, actor);
  await checkInvariants();
  await mesh.updateEntry('api', { hint: 'x' }, actor);
  await checkInvariants();
  await mesh.updateEntry('api', { hint: 'x' }, actor);
  await mesh.deletePolicy('shop/orders', actor);
  await checkInvariants();
  expect(await mesh.deleteEntry('api', actor)).toMatchObject({ certificatesValidUntil: null });
  await checkInvariants();
  expect(await events()).toEqual([
    'created web r1',
    'created shop/orders r1',
    'updated web r2',
    'updated shop/orders r2',
    'created api r3',
    'updated api r4',
    'deleted shop/orders r5',
    'deleted api r6',
  ]);
  const before = mesh.current();
  await store.close();
  await open();
  await checkInvariants();
  expect(mesh.current().revision).toBe(before.revision);
});

test.each<[string, string[], ErrorCode, number]>([
  ['a bad SPIFFE ID', [entry('web'), entry('../x')], 'spiffe_id_segment_dot', 14],
  ['a selector of no kind', [policy('p'), entry('web').replace('unix:uid', 'uid')], 'selector_invalid', 16],
  ['an unknown field of an entry', [entry('web', '  ttl: 60\n')], 'document_field_unknown', 8],
  ['an unknown field of a policy', [policy('p').replace('rules', 'rulez')], 'document_field_unknown', 7],
  ['a lifetime out of bounds', [entry('web', '  ttlSeconds: 5\n')], 'entry_invalid', 8],
  [
    'conditions that were left out',
    [policy('p').replace('- to:', '- when: []\n      to:')],
    'policy_invalid',
    8,
  ],
  ['two entries of one name', [entry('web'), entry('web')], 'document_field_value', 12],
  ['two policies of one name', [policy('p'), policy('p')], 'document_field_value', 10],
  ['an unknown kind', [entry('web'), 'apiVersion: v1\nkind: Pod\n'], 'document_kind_unknown', 10],
  ['another version of an entry', [entry('web').replace('/v1', '/v9')], 'document_kind_unknown', 1],
  [
    'an entry of another trust domain',
    [entry('web').replace('mesh.test', 'other.test')],
    'spiffe_id_foreign_trust_domain',
    6,
  ],
  ['an id kept for us', [entry('countersign.x')], 'entry_invalid', 4],
  [
    'a good policy before a bad one',
    [policy('a'), policy('b').replace('methods', 'metods')],
    'document_field_unknown',
    17,
  ],
  ['more than 1 MiB', [policy('a'), '#'.repeat(1_048_576)], 'document_too_large', 1],
  ['more than 32 levels', [policy('a'), `a: ${'['.repeat(40)}${']'.repeat(40)}\n`], 'document_depth', 10],
])('a file with %s changes nothing and names the place', async (_, texts, code, line) => {
  await apply(entry('kept'));
  await expect(apply(entry('first').replace('name: first', 'name: aaa'))).resolves.toBeDefined();
  await apply(policy('kept'));
  const before = holder.current();
  await expect(mesh.apply(documents(...texts), actor, { dryRun: false })).rejects.toMatchObject({
    code,
    place: { file: 'mesh.yaml', line },
  });
  expect(holder.current()).toBe(before);
  expect(decide(before.snapshot, toWeb('GET'), clock.now())).toMatchObject({ rule: 'shop/kept rule[0]' });
  expect(decide(before.snapshot, toWeb('PUT'), clock.now())).toMatchObject({ reason: 'no_allow_rule' });
  await checkInvariants();
});

test('a dry run answers the same, refuses the same, and changes nothing', async () => {
  const before = mesh.current();
  const result = await mesh.apply(documents(entry('web')), actor, { dryRun: true });
  expect(result).toMatchObject({ revision: 0, changes: [{ key: 'web', action: 'created' }] });
  await expect(mesh.apply(documents(entry('../')), actor, { dryRun: true })).rejects.toMatchObject({
    kind: 'invalid',
  });
  expect(mesh.current()).toBe(before);
  expect(await events()).toEqual([]);
});

test('changes at the same moment follow one another, and none is lost', async () => {
  const names = Array.from({ length: 20 }, (_, index) => `w${index}`);
  const outcomes = await Promise.allSettled([
    ...names.map((name) => apply(entry(name))),
    ...names.map((id) =>
      mesh.createEntry({ id, spiffeId: `spiffe://mesh.test/${id}`, selectors: ['unix:uid:1'] }, actor),
    ),
  ]);
  expect(outcomes.filter(({ status }) => status === 'fulfilled')).toHaveLength(20);
  expect(mesh.current().entries.size).toBe(20);
  expect(mesh.current().revision).toBe(20);
  await checkInvariants();
});

const webId = 'spiffe://mesh.test/ns/shop/sa/web';
const banned = (change: object = {}) =>
  mesh.ban({ kind: 'spiffe-id', value: webId, reason: 'x', ...change }, actor);

test('a scenario of bans: each step is whole, stored, and told', async () => {
  await apply(entry('web'));
  const { registry, snapshot } = holder.current();
  const applied = snapshot.appliedTo(SpiffeId.parse(webId));
  expect(await banned({ until: '1h' })).toMatchObject({
    ban: { revision: 2, until: expect.any(Date) as Date },
  });
  await checkInvariants();
  await expect(banned({ until: '30m' })).rejects.toMatchObject({ code: 'ban_exists' });
  await checkInvariants();
  await banned();
  await checkInvariants();
  expect(await banned()).toMatchObject({ ban: { revision: 3 } });
  await expect(banned({ until: '30d' })).rejects.toMatchObject({ code: 'ban_exists' });
  await banned({ reason: 'y' });
  await checkInvariants();
  await mesh.ban({ kind: 'serial', value: '40:AB', reason: 'z', until: '1s' }, actor);
  await checkInvariants();
  // A ban costs no new index of entries and policies, however many there are.
  expect(holder.current().registry).toBe(registry);
  expect(holder.current().snapshot.appliedTo(SpiffeId.parse(webId))).toBe(applied);
  await apply(policy('orders'));
  expect(holder.current().snapshot.appliedTo(SpiffeId.parse(webId)).policies).toHaveLength(1);
  await mesh.deletePolicy('shop/orders', actor);
  await checkInvariants();
  await clock.advance(1_000);
  expect(mesh.bans().size).toBe(2);
  const before = new Map(mesh.bans());
  await store.close();
  await open();
  await checkInvariants();
  expect(new Map(mesh.bans())).toEqual(before);
  expect(await mesh.unban('serial', '40ab', actor)).toMatchObject({ reason: 'z', revision: 5 });
  await checkInvariants();
  expect(await mesh.unban('spiffe-id', webId, actor)).toMatchObject({ reason: 'y' });
  await checkInvariants();
  expect(await events()).toEqual([
    'created web r1',
    `created ${webId} r2`,
    `created ${webId} r3`,
    `created ${webId} r4`,
    'created 40ab r5',
    'created shop/orders r6',
    'deleted shop/orders r7',
    'lifted 40ab r8',
    `lifted ${webId} r9`,
  ]);
});

test('bans and changes at the same moment follow one another, and none is lost', async () => {
  const ids = Array.from({ length: 20 }, (_, index) => `spiffe://mesh.test/w${index}`);
  await Promise.all(ids.flatMap((value, index) => [banned({ value }), apply(entry(`w${index}`))]));
  expect([mesh.bans().size, mesh.current().entries.size, mesh.current().revision]).toEqual([20, 20, 40]);
  await checkInvariants();
});

test.each<[string, () => Promise<unknown>, ErrorCode]>([
  ['ban without a reason', () => banned({ reason: '' }), 'ban_invalid'],
  ['ban what is no ID', () => banned({ value: 'web' }), 'spiffe_id_scheme'],
  ['lift a ban that is not there', () => mesh.unban('serial', '40ab', actor), 'ban_not_found'],
  ['lift a ban of nothing', () => mesh.unban('serial', 'x', actor), 'ban_invalid'],
  ['lift a ban of no kind', () => mesh.unban('node', 'x', actor), 'ban_invalid'],
  ['update an entry that is not there', () => mesh.updateEntry('none', {}, actor), 'entry_not_found'],
  ['delete an entry that is not there', () => mesh.deleteEntry('none', actor), 'entry_not_found'],
  ['delete a policy that is not there', () => mesh.deletePolicy('shop/none', actor), 'policy_not_found'],
])('refuses to %s', async (_, act, code) => {
  await expect(act()).rejects.toMatchObject({ code });
  await checkInvariants();
});

test('deleting an entry tells how long its certificates stay valid', async () => {
  await apply(entry('web'));
  const notAfter = new Date(clock.now().getTime() + 60_000);
  await store.recordEvents([
    {
      type: 'issuance',
      time: clock.now(),
      profile: 'x509-svid',
      spiffeId: 'spiffe://mesh.test/ns/shop/sa/web',
      serial: '7f',
      notBefore: clock.now(),
      notAfter,
      tbsSha256: '',
      spkiSha256: '',
      issuerKeyId: '',
      entryId: 'web',
      entryRevision: 1,
      selectors: [],
      caller: { pid: 1, uid: 1, gid: 1 },
    },
  ]);
  expect(await mesh.deleteEntry('web', actor)).toMatchObject({ certificatesValidUntil: notAfter });
});

test('a ban tells how long certificates already issued to the identity stay valid', async () => {
  const expiry = (ms: number) => new Date(clock.now().getTime() + ms);
  const issuance = (serial: string, notAfter: Date, spiffeId = webId): AuditEvent => ({
    type: 'issuance',
    time: clock.now(),
    profile: 'x509-svid',
    spiffeId,
    serial,
    notBefore: clock.now(),
    notAfter,
    tbsSha256: '',
    spkiSha256: '',
    issuerKeyId: '',
    entryId: serial,
    entryRevision: 1,
    selectors: [],
    caller: { pid: 1, uid: 1, gid: 1 },
  });
  await store.recordEvents([
    issuance('7f', expiry(60_000)),
    issuance('7e', expiry(30_000)),
    issuance('7d', expiry(90_000), 'spiffe://mesh.test/other'),
  ]);
  expect(await banned()).toMatchObject({ certificatesValidUntil: expiry(60_000) });
  const { ban } = await mesh.ban({ kind: 'serial', value: '7f', reason: 'x' }, actor);
  const described = await mesh.describeBans([ban, ...mesh.bans().values()]);
  expect(described.map(({ certificatesValidUntil }) => certificatesValidUntil)).toEqual([
    null,
    expiry(60_000),
    null,
  ]);
  await clock.advance(60_000);
  expect((await mesh.describeBans([...mesh.bans().values()]))[0]?.certificatesValidUntil).toBeNull();
});

test('a stored policy that cannot be read stops the start and is named', async () => {
  await apply(policy('orders'));
  const stored = await store.loadMesh();
  const damaged = new Map([...stored.policies].map(([key, one]) => [key, { ...one, source: 'kind: x\n' }]));
  expect(() => compileStoredMesh({ ...stored, policies: damaged }, settings)).toThrow(
    expect.objectContaining({
      code: 'policy_invalid',
      message: expect.stringContaining('shop/orders') as string,
    }) as Error,
  );
});
