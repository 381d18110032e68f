import type {
  AlarmEvent,
  ConnectionsEvent,
  OutcomeEvent,
  OutcomesEvent,
} from '../../src/audit/access-event.ts';
import type {
  AllowedCallsEvent,
  AuditEvent,
  DecisionEvent,
  IssuanceEvent,
  JwtIssuanceEvent,
} from '../../src/audit/event.ts';
import { proxyCoverage, proxyVerdict, proxyVerdicts } from './proxy-events.ts';
import { retention } from './retention-events.ts';
import { candidateCalls, policyRollout } from './rollout-events.ts';

export const noon = new Date('2026-01-31T12:00:00.000Z');
export const caller = { pid: 4_711, uid: 1_000, gid: 1_000 };

export function decision(change: Partial<DecisionEvent> = {}): DecisionEvent {
  return {
    type: 'decision',
    time: noon,
    decisionId: 'd-1',
    verdict: 'deny',
    reason: 'no_allow_rule',
    rule: '',
    why: 'no ALLOW rule matched',
    revision: 3,
    source: 'spiffe://example.org/ns/shop/sa/web',
    destination: 'spiffe://example.org/ns/pay/sa/ledger',
    protocol: 'http',
    method: 'GET',
    host: 'ledger.pay',
    path: { personal: '/accounts/7' },
    port: 8_080,
    sourceSerial: '0a1b',
    sourceAddress: { personal: '127.0.0.1:40000' },
    caller,
    ...change,
  };
}

export function allowedCalls(change: Partial<AllowedCallsEvent> = {}): AllowedCallsEvent {
  return {
    type: 'allowed_calls',
    time: noon,
    from: new Date('2026-01-31T11:59:51.000Z'),
    to: noon,
    count: 117,
    reason: 'allow_rule',
    rule: 'pay/read rule[0]',
    revision: 3,
    source: 'spiffe://example.org/ns/shop/sa/web',
    destination: 'spiffe://example.org/ns/pay/sa/ledger',
    protocol: 'http',
    method: 'GET',
    pathPattern: '/accounts/*',
    port: 8_080,
    sourceSerial: '0a1b',
    caller,
    ...change,
  };
}

const seenCall = {
  source: 'spiffe://example.org/ns/shop/sa/web',
  destination: 'spiffe://example.org/ns/pay/sa/ledger',
  protocol: 'http',
  method: 'GET',
  port: 8_080,
  sourceSerial: '0a1b',
  outcome: 'ok',
  flags: '',
  rule: 'pay/read rule[0]',
  caller,
} as const;

export function outcome(change: Partial<OutcomeEvent> = {}): OutcomeEvent {
  return {
    ...seenCall,
    type: 'outcome',
    time: noon,
    outcome: 'denied',
    flags: 'UAEX',
    rule: '',
    decisionId: 'd-1',
    status: 403,
    details: 'ext_authz_denied',
    upstream: '',
    durationMs: 3,
    bytesReceived: 200,
    bytesSent: 180,
    ...change,
  };
}

export function outcomes(change: Partial<OutcomesEvent> = {}): OutcomesEvent {
  return {
    ...seenCall,
    type: 'outcomes',
    time: noon,
    from: new Date('2026-01-31T11:59:51.000Z'),
    to: noon,
    count: 117,
    statusClass: '2xx',
    longestMs: 40,
    bytesReceived: 23_400,
    bytesSent: 117_000,
    ...change,
  };
}

export function connections(change: Partial<ConnectionsEvent> = {}): ConnectionsEvent {
  return {
    type: 'connections',
    time: noon,
    from: new Date('2026-01-31T11:59:51.000Z'),
    to: noon,
    count: 4,
    kind: 'tls_failed',
    source: '',
    sourceSerial: '',
    claimedSource: 'spiffe://example.org/ns/shop/sa/web',
    claimedSerial: '01',
    failure: 'unknown_issuer',
    destination: 'spiffe://example.org/ns/pay/sa/ledger',
    port: 15_443,
    sourceAddress: { personal: '192.0.2.9:51000' },
    caller,
    ...change,
  };
}

export function alarm(change: Partial<AlarmEvent> = {}): AlarmEvent {
  return {
    type: 'alarm',
    time: noon,
    kind: 'unknown_certificate',
    serial: '0badc0de',
    claimedSource: 'spiffe://example.org/ns/shop/sa/web',
    destination: 'spiffe://example.org/ns/pay/sa/ledger',
    seenIn: 'connections',
    sourceAddress: { personal: '192.0.2.9:51000' },
    caller,
    ...change,
  };
}

export function issuance(change: Partial<IssuanceEvent> = {}): IssuanceEvent {
  return {
    type: 'issuance',
    time: noon,
    profile: 'x509-svid',
    spiffeId: 'spiffe://example.org/ns/shop/sa/web',
    serial: '5f3a9c0000000000000000000000aa01',
    notBefore: new Date('2026-01-31T11:59:30.000Z'),
    notAfter: new Date('2026-01-31T13:00:00.000Z'),
    tbsSha256: 'ab'.repeat(32),
    spkiSha256: 'cd'.repeat(32),
    issuerKeyId: 'ef'.repeat(20),
    entryId: 'web',
    entryRevision: 2,
    selectors: ['unix:path:/usr/bin/envoy', 'unix:uid:1000'],
    caller,
    ...change,
  };
}

export function jwtIssuance(change: Partial<JwtIssuanceEvent> = {}): JwtIssuanceEvent {
  return {
    type: 'jwt_issuance',
    time: noon,
    spiffeId: 'spiffe://example.org/ns/shop/sa/web',
    audiences: ['db', 'https://cache.example.org'],
    keyId: 'ef'.repeat(20),
    jwtId: '4a'.repeat(16),
    issuedAt: noon,
    notAfter: new Date('2026-01-31T12:05:00.000Z'),
    signingInputSha256: 'ab'.repeat(32),
    entryId: 'web',
    entryRevision: 2,
    selectors: ['unix:path:/usr/bin/envoy', 'unix:uid:1000'],
    caller,
    ...change,
  };
}

/** One event of each type, nothing remarkable about any. */
export const oneOfEach: readonly AuditEvent[] = [
  issuance(),
  {
    type: 'refusal',
    time: noon,
    door: 'sds',
    code: 'identity_none',
    message: 'no entry matches',
    resource: 'default',
    selectors: ['unix:uid:1000'],
    caller,
    count: 1,
  },
  {
    type: 'entry_change',
    time: noon,
    action: 'created',
    entryId: 'web',
    spiffeId: 'spiffe://example.org/ns/shop/sa/web',
    revision: 2,
    actor: { kind: 'uid', uid: 0, role: 'admin' },
    before: null,
    after: { id: 'web', selectors: ['unix:uid:1000'], labels: { app: 'web' } },
  },
  {
    type: 'policy_change',
    time: noon,
    action: 'deleted',
    policy: 'shop/orders',
    revision: 3,
    actor: { kind: 'token', tokenId: '0123456789abcdef', role: 'operator' },
    beforeSha256: '12'.repeat(32),
    afterSha256: '',
    document: '',
  },
  {
    type: 'policy_text',
    time: noon,
    policy: 'shop/orders',
    revision: 3,
    sha256: '12'.repeat(32),
    part: 2,
    parts: 3,
    text: 'spec:\n  rules:\n',
  },
  {
    type: 'policy_revision',
    time: noon,
    action: 'activated',
    number: 7,
    first: 7,
    id: '34'.repeat(32),
    parent: 6,
    restores: 4,
    revision: 12,
    actor: { kind: 'token', tokenId: '0123456789abcdef', role: 'policy-author' },
    message: 'checkout was denied',
    signature: 'AAAA',
  },
  policyRollout(),
  decision(),
  allowedCalls(),
  candidateCalls(),
  outcome(),
  outcomes(),
  connections(),
  alarm(),
  proxyVerdict(),
  proxyVerdicts(),
  proxyCoverage(),
  { type: 'loss', time: noon, what: 'decision', count: 12, from: noon, to: noon, cause: 'queue full' },
  {
    type: 'authority',
    time: noon,
    action: 'created',
    kind: 'root',
    trustDomain: 'example.org',
    serial: '01',
    keyId: 'ef'.repeat(20),
    notBefore: noon,
    notAfter: new Date('2036-01-31T12:00:00.000Z'),
    certificateSha256: '34'.repeat(32),
  },
  {
    type: 'admin',
    time: noon,
    action: 'refused',
    actor: { kind: 'anonymous' },
    method: 'GET',
    route: '/v1/audit',
    code: 'unauthenticated',
    detail: '',
    sourceAddress: { personal: '192.0.2.7:1234' },
  },
  { type: 'lifecycle', time: noon, action: 'started', version: '0.1.0' },
  {
    type: 'ban',
    time: noon,
    action: 'created',
    kind: 'spiffe-id',
    value: 'spiffe://example.org/ns/shop/sa/web',
    reason: 'host taken over',
    until: new Date('2026-02-01T12:00:00.000Z'),
    revision: 4,
    actor: { kind: 'uid', uid: 0, role: 'admin' },
  },
  jwtIssuance(),
  {
    type: 'jwt_key',
    time: noon,
    action: 'activated',
    actor: { kind: 'system' },
    evidence: 'published since 2026-01-30T12:00:00.000Z',
    trustDomain: 'example.org',
    keyId: 'ef'.repeat(20),
    keyType: 'ec-p256',
    spkiSha256: 'cd'.repeat(32),
    sequence: 3,
  },
  {
    type: 'node',
    time: noon,
    action: 'attested',
    node: 'web-1',
    method: 'join_token',
    selectors: ['join_token:id:0123456789abcdef', 'join_token:web-1'],
    serial: '',
    code: '',
    actor: { kind: 'system' },
    sourceAddress: { personal: '192.0.2.7' },
  },
  {
    type: 'node_alias_change',
    time: noon,
    action: 'created',
    alias: 'edge',
    revision: 5,
    actor: { kind: 'uid', uid: 0, role: 'admin' },
    before: [],
    after: ['k8s_psat:cluster:edge'],
  },
  {
    type: 'grant_change',
    time: noon,
    action: 'created',
    grant: 'shop',
    revision: 6,
    actor: { kind: 'oidc', issuer: 'https://login.example.org', subject: 'ann', role: 'admin' },
    before: null,
    after: {
      subject: { kind: 'spiffe-id', issuer: '', value: 'spiffe://example.org/ns/ci/sa/deployer' },
      role: 'policy-author',
      namespaces: ['shop'],
    },
  },
  retention(),
];
