import { afterEach, describe, expect, test } from 'vitest';
import type { CandidateCallsEvent } from '../src/audit/rollout-event.ts';
import { systemClock } from '../src/clock.ts';
import { MeshError } from '../src/errors.ts';
import { compileStoredMesh, createMeshHolder } from '../src/identity/current-mesh.ts';
import type { Rollout } from '../src/identity/rollout.ts';
import type { EndingCall } from '../src/identity/rollout-step.ts';
import type { RolloutCounts } from '../src/identity/rollout-tally.ts';
import { createMetrics } from '../src/metrics.ts';
import { TrustDomain } from '../src/spiffe/id.ts';
import type { Store } from '../src/store/store.ts';
import { openRolloutWatch } from '../src/up-rollout.ts';
import { addRolloutMetrics, rolloutStatus } from '../src/up-rollout-report.ts';
import { candidateCalls } from './audit/rollout-events.ts';
import { eventually } from './harness/eventually.ts';
import { unsignedRevision } from './harness/policy-signer.ts';
import { openTestStore } from './store/directories.ts';

const noon = new Date('2026-01-31T12:00:00.000Z');
const settings = {
  trustDomain: TrustDomain.parse('example.org'),
  rootNamespace: 'istio-system',
  ttlSeconds: 3_600,
};
const { rollout: id } = candidateCalls();
const closes: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closes.splice(0)) await close();
});

function meshAt(change: Partial<Rollout> = {}) {
  const { record } = unsignedRevision(undefined, [], noon);
  const state: Rollout = {
    id,
    base: 1,
    step: 2,
    stage: 'canary',
    percent: 50,
    maxNewDenials: 5,
    candidate: '',
    time: noon,
    recordSha256: '',
    publicKey: '',
    signature: '',
    ...change,
  };
  const author = { kind: 'system' } as const;
  return compileStoredMesh(
    {
      revision: 1,
      entries: new Map(),
      bans: new Map(),
      policies: new Map(),
      policyRevision: record,
      rollout: { state, changes: { put: [], deleted: [] } },
      rolloutReason: { author, message: '', cause: '', startedAt: new Date(0), startedBy: author },
    },
    settings,
  );
}

async function watch(
  store: Pick<Store, 'queryAudit'>,
  options: { stage?: Rollout['stage']; failures?: number } = {},
) {
  const { stage = 'canary', failures = 0 } = options;
  const ended: [string, EndingCall][] = [];
  let left = failures;
  const holder = createMeshHolder(meshAt({ stage }));
  const watching = await openRolloutWatch({
    store,
    holder,
    endRollout: async (rollout, call) => {
      if (left-- > 0) throw new MeshError('store_unavailable', 'the disk is full');
      ended.push([rollout, call]);
      holder.replace(meshAt({ stage: 'ended', step: 3 }));
      return true;
    },
    clock: { now: () => noon, sleep: (_ms, signal) => systemClock.sleep(1, signal) },
    log: { error: () => undefined } as never,
  });
  closes.push(watching.close);
  return { ...watching, ended };
}

const denied = (count: number, node: string): CandidateCallsEvent =>
  candidateCalls({ applied: 'candidate', count, caller: { pid: 1, uid: 1, gid: 1, node } });

test('denials of all nodes together end it once they are beyond the budget', async () => {
  const { look, ended, counts } = await watch(await openTestStore());
  look([denied(3, 'web-1'), denied(2, 'web-2')]);
  expect(ended).toEqual([]);
  look([denied(1, 'web-3')]);
  await eventually('the end', () => ended.length === 1);
  expect(ended[0]).toMatchObject([id, { node: 'web-3' }]);
  expect(counts()).toMatchObject({ judged: 6, denied: 6 });
});

test('it is tried until the rollout is over, and once', async () => {
  const { look, ended } = await watch(await openTestStore(), { failures: 3 });
  look([candidateCalls({ applied: 'fallback' }), candidateCalls({ applied: 'fallback' })]);
  await eventually('the end', () => ended.length > 0);
  look([candidateCalls({ applied: 'fallback' })]);
  expect(ended).toHaveLength(1);
});

test('a shadow is ended by nothing, and calls of another rollout count for nothing', async () => {
  const { look, ended, counts } = await watch(await openTestStore(), { stage: 'shadow' });
  look([candidateCalls({ applied: 'fallback' }), candidateCalls({ rollout: 'cd'.repeat(16) })]);
  expect([ended, counts().judged]).toEqual([[], 12]);
});

test('after a restart the log is counted again, and what is beyond the budget ends it', async () => {
  const store = await openTestStore();
  await store.recordEvents([
    denied(4, 'web-1'),
    candidateCalls({ change: 'same', count: 30 }),
    candidateCalls({ rollout: 'cd'.repeat(16) }),
  ]);
  const first = await watch(store);
  expect([first.counts().judged, first.ended]).toEqual([34, []]);
  await store.recordEvents([denied(2, 'web-1')]);
  const second = await watch(store);
  await eventually('the end', () => second.ended.length === 1);
});

describe('what is told of it', () => {
  const told = (holder: ReturnType<typeof createMeshHolder>, counts: Partial<RolloutCounts> = {}) => {
    const all = {
      judged: 0,
      newlyDenied: 0,
      newlyAllowed: 0,
      denied: 0,
      fallenBack: 0,
      edges: [],
      ...counts,
    };
    const metrics = createMetrics();
    addRolloutMetrics(metrics, { holder, rollouts: { counts: () => all } });
    const samples = metrics.text().match(/^countersign_policy_rollout\S* \S+$/gm);
    return { status: rolloutStatus(holder.current().mesh, all), samples };
  };
  const samples = (shadow: number, canary: number, percent: number, calls: readonly number[]) => [
    `countersign_policy_rollout{stage="shadow"} ${shadow}`,
    `countersign_policy_rollout{stage="canary"} ${canary}`,
    `countersign_policy_rollout_percent ${percent}`,
    ...['same', 'newly_denied', 'newly_allowed'].map(
      (change, at) => `countersign_policy_rollout_calls{change="${change}"} ${calls[at]}`,
    ),
  ];
  const counts = { judged: 9, newlyDenied: 2, newlyAllowed: 3 };

  test.each<[string, Partial<Rollout>, object | null, readonly string[]]>([
    [
      'a shadow',
      { stage: 'shadow', percent: 0 },
      { stage: 'shadow', percent: 0 },
      samples(1, 0, 0, [4, 2, 3]),
    ],
    ['a canary', {}, { stage: 'canary', percent: 50 }, samples(0, 1, 50, [4, 2, 3])],
    ['one that has ended', { stage: 'ended', percent: 0 }, null, samples(0, 0, 0, [4, 2, 3])],
    ['one beside another revision', { base: 7 }, null, samples(0, 0, 0, [4, 2, 3])],
  ])('%s', (_, change, status, expected) => {
    expect(told(createMeshHolder(meshAt(change)), counts)).toEqual({
      status: status === null ? null : { id, base: 1, since: noon, ...counts, ...status },
      samples: expected,
    });
  });
});
