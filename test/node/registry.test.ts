import { afterEach, beforeEach, expect, test } from 'vitest';
import { parseAuditQuery } from '../../src/audit/question.ts';
import { keepForgetting } from '../../src/node/forgetting.ts';
import { type Attested, type NodeRegistry, openNodeRegistry } from '../../src/node/node-registry.ts';
import { openStore, type Store } from '../../src/store/store.ts';
import { randomBytes } from '../../src/up-random.ts';
import { type ManualClock, manualClock } from '../harness/manual-clock.ts';
import { eventually } from '../harness/eventually.ts';
import { createScope } from '../harness/scope.ts';
import { makeTempDir } from '../harness/temp.ts';

let scope = createScope();
let clock: ManualClock;
let dataDir: string;
let store: Store;
let registry: NodeRegistry;

beforeEach(async () => {
  clock = manualClock();
  dataDir = makeTempDir(scope);
  await open();
});
afterEach(async () => {
  await scope.close();
  scope = createScope();
});

async function open(): Promise<void> {
  store = await openStore({ dataDir, clock, randomBytes });
  const opened = store;
  scope.defer(() => opened.close());
  registry = await openNodeRegistry(store, clock);
}

const day = 86_400_000;
const hour = 3_600_000;
const secret = 'ab'.repeat(32);
const [ownKey, otherKey] = ['11'.repeat(32), '22'.repeat(32)];

async function makeToken(id = 'a1', secretSha256 = secret): Promise<void> {
  const [createdAt, expiresAt] = [clock.now(), new Date(clock.now().getTime() + 3_600_000)];
  await store.createJoinToken({ id, node: 'web-1', secretSha256, createdAt, expiresAt, usedAt: null }, []);
}

function attested(more: Partial<Attested> = {}): Attested {
  return {
    name: 'web-1',
    method: 'join_token',
    selectors: ['join_token:web-1', 'join_token:id:a1'],
    tokenSha256: secret,
    keySha256: ownKey,
    sourceAddress: '127.0.0.1',
    ...more,
  };
}

async function certify(serial: string, shown: string | null = null): Promise<void> {
  const node = registry.find('web-1');
  if (node === undefined) throw new Error('there is no node');
  const notAfter = new Date(clock.now().getTime() + day);
  await registry.certify(node, { serial, notAfter, shown, sourceAddress: '' });
}

test('whoever lost the answer asks again with the same token and key, and what was made before counts no longer', async () => {
  await makeToken();
  await registry.admit(attested());
  await certify('s1');
  await clock.advance(1_000);
  await registry.admit(attested());
  expect(registry.find('web-1')?.serials).toEqual([]);
  await certify('s2');
  expect(registry.find('web-1')?.serials).toEqual(['s2']);
});

test.each<[string, () => Promise<unknown>, Partial<Attested>]>([
  ['with another key', async () => undefined, { keySha256: otherKey }],
  ['when the node has renewed', () => certify('s2', 's1'), {}],
  ['when the node was evicted', () => registry.evict('web-1', { kind: 'uid', uid: 0, role: 'admin' }), {}],
  ['when the token has expired', () => clock.advance(3_600_000), {}],
  [
    'when another token was used for the node meanwhile',
    async () => {
      await makeToken('b2', 'cd'.repeat(32));
      const selectors = ['join_token:web-1', 'join_token:id:b2'];
      await registry.admit(attested({ tokenSha256: 'cd'.repeat(32), keySha256: otherKey, selectors }));
    },
    {},
  ],
])('a used token is refused %s', async (_, before, more) => {
  await makeToken();
  await registry.admit(attested());
  await certify('s1');
  await before();
  await expect(registry.admit(attested(more))).rejects.toMatchObject({ code: 'node_evidence_invalid' });
});

test('a node that has not been seen for a month is forgotten, on record; others are not', async () => {
  await makeToken();
  await registry.admit(attested());
  await certify('s1');
  await clock.advance(20 * day);
  await registry.admit(attested({ name: 'x509pop-1', method: 'x509pop', selectors: [], tokenSha256: null }));
  await store.recordShipment({ node: 'web-1', epoch: 'ab'.repeat(16), sequence: 5 }, []);
  const failures: unknown[] = [];
  await clock.advance(12 * day);
  const forgetting = keepForgetting(registry, clock, (error) => failures.push(error));
  await clock.advance(hour);
  await eventually('the node to be forgotten', () => registry.find('web-1') === undefined);
  await forgetting.close();
  expect(failures).toEqual([]);
  expect(registry.all().map(({ name }) => name)).toEqual(['x509pop-1']);
  expect(await store.loadNodes()).toHaveLength(1);
  const page = await store.queryAudit(parseAuditQuery({ types: ['node'] }, clock.now()));
  const [last] = page.rows.map(({ leaf }) => JSON.parse(leaf) as unknown);
  expect(last).toMatchObject({ type: 'node', action: 'forgotten', node: 'web-1' });
  // Its name is free, and a batch of a new agent of that name is no repetition.
  await makeToken('b2', 'cd'.repeat(32));
  await registry.admit(attested({ tokenSha256: 'cd'.repeat(32) }));
  expect(await store.recordShipment({ node: 'web-1', epoch: 'ab'.repeat(16), sequence: 1 }, [])).toBe(true);
});

test('a clock that is a year ahead for less than an hour makes us forget nobody', async () => {
  await makeToken();
  await registry.admit(attested());
  await certify('s1');
  const failures: unknown[] = [];
  clock.jump(365 * day);
  const forgetting = keepForgetting(registry, clock, (error) => failures.push(error));
  clock.jump(-365 * day);
  await clock.advance(hour);
  clock.jump(365 * day);
  await clock.advance(hour);
  clock.jump(-365 * day);
  await clock.advance(hour);
  // What was forgotten would come through the store.
  await store.loadNodes();
  expect(registry.find('web-1')).toBeDefined();
  clock.jump(365 * day);
  await clock.advance(hour);
  await clock.advance(hour);
  await eventually('the node to be forgotten', () => registry.find('web-1') === undefined);
  await forgetting.close();
  expect(failures).toEqual([]);
});
