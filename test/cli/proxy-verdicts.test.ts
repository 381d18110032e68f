import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { planEnvoy } from '../../src/cli/envoy-bootstrap-options.ts';
import { tellCounters } from '../../src/cli/envoy-bootstrap-report.ts';
import { decision } from '../audit/events.ts';
import { proxyCoverage, proxyVerdict, proxyVerdicts } from '../audit/proxy-events.ts';
import { createScope } from '../harness/scope.ts';
import { makeTempDir } from '../harness/temp.ts';
import { type Harness, startHarness } from '../http/harness.ts';
import { openCli, type Outcome } from './run-cli.ts';

const scope = createScope();
let harness: Harness;
beforeAll(async () => {
  harness = await startHarness();
  scope.defer(() => harness.close());
  await harness.store.recordEvents([
    decision(),
    proxyVerdict(),
    proxyVerdicts(),
    proxyCoverage({ count: 10_000, counted: 10_000, missing: 0 }),
    { ...loss, count: 1, service: proxyCoverage().destination },
  ]);
});
afterAll(() => scope.close());

const time = new Date('2026-01-31T12:00:00.000Z');
const loss = { type: 'loss', time, what: 'proxy_verdict', from: time, to: time, cause: 'not_told' } as const;
const run = openCli(scope, { cwd: makeTempDir(scope) });
const cli = (...args: string[]): Promise<Outcome> => run(['--socket', harness.unix.address, ...args]);

// Never 100 % of what is not all.
const covered =
  /^in proxies +the proxies' own counters say 10000 calls, their access logs told of 9999 of them \(99\.99 %\)$/m;

describe('what proxies decided by themselves', () => {
  test.each<[string[], RegExp]>([
    [
      ['audit', 'list', '--verdict', 'deny'],
      /proxy_verdict +deny by the proxy spiffe:\S+ -> spiffe:\S+ GET \/accounts\/7 no_allow_rule$/m,
    ],
    [
      ['audit', 'list', '--type', 'proxy_verdicts'],
      /\(117 times\) allow by the proxy .* \/accounts\/\* allow_rule pay\/read rule\[0\]$/m,
    ],
    [['audit', 'list', '--type', 'proxy_coverage'], /counted 10000 and told of all$/m],
    [['audit', 'list', '--where', 'leaf=deny:no_allow_rule'], /proxy_verdict /],
    [
      ['audit', 'list', '--where', 'service=spiffe://example.org/ns/pay/sa/ledger'],
      /1 proxy_verdict records lost: not_told/,
    ],
    [['audit', 'count', '--by', 'type,verdict'], /^proxy_verdicts +allow +117 +1 /m],
    [['audit', 'graph', '--since', '2026-01-01'], / 117 +2 +0 /],
    [['audit', 'ask', 'denied'], /^2 denied calls of 1 caller/],
  ])('is in %j', async (args, expected) => {
    const { code, out: stdout } = await cli(...args);
    expect(stdout).toMatch(expected);
    expect(code).toBe(0);
  });

  test.each<[string[]]>([
    [['audit', 'graph', '--since', '2026-01-01']],
    [['audit', 'ask', 'denied']],
    [['audit', 'count', '--by', 'source,verdict']],
    [['audit', 'list', '--verdict', 'allow']],
  ])('is told with its coverage: %j', async (args) => {
    const { out: stdout, err: stderr } = await cli(...args);
    expect(`${stdout}\n${stderr}`).toMatch(covered);
  });

  test.each<[string[]]>([[['audit', 'list', '--type', 'admin']], [['audit', 'ask', 'keys']]])(
    'is not told with answers about something else: %j',
    async (args) => {
      const { out: stdout, err: stderr } = await cli(...args);
      expect(`${stdout}\n${stderr}`).not.toContain('in proxies');
    },
  );
});

describe('authz explain', () => {
  test.each([
    ['deny:no_allow_rule', /denied by the proxy itself/, /^told +1 record, as the proxies tell/m],
    ['rbac_access_denied_matched_policy[deny:no_allow_rule]', /no decision ID/, /by the proxy spiffe:/],
    ['allow:pay/read[0]', /allowed by the proxy itself/, /^rule +pay\/read rule\[0\]$/m],
    ['deny:pay/elsewhere[7]', /^reason +deny_rule$/m, /no proxy has told of a call/],
    ['ask:path', /it asked, and the decision has an ID/, /^why +path$/m],
  ])('says of %s what it means and which calls there were', async (leaf, ...expected) => {
    const { code, out: stdout } = await cli('authz', 'explain', leaf);
    for (const one of expected) expect(stdout).toMatch(one);
    expect(code).toBe(0);
    const json: unknown = JSON.parse((await cli('authz', 'explain', leaf, '-o', 'json')).out);
    expect(json).toMatchObject({ leaf: leaf.replace(/^rbac.*\[(deny.*)\]$/, '$1') });
  });

  test.each([
    'deny:',
    'deny:a b',
    'allow:everything',
    `deny:${'x'.repeat(300)}`,
    'rbac_access_denied_matched_policy[deny:\u001b[2J]',
  ])('refuses %j', async (leaf) => {
    const { code, err: stderr } = await cli('authz', 'explain', leaf);
    expect([code, stderr]).toEqual([64, expect.stringContaining('is no leaf of a policy')]);
    expect(stderr).not.toContain('\u001b');
  });
});

test.each([
  ['in-proxy', 'on', ['stats_flush_interval', 'stats_sinks']],
  ['in-proxy', 'off', []],
  ['agent', 'on', []],
] as const)('a bootstrap that decides %s and tells the log: %s', (decide, accessLogStream, expected) => {
  const ways = { inbound: '127.0.0.1:15443', app: '127.0.0.1:8080', accessLogStream };
  const workload = 'spiffe://example.org/ns/shop/sa/web';
  const plan = planEnvoy({ workload, socket: '/run/countersign/workload.sock', ...ways });
  expect(Object.keys({ ...tellCounters({ ...plan, decide }) })).toEqual(expected);
});
