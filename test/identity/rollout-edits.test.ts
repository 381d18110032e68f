import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { Actor } from '../../src/audit/event.ts';
import { parseAuditQuery } from '../../src/audit/question.ts';
import { MeshError } from '../../src/errors.ts';
import { type Administration, createAdministration } from '../../src/identity/administration.ts';
import { rolloutOf } from '../../src/identity/candidate.ts';
import { compileStoredMesh, createMeshHolder, type MeshHolder } from '../../src/identity/current-mesh.ts';
import type { Permit } from '../../src/identity/permit.ts';
import { verifyRollout } from '../../src/identity/policy-signature.ts';
import { liveRollout } from '../../src/identity/rollout.ts';
import { TrustDomain } from '../../src/spiffe/id.ts';
import { openStore, type Store } from '../../src/store/store.ts';
import { checkPolicyRevision } from '../../src/up-policy-revisions.ts';
import { manualClock } from '../harness/manual-clock.ts';
import { makePolicySigner } from '../harness/policy-signer.ts';

const trustDomain = TrustDomain.parse('mesh.test');
const settings = { trustDomain, rootNamespace: 'istio-system', ttlSeconds: 3_600 };
const admin: Actor = { kind: 'uid', uid: 0, role: 'admin' };
const signer = makePolicySigner();
const clock = manualClock();
const code = (name: string) => expect.objectContaining({ code: name });

let directory: string;
let store: Store;
let holder: MeshHolder;
let mesh: Administration;

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'cs-rollout-'));
  await open();
});
afterEach(async () => {
  await store.close();
  rmSync(directory, { recursive: true, force: true });
});

async function open(): Promise<void> {
  store = await openStore({ dataDir: join(directory, 'data'), clock, randomBytes: (n) => randomBytes(n) });
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
  checkPolicyRevision(mesh.current());
}

const policy = (key: string, method: string, more = ''): string => {
  const [namespace, name] = key.split('/');
  return `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: ${name}, namespace: ${namespace} }
spec:
  rules: [{ to: [{ operation: { methods: [${method}] } }] }]
${more}`;
};
const files = (...texts: string[]) => [{ file: 'p.yaml', text: texts.join('---\n') }];
const apply = (...texts: string[]) => mesh.apply(files(...texts), admin, { dryRun: false });
const stage = (
  texts: readonly string[],
  more: { prune?: boolean; dryRun?: boolean; permit?: Permit; message?: string } = {},
) => mesh.stageRollout(files(...texts), admin, { message: '', dryRun: false, prune: false, ...more });
const canary = (percent: number, maxNewDenials?: number) =>
  mesh.moveCanary(percent, admin, { message: '', maxNewDenials });
const enforce = (id = state()?.id ?? '') => mesh.enforceRollout(id, admin, { message: '' });
const abort = (message = '') => mesh.abortRollout(admin, { message });
const rollBack = () => mesh.activatePolicies('previous', admin, { message: '', dryRun: false });
const state = () => mesh.current().rollout?.state;
const isLive = () => liveRollout(mesh.current()) !== undefined && rolloutOf(holder.current()) !== null;
const texts = () => new Map([...mesh.current().policies].map(([key, { source }]) => [key, source]));
const restart = async () => {
  await store.close();
  await open();
};
const steps = async () => {
  const { rows } = await store.queryAudit(
    parseAuditQuery({ types: ['policy_rollout'], order: 'oldest' }, clock.now()),
  );
  return rows.map(({ leaf }) => JSON.parse(leaf) as Record<string, unknown>);
};
const nobody: Permit = {
  sees: () => true,
  demand: (edit) => {
    if (edit.kind === 'policy' && edit.namespace !== 'shop') throw new MeshError('forbidden', 'not yours');
  },
};

describe('a candidate', () => {
  test('stands beside what is in force and changes none of it', async () => {
    await apply(policy('shop/a', 'GET'), policy('shop/b', 'GET'));
    const before = texts();
    const { rollout, changes } = await stage([policy('shop/a', 'POST')], { message: 'why' });
    expect(changes).toEqual([{ key: 'shop/a', action: 'updated' }]);
    expect([texts(), mesh.current().policyRevision?.number]).toEqual([before, 1]);
    expect(rollout).toMatchObject({ stage: 'shadow', base: 1, step: 1, percent: 0 });
    expect(verifyRollout(trustDomain, rollout!)).toBe(true);
    expect([...(rolloutOf(holder.current())?.candidate.policies.keys() ?? [])].sort()).toEqual([
      'shop/a',
      'shop/b',
    ]);
    expect(await steps()).toMatchObject([{ action: 'staged', message: 'why', actor: admin, base: 1 }]);
    const { rows } = await store.queryAudit(parseAuditQuery({ types: ['policy_text'] }, clock.now()));
    expect(rows.map(({ leaf }) => JSON.parse(leaf))).toMatchObject([{ policy: 'shop/a', part: 1, parts: 1 }]);
  });

  test('lacks with --prune what the files do not name', async () => {
    await apply(policy('shop/a', 'GET'), policy('shop/b', 'GET'));
    const { changes } = await stage([policy('shop/a', 'GET')], { prune: true });
    expect(changes).toEqual([{ key: 'shop/b', action: 'deleted' }]);
    expect([...(rolloutOf(holder.current())?.candidate.policies.keys() ?? [])]).toEqual(['shop/a']);
  });

  test('is only worked out with --dry-run', async () => {
    await apply(policy('shop/a', 'GET'));
    const { rollout, changes } = await stage([policy('shop/a', 'POST')], { dryRun: true });
    expect([rollout, changes.length, state(), isLive()]).toEqual([null, 1, undefined, false]);
  });

  test('follows entries and bans, which are the same for both', async () => {
    await apply(policy('shop/a', 'GET'));
    await stage([policy('shop/a', 'POST')]);
    const before = rolloutOf(holder.current())?.candidate;
    await mesh.ban({ kind: 'serial', value: '40ab', reason: 'test' }, admin);
    expect(rolloutOf(holder.current())?.candidate.policies).toBe(before?.policies);
    await mesh.createEntry(
      { id: 'web', spiffeId: 'spiffe://mesh.test/ns/shop/sa/web', selectors: ['unix:uid:1000'] },
      admin,
    );
    const { candidate, rollout } = rolloutOf(holder.current())!;
    expect(candidate.snapshot.revision).toBe(mesh.current().revision);
    expect(rollout.step).toBe(1);
  });

  test.each<[string, () => Promise<unknown>, string]>([
    ['while nothing is in force', () => stage([policy('shop/a', 'GET')]), 'policy_revision_not_found'],
    [
      'that is in force already',
      async () => {
        await apply(policy('shop/a', 'GET'));
        await stage([policy('shop/a', 'GET')]);
      },
      'policy_rollout_invalid',
    ],
    [
      'that only moves in its file',
      async () => {
        await apply(policy('shop/a', 'GET'));
        await stage(['\n\n' + policy('shop/a', 'GET')]);
      },
      'policy_rollout_invalid',
    ],
    [
      'that cannot be read',
      async () => {
        await apply(policy('shop/a', 'GET'));
        await stage([policy('shop/a', '')]);
      },
      'policy_invalid',
    ],
    [
      'with documents of other kinds',
      async () => {
        await apply(policy('shop/a', 'GET'));
        await stage(['apiVersion: countersign.dev/v1\nkind: RegistrationEntry\nmetadata: { name: web }\n']);
      },
      'document_kind_unknown',
    ],
    [
      'whose tests fail',
      async () => {
        await apply(policy('shop/a', 'GET'));
        const tests =
          '  tests: [{ name: t, allow: { from: mesh.test/ns/shop/sa/x, to: mesh.test/ns/shop/sa/y, method: GET, path: / } }]\n';
        await stage([policy('shop/a', 'POST', tests)]);
      },
      'policy_test_failed',
    ],
    [
      'of a namespace that is not theirs',
      async () => {
        await apply(policy('shop/a', 'GET'), policy('pay/a', 'GET'));
        await stage([policy('pay/a', 'POST')], { permit: nobody });
      },
      'forbidden',
    ],
    [
      'that prunes a namespace that is not theirs',
      async () => {
        await apply(policy('shop/a', 'GET'), policy('pay/a', 'GET'));
        await stage([policy('shop/a', 'POST')], { prune: true, permit: nobody });
      },
      'forbidden',
    ],
    [
      'beside another, which is named',
      async () => {
        await apply(policy('shop/a', 'GET'));
        await stage([policy('shop/a', 'POST')]);
        await stage([policy('shop/a', 'PUT')]);
      },
      'policy_rollout_active',
    ],
  ])('is refused %s', async (_, work, expected) => {
    await expect(work()).rejects.toEqual(code(expected));
    expect(state()?.step ?? 1).toBe(1);
  });
});

describe('while a rollout is under way', () => {
  beforeEach(async () => {
    await apply(policy('shop/a', 'GET'));
    await apply(policy('shop/a', 'GET'), policy('shop/b', 'GET'));
    await stage([policy('shop/a', 'POST')]);
  });

  test.each<[string, () => Promise<unknown>]>([
    ['apply', () => apply(policy('shop/c', 'GET'))],
    ['a dry run of it', () => mesh.apply(files(policy('shop/c', 'GET')), admin, { dryRun: true })],
    ['delete', () => mesh.deletePolicy('shop/a', admin)],
  ])('%s is refused, in canary too', async (_, edit) => {
    await expect(edit()).rejects.toEqual(code('policy_rollout_active'));
    await canary(10);
    await expect(edit()).rejects.toEqual(code('policy_rollout_active'));
    expect(isLive()).toBe(true);
  });

  test('what changes no policy is not', async () => {
    await apply(policy('shop/a', 'GET'), policy('shop/b', 'GET'));
    await mesh.unban('serial', '40ab', admin).catch(() => undefined);
    await mesh.ban({ kind: 'serial', value: '40ab', reason: 'test' }, admin);
    expect(isLive()).toBe(true);
  });

  test.each<[string, () => Promise<unknown>]>([
    ['a way back', rollBack],
    ['renumbering', () => mesh.renumberPolicies(9, admin, '')],
  ])('%s works, and ends it', async (_, work) => {
    await canary(10);
    await work();
    expect([isLive(), state()]).toEqual([false, undefined]);
    expect((await steps()).at(-1)).toMatchObject({
      action: 'ended',
      cause: 'policies_changed',
      signature: '',
    });
    await restart();
    expect(state()).toBeUndefined();
  });

  test('it goes on with a larger share, and ends when somebody says so', async () => {
    expect((await canary(5, 2)).percent).toBe(5);
    expect(await canary(50)).toMatchObject({ percent: 50, maxNewDenials: 2, step: 3, stage: 'canary' });
    expect(await abort('no')).toMatchObject({ stage: 'ended', step: 4, percent: 0 });
    expect(isLive()).toBe(false);
    await expect(abort()).rejects.toEqual(code('policy_rollout_none'));
    await expect(canary(6)).rejects.toEqual(code('policy_rollout_none'));
    await expect(enforce()).rejects.toEqual(code('policy_rollout_none'));
    await apply(policy('shop/c', 'GET'));
    expect((await steps()).map(({ action }) => action)).toEqual(['staged', 'canary', 'canary', 'aborted']);
  });

  test('enforcing puts the candidate in force as a revision', async () => {
    await canary(100);
    const { active } = await enforce();
    expect(active).toMatchObject({ number: 3, parent: { number: 2 } });
    expect(texts().get('shop/a')).toContain('POST');
    expect([isLive(), state(), mesh.current().policies.size]).toEqual([false, undefined, 2]);
    expect((await steps()).at(-1)).toMatchObject({ action: 'enforced', base: 2 });
    await restart();
    expect(texts().get('shop/a')).toContain('POST');
    await rollBack();
    expect(texts().get('shop/a')).toContain('GET');
  });

  test('another one than was looked at is not enforced', async () => {
    await expect(enforce('00'.repeat(16))).rejects.toEqual(code('policy_rollout_none'));
  });

  test('one call ends it for all, and only the one it was in', async () => {
    const call = {
      source: 'spiffe://mesh.test/a',
      destination: 'spiffe://mesh.test/b',
      rule: 'shop/a rule[0]',
      isAllowed: true,
      place: 'p.yaml:5:3',
      node: 'web-1',
    };
    expect(await mesh.endRollout('00'.repeat(16), call)).toBe(false);
    await canary(10);
    expect(await mesh.endRollout(state()?.id ?? '', call)).toBe(true);
    expect(isLive()).toBe(false);
    expect((await steps()).at(-1)).toMatchObject({
      action: 'aborted',
      actor: { kind: 'system' },
      cause: 'new_denials',
      source: call.source,
      destination: call.destination,
      rule: call.rule,
    });
    expect(mesh.current().rolloutReason?.cause).toContain('p.yaml:5:3');
    await restart();
    expect(state()?.stage).toBe('ended');
    expect((await stage([policy('shop/a', 'POST')])).rollout?.step).toBe(4);
  });

  test('a restart finds it as it was', async () => {
    await canary(7, 3);
    const before = mesh.current();
    await restart();
    expect(mesh.current().rollout).toEqual(before.rollout);
    expect(mesh.current().rolloutReason).toEqual(before.rolloutReason);
    expect(isLive()).toBe(true);
    await enforce();
    expect(texts().get('shop/a')).toContain('POST');
  });

  test('whoever may write some of it may stop it, and nothing else', async () => {
    await abort();
    await apply(policy('shop/a', 'GET'), policy('pay/a', 'GET'));
    await stage([policy('shop/a', 'POST'), policy('pay/a', 'POST')]);
    const theirs = { message: '', permit: nobody };
    await expect(mesh.moveCanary(5, admin, theirs)).rejects.toEqual(code('forbidden'));
    await expect(mesh.enforceRollout(state()?.id ?? '', admin, theirs)).rejects.toEqual(code('forbidden'));
    expect((await mesh.abortRollout(admin, theirs)).stage).toBe('ended');
    await stage([policy('pay/a', 'POST')]);
    await expect(mesh.abortRollout(admin, theirs)).rejects.toEqual(code('forbidden'));
  });
});
