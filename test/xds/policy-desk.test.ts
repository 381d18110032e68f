import { expect, test } from 'vitest';
import { compileProxyPolicy } from '../../src/authz/proxy-policy.ts';
import { compileSnapshot } from '../../src/authz/snapshot.ts';
import { MeshError } from '../../src/errors.ts';
import { createNotice } from '../../src/identity/notice.ts';
import { createPolicyDesk, type PolicyDeskParts } from '../../src/xds/policy-desk.ts';
import { SpiffeId, TrustDomain } from '../../src/spiffe/id.ts';
import { settle } from '../harness/manual-clock.ts';

const trustDomain = TrustDomain.parse('mesh.test');
const snapshotAt = (revision: number) =>
  compileSnapshot({ revision, trustDomain, rootNamespace: 'root', policies: [], workloads: [] });
const [web, api] = ['web', 'api'].map((name) => SpiffeId.parse(`spiffe://mesh.test/${name}`)) as [
  SpiffeId,
  SpiffeId,
];

/** A desk whose state a test sets, and what it makes. */
function openDesk(compile: NonNullable<PolicyDeskParts['compile']> = compileProxyPolicy) {
  const changed = createNotice();
  const made: string[] = [];
  const failures: string[] = [];
  let number = 1;
  let asks: string | null = null;
  const desk = createPolicyDesk({
    state: () => ({ snapshot: snapshotAt(number), bannedIds: [], number, asksAll: () => asks }),
    onChange: changed.subscribe,
    breathe: () => new Promise((resolve) => setImmediate(resolve)),
    compiled: () => undefined,
    failed: (_, error) => failures.push(error instanceof MeshError ? error.code : String(error)),
    compile: (input) => {
      made.push(`${input.destination.path} ${input.snapshot.revision} ${input.asksAll ?? '-'}`);
      return compile(input);
    },
  });
  return {
    desk,
    made,
    failures,
    set: (next: number, reason: string | null = null): void => {
      [number, asks] = [next, reason];
      changed.announce();
    },
  };
}

test('one policy is made for all who hold it, and none for nobody', async () => {
  const { desk, made, set } = openDesk();
  const leases = [web, web, api].map((id) => desk.hold(id, () => undefined));
  await settle();
  expect(made).toEqual(['/web 1 -', '/api 1 -']);
  expect(leases[0]?.current()).toBe(leases[1]?.current());
  leases[2]?.release();
  set(2);
  await settle();
  expect(made.slice(2)).toEqual(['/web 2 -']);
  for (const lease of leases) lease.release();
  set(3);
  await settle();
  expect(made).toHaveLength(3);
});

test('what changes in a burst is made once, of the latest state, and nobody waits for ever', async () => {
  const { desk, made, set } = openDesk();
  for (const id of [web, api]) desk.hold(id, () => undefined);
  await settle();
  made.length = 0;
  for (const number of [2, 3, 4]) set(number);
  await settle();
  expect(made).toEqual(['/web 4 -', '/api 4 -']);
  made.length = 0;
  for (let number = 5; number < 25; number++) {
    set(number);
    await new Promise(setImmediate);
  }
  await settle();
  expect(new Set(made.map((what) => what.split(' ')[0]))).toEqual(new Set(['/web', '/api']));
  expect(made.at(-1)).toMatch(/24 -$/);
});

test('equal content is the same policy, and nobody is told; its revision goes on', async () => {
  const { desk, set } = openDesk();
  let told = 0;
  const lease = desk.hold(web, () => (told += 1));
  await settle();
  const first = lease.current();
  set(2);
  await settle();
  expect([told, lease.current() === first, first?.number]).toEqual([1, true, 2]);
  set(3, 'a_reason');
  await settle();
  expect([told, lease.current() === first, first?.number]).toEqual([2, false, 2]);
});

test('no revision before one that was served is made: everybody is asked about', async () => {
  const { desk, made, failures, set } = openDesk();
  const lease = desk.hold(web, () => undefined);
  set(9);
  await settle();
  set(8);
  await settle();
  expect(made.at(-1)).toBe('/web 8 older_revision');
  expect(lease.current()?.policy.leaves.allow).toBe(0);
  expect(failures).toEqual(['policy_replayed']);
  set(10);
  await settle();
  expect(made.at(-1)).toBe('/web 10 -');
});

test('what cannot be made asks about every call', async () => {
  const broken = new Error('the bytes are not what was meant');
  const { desk, failures } = openDesk(function* (input) {
    if (input.asksAll === null) throw broken;
    return yield* compileProxyPolicy(input);
  });
  const lease = desk.hold(web, () => undefined);
  await settle();
  expect(failures).toEqual([String(broken)]);
  expect(lease.current()?.policy.leaves).toMatchObject({ allow: 0, deny: 0 });
});
