import { writeFileSync } from 'node:fs';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { createKubernetesAttestor, type ProveKubernetes } from '../../src/node/kubernetes-attestor.ts';
import { readClusters } from '../../src/node/kubernetes-cluster.ts';
import { createReviewer, reviewPauseMs } from '../../src/node/kubernetes-review.ts';
import { readProjectedToken } from '../../src/node/kubernetes-token.ts';
import { type ManualClock, manualClock } from '../harness/manual-clock.ts';
import { createScope } from '../harness/scope.ts';
import { makeTempDir } from '../harness/temp.ts';
import {
  type ApiStub,
  bearer,
  claimsAt,
  type ClusterKey,
  makeClusterKey,
  nodeObject,
  nodeUid,
  podObject,
  podUid,
  reviewed,
  signToken,
  startApiStub,
} from './k8s-stub.ts';

const scope = createScope();
afterAll(() => scope.close());

const name = `k8s-prod-${nodeUid}`;
let api: ApiStub;
let key: ClusterKey;
let clock: ManualClock;
let prove: ProveKubernetes;
let warnings: string[];

beforeAll(async () => {
  api = await startApiStub(scope, makeTempDir(scope));
  key = makeClusterKey('k1', 'ES256');
});

beforeEach(() => {
  Object.assign(api.answers, {
    review: reviewed(),
    pod: podObject(),
    node: nodeObject(),
    status: null,
    isSilent: false,
    raw: undefined,
  });
  writeFileSync(api.tokenFile, bearer);
  api.asked.length = 0;
  api.bodies.length = 0;
  clock = manualClock();
  warnings = [];
  prove = attestor(api.url);
});

test('a pod of an allowed service account proves its node', async () => {
  const token = tokenOf();
  expect(await prove('prod', token)).toEqual({
    name,
    selectors: [
      'k8s_psat:cluster:prod',
      'k8s_psat:agent_ns:mesh',
      'k8s_psat:agent_sa:agent',
      'k8s_psat:agent_pod_name:agent-x7k2p',
      `k8s_psat:agent_pod_uid:${podUid}`,
      'k8s_psat:agent_node_name:node-1',
      `k8s_psat:agent_node_uid:${nodeUid}`,
      // The one label that the document names, of those that the node has.
      'k8s_psat:agent_node_label:topology.kubernetes.io/zone:a',
    ],
  });
  expect(api.bodies).toEqual([
    {
      apiVersion: 'authentication.k8s.io/v1',
      kind: 'TokenReview',
      spec: { token, audiences: ['countersign'] },
    },
  ]);
  expect(api.asked.slice(1)).toEqual([
    'GET /api/v1/namespaces/mesh/pods/agent-x7k2p',
    'GET /api/v1/nodes/node-1',
  ]);
});

test('a cluster behind a path of another server is asked there, and not that server itself', async () => {
  await attestor(`${api.url}/k8s/clusters/c-1/`)('prod', tokenOf());
  expect(api.asked).toEqual(['POST /k8s/clusters/c-1/apis/authentication.k8s.io/v1/tokenreviews']);
});

test('an API server that does not say the node is one of before 1.30', async () => {
  const { 'authentication.kubernetes.io/pod-name': podName } = {
    'authentication.kubernetes.io/pod-name': ['agent-x7k2p'],
  };
  const user = {
    username: 'system:serviceaccount:mesh:agent',
    extra: {
      'authentication.kubernetes.io/pod-name': podName,
      'authentication.kubernetes.io/pod-uid': [podUid],
    },
  };
  api.answers.review = reviewed({ user });
  expect(await prove('prod', tokenOf())).toMatchObject({ name });
});

const user = (username: string) => ({ user: { ...(reviewed()['user'] as object), username } });
const extra = (member: string, value: unknown) =>
  reviewed({}, { [`authentication.kubernetes.io/${member}`]: value });

test.each<[string, string, () => void]>([
  ['it is not authenticated', 'k8s_token_rejected', () => review({ authenticated: false })],
  ['authenticated is no truth', 'k8s_token_rejected', () => review({ authenticated: 'true' })],
  [
    'it is authenticated, and could not be checked',
    'k8s_token_rejected',
    () => review({ error: 'the webhook timed out' }),
  ],
  ['it is not said whether it is authenticated', 'k8s_token_rejected', () => (api.answers.review = {})],
  ['no audiences were looked at', 'k8s_token_audience', () => review({ audiences: undefined })],
  ['audiences are null', 'k8s_token_audience', () => review({ audiences: null })],
  ['it is for nobody', 'k8s_token_audience', () => review({ audiences: [] })],
  ['it is for another', 'k8s_token_audience', () => review({ audiences: ['vault'] })],
  ['the audience is text', 'k8s_token_audience', () => review({ audiences: 'countersign' })],
  ['the user is a person', 'k8s_token_subject', () => review(user('jane'))],
  ['the user is a node', 'k8s_token_subject', () => review(user('system:node:node-1'))],
  [
    'the user has too many parts',
    'k8s_token_subject',
    () => review(user('system:serviceaccount:mesh:agent:x')),
  ],
  ['the user goes elsewhere', 'k8s_token_subject', () => review(user('system:serviceaccount:..:agent'))],
  ['there is no user', 'k8s_token_subject', () => review({ user: undefined })],
  [
    'the service account is another',
    'k8s_service_account_refused',
    () => review(user('system:serviceaccount:mesh:web')),
  ],
  [
    'the namespace is another',
    'k8s_service_account_refused',
    () => review(user('system:serviceaccount:shop:agent')),
  ],
  [
    'it is bound to no pod',
    'k8s_token_not_pod_bound',
    () => (api.answers.review = extra('pod-name', undefined)),
  ],
  [
    'no uid of a pod is said',
    'k8s_token_not_pod_bound',
    () => (api.answers.review = extra('pod-uid', undefined)),
  ],
  [
    'two pods are said',
    'k8s_token_not_pod_bound',
    () => (api.answers.review = extra('pod-name', ['a', 'b'])),
  ],
  [
    'the pod goes elsewhere',
    'k8s_token_not_pod_bound',
    () => (api.answers.review = extra('pod-name', ['../x'])),
  ],
  ['the uid is none', 'k8s_token_not_pod_bound', () => (api.answers.review = extra('pod-uid', ['x']))],
  ['the pod is gone', 'k8s_pod_missing', () => (api.answers.pod = null)],
  [
    'the pod was made anew',
    'k8s_pod_mismatch',
    () => (api.answers.pod = podObject({ uid: '99999999-2222-4333-8444-555555555555' })),
  ],
  [
    'the pod runs as another',
    'k8s_pod_mismatch',
    () => (api.answers.pod = podObject({}, { serviceAccountName: 'web' })),
  ],
  [
    'the pod is being deleted',
    'k8s_pod_ending',
    () => (api.answers.pod = podObject({ deletionTimestamp: '2026-01-01T00:00:00Z' })),
  ],
  ['the pod has failed', 'k8s_pod_ending', () => (api.answers.pod = podObject({}, {}, { phase: 'Failed' }))],
  ['the pod is done', 'k8s_pod_ending', () => (api.answers.pod = podObject({}, {}, { phase: 'Succeeded' }))],
  [
    'the pod runs nowhere',
    'k8s_pod_unscheduled',
    () => (api.answers.pod = podObject({}, { nodeName: undefined })),
  ],
  [
    'the node goes elsewhere',
    'k8s_pod_unscheduled',
    () => (api.answers.pod = podObject({}, { nodeName: '../pods' })),
  ],
  ['the node is gone', 'k8s_node_missing', () => (api.answers.node = null)],
  [
    'it was made on another node',
    'k8s_node_mismatch',
    () => (api.answers.review = extra('node-name', ['node-2'])),
  ],
  [
    'two nodes are said',
    'k8s_node_mismatch',
    () => (api.answers.review = extra('node-name', ['node-1', 'node-2'])),
  ],
  [
    'the node was made anew',
    'k8s_node_mismatch',
    () => (api.answers.node = nodeObject({ uid: '99999999-bbbb-4ccc-8ddd-eeeeeeeeeeee' })),
  ],
])('refused: %s (%s)', async (_, refused, change) => {
  change();
  expect(await prove('prod', tokenOf())).toEqual({ refused });
  expect(warnings).toEqual([]);
});

test.each<[string, string, () => string]>([
  ['a cluster that nobody named', 'k8s_cluster_unknown', () => tokenOf()],
  ['no token', 'k8s_token_malformed', () => 'token'],
  ['one for another', 'k8s_token_audience', () => tokenOf({ aud: ['vault'] })],
  [
    'one for the API server',
    'k8s_token_audience',
    () => tokenOf({ aud: ['https://kubernetes.default.svc'] }),
  ],
  [
    'one for us that opens the API server, too',
    'k8s_token_audience',
    () => tokenOf({ aud: ['countersign', 'https://kubernetes.default.svc'] }),
  ],
  ['one of a Secret', 'k8s_token_legacy', () => signToken(key, legacyClaims)],
  ['one that never ends', 'k8s_token_malformed', () => tokenOf({ exp: undefined })],
  ['one that lasts a year', 'k8s_token_lifetime', () => tokenOf({ exp: seconds() + 31_536_000 })],
  ['one that has expired', 'k8s_token_expired', () => tokenOf({ exp: seconds() })],
  [
    'one of another service account',
    'k8s_service_account_refused',
    () => tokenOf({ sub: 'system:serviceaccount:mesh:web' }, { serviceaccount: { name: 'web' } }),
  ],
])('refused without a question to the API server: %s (%s)', async (what, refused, make) => {
  const cluster = what.startsWith('a cluster') ? 'staging' : 'prod';
  expect(await prove(cluster, make())).toEqual({ refused });
  expect(api.asked).toEqual([]);
});

test.each<[string, () => void]>([
  ['fails', () => (api.answers.status = 500)],
  ['does not let us ask', () => (api.answers.status = 403)],
  ['sends us elsewhere', () => (api.answers.status = 302)],
  ['knows no reviews', () => (api.answers.status = 404)],
  ['goes on in another protocol', () => (api.answers.raw = switching)],
  ['answers what is no HTTP', () => (api.answers.raw = 'SSH-2.0-x\r\n\r\n')],
  ['does not know us', () => writeFileSync(api.tokenFile, 'another')],
  ['is not asked for want of a token', () => writeFileSync(api.tokenFile, 'a b\nc')],
  ['answers too much', () => review({ padding: 'x'.repeat(2_200_000) })],
  ['sends another node', () => (api.answers.node = nodeObject({ name: 'node-2' }))],
  ['sends a node without a uid', () => (api.answers.node = nodeObject({ uid: 'x' }))],
  ['sends another pod', () => (api.answers.pod = podObject({ name: 'web' }))],
  ['sends what is no pod', () => (api.answers.pod = nodeObject())],
])('nobody is let in while the API server %s', async (_, change) => {
  change();
  await expect(prove('prod', tokenOf())).rejects.toMatchObject({
    code: 'node_attestor_unavailable',
    message: 'the cluster cannot be asked about the token now',
  });
  // The operator is told why, and never the token.
  expect(warnings).toHaveLength(1);
  expect(warnings[0]).not.toContain(tokenOf().slice(0, 40));
});

test('an API server that does not answer is not asked again at once', async () => {
  const gone = attestor('https://127.0.0.1:1');
  for (const _ of [1, 2, 3]) {
    await expect(gone('prod', tokenOf())).rejects.toMatchObject({ code: 'node_attestor_unavailable' });
  }
  expect(warnings).toEqual([expect.stringContaining('ECONNREFUSED')]);
  await clock.advance(reviewPauseMs);
  await expect(gone('prod', tokenOf())).rejects.toMatchObject({ code: 'node_attestor_unavailable' });
  expect(warnings).toHaveLength(2);
});

test('an API server that says nothing is waited for so long, and then not asked again at once', async () => {
  const silent = await startApiStub(scope, makeTempDir(scope));
  silent.answers.isSilent = true;
  const [cluster] = clustersOf(silent.url, silent.caFile).values();
  if (cluster?.judge.kind !== 'token-review') throw new Error('another judge');
  const warn = (message: string): void => void warnings.push(message);
  const ask = createReviewer(cluster, cluster.judge, { clock, warn, timeoutMs: 50 });
  const token = readProjectedToken(tokenOf(), 'countersign', clock.now());
  if ('refused' in token) throw new Error(token.refused);
  for (const _ of [1, 2]) {
    await expect(ask(token)).rejects.toMatchObject({ code: 'node_attestor_unavailable' });
  }
  // However far the question came in that time, there was one.
  expect(warnings).toHaveLength(1);
});

test('nobody is asked for one who has gone before the turn came, and that holds nobody up', async () => {
  await expect(prove('prod', tokenOf(), AbortSignal.abort())).rejects.toMatchObject({
    code: 'node_attestor_unavailable',
  });
  expect(api.asked).toEqual([]);
  expect(await prove('prod', tokenOf())).toMatchObject({ name });
});

test('an API server with a certificate of another CA, or for another name, is not believed', async () => {
  const other = makeTempDir(scope);
  const { caFile } = await startApiStub(scope, other);
  for (const prover of [attestor(api.url, caFile), attestor(api.url.replace('127.0.0.1', 'localhost'))]) {
    await expect(prover('prod', tokenOf())).rejects.toMatchObject({ code: 'node_attestor_unavailable' });
  }
  expect(api.asked).toEqual([]);
});

function attestor(url: string, caFile = api.caFile): ProveKubernetes {
  return createKubernetesAttestor({
    clusters: clustersOf(url, caFile),
    clock,
    warn: (message, detail) => warnings.push(`${message} ${JSON.stringify(detail)}`),
  });
}

function clustersOf(url: string, caFile: string): ReturnType<typeof readClusters> {
  return readClusters({
    file: 'clusters.yaml',
    text: `apiVersion: countersign.dev/v1
kind: KubernetesCluster
metadata: { name: prod }
spec:
  audience: countersign
  serviceAccounts: ['mesh:agent']
  tokenReview:
    url: ${url}
    caFile: ${caFile}
    tokenFile: ${api.tokenFile}
    nodeLabels: [topology.kubernetes.io/zone, node.kubernetes.io/pool]
`,
  });
}

function review(change: Record<string, unknown>): void {
  api.answers.review = reviewed(change);
}

function tokenOf(change: Record<string, unknown> = {}, bound: Record<string, unknown> = {}): string {
  return signToken(key, claimsAt(clock.now(), change, bound));
}

function seconds(): number {
  return clock.now().getTime() / 1_000;
}

const switching = 'HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n';
const legacyClaims = {
  iss: 'kubernetes/serviceaccount',
  'kubernetes.io/serviceaccount/namespace': 'mesh',
  'kubernetes.io/serviceaccount/secret.name': 'agent-token',
  'kubernetes.io/serviceaccount/service-account.name': 'agent',
  sub: 'system:serviceaccount:mesh:agent',
};
