import { expect, test } from 'vitest';
import type { Actor } from '../../src/audit/event.ts';
import { decide } from '../../src/authz/decide.ts';
import { canonicalizeHttp, isRejection } from '../../src/authz/request.ts';
import { createAdministration } from '../../src/identity/administration.ts';
import { compileMesh, createMeshHolder } from '../../src/identity/current-mesh.ts';
import type { MeshChange } from '../../src/identity/mesh.ts';
import { SpiffeId, TrustDomain } from '../../src/spiffe/id.ts';
import { createBreathe } from '../../src/up-breath.ts';
import { manualClock, settle } from '../harness/manual-clock.ts';
import { makePolicySigner, noHistory } from '../harness/policy-signer.ts';

const actor: Actor = { kind: 'uid', uid: 0, role: 'admin' };
const trustDomain = TrustDomain.parse('mesh.test');
const settings = { trustDomain, rootNamespace: 'istio-system', ttlSeconds: 3_600 };
const [web, orders] = ['web', 'orders'].map((name) =>
  SpiffeId.parse(`spiffe://mesh.test/ns/shop/sa/${name}`),
) as [SpiffeId, SpiffeId];

/** The mesh, its changes, and the breath of an edit, held until it is let go. */
function openMesh() {
  const clock = manualClock();
  const empty = { revision: 0, entries: new Map(), policies: new Map(), bans: new Map() };
  const holder = createMeshHolder(compileMesh(empty, new Map(), settings));
  const changes: MeshChange[] = [];
  const held = { on: false, after: 0, breaths: 0, letGo: () => {} };
  const mesh = createAdministration({
    holder,
    settings,
    signer: makePolicySigner(),
    history: noHistory,
    commit: async (change) => {
      expect(change.expectRevision).toBe(holder.current().mesh.revision);
      changes.push(change);
    },
    latestExpiry: async () => null,
    latestExpiries: async (ids) => ids.map(() => null),
    clock,
    breathe: () => {
      held.breaths += 1;
      return held.on && held.breaths > held.after
        ? new Promise((resolve) => (held.letGo = resolve))
        : undefined;
    },
  });
  const apply = (...texts: readonly string[]) =>
    mesh.apply([{ file: 'mesh.yaml', text: texts.join('---\n') }], actor, { dryRun: false });
  const call = () => {
    const request = canonicalizeHttp({
      source: web,
      destination: orders,
      method: 'GET',
      path: '/',
      authority: 'o',
      port: 80,
    });
    if (isRejection(request)) throw new Error(request.why);
    return decide(holder.current().snapshot, request, new Date('2026-11-21T12:00:00Z'));
  };
  /** From now on the edit is held once it has been read, when it is compiled. */
  const holdCompiling = async (...texts: readonly string[]): Promise<void> => {
    held.breaths = 0;
    await mesh.apply([{ file: 'mesh.yaml', text: texts.join('---\n') }], actor, { dryRun: true });
    Object.assign(held, { on: true, after: held.breaths, breaths: 0 });
  };
  return { mesh, holder, changes, held, clock, apply, call, holdCompiling };
}

const policy = (i: number, method = 'GET') => `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: p${i}, namespace: shop }
spec: { rules: [{ to: [{ operation: { methods: [${method}], paths: ["/${i === 0 ? '' : i}"] } }] }] }
`;
const entry = `apiVersion: countersign.dev/v1
kind: RegistrationEntry
metadata: { name: orders }
spec: { spiffeId: "${orders.text}", selectors: ["unix:uid:1"] }
`;

test('a ban does not wait for an edit that is being compiled, and the edit does not undo it', async () => {
  const { mesh, holder, changes, held, apply, call, holdCompiling } = openMesh();
  await apply(policy(0), policy(1));
  expect(call().verdict).toBe('allow');
  await holdCompiling(policy(0, 'POST'), entry);
  const edit = apply(policy(0, 'POST'), entry);
  await settle();
  expect(held.breaths).toBe(held.after + 1);
  // Nothing is in force and nothing stored before all is ready.
  expect([call().verdict, holder.current().mesh.revision, changes.length]).toEqual(['allow', 1, 1]);
  await mesh.ban({ kind: 'spiffe-id', value: web.text, reason: 'test' }, actor);
  expect(holder.current().mesh.revision).toBe(2);
  await mesh.ban({ kind: 'serial', value: '40', reason: 'test' }, actor);
  await mesh.unban('serial', '40', actor);
  held.on = false;
  held.letGo();
  expect(await edit).toMatchObject({ revision: 5 });
  expect(call()).toMatchObject({ verdict: 'deny', revision: 5 });
  const current = holder.current();
  expect([...current.mesh.bans.keys()]).toEqual([`spiffe-id ${web.text}`]);
  expect(current.bans.size).toBe(1);
  expect(changes.map(({ revision }) => revision)).toEqual([1, 2, 3, 4, 5]);
  // What the edit changed says so by the revision it was taken at.
  expect(changes.at(-1)?.events.map((event) => 'revision' in event && event.revision)).toEqual([5, 5, 5]);
  expect(current.mesh.policies.get('shop/p0')?.revision).toBe(5);
  expect(current.registry.entry('orders')).toBe(current.mesh.entries.get('orders'));
  expect(current.mesh.entries.get('orders')?.revision).toBe(5);
});

test('edits wait for each other', async () => {
  const { holder, held, apply, call } = openMesh();
  await apply(policy(0));
  call();
  held.on = true;
  const both = [apply(policy(0, 'POST')), apply(policy(0, 'PUT'))];
  await settle();
  expect(holder.current().mesh.revision).toBe(1);
  held.on = false;
  held.letGo();
  expect((await Promise.all(both)).map(({ revision }) => revision)).toEqual([2, 3]);
});

test('an edit that takes too long to prepare is put in force all the same', async () => {
  const { holder, held, clock, apply, call, holdCompiling } = openMesh();
  await apply(...Array.from({ length: 40 }, (_, i) => policy(i)));
  call();
  await holdCompiling(policy(0, 'POST'));
  const edit = apply(policy(0, 'POST'));
  await settle();
  await clock.advance(10_000);
  held.letGo();
  await edit;
  expect(holder.current().mesh.revision).toBe(2);
  expect(call().verdict).toBe('deny');
});

test('a dry run prepares nothing', async () => {
  const { mesh, held, apply, call } = openMesh();
  await apply(policy(0));
  call();
  held.breaths = 0;
  await mesh.apply([{ file: 'm.yaml', text: policy(0, 'POST') }], actor, { dryRun: true });
  const reading = held.breaths;
  await apply(policy(0, 'POST'));
  expect(held.breaths).toBeGreaterThan(2 * reading);
});

test('a turn is shared by all long work, and given up when the share is spent', async () => {
  const breathe = createBreathe(2);
  expect(breathe()).toBeUndefined();
  const spin = (ms: number) => {
    for (const end = performance.now() + ms; performance.now() < end;);
  };
  spin(3);
  const next = breathe();
  expect(next).toBeInstanceOf(Promise);
  expect(breathe()).toBe(next);
  let others = false;
  setImmediate(() => (others = true));
  await next;
  expect(breathe()).toBeUndefined();
  await new Promise((resolve) => setImmediate(resolve));
  expect(others).toBe(true);
});

test('a ban does not wait while an edit is still being read, and the edit is stored on top of it', async () => {
  const { mesh, held, apply, changes, holder } = openMesh();
  held.on = true;
  const edit = apply(policy(1), policy(2));
  // Held at its first breath: nothing has been compiled.
  expect(held.breaths).toBe(1);
  await mesh.ban({ kind: 'spiffe-id', value: web.text, reason: 'test' }, actor);
  expect(changes).toHaveLength(1);
  held.on = false;
  held.letGo();
  expect((await edit).revision).toBe(2);
  expect([...holder.current().mesh.policies.values()].map(({ revision }) => revision)).toEqual([2, 2]);
  expect(holder.current().mesh.bans.size).toBe(1);
});
