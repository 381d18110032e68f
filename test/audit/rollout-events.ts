import type { CandidateCallsEvent, PolicyRolloutEvent } from '../../src/audit/rollout-event.ts';

const time = new Date('2026-01-31T12:00:00.000Z');
const caller = { pid: 4_711, uid: 1_000, gid: 1_000 };

export function policyRollout(change: Partial<PolicyRolloutEvent> = {}): PolicyRolloutEvent {
  return {
    type: 'policy_rollout',
    time,
    action: 'canary',
    rollout: '5c'.repeat(16),
    base: 7,
    step: 2,
    percent: 5,
    maxNewDenials: 0,
    candidate: '56'.repeat(32),
    revision: 14,
    actor: { kind: 'token', tokenId: '0123456789abcdef', role: 'policy-author' },
    message: 'GET only',
    cause: '',
    source: '',
    destination: '',
    rule: '',
    signature: 'AAAA',
    ...change,
  };
}

export function candidateCalls(change: Partial<CandidateCallsEvent> = {}): CandidateCallsEvent {
  return {
    type: 'candidate_calls',
    time,
    from: new Date('2026-01-31T11:59:51.000Z'),
    to: time,
    count: 12,
    rollout: '5c'.repeat(16),
    change: 'newly_denied',
    applied: 'active',
    reason: 'allow_rule',
    rule: 'pay/read rule[0]',
    candidateReason: 'no_allow_rule',
    candidateRule: '',
    revision: 13,
    source: 'spiffe://example.org/ns/shop/sa/web',
    destination: 'spiffe://example.org/ns/pay/sa/ledger',
    protocol: 'http',
    method: 'POST',
    pathPattern: '/accounts/*',
    port: 8_080,
    caller,
    ...change,
  };
}
