import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type Decision, decisionReasons } from '../../src/authz/decision.ts';
import { encodeDecision, encodeOutage, readAsEnvoy } from '../../src/ext-authz/response.ts';
import { CheckResponse } from '../../src/wire/authz.ts';

const allow: Decision = {
  verdict: 'allow',
  reason: 'allow_rule',
  rule: 'shop/orders rule[0]',
  why: 'a rule allows it',
  revision: 7,
  nearest: null,
  custom: null,
  audited: '',
  breakGlass: '',
  shadow: null,
};
const deny: Decision = { ...allow, verdict: 'deny', reason: 'no_allow_rule', rule: '' };

describe('how Envoy reads an answer', () => {
  // The first six are the encodings that were measured to open the door.
  test.each([
    ['nothing', '', 'allow'],
    ['an empty status', '0a00', 'allow'],
    ['status code 0 written out', '0a020800', 'allow'],
    ['a denied_response without a status', '12050a03089303', 'allow'],
    ['a denied_response with status 0', '0a0012050a03089303', 'allow'],
    ['an ok_response without a status', '1a00', 'allow'],
    ['status 7', '0a020807', 'deny'],
    ['status 16', '0a020810', 'deny'],
    ['status 7 with an ok_response', '0a0208071a00', 'deny'],
    ['status 13 with an error_response', '0a02080d2a050a0308f703', 'error'],
    ['half a message', '0a05', 'error'],
  ])('%s', (_, hex, reading) => {
    expect(readAsEnvoy(Buffer.from(hex, 'hex'))).toBe(reading);
  });
});

describe('a decision', () => {
  test('an allow says so, and takes what only the mesh may say from the request', () => {
    const { bytes, decision } = encodeDecision(allow, 'd-1', ['x-countersign-source']);
    const response = CheckResponse.decode(bytes);
    expect(decision).toBe(allow);
    expect(readAsEnvoy(bytes)).toBe('allow');
    expect(response.status).toEqual({ code: 0, message: 'allowed d-1', details: [] });
    expect(response.httpResponse).toMatchObject({
      $case: 'okResponse',
      okResponse: { headers: [], headersToRemove: ['x-countersign-decision', 'x-countersign-source'] },
    });
    expect(response.dynamicMetadata).toEqual({
      decision_id: 'd-1',
      verdict: 'allow',
      reason: 'allow_rule',
      rule: 'shop/orders rule[0]',
      revision: 7,
      mode: 'strict',
    });
  });

  test.each<[string, Partial<Decision>]>([
    ['that an AUDIT rule marks', { audited: 'shop/watch rule[0]' }],
    ['that a break-glass grant let pass', { breakGlass: 'INC-7' }],
  ])('an allow %s tells the proxy that it has a record, and no other does', (_, change) => {
    const metadataOf = (decision: Decision, id: string): unknown =>
      CheckResponse.decode(encodeDecision(decision, id).bytes).dynamicMetadata;
    // Whole, and out of a mould of the same rule.
    for (const id of ['d-1', 'a'.repeat(24), 'b'.repeat(24)]) {
      expect(metadataOf({ ...allow, ...change }, id)).toMatchObject({ decision_id: id, recorded: true });
      expect(metadataOf(allow, id)).not.toHaveProperty('recorded');
    }
  });

  test('a call that no policy is about is allowed in Istio mode alone', () => {
    const byDefault: Decision = { ...allow, reason: 'allow_by_default', rule: '' };
    const { bytes } = encodeDecision({ ...byDefault, mode: 'istio' }, 'd-1');
    expect(readAsEnvoy(bytes)).toBe('allow');
    expect(CheckResponse.decode(bytes).dynamicMetadata).toMatchObject({ mode: 'istio' });
    for (const mode of ['strict', undefined] as const) {
      const refused = encodeDecision({ ...byDefault, ...(mode === undefined ? {} : { mode }) }, 'd-1');
      expect(readAsEnvoy(refused.bytes)).toBe('deny');
    }
    expect(readAsEnvoy(encodeDecision({ ...byDefault, verdict: 'deny', mode: 'istio' }, 'd-1').bytes)).toBe(
      'deny',
    );
  });

  test('a deny is a 403 that names its reason and decision and nothing else', () => {
    const secret = { ...deny, rule: 'shop/secret rule[3]', why: 'methods is GET at policy.yaml:3:4' };
    const { bytes } = encodeDecision(secret, 'd-2');
    const response = CheckResponse.decode(bytes);
    expect(readAsEnvoy(bytes)).toBe('deny');
    expect(response.status?.code).toBe(7);
    expect(response.httpResponse?.$case).toBe('deniedResponse');
    const denied =
      response.httpResponse?.$case === 'deniedResponse' ? response.httpResponse.deniedResponse : undefined;
    expect(denied?.status?.code).toBe(403);
    expect(denied?.body).toBe('denied by policy: no_allow_rule; decision d-2\n');
    expect(denied?.headers.map(({ header }) => [header?.key, header?.value])).toEqual([
      ['x-countersign-decision', 'd-2'],
    ]);
  });

  test('the body of a denial can be chosen', () => {
    const { bytes } = encodeDecision(deny, 'd-3', [], () => 'no');
    expect(bytes.toString('latin1')).toContain('no');
    expect(bytes.toString('latin1')).not.toContain('denied by policy');
  });

  test.each<[string, Decision]>([
    ['an allow without an allowing rule', { ...allow, reason: 'no_policy' }],
    ['a deny for an allowing rule', { ...deny, reason: 'allow_rule' }],
    ['a verdict of no kind', { ...allow, verdict: 'Allow' as 'allow' }],
    ['no verdict', { ...allow, verdict: undefined as unknown as 'allow' }],
    ['an empty value', {} as Decision],
    ['metadata that cannot be encoded', { ...allow, rule: Symbol('x') as unknown as string }],
  ])('%s is a deny', (_, decision) => {
    const answer = encodeDecision(decision, 'd-4');
    expect(readAsEnvoy(answer.bytes)).toBe('deny');
    expect(answer.decision).toMatchObject({ verdict: 'deny', reason: 'engine_failed' });
  });

  test('a body that throws is a deny', () => {
    const answer = encodeDecision(deny, 'd-5', [], () => {
      throw new Error('template');
    });
    expect(readAsEnvoy(answer.bytes)).toBe('deny');
    expect(answer.decision.reason).toBe('engine_failed');
  });

  test.each(['', 'a b', 'a\r\nset-cookie: x', 'é', 'x'.repeat(65)])('the id %j is not sent', (id) => {
    const text = encodeDecision(deny, id).bytes.toString('utf8');
    expect(text).toContain('decision unknown');
  });

  test('an outage is neither', () => {
    expect(readAsEnvoy(encodeOutage())).toBe('error');
    expect(CheckResponse.decode(encodeOutage())).toMatchObject({
      status: { code: 14 },
      httpResponse: { $case: 'errorResponse', errorResponse: { status: { code: 503 } } },
    });
  });

  test('no bytes are ever an allow unless the verdict is', () => {
    const odd = fc.oneof(fc.string(), fc.constant(undefined), fc.constant(null), fc.double(), fc.object());
    const decisions = fc.record({
      verdict: fc.oneof({ weight: 4, arbitrary: fc.constantFrom('allow', 'deny') }, odd),
      reason: fc.oneof({ weight: 4, arbitrary: fc.constantFrom(...decisionReasons) }, odd),
      rule: odd,
      why: odd,
      revision: fc.oneof(fc.nat(), odd),
      nearest: odd,
      mode: fc.oneof(fc.constantFrom('strict', 'istio', undefined), odd),
    });
    const body = fc.option(fc.string({ unit: 'binary' }), { nil: undefined, freq: 1 });
    // As long as ours are, at times: then answers of one kind are copies of the first.
    const ids = fc.oneof(
      fc.string(),
      fc.string({ unit: fc.constantFrom('a', '1'), minLength: 24, maxLength: 24 }),
    );
    fc.assert(
      fc.property(
        decisions,
        ids,
        fc.option(fc.array(fc.string()), { nil: [] }),
        body,
        (decision, id, headers, text) => {
          const { bytes, decision: sent } = encodeDecision(
            decision as Decision,
            id,
            headers,
            text === undefined ? undefined : () => text,
          );
          const { reason, mode } = decision;
          const byDefault = reason === 'allow_by_default' && mode === 'istio';
          const meant = decision.verdict === 'allow' && (reason === 'allow_rule' || byDefault);
          if (!meant) expect(readAsEnvoy(bytes)).not.toBe('allow');
          expect(readAsEnvoy(bytes)).toBe(sent.verdict);
        },
      ),
      { numRuns: 2_000 },
    );
  });

  test('the second of a kind differs from the first in its ID alone, and carries the decision it is given', () => {
    const kinds = fc.constantFrom(...decisionReasons);
    const rules = fc.constantFrom(
      '',
      'a/b rule[0]',
      'countersign.decision.id_',
      'é',
      'x countersign.decision.id_',
    );
    fc.assert(
      fc.property(fc.array(fc.tuple(kinds, rules, fc.nat(2)), { minLength: 2 }), (list) => {
        for (const [i, [reason, rule, revision]] of list.entries()) {
          const verdict = reason === 'allow_rule' ? 'allow' : 'deny';
          const decision: Decision = { ...base, verdict, reason, rule, revision };
          const id = String(i).padStart(24, 'a');
          // With a text of its own, which is the same, each is encoded whole.
          const body = ({ reason: why }: Decision, of: string) =>
            `denied by policy: ${why}; decision ${of}\n`;
          const whole = encodeDecision(decision, id, [], body);
          expect(encodeDecision(decision, id).bytes).toEqual(whole.bytes);
          expect(encodeDecision(decision, id).decision).toBe(decision);
        }
      }),
      { numRuns: 100 },
    );
  });
});

const base: Decision = {
  verdict: 'deny',
  reason: 'no_policy',
  rule: '',
  why: '',
  revision: 1,
  nearest: null,
  custom: null,
  audited: '',
  breakGlass: '',
  shadow: null,
};
