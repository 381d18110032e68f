import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { Actor } from '../../src/audit/event.ts';
import type { PolicyMode } from '../../src/authz/policy-mode.ts';
import { type Administration, createAdministration } from '../../src/identity/administration.ts';
import { compileStoredMesh, createMeshHolder, type MeshHolder } from '../../src/identity/current-mesh.ts';
import { policyModeOf } from '../../src/identity/policy-revision.ts';
import { verifyRevision } from '../../src/identity/policy-signature.ts';
import { TrustDomain } from '../../src/spiffe/id.ts';
import { openStore, type Store } from '../../src/store/store.ts';
import { manualClock } from '../harness/manual-clock.ts';
import { makePolicySigner } from '../harness/policy-signer.ts';

const trustDomain = TrustDomain.parse('mesh.test');
const admin: Actor = { kind: 'uid', uid: 0, role: 'admin' };
const signer = makePolicySigner();
const clock = manualClock();

let directory: string;
let store: Store;
let holder: MeshHolder;
let mesh: Administration;

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'cs-mode-'));
  store = await openStore({ dataDir: join(directory, 'data'), clock, randomBytes: (n) => randomBytes(n) });
});
afterEach(async () => {
  await store.close();
  rmSync(directory, { recursive: true, force: true });
});

/** Goes on in a mode, as after a start. */
async function startIn(policyMode: PolicyMode): Promise<void> {
  const settings = { trustDomain, rootNamespace: 'istio-system', ttlSeconds: 3_600, policyMode };
  holder = createMeshHolder(compileStoredMesh(await store.loadMesh(), settings));
  mesh = createAdministration({
    ...{ holder, settings, signer, clock },
    commit: store.commitMesh,
    history: { revision: store.policyRevision, past: store.policyPast },
    latestExpiry: store.latestExpiry,
    latestExpiries: store.latestExpiries,
  });
  await mesh.adoptPolicies();
}

const put = (name: string, method: string) => {
  const text = JSON.stringify({
    apiVersion: 'security.istio.io/v1',
    kind: 'AuthorizationPolicy',
    metadata: { name, namespace: 'shop' },
    spec: { rules: [{ to: [{ operation: { methods: [method] } }] }] },
  });
  return mesh.apply([{ file: 'p.yaml', text }], admin, { dryRun: false });
};
const back = () => mesh.activatePolicies('previous', admin, { message: '', dryRun: false });
const active = () => mesh.current().policyRevision;
const modes = () => [policyModeOf(mesh.current()), holder.current().snapshot.mode];

test('another mode makes a revision of its own, which no way back passes over unasked', async () => {
  await startIn('strict');
  await put('a', 'GET');
  await put('a', 'PUT');
  const { id } = active()!;
  await startIn('istio');
  expect(active()).toMatchObject({ number: 3, parent: { number: 2, id } });
  expect(modes()).toEqual(['istio', 'istio']);
  expect((await store.policyRevision(3))?.message).toBe('policy mode istio');
  await startIn('istio');
  expect(active()?.number).toBe(3);
  const refused = {
    code: 'policy_revision_not_found',
    message: expect.stringContaining('3 switched the mode'),
  };
  await expect(back()).rejects.toMatchObject(refused);
  await put('b', 'GET');
  expect(modes()).toEqual(['istio', 'istio']);
  await back();
  expect(mesh.current().policies.get('shop/a')?.source).toContain('PUT');
  await expect(back()).rejects.toMatchObject(refused);
  expect(active()?.number).toBe(5);
  await mesh.activatePolicies(1, admin, { message: '', dryRun: false });
  expect(mesh.current().policies.get('shop/a')?.source).toContain('GET');
  expect(active()?.number).toBe(6);
  expect(modes()).toEqual(['istio', 'istio']);
  await startIn('strict');
  expect(active()?.number).toBe(7);
  expect(modes()).toEqual(['strict', 'strict']);
});

test('the mode is signed before there are any policies', async () => {
  await startIn('strict');
  expect(active()).toBeUndefined();
  await startIn('istio');
  expect(active()).toMatchObject({ number: 1, parent: null });
  expect(verifyRevision(trustDomain, active()!)).toBe(true);
  await startIn('strict');
  expect(active()?.number).toBe(2);
  expect(modes()).toEqual(['strict', 'strict']);
});

test('a break-glass grant outweighs nothing in Istio mode, and is refused there', async () => {
  const text = JSON.stringify({
    apiVersion: 'security.istio.io/v1',
    kind: 'AuthorizationPolicy',
    metadata: { name: 'glass', namespace: 'shop' },
    spec: {
      breakGlass: { reason: 'fire' },
      ticket: 'T-1',
      expiresAt: new Date(clock.now().getTime() + 60_000).toISOString(),
      rules: [{}],
    },
  });
  const save = () => mesh.apply([{ file: 'p.yaml', text }], admin, { dryRun: false });
  await startIn('istio');
  await expect(save()).rejects.toMatchObject({ code: 'policy_mode_inexact' });
  expect(mesh.current().policies.size).toBe(0);
  await startIn('strict');
  await expect(save()).resolves.toMatchObject({ changes: [{ action: 'created' }] });
});
