import { describe, expect, test } from 'vitest';
import { parsePolicy } from '../../src/authz/parse.ts';
import { MeshError } from '../../src/errors.ts';
import { readDocuments } from '../../src/yaml.ts';
import { judgeBypass, ruleOf } from './bypass.ts';
import { factBypasses } from './bypass-facts.ts';
import { documentBypasses } from './bypass-documents.ts';
import { requestBypasses } from './bypass-requests.ts';

describe.each([
  ['of the request line', requestBypasses],
  ['of what else is known of a call', factBypasses],
])('ways around policy, by means %s', (_, bypasses) => {
  test.each(bypasses.map((one) => [`${one.ids}: ${one.attack}`, one] as const))('%s', (_name, bypass) => {
    for (const call of bypass.calls) {
      expect({ call, ...judgeBypass(bypass, call) }).toEqual({
        call,
        reason: bypass.reason,
        rule: ruleOf(bypass.reason),
      });
    }
  });
});

describe('ways around policy, by means of what policies say', () => {
  test.each(documentBypasses.map((one) => [`${one.ids}: ${one.attack}`, one] as const))('%s', (_, one) => {
    const { specs, code } = one;
    for (const spec of specs) {
      const text = [
        'apiVersion: security.istio.io/v1',
        'kind: AuthorizationPolicy',
        'metadata: { name: p, namespace: pay }',
        `spec: ${typeof spec === 'string' ? spec : JSON.stringify(spec)}`,
      ].join('\n');
      expect({ spec, code: codeOf(() => readDocuments({ file: 'p.yaml', text }).map(parsePolicy)) }).toEqual({
        spec,
        code,
      });
    }
  });
});

function codeOf(read: () => unknown): string {
  try {
    read();
  } catch (error) {
    if (error instanceof MeshError) return error.code;
    throw error;
  }
  return 'accepted';
}
