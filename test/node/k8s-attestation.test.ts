import { generateKeyPairSync } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { credentials } from '@grpc/grpc-js';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { loadConfig } from '../../src/config.ts';
import type { MeshError } from '../../src/errors.ts';
import { openLog } from '../../src/log.ts';
import { makeCertificateRequest } from '../../src/node/certificate-request.ts';
import {
  ask,
  attestNode,
  type ChannelOptions,
  type Evidence,
  openNodeChannel,
  watchView,
} from '../../src/node/node-client.ts';
import { learnServer, parseJoinSecret } from '../../src/node/server-trust.ts';
import { startServer } from '../../src/server.ts';
import {
  AttestationClient,
  type NodeCertificate,
  type NodeClient,
  type ViewUpdate,
} from '../../src/wire/node.ts';
import { eventually } from '../harness/eventually.ts';
import { askAdmin } from '../harness/http.ts';
import { entry } from '../harness/mesh.ts';
import { createScope } from '../harness/scope.ts';
import { freePorts, makeTempDir } from '../harness/temp.ts';
import {
  type ApiStub,
  claimsAt,
  type ClusterKey,
  makeClusterKey,
  nodeObject,
  nodeUid,
  podObject,
  reviewed,
  signToken,
  startApiStub,
} from './k8s-stub.ts';

const scope = createScope();
afterAll(() => scope.close());

const name = `k8s-prod-${nodeUid}`;
let api: ApiStub;
let key: ClusterKey;
let adminSocket: string;
let channel: ChannelOptions;

beforeAll(async () => {
  const directory = makeTempDir(scope);
  api = await startApiStub(scope, directory);
  key = makeClusterKey('k1', 'ES256');
  const [port] = (await freePorts(1)) as [number];
  adminSocket = join(directory, 'a.sock');
  const nodeClustersFile = join(directory, 'clusters.yaml');
  writeFileSync(
    nodeClustersFile,
    `apiVersion: countersign.dev/v1
kind: KubernetesCluster
metadata: { name: prod }
spec:
  audience: countersign
  serviceAccounts: ['mesh:agent']
  tokenReview:
    url: ${api.url}
    caFile: ${api.caFile}
    tokenFile: ${api.tokenFile}
    nodeLabels: [topology.kubernetes.io/zone]
`,
  );
  const config = loadConfig({
    flags: {
      trustDomain: 'mesh.test',
      dataDir: join(directory, 'data'),
      adminSocket,
      adminAddress: 'off',
      nodeAddress: `127.0.0.1:${port}`,
      nodeClustersFile,
      shutdownGraceSeconds: '1',
    },
    environment: {},
    file: null,
    isRoot: false,
  });
  const server = await startServer(config, openLog('silent'));
  scope.defer(() => server.close());
  const at = { host: '127.0.0.1', port };
  const { token } = (await admin('POST', '/v1/join-tokens', { node: 'web-1' })) as { token: string };
  channel = { server: at, ...(await learnServer(at, parseJoinSecret(token).rootSha256, new Date())) };
});

beforeEach(() => {
  Object.assign(api.answers, {
    review: reviewed(),
    pod: podObject(),
    node: nodeObject(),
    status: null,
    hold: undefined,
  });
});

test('a node of the cluster is let in, again and again, with what is known of it', async () => {
  const first = await attest();
  await attest();
  // What it was given before counts no longer: a token that is replayed gets one node in, and the other out.
  await expect(renew(first)).rejects.toMatchObject({ code: 'node_refused' });
  expect(await admin('GET', `/v1/nodes/${name}`)).toMatchObject({
    name,
    method: 'k8s_psat',
    state: 'attested',
    selectors: expect.arrayContaining([
      'k8s_psat:cluster:prod',
      'k8s_psat:agent_node_label:topology.kubernetes.io/zone:a',
    ]),
  });
});

test('whatever is wrong with a token, its sender is told the same, and the log which it was', async () => {
  const wrong: readonly (readonly [string, () => Evidence])[] = [
    ['k8s_cluster_unknown', () => ({ ...evidence(), cluster: 'staging' })],
    ['k8s_token_malformed', () => evidence('a.b.c')],
    ['k8s_token_expired', () => evidence(tokenOf({ exp: Math.floor(Date.now() / 1_000) - 1 }))],
    ['k8s_token_audience', () => evidence(tokenOf({ aud: 'vault' }))],
    ['k8s_token_rejected', () => answering({ review: reviewed({ authenticated: false }) })],
    ['k8s_service_account_refused', () => evidence(otherAccount())],
    ['k8s_pod_missing', () => answering({ pod: null })],
    ['k8s_pod_ending', () => answering({ pod: podObject({ deletionTimestamp: '2026-01-01T00:00:00Z' }) })],
  ];
  const words = new Set<string>();
  for (const [, make] of wrong) {
    Object.assign(api.answers, { review: reviewed(), pod: podObject() });
    words.add(
      await attestWith(make()).then(
        () => 'let in',
        ({ code, message }: MeshError) => `${code}: ${message}`,
      ),
    );
  }
  expect([...words]).toEqual(['node_evidence_invalid: the Kubernetes token does not count']);
  await eventually('the refusals in the log', async () => {
    const { items } = (await admin('GET', '/v1/audit?type=node&limit=100&order=oldest')) as {
      items: { event: Record<string, unknown> }[];
    };
    const refused = items.filter(({ event }) => event['action'] === 'refused');
    expect(refused.map(({ event }) => [event['code'], event['method']])).toEqual(
      wrong.map(([code]) => [code, 'k8s_psat']),
    );
    return true;
  });
});

test('whoever has gone before the cluster has answered is not let in any more', async () => {
  const node = await attest();
  const attestedAt = async () =>
    ((await admin('GET', `/v1/nodes/${name}`)) as { attestedAt: string }).attestedAt;
  const before = await attestedAt();
  const { promise, resolve: release } = Promise.withResolvers<void>();
  api.answers.hold = promise;
  api.asked.length = 0;
  const client = new AttestationClient('', credentials.createInsecure(), {
    channelOverride: node.getChannel(),
  });
  const gone = client.attest();
  gone.on('error', () => undefined);
  const pair = makePair();
  const csr = Buffer.from(makeCertificateRequest(pair.publicKey, pair.privateKey));
  gone.write({
    step: {
      $case: 'evidence',
      evidence: { csr, kind: { $case: 'kubernetes', kubernetes: { cluster: 'prod', token: tokenOf() } } },
    },
  });
  await eventually('the question about the pod', () => api.asked.some((asked) => asked.includes('/pods/')));
  gone.cancel();
  // On the same connection, so that by its end the server knows of the other.
  const next = client.attest();
  await new Promise((ended) => {
    next.on('error', ended);
    next.resume();
    next.end();
  });
  release();
  await eventually('the refusal in the log', async () => {
    const { items } = (await admin('GET', '/v1/audit?type=node&limit=20')) as {
      items: { event: Record<string, unknown> }[];
    };
    return items.some(({ event }) => event['action'] === 'refused' && event['node'] === name);
  });
  expect(await attestedAt()).toBe(before);
  await renew(node);
});

test('while the API server is away nobody is let in, and who is in goes on', async () => {
  const node = await attest();
  api.answers.status = 503;
  await expect(attestWith(evidence())).rejects.toMatchObject({
    code: 'node_attestor_unavailable',
    message: 'the cluster cannot be asked about the token now',
  });
  await renew(node);
});

test('an alias and what is behind it reach an open view at once', async () => {
  const file = (...texts: string[]) => ({ files: [{ file: 'f', text: texts.join('') }] });
  await admin(
    'POST',
    '/v1/apply',
    file(alias('zone-a', label('a')), alias('zone-b', label('b')), entryOf('a'), entryOf('b')),
  );
  const stop = new AbortController();
  const updates = watchView(await attest(), { agentVersion: 'test', policyNumber: 0 }, stop.signal);
  expect(entriesOf(await updates.next())).toEqual(['ns-shop-sa-a']);
  // The alias becomes another.
  await admin('POST', '/v1/apply', file(alias('zone-b', 'k8s_psat:cluster:prod')));
  expect(await change(updates)).toEqual([['ns-shop-sa-b'], []]);
  await admin('POST', '/v1/apply', file(alias('zone-a', label('z'))));
  expect(await change(updates)).toEqual([[], ['ns-shop-sa-a']]);
  expect(await admin('GET', '/v1/node-aliases/zone-b')).toEqual({
    name: 'zone-b',
    selectors: ['k8s_psat:cluster:prod'],
    revision: expect.any(Number),
    nodes: [name],
    nodeCount: 1,
    entries: ['ns-shop-sa-b'],
    entryCount: 1,
  });
  await expect(admin('DELETE', '/v1/node-aliases/zone-b')).rejects.toThrow('node_alias_in_use');
  await admin('DELETE', '/v1/entries/ns-shop-sa-b');
  await admin('DELETE', '/v1/node-aliases/zone-b');
  await expect(admin('DELETE', '/v1/node-aliases/zone-b')).rejects.toThrow('node_alias_not_found');
  stop.abort();
});

test('the node becomes another with its labels, once it attests anew', async () => {
  await admin('POST', '/v1/apply', {
    files: [{ file: 'f', text: alias('zone-a', label('a')) + entryOf('a') }],
  });
  api.answers.node = nodeObject({ labels: { 'topology.kubernetes.io/zone': 'q' } });
  const stop = new AbortController();
  const updates = watchView(await attest(), { agentVersion: 'test', policyNumber: 0 }, stop.signal);
  expect(entriesOf(await updates.next())).toEqual([]);
  stop.abort();
});

async function change(updates: AsyncGenerator<ViewUpdate>): Promise<readonly [string[], string[]]> {
  for (;;) {
    const { value } = await updates.next();
    const delta = (value as ViewUpdate).kind;
    if (delta?.$case !== 'delta') throw new Error('no delta');
    const { putEntries, deleteEntries } = delta.delta;
    if (putEntries.length + deleteEntries.length > 0) return [putEntries.map(({ id }) => id), deleteEntries];
  }
}

function entriesOf({ value }: IteratorResult<ViewUpdate>): readonly string[] {
  const { kind } = value as ViewUpdate;
  if (kind?.$case !== 'full') throw new Error('no full view');
  return kind.full.entries.map(({ id }) => id).sort();
}

function entryOf(zone: string): string {
  return entry(`spiffe://mesh.test/ns/shop/sa/${zone}`, `/${zone}`, { nodes: [`alias:zone-${zone}`] });
}

function alias(called: string, selector: string): string {
  return `---
apiVersion: countersign.dev/v1
kind: NodeAlias
metadata: { name: ${called} }
spec: { selectors: ['${selector}'] }
`;
}

function label(zone: string): string {
  return `k8s_psat:agent_node_label:topology.kubernetes.io/zone:${zone}`;
}

function answering(change: Partial<ApiStub['answers']>): Evidence {
  Object.assign(api.answers, change);
  return evidence();
}

function evidence(token = tokenOf()): Extract<Evidence, { kind: 'k8s_psat' }> {
  return { kind: 'k8s_psat', cluster: 'prod', token };
}

function otherAccount(): string {
  return tokenOf({ sub: 'system:serviceaccount:mesh:web' }, { serviceaccount: { name: 'web' } });
}

function tokenOf(claims: Record<string, unknown> = {}, bound: Record<string, unknown> = {}): string {
  return signToken(key, claimsAt(new Date(), claims, bound));
}

async function attest(): Promise<NodeClient> {
  return attestWith(evidence());
}

async function attestWith(shown: Evidence): Promise<NodeClient> {
  const pair = makePair();
  const { certificates } = await attestNode(channel, shown, pair);
  const made = openNodeChannel(channel, {
    certificates: certificates.map((der) => new Uint8Array(der)),
    privateKey: pair.privateKey,
  });
  scope.defer(() => made.close());
  return made;
}

function renew(node: NodeClient): Promise<NodeCertificate> {
  const pair = makePair();
  const csr = Buffer.from(makeCertificateRequest(pair.publicKey, pair.privateKey));
  return ask((metadata, options, done) => node.renew({ csr }, metadata, options, done));
}

function makePair() {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  return {
    publicKey: new Uint8Array(publicKey.export({ type: 'spki', format: 'der' })),
    privateKey: new Uint8Array(privateKey.export({ type: 'pkcs8', format: 'der' })),
  };
}

function admin(method: string, path: string, body?: unknown): Promise<unknown> {
  return askAdmin(adminSocket, method, path, body);
}
