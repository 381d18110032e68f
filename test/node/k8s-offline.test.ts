import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { createKubernetesAttestor, type ProveKubernetes } from '../../src/node/kubernetes-attestor.ts';
import { readClusters } from '../../src/node/kubernetes-cluster.ts';
import { keyAgeMs, keyCooldownMs, parseJwks } from '../../src/node/kubernetes-keys.ts';
import { type ManualClock, manualClock } from '../harness/manual-clock.ts';
import { createScope } from '../harness/scope.ts';
import { makeTempDir } from '../harness/temp.ts';
import {
  type ApiStub,
  claimsAt,
  type ClusterKey,
  makeClusterKey,
  nodeUid,
  podUid,
  signToken,
  startApiStub,
} from './k8s-stub.ts';

const scope = createScope();
afterAll(() => scope.close());

let directory: string;
let api: ApiStub;
let rsa: ClusterKey;
let ec: ClusterKey;
let stranger: ClusterKey;
let clock: ManualClock;
let warnings: string[];
let prove: ProveKubernetes;

beforeAll(async () => {
  directory = makeTempDir(scope);
  api = await startApiStub(scope, directory);
  [rsa, ec, stranger] = [
    makeClusterKey('rsa', 'RS256'),
    makeClusterKey('ec', 'ES256'),
    makeClusterKey('ec', 'ES256'),
  ];
});

beforeEach(() => {
  clock = manualClock();
  warnings = [];
  api.asked.length = 0;
  Object.assign(api.answers, { jwks: jwksOf(rsa, ec), status: null, isSilent: false });
  writeFileSync(join(directory, 'jwks.json'), jwksOf(rsa, ec));
  prove = attestor(`jwksFile: ${join(directory, 'jwks.json')}`);
});

test.each<[string, () => ClusterKey]>([
  ['RS256', () => rsa],
  ['ES256', () => ec],
])('a token of the cluster, %s, proves the node that it is bound to', async (_, key) => {
  expect(await prove('edge', tokenOf(key()))).toEqual({
    name: `k8s-edge-${nodeUid}`,
    selectors: [
      'k8s_psat:cluster:edge',
      'k8s_psat:agent_ns:mesh',
      'k8s_psat:agent_sa:agent',
      'k8s_psat:agent_pod_name:agent-x7k2p',
      `k8s_psat:agent_pod_uid:${podUid}`,
      'k8s_psat:agent_node_name:node-1',
      `k8s_psat:agent_node_uid:${nodeUid}`,
    ],
  });
});

const bound = (change: object) => tokenOf(ec, {}, change as Record<string, unknown>);
const head = (header: object) => signToken(ec, claimsAt(clock.now()), header as Record<string, unknown>);
const pem = '-----BEGIN PUBLIC KEY-----';

test.each<[string, string, () => string]>([
  ['of a foreign issuer', 'k8s_token_issuer', () => tokenOf(ec, { iss: 'https://evil.example' })],
  ['of an issuer with a slash more', 'k8s_token_issuer', () => tokenOf(ec, { iss: `${issuer}/` })],
  ['of two issuers', 'k8s_token_issuer', () => tokenOf(ec, { iss: [issuer] })],
  ['of no issuer', 'k8s_token_issuer', () => tokenOf(ec, { iss: undefined })],
  ['of a Secret', 'k8s_token_legacy', () => signToken(ec, legacy({}))],
  [
    'of a Secret, with an end',
    'k8s_token_legacy',
    () => signToken(ec, legacy({ exp: seconds() + 60, aud: 'countersign' })),
  ],
  ['without an end', 'k8s_token_malformed', () => tokenOf(ec, { exp: undefined })],
  [
    'with no finite end',
    'k8s_token_malformed',
    () => signToken(ec, claimsText().replace(/"exp":[0-9]+/, '"exp":1e999')),
  ],
  ['with an end in words', 'k8s_token_malformed', () => tokenOf(ec, { exp: '2030' })],
  ['that has expired', 'k8s_token_expired', () => tokenOf(ec, { exp: seconds() })],
  ['that lasts over a day', 'k8s_token_lifetime', () => tokenOf(ec, { exp: seconds() + 86_461 })],
  ['of the future', 'k8s_token_not_yet_valid', () => tokenOf(ec, { nbf: seconds() + 61 })],
  ['made in the future', 'k8s_token_not_yet_valid', () => tokenOf(ec, { iat: seconds() + 61 })],
  ['for another', 'k8s_token_audience', () => tokenOf(ec, { aud: ['vault'] })],
  ['for one whose name begins so', 'k8s_token_audience', () => tokenOf(ec, { aud: 'countersign2' })],
  ['for us and another', 'k8s_token_audience', () => tokenOf(ec, { aud: ['countersign', 'vault'] })],
  ['for nobody', 'k8s_token_malformed', () => tokenOf(ec, { aud: [] })],
  ['for the issuer', 'k8s_token_audience', () => tokenOf(ec, { aud: [issuer] })],
  [
    'with two audiences claims',
    'k8s_token_malformed',
    () => signToken(ec, claimsText().replace('{"aud"', '{"aud":["vault"],"aud"')),
  ],
  ['of a person', 'k8s_token_subject', () => tokenOf(ec, { sub: 'jane' })],
  [
    'whose subject is another than its claims',
    'k8s_token_subject',
    () => tokenOf(ec, { sub: 'system:serviceaccount:mesh:root' }),
  ],
  ['whose namespace is another than its claims', 'k8s_token_subject', () => bound({ namespace: 'shop' })],
  ['without claims of Kubernetes', 'k8s_token_subject', () => tokenOf(ec, { 'kubernetes.io': undefined })],
  [
    'of another service account',
    'k8s_service_account_refused',
    () => tokenOf(ec, { sub: 'system:serviceaccount:mesh:web' }, { serviceaccount: { name: 'web' } }),
  ],
  ['bound to no pod', 'k8s_token_not_pod_bound', () => bound({ pod: undefined })],
  [
    'bound to a Secret',
    'k8s_token_not_pod_bound',
    () => bound({ pod: undefined, secret: { name: 'x', uid: podUid } }),
  ],
  ['bound to a pod without a uid', 'k8s_token_not_pod_bound', () => bound({ pod: { name: 'agent' } })],
  ['bound to no node', 'k8s_token_not_node_bound', () => bound({ node: undefined })],
  ['bound to a node without a uid', 'k8s_token_not_node_bound', () => bound({ node: { name: 'node-1' } })],
  [
    'bound to a node whose uid is a name',
    'k8s_token_not_node_bound',
    () => bound({ node: { name: 'n', uid: 'web-1' } }),
  ],
  ['bound to a list', 'k8s_token_not_node_bound', () => bound({ node: [{ name: 'n', uid: nodeUid }] })],
  ['of a key that is not published', 'k8s_token_key_unknown', () => head({ kid: 'other' })],
  ['of another key by that name', 'k8s_token_signature', () => tokenOf(stranger)],
  [
    'of a key for another algorithm',
    'k8s_token_signature',
    () => signToken(rsa, claimsAt(clock.now()), { alg: 'PS256' }),
  ],
  ['signed by nobody', 'k8s_token_malformed', () => `${head({ alg: 'none' }).split('.', 2).join('.')}.`],
  ['with alg none', 'k8s_token_malformed', () => head({ alg: 'none' })],
  ['with alg None', 'k8s_token_malformed', () => head({ alg: 'None' })],
  ['with a list of algorithms', 'k8s_token_malformed', () => head({ alg: ['ES256'] })],
  ['with HS256', 'k8s_token_malformed', () => head({ alg: 'HS256' })],
  ['that brings its key', 'k8s_token_malformed', () => head({ jwk: stranger.jwk })],
  ['that says where its keys are', 'k8s_token_malformed', () => head({ jku: 'https://evil.example/jwks' })],
  ['that brings a certificate', 'k8s_token_malformed', () => head({ x5c: [pem] })],
  ['that says where its certificate is', 'k8s_token_malformed', () => head({ x5u: 'https://evil.example/' })],
  ['whose kid is a path', 'k8s_token_key_unknown', () => head({ kid: '../../jwks.json' })],
  ['whose kid is a prototype', 'k8s_token_key_unknown', () => head({ kid: '__proto__' })],
  ['without a kid', 'k8s_token_malformed', () => head({ kid: undefined })],
  ['of over 16 KiB', 'k8s_token_malformed', () => tokenOf(ec, { more: 'x'.repeat(20_000) })],
  ['that is none', 'k8s_token_malformed', () => 'a.b.c'],
  ['that is empty', 'k8s_token_malformed', () => ''],
])('refused: a token %s (%s)', async (_, refused, make) => {
  expect(await prove('edge', make())).toEqual({ refused });
});

test('whatever is changed of a token, it does not count', async () => {
  const token = tokenOf(rsa);
  await fc.assert(
    fc.asyncProperty(
      fc.nat(token.length - 1),
      fc.constantFrom('A', 'Z', 'a', 'z', '0', '9', '-', '_', '.'),
      async (at, letter) => {
        fc.pre(token[at] !== letter);
        const changed = token.slice(0, at) + letter + token.slice(at + 1);
        expect(await prove('edge', changed)).toHaveProperty('refused');
      },
    ),
  );
});

test('however many tokens name keys that are not there, keys are fetched once in a while', async () => {
  prove = attestor(`jwksUrl: ${api.url}/openid/v1/jwks\n    caFile: ${api.caFile}`);
  expect(await prove('edge', tokenOf(ec))).toHaveProperty('name');
  expect(api.asked).toEqual(['GET /openid/v1/jwks']);
  const [, payload, signature] = tokenOf(ec).split('.') as [string, string, string];
  for (const round of [1, 2, 3]) {
    await clock.advance(keyCooldownMs);
    const refused = new Set<unknown>();
    const tries = Array.from({ length: 1_000 }, async (_, at) => {
      const header = Buffer.from(JSON.stringify({ alg: 'ES256', kid: `random-${round}-${at}` })).toString(
        'base64url',
      );
      refused.add(JSON.stringify(await prove('edge', `${header}.${payload}.${signature}`)));
    });
    await Promise.all(tries);
    expect([...refused]).toEqual(['{"refused":"k8s_token_key_unknown"}']);
    expect(api.asked).toHaveLength(1 + round);
  }
});

test('a key that is published later is found, and one that is withdrawn counts no longer', async () => {
  const next = makeClusterKey('next', 'ES256');
  prove = attestor(`jwksUrl: ${api.url}/openid/v1/jwks\n    caFile: ${api.caFile}`);
  expect(await prove('edge', tokenOf(next))).toEqual({ refused: 'k8s_token_key_unknown' });
  api.answers.jwks = jwksOf(next);
  expect(await prove('edge', tokenOf(next))).toEqual({ refused: 'k8s_token_key_unknown' });
  await clock.advance(keyCooldownMs);
  expect(await prove('edge', tokenOf(next))).toHaveProperty('name');
  expect(await prove('edge', tokenOf(ec))).toEqual({ refused: 'k8s_token_key_unknown' });
  api.answers.jwks = jwksOf(ec);
  await clock.advance(keyAgeMs);
  expect(await prove('edge', tokenOf(next))).toEqual({ refused: 'k8s_token_key_unknown' });
});

test('keys that were read once do while they cannot be read again, for a day', async () => {
  prove = attestor(`jwksUrl: ${api.url}/openid/v1/jwks\n    caFile: ${api.caFile}`);
  expect(await prove('edge', tokenOf(ec))).toHaveProperty('name');
  api.answers.status = 500;
  await clock.advance(keyAgeMs);
  expect(await prove('edge', tokenOf(ec))).toHaveProperty('name');
  expect(warnings).toHaveLength(1);
  await clock.advance(86_400_000);
  await expect(prove('edge', tokenOf(ec))).rejects.toMatchObject({ code: 'node_attestor_unavailable' });
});

test.each<[string, () => void]>([
  ['are not there', () => (api.answers.status = 404)],
  ['are no JSON', () => (api.answers.jwks = '<html>')],
  ['are too long', () => (api.answers.jwks = jwksOf(ec) + ' '.repeat(300_000))],
  ['are secret', () => (api.answers.jwks = '{"keys":[{"kty":"oct","k":"AAAA","kid":"x"}]}')],
])('nobody is let in while the keys %s', async (_, change) => {
  change();
  prove = attestor(`jwksUrl: ${api.url}/openid/v1/jwks\n    caFile: ${api.caFile}`);
  await expect(prove('edge', tokenOf(ec))).rejects.toMatchObject({ code: 'node_attestor_unavailable' });
  expect(warnings).toHaveLength(1);
});

test.each<[string, () => unknown]>([
  ['no keys', () => ({})],
  ['an empty list', () => ({ keys: [] })],
  ['keys of an unknown kind only', () => ({ keys: [{ kty: 'XX', kid: 'a' }] })],
  ['keys for another use only', () => ({ keys: [{ ...ec.jwk, use: 'enc' }] })],
  ['keys for other operations only', () => ({ keys: [{ ...ec.jwk, key_ops: ['encrypt'] }] })],
  ['keys without a name only', () => ({ keys: [{ ...ec.jwk, kid: undefined }] })],
  ['two of one name', () => ({ keys: [ec.jwk, { ...rsa.jwk, kid: 'ec' }] })],
  ['what is no object', () => ({ keys: [null] })],
  ['too many', () => ({ keys: Array.from({ length: 65 }, (_, at) => ({ ...ec.jwk, kid: `${at}` })) })],
  ['a private key', () => ({ keys: [{ ...ec.jwk, d: 'AAAA' }] })],
])('a JWKS is refused that has %s', (_, make) => {
  expect(() => parseJwks(JSON.stringify(make()))).toThrow('the JWKS');
});

function attestor(keys: string): ProveKubernetes {
  const clusters = readClusters({
    file: 'clusters.yaml',
    text: `apiVersion: countersign.dev/v1
kind: KubernetesCluster
metadata: { name: edge }
spec:
  audience: countersign
  serviceAccounts: ['mesh:agent']
  offline:
    issuer: ${issuer}
    ${keys}
`,
  });
  return createKubernetesAttestor({
    clusters,
    clock,
    warn: (message, detail) => warnings.push(`${message} ${JSON.stringify(detail)}`),
  });
}

function tokenOf(
  key: ClusterKey,
  change: Record<string, unknown> = {},
  within: Record<string, unknown> = {},
): string {
  return signToken(key, claimsAt(clock.now(), change, within));
}

function claimsText(): string {
  return JSON.stringify(claimsAt(clock.now()));
}

function legacy(more: Record<string, unknown>): Record<string, unknown> {
  return {
    iss: 'kubernetes/serviceaccount',
    'kubernetes.io/serviceaccount/namespace': 'mesh',
    'kubernetes.io/serviceaccount/service-account.name': 'agent',
    sub: 'system:serviceaccount:mesh:agent',
    ...more,
  };
}

function jwksOf(...keys: readonly ClusterKey[]): string {
  return JSON.stringify({ keys: keys.map(({ jwk }) => jwk) });
}

function seconds(): number {
  return clock.now().getTime() / 1_000;
}

const issuer = 'https://kubernetes.default.svc.cluster.local';
