import { expect, test } from 'vitest';
import { judgeProxies, nodeProxyPairs, proxyPairs } from '../../src/cli/proxy-text.ts';
import type { ProxyReport } from '../../src/http/status-report.ts';
import type { Travelled } from '../../src/http/travelled.ts';

const now = '2026-01-01T12:00:00.000Z';
const current: Travelled<ProxyReport> = {
  nodeId: 'sidecar-1',
  pid: 7,
  uid: 0,
  name: 'countersign.policy/spiffe://mesh.test/web',
  state: 'current',
  desired: 'aa'.repeat(16),
  acknowledged: 'aa'.repeat(16),
  policyRevision: 3,
  behindSince: null,
  rejection: '',
  lacks: '',
  leaves: { allow: 1, deny: 2, ask: 3 },
};
const behind = (seconds: number): Travelled<ProxyReport> => ({
  ...current,
  state: 'behind',
  behindSince: new Date(Date.parse(now) - seconds * 1_000).toISOString(),
});
const rejected: Travelled<ProxyReport> = {
  ...behind(90),
  state: 'rejected',
  rejection: `bad\u001b[2Jleaf\u202e ${'x'.repeat(2_000)}`,
};
const lacking: Travelled<ProxyReport> = { ...current, lacks: 'it is Envoy 1.39' };
const unserved: Travelled<ProxyReport> = {
  ...current,
  name: '',
  state: 'unserved',
  acknowledged: '',
  policyRevision: null,
  lacks: 'its node metadata does not declare ask-v1',
};

test.each([
  ['nobody', [], 'skipped', undefined],
  ['all with the policy of now', [current], 'ok', undefined],
  ['one that was sent it just now', [behind(20), current], 'ok', undefined],
  ['one that says nothing', [behind(40), current], 'warning', /behind for .*, it has policy revision 3$/],
  ['one that refuses', [rejected, behind(40)], 'failed', /refuses its policy for .*; and 1 more$/],
  ['one that lacks something', [lacking], 'warning', /asks about every call: it is Envoy 1\.39$/],
  ['one that is given nothing', [unserved], 'warning', /is given no policy: its node metadata/],
] as const)('%s', (_, proxies, status, cause) => {
  const result = judgeProxies({ proxies, proxiesInAll: proxies.length }, new Date(now));
  expect([result.code, result.status]).toEqual(['proxies_follow', status]);
  if (cause === undefined) expect(result.cause).toBeUndefined();
  else expect(result.cause).toMatch(cause);
});

test('an older server, which tells of none, has none', () => {
  expect([proxyPairs({ now }), judgeProxies({}, new Date(now)).status]).toEqual([[], 'skipped']);
});

test('a status names those in trouble, each in a bounded line that hides nothing', () => {
  const pairs = proxyPairs({
    proxies: [rejected, ...Array.from({ length: 20 }, () => lacking), current],
    proxiesInAll: 22,
    now,
  });
  expect(pairs[0]).toEqual([
    'proxy policies',
    '22 filters of proxies, 1 with the policy of now, 21 in trouble',
  ]);
  expect(pairs).toHaveLength(10);
  expect(pairs.at(-1)).toEqual(['proxy', 'and 13 more']);
  const [, line = ''] = pairs[1] ?? [];
  expect(line.length).toBeLessThan(500);
  expect(line).not.toMatch(/[\u0000-\u001f\u202e]/);
});

test.each([
  [undefined, []],
  [null, []],
  [{ filters: 0, behind: 0, rejecting: 0, lacking: 0, oldestPolicy: null }, []],
  [
    { filters: 3, behind: 0, rejecting: 0, lacking: 0, oldestPolicy: 7 },
    [['proxy policies', '3 filters of proxies; policy revision 7 or later is in force']],
  ],
  [
    { filters: 3, behind: 1, rejecting: 1, lacking: 1, oldestPolicy: null },
    [['proxy policies', '3 filters of proxies, 1 behind, 1 refusing, 1 lacking what they need']],
  ],
])('a node tells of its proxies: %j', (policies, pairs) => {
  expect(nodeProxyPairs(policies)).toEqual(pairs);
});
