import { readFileSync } from 'node:fs';
import type { TokenName } from './callers.ts';
import { entry, id } from './documents.ts';
import { type Answer, type Harness, startHarness } from './harness.ts';

/** A question of the certification scenario and what is expected of its answer. */
export type Case = {
  readonly id: string;
  readonly route: string;
  readonly body: object;
  readonly status: number;
  readonly decision?: boolean;
  readonly decisions?: readonly (boolean | null)[];
  readonly includes?: readonly Record<string, unknown>[];
  readonly like?: string;
  readonly empty?: boolean;
};
export const scenario = JSON.parse(readFileSync('test/vectors/authzen-certification.json', 'utf8')) as {
  readonly policies: readonly string[];
  readonly cases: readonly Case[];
};

const policy = (name: string, namespace: string, spec: string) =>
  `apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: { name: ${name}, namespace: ${namespace} }\nspec: ${spec}\n`;
export const [web, job, ledger] = [id('web'), id('job'), id('ledger', 'bank')];
const documents = [
  ...[entry('web'), entry('job'), entry('ledger', 'bank')],
  policy(
    'ledger',
    'bank',
    `{ rules: [{ from: [{ source: { principals: [${web.replace('spiffe://', '')}] } }], to: [{ operation: { methods: [GET], paths: [/a, /b/*] } }] }] }`,
  ),
  policy('shop', 'shop', '{ rules: [{ from: [{ source: { namespaces: [bank] } }] }] }'),
  scenario.policies.join('\n'),
];

/** The fixture of the scenario in the namespace `app`; `web` may GET /a and /b/* of `ledger`, and `bank` may all in `shop`. */
export async function startAuthzen(): Promise<Harness & { readonly put: Put }> {
  const harness = await startHarness();
  const files = documents.map((text, i) => ({ file: `${i}.yaml`, text }));
  const { status } = await harness.overTls({ method: 'POST', path: '/v1/apply', body: { files } });
  if (status !== 200) throw new Error(`apply: ${status}`);
  const put: Put = (route, body, by = 'viewer') =>
    harness.overTls({ method: 'POST', path: `/access/v1/${route}`, body }, by);
  return { ...harness, put };
}

/** Puts a question to a route below `/access/v1`. */
export type Put = (route: string, body: unknown, by?: TokenName | null) => Promise<Answer>;

export const alice = { type: 'user', id: 'alice' };
export const read = { name: 'read' };
export const record = { type: 'record', id: 'record-1' };
/** To which the answer is yes. */
export const permitted = { subject: alice, action: read, resource: record };
export const byWeb = { type: 'workload', id: web };
export const get = { name: 'GET' };
export const toLedger = (properties: object = { path: '/a' }) => ({
  type: 'workload',
  id: ledger,
  properties,
});
