import { expect, test } from 'vitest';
import { pino } from 'pino';
import { createMeshHolder, compileMesh } from '../src/identity/current-mesh.ts';
import { parseBan, banKey } from '../src/identity/ban.ts';
import { parseEntry } from '../src/identity/entry-parse.ts';
import type { Mesh } from '../src/identity/mesh.ts';
import { createNotice } from '../src/identity/notice.ts';
import { parseSelector } from '../src/identity/selector.ts';
import { createMetrics } from '../src/metrics.ts';
import { TrustDomain } from '../src/spiffe/id.ts';
import { openPolicyDelivery } from '../src/up-policy-delivery.ts';
import { addPolicyMetrics } from '../src/up-policy-metrics.ts';
import type { Offer } from '../src/xds/source.ts';
import { manualClock, settle } from './harness/manual-clock.ts';
import { leafOf, nodeOf } from './xds/policy-door.ts';

const trustDomain = TrustDomain.parse('mesh.test');
const name = 'countersign.policy';
const selector = 'unix:uid:1';

/** One proxy that follows its policy, where no policy is in force: whatever is not asked about is denied. */
function openDelivery() {
  const clock = manualClock();
  const refreshed = createNotice();
  let isConnected = true;
  let lastSeen = clock.now();
  const freshAt = () => (isConnected ? clock.now() : lastSeen);
  const settings = { trustDomain, rootNamespace: 'root', ttlSeconds: 3_600 };
  const entry = parseEntry(
    { id: 'web', spiffeId: 'spiffe://mesh.test/ns/shop/sa/web', selectors: [selector] },
    settings,
    1,
  );
  const meshOf = (revision: number, bans: Mesh['bans'] = new Map()): Mesh => ({
    revision,
    entries: new Map([[entry.id, entry]]),
    policies: new Map(),
    bans,
  });
  const compiled = (mesh: Mesh) => compileMesh(mesh, new Map(), settings);
  const holder = createMeshHolder(compiled(meshOf(1)));
  const metrics = createMetrics();
  const delivery = openPolicyDelivery({
    holder,
    freshness: {
      isTooOld: () => clock.now().getTime() > freshAt().getTime() + 60_000,
      usableUntil: () => new Date(freshAt().getTime() + 60_000),
      onChange: refreshed.subscribe,
    },
    breathe: () => undefined,
    instruments: addPolicyMetrics(metrics),
    clock,
    log: pino({ level: 'silent' }),
  });
  let last: Offer | undefined;
  const ignore = (): void => undefined;
  const stop = delivery.source.forNode(nodeOf())(
    { selectors: [parseSelector(selector)], caller: { pid: 1, uid: 1, gid: 1 } },
    { offered: (offer) => (last = offer), failed: ignore, ended: ignore, beat: ignore },
  );
  return {
    clock,
    leaf: (): string => {
      const resource = last?.find(name);
      return resource === undefined ? 'none' : leafOf(resource.value, name);
    },
    ttl: () => last?.ttlSeconds?.(),
    ban: (kind: string, value: string, until: string | null): void => {
      const actor = { kind: 'uid', uid: 0, role: 'admin' } as const;
      const ban = parseBan({ kind, value, reason: 'test', until }, trustDomain, {
        actor,
        revision: 2,
        now: clock.now(),
      });
      holder.replace(compiled(meshOf(2, new Map([[banKey(ban), ban]]))));
    },
    /** A candidate with a policy for everybody, or for the namespace `pay` alone, beside what is in force. */
    roll: (stage: 'shadow' | 'ended', namespace: string): void => {
      const source = `{ apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: { name: p, namespace: ${namespace} }, spec: { rules: [{}] } }`;
      const put = [
        { key: `${namespace}/p`, source, file: 'p.yaml', line: 1, sha256: 'ab'.repeat(32), revision: 2 },
      ];
      const signed = { recordSha256: '', publicKey: '', signature: '', time: clock.now() };
      const beside = { base: 1, step: 1, percent: 0, maxNewDenials: 0, candidate: '' };
      holder.replace(
        compiled({
          ...meshOf(2),
          policyRevision: { number: 1, id: '', parent: null, ...signed },
          rollout: {
            state: { id: 'ab'.repeat(16), stage, ...beside, ...signed },
            changes: { put, deleted: [] },
          },
        }),
      );
    },
    disconnect: (): void => {
      [isConnected, lastSeen] = [false, clock.now()];
    },
    connect: (): void => {
      isConnected = true;
      refreshed.announce();
    },
    text: metrics.text,
    close: async () => {
      stop();
      await delivery.close();
      await settle();
      expect([clock.sleepers(), delivery.standings()]).toEqual([0, []]);
    },
  };
}

test('policies that are too old ask about every call, from the moment on and until they are confirmed', async () => {
  const { clock, leaf, ttl, disconnect, connect, close } = openDelivery();
  await settle();
  expect([leaf(), ttl()]).toEqual(['deny:no_policy', 60]);
  await clock.advance(3_600_000);
  expect([leaf(), ttl()]).toEqual(['deny:no_policy', 60]);
  disconnect();
  await clock.advance(20_000);
  // What is sent now may be used for what is left of the time.
  expect([leaf(), ttl()]).toEqual(['deny:no_policy', 40]);
  await clock.advance(39_000);
  expect(leaf()).toBe('deny:no_policy');
  await clock.advance(2_000);
  expect([leaf(), ttl()]).toEqual(['ask:policy_too_old', 1]);
  connect();
  await settle();
  expect(leaf()).toBe('deny:no_policy');
  await close();
});

test('while a certificate or a key is banned every call is asked about', async () => {
  const { clock, leaf, ban, close } = openDelivery();
  await settle();
  for (const [kind, value] of [
    ['serial', '1a2b'],
    ['key', 'ab'.repeat(32)],
  ] as const) {
    ban(kind, value, '10m');
    await settle();
    expect(leaf()).toBe('ask:certificates_banned');
    // Nobody tells that it has ended.
    await clock.advance(601_000);
    expect(leaf()).toBe('deny:no_policy');
  }
  await close();
});

test('a banned identity is denied until its ban ends', async () => {
  const { clock, leaf, ban, text, close } = openDelivery();
  await settle();
  ban('spiffe-id', 'spiffe://mesh.test/ns/shop/sa/web', '10m');
  await settle();
  expect(leaf()).toBe('deny:identity_banned');
  await clock.advance(601_000);
  expect(leaf()).toBe('deny:no_policy');
  expect(text()).toMatch(/countersign_policy_compile_seconds_count [2-9]/);
  await close();
});

test.each([
  ['shadow', 'shop', 'ask:rollout_under_way'],
  ['shadow', 'pay', 'deny:no_policy'],
  ['ended', 'shop', 'deny:no_policy'],
] as const)(
  'beside a candidate in stage %s for namespace %s the proxy gets %s',
  async (stage, namespace, expected) => {
    const { leaf, roll, close } = openDelivery();
    await settle();
    roll(stage, namespace);
    await settle();
    expect(leaf()).toBe(expected);
    await close();
  },
);
