import { describe, expect, test } from 'vitest';
import { createAccessLog } from '../../src/access-log/access-log.ts';
import type { Call, JudgedCall } from '../../src/access-log/entry.ts';
import { createToldRules } from '../../src/access-log/told-rules.ts';
import type { AuditEvent } from '../../src/audit/event.ts';
import { caller, noon, outcome } from '../audit/events.ts';
import { compileSnapshot, type Snapshot } from '../../src/authz/snapshot.ts';
import { meshOf, policyText, readPolicies } from '../authz/mesh.ts';
import { manualClock } from '../harness/manual-clock.ts';
import { address } from './entries.ts';

const ledger = { destination: 'spiffe://example.org/ns/pay/sa/ledger', caller };
const orders = { destination: 'spiffe://example.org/ns/shop/sa/orders', caller };
const allow: JudgedCall = {
  ...{
    verdict: 'allow',
    reason: 'allow_rule',
    rule: 'pay/read rule[0]',
    leaf: 'allow:pay/read[0]',
    revision: 0,
  },
  ...{
    host: 'ledger.pay',
    path: '/accounts/7',
    sourceAddress: '192.0.2.9:51000',
    pathPattern: '/accounts/*',
  },
};
const deny: JudgedCall = { ...allow, verdict: 'deny', reason: 'no_policy', rule: '', leaf: 'deny:no_policy' };

function call(judged: JudgedCall, change: Partial<Call> = {}): Call {
  const { type: _, destination: _destination, caller: _caller, upstream: _upstream, ...rest } = outcome();
  const base = { ...rest, decisionId: '', upstreamAddress: address('::1', 8_080), isRecorded: false };
  const isDenied = judged.verdict === 'deny';
  return { ...base, outcome: isDenied ? 'denied' : 'ok', rule: judged.rule, flags: '', judged, ...change };
}

function start(windowSeconds = 60) {
  const clock = manualClock(noon);
  const told: AuditEvent[] = [];
  const log = createAccessLog({
    record: async (events) => {
      told.push(...events);
      return [];
    },
    clock,
    allowedCallsWindowSeconds: windowSeconds,
    onError: () => undefined,
  });
  const of = (type: string) => told.filter((event) => event.type === type);
  return { log, clock, of };
}

const at = (ms: number) => new Date(noon.getTime() + ms);

describe('calls that a proxy decided by itself', () => {
  test('are counted together when they were allowed, and what became of them is told besides', async () => {
    const { log, of } = start();
    log.call(call(allow, { time: at(5) }), ledger);
    log.call(call(allow, { time: at(1) }), ledger);
    log.call(call({ ...allow, pathPattern: '/health' }), ledger);
    log.call(call(allow), orders);
    expect(log.depth().queued).toBe(5);
    await log.close();
    expect(of('proxy_verdicts')).toMatchObject([
      {
        count: 2,
        from: at(1),
        to: at(5),
        time: at(5),
        pathPattern: '/accounts/*',
        verdict: 'allow',
        ...ledger,
      },
      { count: 1, pathPattern: '/health' },
      { count: 1, ...orders },
    ]);
    expect(of('outcomes').map((event) => 'count' in event && event.count)).toEqual([3, 1]);
    expect(of('outcome')).toEqual([]);
  });

  test('have a record each when they were denied, and no outcome of their own', async () => {
    const { log, of } = start();
    log.call(call(deny), ledger);
    log.call(call(deny), ledger);
    await log.close();
    const { leaf, host } = deny;
    const one = {
      verdict: 'deny',
      reason: 'no_policy',
      leaf,
      host,
      path: { personal: '/accounts/7' },
      ...ledger,
    };
    expect(of('proxy_verdict')).toMatchObject([one, one]);
    expect(of('outcome')).toEqual([]);
    expect(of('outcomes')).toMatchObject([{ outcome: 'denied', count: 2 }]);
  });

  test('have a record each where no window is kept', async () => {
    const { log, of } = start(0);
    log.call(call(allow), ledger);
    await log.close();
    expect(of('proxy_verdict')).toMatchObject([{ verdict: 'allow', rule: 'pay/read rule[0]' }]);
  });

  test('of a proxy that makes up a million are bounded, none is lost, and other proxies have room', async () => {
    const { log, of } = start();
    const many = 20_000;
    for (let i = 0; i < many; i++) {
      log.call(
        call({ ...deny, leaf: `deny:made_up_${i}`, path: `/${i}` }, { source: `spiffe://x/${i % 7}` }),
        ledger,
      );
    }
    log.call(call(deny), orders);
    await log.close();
    const own = of('proxy_verdict');
    expect(own).toHaveLength(5_001);
    expect(own.at(-1)).toMatchObject(orders);
    const counted = of('proxy_verdicts');
    expect(counted.length).toBeLessThan(1_000);
    const sum = counted.reduce((all, event) => all + ('count' in event ? event.count : 0), 0);
    expect(sum + own.length).toBe(many + 1);
    expect(counted).toContainEqual(expect.objectContaining({ leaf: '*', rule: '', verdict: 'deny' }));
  });
});

test('a rule that a proxy names is one of the policies in force, or none', () => {
  let snapshot = snapshotOf('/accounts/*');
  const told = createToldRules(() => snapshot);
  expect(told('pay/read rule[0]', '/accounts/7')).toBe('/accounts/*');
  expect(told('pay/read rule[0]', '/elsewhere')).toBe('*');
  for (const rule of ['pay/read rule[1]', 'pay/other rule[0]', 'pay/read', '', ' ', '__proto__ rule[0]']) {
    expect(told(rule, '/accounts/7')).toBeUndefined();
  }
  snapshot = snapshotOf('/all/*');
  expect(told('pay/read rule[0]', '/all/7')).toBe('/all/*');
});

function snapshotOf(path: string): Snapshot {
  return compileSnapshot(
    meshOf(readPolicies(policyText(`rules: [{to: [{operation: {paths: ['${path}']}}]}]`, 'read'))),
  );
}
