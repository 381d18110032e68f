import type {
  ProxyCoverageEvent,
  ProxyVerdictEvent,
  ProxyVerdictsEvent,
} from '../../src/audit/proxy-event.ts';

// As in events.ts, which has one of each of these.
const noon = new Date('2026-01-31T12:00:00.000Z');
const caller = { pid: 4_711, uid: 1_000, gid: 1_000 };
const judged = {
  verdict: 'deny',
  reason: 'no_allow_rule',
  rule: '',
  leaf: 'deny:no_allow_rule',
  revision: 0,
  source: 'spiffe://example.org/ns/shop/sa/web',
  destination: 'spiffe://example.org/ns/pay/sa/ledger',
  protocol: 'http',
  method: 'GET',
  port: 8_080,
  sourceSerial: '0a1b',
  caller,
} as const;

export function proxyVerdict(change: Partial<ProxyVerdictEvent> = {}): ProxyVerdictEvent {
  return {
    ...judged,
    type: 'proxy_verdict',
    time: noon,
    host: 'ledger.pay',
    path: { personal: '/accounts/7' },
    sourceAddress: { personal: '192.0.2.9:51000' },
    ...change,
  };
}

export function proxyVerdicts(change: Partial<ProxyVerdictsEvent> = {}): ProxyVerdictsEvent {
  return {
    ...judged,
    type: 'proxy_verdicts',
    time: noon,
    from: new Date('2026-01-31T11:59:51.000Z'),
    to: noon,
    count: 117,
    verdict: 'allow',
    reason: 'allow_rule',
    rule: 'pay/read rule[0]',
    leaf: 'allow:pay/read[0]',
    pathPattern: '/accounts/*',
    ...change,
  };
}

export function proxyCoverage(change: Partial<ProxyCoverageEvent> = {}): ProxyCoverageEvent {
  return {
    type: 'proxy_coverage',
    time: noon,
    from: new Date('2026-01-31T11:59:00.000Z'),
    to: noon,
    count: 120,
    missing: 3,
    destination: 'spiffe://example.org/ns/pay/sa/ledger',
    started: new Date('2026-01-31T11:00:00.000Z'),
    counted: 7_000,
    dropped: 3,
    caller,
    ...change,
  };
}
