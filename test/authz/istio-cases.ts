import { expect } from 'vitest';
import { evaluateBatch, type EvalAnswer } from '../../src/cli/authz-eval.ts';
import { noon } from './mesh.ts';

/** A line as people write it: what is not named is an ordinary call of shop/web to shop/orders. */
export type Line = {
  readonly request?: object;
  readonly policies?: readonly unknown[] | undefined;
  readonly mesh?: object;
  readonly workload?: object;
  readonly mode?: string;
  readonly [other: string]: unknown;
};

export const call = {
  protocol: 'http',
  principal: 'spiffe://cluster.local/ns/shop/sa/web',
  method: 'GET',
  path: '/orders/1',
  host: 'orders.shop',
  sourceIp: '10.0.0.7',
  destinationIp: '10.1.0.1',
  destinationPort: 8080,
};

/** A policy `shop/p` of these rules. */
export function policy(rules: readonly unknown[] | undefined, more: object = {}, metadata: object = {}) {
  return {
    apiVersion: 'security.istio.io/v1',
    kind: 'AuthorizationPolicy',
    metadata: { name: 'p', namespace: 'shop', ...metadata },
    spec: { ...(rules === undefined ? {} : { rules }), ...more },
  };
}

export const from = (source: object) => [{ from: [{ source }] }];
export const to = (operation: object) => [{ to: [{ operation }] }];
export const when = (key: string, values: readonly string[], notValues?: readonly string[]) => [
  { when: [{ key, values, ...(notValues === undefined ? {} : { notValues }) }] },
];

/** Judges lines as Istio does unless they say otherwise. */
export async function judge(...lines: readonly Line[]): Promise<EvalAnswer[]> {
  const text = lines
    .map(({ request, ...line }) =>
      JSON.stringify({
        mode: 'istio',
        workload: { namespace: 'shop', labels: { app: 'orders' } },
        policies: [],
        ...line,
        request: { ...call, ...request },
      }),
    )
    .join('\n');
  return collect(text);
}

/** Whether an ALLOW policy of these rules allows the call, changed so. */
export async function allows(
  rules: readonly unknown[],
  request: object = {},
  mesh: object = {},
): Promise<boolean> {
  const [answer] = await judge({ policies: [policy(rules)], request, mesh });
  expect(answer?.error).toBe(null);
  return answer?.allow === true;
}

/** Judges a text. */
export async function collect(text: string): Promise<EvalAnswer[]> {
  const answers: EvalAnswer[] = [];
  async function* stream(): AsyncGenerator<Buffer> {
    yield Buffer.from(text);
  }
  for await (const answer of evaluateBatch(stream(), 'calls', noon)) answers.push(answer);
  return answers;
}
