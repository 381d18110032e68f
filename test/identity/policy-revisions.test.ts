import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { Actor } from '../../src/audit/event.ts';
import { parseAuditQuery } from '../../src/audit/question.ts';
import { MeshError } from '../../src/errors.ts';
import {
  type Administration,
  type AdministrationParts,
  createAdministration,
} from '../../src/identity/administration.ts';
import { compileStoredMesh, createMeshHolder, type MeshHolder } from '../../src/identity/current-mesh.ts';
import type { RevisionChoice } from '../../src/identity/policy-edits.ts';
import type { Permit } from '../../src/identity/permit.ts';
import { policySetId, recordDigest } from '../../src/identity/policy-revision.ts';
import { verifyRevision } from '../../src/identity/policy-signature.ts';
import { TrustDomain } from '../../src/spiffe/id.ts';
import { openStore, type Store } from '../../src/store/store.ts';
import { manualClock } from '../harness/manual-clock.ts';
import { makePolicySigner } from '../harness/policy-signer.ts';

const trustDomain = TrustDomain.parse('mesh.test');
const settings = { trustDomain, rootNamespace: 'istio-system', ttlSeconds: 3_600 };
const admin: Actor = { kind: 'uid', uid: 0, role: 'admin' };
const signer = makePolicySigner();
const clock = manualClock();

let directory: string;
let store: Store;
let holder: MeshHolder;
let mesh: Administration;

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'cs-revisions-'));
  await open();
});
afterEach(async () => {
  await store.close();
  rmSync(directory, { recursive: true, force: true });
});

async function open(): Promise<void> {
  store = await openStore({ dataDir: join(directory, 'data'), clock, randomBytes: (n) => randomBytes(n) });
  holder = createMeshHolder(compileStoredMesh(await store.loadMesh(), settings));
  mesh = createAdministration(partsOf());
}

function partsOf(): AdministrationParts {
  return {
    holder,
    settings,
    commit: store.commitMesh,
    signer,
    history: { revision: store.policyRevision, past: store.policyPast },
    latestExpiry: store.latestExpiry,
    latestExpiries: store.latestExpiries,
    clock,
  };
}

const policy = (key: string, method: string): string => {
  const [namespace, name] = key.split('/');
  return `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: ${name}, namespace: ${namespace} }
spec:
  rules:
    - to: [{ operation: { methods: [${method}] } }]
`;
};
const entry = `apiVersion: countersign.dev/v1
kind: RegistrationEntry
metadata: { name: web }
spec: { spiffeId: spiffe://mesh.test/ns/shop/sa/web, selectors: [unix:uid:1000] }
`;
const apply = (texts: readonly string[], message = '', permit?: Permit) =>
  mesh.apply([{ file: 'p.yaml', text: texts.join('---\n') }], admin, {
    dryRun: false,
    message,
    ...(permit === undefined ? {} : { permit }),
  });
const put = (key: string, method: string, message = '') => apply([policy(key, method)], message);
const go = (choice: RevisionChoice, message = '', more: { dryRun?: boolean; expectActive?: number } = {}) =>
  mesh.activatePolicies(choice, admin, { message, dryRun: false, ...more });
const active = () => mesh.current().policyRevision;
const contents = () => new Map([...mesh.current().policies].map(([key, { source }]) => [key, source]));
const code = (name: string) => expect.objectContaining({ code: name });

describe('a revision', () => {
  test('is made by every change of policies, and by nothing else', async () => {
    await apply([entry]);
    expect(active()).toBeUndefined();
    await put('shop/a', 'GET', 'the first');
    expect(active()).toMatchObject({ number: 1, parent: null });
    await put('shop/a', 'GET', 'the same again');
    await mesh.apply([{ file: 'p.yaml', text: policy('shop/b', 'GET') }], admin, { dryRun: true });
    await mesh.ban({ kind: 'serial', value: '40ab', reason: 'test' }, admin);
    await mesh.deleteEntry('web', admin);
    expect(active()?.number).toBe(1);
    await apply([entry, policy('shop/b', 'GET')], 'with an entry');
    await mesh.deletePolicy('shop/a', admin, 'not needed');
    const kept = await store.policyRevisions(100, 10);
    expect(kept.map(({ record }) => [record.number, record.parent?.number ?? 0, record.message])).toEqual([
      [3, 2, 'not needed'],
      [2, 1, 'with an entry'],
      [1, 0, 'the first'],
    ]);
    expect(kept[0]?.changes).toEqual([{ namespace: 'shop', created: 0, updated: 0, deleted: 1 }]);
  });

  test('names its author, is signed, and has an event in the same transaction', async () => {
    const token: Actor = { kind: 'token', tokenId: '0123456789abcdef', role: 'policy-author' };
    await mesh.apply([{ file: 'p.yaml', text: policy('shop/a', 'GET') }], token, {
      dryRun: false,
      message: 'why not',
    });
    const record = await store.policyRevision(1);
    expect(record).toMatchObject({ author: token, message: 'why not', restores: null });
    expect(verifyRevision(trustDomain, record!)).toBe(true);
    expect(recordDigest(record!)).toBe(record!.recordSha256);
    const query = parseAuditQuery({ types: ['policy_revision'], order: 'oldest' }, clock.now());
    const events = (await store.queryAudit(query)).rows.map(({ leaf }) => JSON.parse(leaf) as object);
    expect(events).toEqual([
      expect.objectContaining({
        action: 'edited',
        number: 1,
        id: record!.id,
        message: 'why not',
        revision: 1,
      }),
    ]);
  });

  test('that cannot be stored leaves everything as it was', async () => {
    await put('shop/a', 'GET');
    const before = active();
    await store.close();
    await expect(put('shop/a', 'POST')).rejects.toEqual(code('store_unavailable'));
    await expect(go(1)).rejects.toEqual(code('store_unavailable'));
    await open();
    expect(active()).toEqual(before);
    expect(contents()).toEqual(new Map([['shop/a', policy('shop/a', 'GET')]]));
  });

  test('outlives a restart', async () => {
    await put('shop/a', 'GET');
    await put('shop/a', 'POST');
    await store.close();
    await open();
    expect(active()?.number).toBe(2);
    await go('previous');
    expect([active()?.number, contents().get('shop/a')]).toEqual([3, policy('shop/a', 'GET')]);
  });

  test('adopts policies that were there before', async () => {
    await mesh.adoptPolicies();
    expect(active()).toBeUndefined();
    await put('shop/a', 'GET');
    await mesh.adoptPolicies();
    expect(active()?.number).toBe(1);
  });
});

describe('going back', () => {
  beforeEach(async () => {
    await put('shop/a', 'GET', 'one');
    await put('shop/a', 'POST', 'two');
    await put('pay/b', 'GET', 'three');
  });

  test('makes a revision with the old content under a new number', async () => {
    const [first] = (await store.policyRevisions(2, 1)).map(({ record }) => record);
    const { active: now, restores, changes } = await go(1, 'it was better');
    expect(now).toMatchObject({ number: 4, id: first?.id, parent: { number: 3 } });
    expect([restores, changes]).toEqual([
      1,
      [
        { key: 'pay/b', action: 'deleted' },
        { key: 'shop/a', action: 'updated' },
      ],
    ]);
    expect(contents()).toEqual(new Map([['shop/a', policy('shop/a', 'GET')]]));
    expect(holder.current().policies.size).toBe(1);
    expect(holder.current().snapshot.revision).toBe(mesh.current().revision);
  });

  test('twice goes back two, and not to where one came from', async () => {
    await go('previous');
    expect(contents().get('shop/a')).toBe(policy('shop/a', 'POST'));
    await go('previous');
    expect([active()?.number, contents()]).toEqual([5, new Map([['shop/a', policy('shop/a', 'GET')]])]);
    await expect(go('previous')).rejects.toMatchObject({
      code: 'policy_revision_not_found',
      message: `no policy revision is before 1, which ${active()?.number} has put back in force`,
    });
    await go(3, 'forth again');
    expect(contents().size).toBe(2);
  });

  test('to what is in force changes nothing', async () => {
    expect(await go(3)).toMatchObject({ active: { number: 3 }, changes: [] });
    expect(active()?.number).toBe(3);
  });

  test('with a dry run says what would change, and changes nothing', async () => {
    const { revision } = mesh.current();
    expect((await go(1, '', { dryRun: true })).changes).toHaveLength(2);
    expect([active()?.number, mesh.current().revision]).toEqual([3, revision]);
  });

  test.each([
    ['a revision that never was', 4, {}, '', 'policy_revision_not_found'],
    ['no revision', 0, {}, '', 'policy_revision_not_found'],
    ['another one than is in force', 1, { expectActive: 2 }, '', 'revision_conflict'],
    ['a message of two lines', 1, {}, 'a\nb', 'policy_message_invalid'],
  ])('is refused: %s', async (_, choice, more, message, expected) => {
    await expect(go(choice, message, more)).rejects.toEqual(code(expected));
    expect(active()?.number).toBe(3);
  });

  test('does nothing when what was stored is not what the revision names', async () => {
    const administration = createAdministration({
      ...partsOf(),
      history: { revision: store.policyRevision, past: async () => ({ documents: [], newer: ['pay/b'] }) },
    });
    await expect(administration.activatePolicies(1, admin, { message: '', dryRun: false })).rejects.toEqual(
      code('store_corrupt'),
    );
    expect(active()?.number).toBe(3);
  });

  test('of two at once the second is told of the first', async () => {
    const both = [go('previous', '', { expectActive: 3 }), go('previous', '', { expectActive: 3 })];
    const answers = await Promise.allSettled(both);
    expect(answers.map(({ status }) => status)).toEqual(['fulfilled', 'rejected']);
    expect(answers[1]).toMatchObject({ reason: code('revision_conflict') });
  });

  test.each<[string, number, string | null]>([
    ['own namespace alone', 3, null],
    ['own and a foreign one', 1, 'pay'],
    ['a foreign one, by deleting', 2, 'pay'],
  ])('by whoever is confined: %s', async (_, number, refused) => {
    await put('shop/a', 'PUT', 'four');
    const permit: Permit = {
      sees: () => true,
      demand: (edit) => {
        if (edit.kind === 'policy' && edit.namespace === 'shop') return;
        throw new MeshError('forbidden', `may not touch ${JSON.stringify(edit)}`);
      },
    };
    const moved = mesh.activatePolicies(number, admin, { message: '', dryRun: false, permit });
    if (refused === null) {
      expect((await moved).changes).toEqual([{ key: 'shop/a', action: 'updated' }]);
      return;
    }
    const error = await moved.catch((caught: unknown) => caught);
    expect(error).toEqual(code('forbidden'));
    expect(String(error)).toContain(`namespace "${refused}"`);
    expect(String(error)).not.toContain('pay/b');
    expect(active()?.number).toBe(4);
  });

  test.each([
    ['below the number in force', 2],
    ['too far ahead', 1_000_004],
    ['no whole number', 3.5],
    ['no number', Number.NaN],
  ])('the number is not moved: %s', async (_, after) => {
    await expect(mesh.renumberPolicies(after, admin, '')).rejects.toEqual(code('policy_number_invalid'));
    expect(active()?.number).toBe(3);
  });

  test('the number is moved ahead, and a way back leads over it', async () => {
    const id = active()?.id;
    expect(await mesh.renumberPolicies(57, admin, 'restored')).toMatchObject({
      number: 58,
      id,
      parent: { number: 3 },
    });
    await go('previous');
    expect([active()?.number, contents().size]).toEqual([59, 1]);
  });
});

describe('a document that is no policy', () => {
  test.each([
    ['an entry', entry, 'only policies belong here: give the rest to countersign apply'],
    [
      'an invariant',
      'apiVersion: countersign.dev/v1\nkind: PolicyInvariant\n',
      'give invariants to countersign policy prove',
    ],
    ['something else', 'apiVersion: v1\nkind: Pod\n', 'use AuthorizationPolicy'],
  ])('is refused where policies alone are applied: %s', async (_, document, fix) => {
    const files = [{ file: 'p.yaml', text: `${policy('shop/a', 'GET')}---\n${document}` }];
    await expect(mesh.apply(files, admin, { dryRun: false, policiesOnly: true })).rejects.toMatchObject({
      code: 'document_kind_unknown',
      place: { line: 9 },
      fix,
    });
    expect(active()).toBeUndefined();
  });
});

test('any sequence of edits and ways back leaves what a plain model says', async () => {
  const keys = ['shop/a', 'shop/b', 'pay/a'];
  const methods = ['GET', 'POST'];
  const step = fc.oneof(
    fc.record({
      kind: fc.constant('put' as const),
      key: fc.constantFrom(...keys),
      method: fc.constantFrom(...methods),
    }),
    fc.record({ kind: fc.constant('delete' as const), key: fc.constantFrom(...keys) }),
    fc.record({ kind: fc.constant('activate' as const), back: fc.nat(8) }),
    fc.record({ kind: fc.constant('rollback' as const) }),
    fc.record({ kind: fc.constant('renumber' as const), by: fc.nat(3) }),
    fc.record({ kind: fc.constant('drop' as const), keep: fc.integer({ min: 1, max: 6 }) }),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 12 }), async (steps) => {
      await store.close();
      rmSync(directory, { recursive: true, force: true });
      await open();
      type Kept = { number: number; set: Map<string, string>; parent: number; restores: number | null };
      let history: Kept[] = [];
      const ids = new Map<string, string>();
      const now = () => history.at(-1);
      const push = (set: Map<string, string>, restores: number | null, number?: number) =>
        history.push({
          number: number ?? (now()?.number ?? 0) + 1,
          set,
          parent: now()?.number ?? 0,
          restores,
        });
      for (const one of steps) {
        const set = new Map(now()?.set);
        if (one.kind === 'put') {
          const text = policy(one.key, one.method);
          if (set.get(one.key) !== text) push(set.set(one.key, text), null);
          await put(one.key, one.method);
        } else if (one.kind === 'delete') {
          const isThere = set.delete(one.key);
          const deleted = mesh.deletePolicy(one.key, admin);
          if (isThere) push(set, null);
          if (isThere) await deleted;
          else await expect(deleted).rejects.toEqual(code('policy_not_found'));
        } else if (one.kind === 'renumber') {
          const after = (now()?.number ?? 0) + one.by;
          push(set, now()?.number ?? null, after + 1);
          await mesh.renumberPolicies(after, admin, '');
        } else if (one.kind === 'drop') {
          const dropped = history.slice(0, -one.keep).at(-1);
          if (dropped === undefined) continue;
          history = history.slice(-one.keep);
          await store.dropRevisions(dropped.number, []);
        } else {
          const find = (number: number) => history.find((kept) => kept.number === number);
          let target = one.kind === 'activate' ? history.at(-1 - one.back) : now();
          if (one.kind === 'rollback') {
            while (target !== undefined && target.restores !== null) target = find(target.restores);
            target = target === undefined ? undefined : find(target.parent);
          }
          const moved = go(one.kind === 'rollback' ? 'previous' : (target?.number ?? 9_999));
          if (target === undefined) {
            await expect(moved).rejects.toEqual(code('policy_revision_not_found'));
            continue;
          }
          if (!isSame(target.set, set)) push(new Map(target.set), target.number);
          await moved;
        }
        expect(contents()).toEqual(new Map([...(now()?.set ?? [])].sort()));
        expect(active()?.number).toBe(now()?.number);
        const kept = await store.policyRevisions(Number.MAX_SAFE_INTEGER, 100);
        expect(
          kept.map(({ record }) => [record.number, record.parent?.number ?? 0, record.restores]),
        ).toEqual(history.map(({ number, parent, restores }) => [number, parent, restores]).reverse());
        for (const { record } of kept) {
          expect(verifyRevision(trustDomain, record)).toBe(true);
          const held = history.find(({ number }) => number === record.number)!.set;
          const text = JSON.stringify([...held].sort());
          expect(ids.get(text) ?? record.id).toBe(record.id);
          ids.set(text, record.id);
          expect(policySetId(await store.policiesOf(record.number))).toBe(record.id);
        }
        expect(new Set(ids.values()).size).toBe(ids.size);
        expect(await store.loadMesh()).toEqual(mesh.current());
      }
    }),
    { numRuns: 8 },
  );
}, 300_000);

function isSame(a: ReadonlyMap<string, string>, b: ReadonlyMap<string, string>): boolean {
  return a.size === b.size && [...a].every(([key, text]) => b.get(key) === text);
}
