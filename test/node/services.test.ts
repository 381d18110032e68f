import { createHash, generateKeyPairSync, X509Certificate } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { loadConfig } from '../../src/config.ts';
import type { MeshError } from '../../src/errors.ts';
import { openLog } from '../../src/log.ts';
import { makeCertificateRequest } from '../../src/node/certificate-request.ts';
import { writeShipment } from '../../src/node/event-shipment.ts';
import {
  ask,
  attestNode,
  type ChannelOptions,
  type Evidence,
  type NodeIdentity,
  openNodeChannel,
  watchView,
} from '../../src/node/node-client.ts';
import { learnServer, parseJoinSecret } from '../../src/node/server-trust.ts';
import { startServer } from '../../src/server.ts';
import { decodePem, encodePem } from '../../src/spiffe/pem.ts';
import type {
  EventsAccepted,
  NodeCertificate,
  NodeClient,
  SignX509Item,
  SignX509Results,
  ViewUpdate,
} from '../../src/wire/node.ts';
import { decision } from '../audit/events.ts';
import { makeOpensslRoot, type OpensslCa } from '../harness/openssl-ca.ts';
import { askAdmin } from '../harness/http.ts';
import { entry } from '../harness/mesh.ts';
import { createScope } from '../harness/scope.ts';
import { freePorts, makeTempDir } from '../harness/temp.ts';

const scope = createScope();
afterAll(() => scope.close());

let directory: string;
let channel: ChannelOptions;
let machines: OpensslCa;
let adminSocket: string;
let web1: NodeClient;
let web2: NodeClient;

beforeAll(async () => {
  directory = makeTempDir(scope);
  machines = makeOpensslRoot(directory, 'machines');
  writeFileSync(join(directory, 'machines-ca.pem'), machines.certificate, { mode: 0o600 });
  const [port] = (await freePorts(1)) as [number];
  adminSocket = join(directory, 'a.sock');
  const config = loadConfig({
    flags: {
      trustDomain: 'mesh.test',
      dataDir: join(directory, 'data'),
      adminSocket,
      adminAddress: 'off',
      nodeAddress: `127.0.0.1:${port}`,
      nodeCaFile: join(directory, 'machines-ca.pem'),
      shutdownGraceSeconds: '1',
    },
    environment: {},
    file: null,
    isRoot: false,
  });
  const server = await startServer(config, openLog('silent'));
  scope.defer(() => server.close());
  const at = { host: '127.0.0.1', port };
  const { rootSha256 } = parseJoinSecret(await token('web-0'));
  const trust = await learnServer(at, rootSha256, new Date());
  channel = { server: at, ...trust };
  await admin('POST', '/v1/apply', {
    files: [
      {
        file: 'f',
        text: [
          entry('spiffe://mesh.test/ns/a/sa/one', '/one', { nodes: ['node:web-1'] }),
          entry('spiffe://mesh.test/ns/a/sa/two', '/two', { nodes: ['node:web-2'] }),
          entry('spiffe://mesh.test/ns/a/sa/nobody', '/nobody'),
        ].join(''),
      },
    ],
  });
  web1 = await joinNode('web-1');
  web2 = await joinNode('web-2');
});

test('the pin of a join token lets nobody but that server in', async () => {
  const { server } = channel;
  await expect(learnServer(server, 'ab'.repeat(32), new Date())).rejects.toMatchObject({
    code: 'server_untrusted',
  });
});

test('of many who use one join token at once, one is let in', async () => {
  const text = await token('web-3');
  const tries = await Promise.allSettled(Array.from({ length: 8 }, () => attest(tokenEvidence(text))));
  expect(tries.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
  for (const { reason } of tries.filter((one) => one.status === 'rejected')) {
    expect(reason).toMatchObject({ code: 'node_evidence_invalid' });
  }
});

test('a token that was used, is unknown or was revoked is refused in the same words', async () => {
  const used = await token('web-4');
  await attest(tokenEvidence(used));
  const revoked = await token('web-5');
  const { items } = (await admin('GET', '/v1/join-tokens')) as { items: { id: string; node: string }[] };
  await admin('DELETE', `/v1/join-tokens/${items.find(({ node }) => node === 'web-5')!.id}`);
  const unknown = { kind: 'join_token' as const, secret: 'ab'.repeat(32) };
  const words = await Promise.all(
    [tokenEvidence(used), tokenEvidence(revoked), unknown].map((evidence) =>
      attest(evidence).then(
        () => 'let in',
        (error: MeshError) => `${error.code}: ${error.message}`,
      ),
    ),
  );
  expect(new Set(words).size).toBe(1);
  expect(words[0]).toContain('node_evidence_invalid');
});

test('a machine with a certificate of its CA is let in, again and again', async () => {
  const evidence = machineEvidence(machines, 'box');
  const first = await attest(evidence);
  const leaf = new X509Certificate(Buffer.from(first.certificates[0]!));
  const fingerprint = createHash('sha256').update(evidence.certificates[0]!).digest('hex');
  expect(leaf.subjectAltName).toBe(`URI:spiffe://mesh.test/countersign/node/x509pop-${fingerprint}`);
  await attest(evidence);
  // What it was given before counts no longer.
  await expect(renew(client(first))).rejects.toMatchObject({ code: 'node_refused' });
});

test.each<[string, () => Evidence]>([
  ['of a foreign CA', () => machineEvidence(makeOpensslRoot(directory, 'foreign'), 'stranger')],
  [
    'whose key somebody else holds',
    () => ({ ...machineEvidence(machines, 'stolen'), privateKey: makePair().privateKey }),
  ],
  [
    'that is the CA itself',
    () => ({ ...machineEvidence(machines, 'ca'), certificates: pem(machines.certificate) }),
  ],
  ['that is not there', () => ({ ...machineEvidence(machines, 'none'), certificates: [] })],
])('a machine certificate is refused: %s', async (_, evidence) => {
  await expect(attest(evidence())).rejects.toMatchObject({ code: 'node_evidence_invalid' });
});

test('a node is shown its own entries alone', async () => {
  const [one, two] = await Promise.all([firstView(web1), firstView(web2)]);
  expect(one.entries.map(({ id }) => id)).toEqual(['ns-a-sa-one']);
  expect(two.entries.map(({ id }) => id)).toEqual(['ns-a-sa-two']);
});

test('a node has certificates made for its own entries alone, at the revision it was told of', async () => {
  const {
    entries: [own],
  } = await firstView(web1);
  const item = (entryId: string, revision: bigint, selectors: string[]): SignX509Item => {
    const pair = makePair();
    return {
      entryId,
      entryRevision: revision,
      csr: Buffer.from(makeCertificateRequest(pair.publicKey, pair.privateKey)),
      ttlSeconds: 0n,
      selectors,
      caller: { pid: 1n, uid: 2n, gid: 3n, certificate: '' },
      presented: [],
    };
  };
  const { results } = await sign(web1, [
    item('ns-a-sa-one', own!.revision, ['unix:path:/one']),
    item('ns-a-sa-two', own!.revision, ['unix:path:/two']),
    item('ns-a-sa-nobody', own!.revision, ['unix:path:/nobody']),
    item('ns-a-sa-one', own!.revision + 1n, ['unix:path:/one']),
    item('ns-a-sa-one', own!.revision, ['unix:path:/two']),
    { ...item('ns-a-sa-one', own!.revision, ['unix:path:/one']), csr: Buffer.from('no request') },
    { ...item('ns-a-sa-one', own!.revision, ['unix:path:/one']), caller: undefined },
    item('countersign.node.web-1', 0n, []),
    item('countersign.server', 0n, []),
  ]);
  expect(results.map(({ kind }) => (kind?.$case === 'failure' ? kind.failure.code : kind?.$case))).toEqual([
    'signed',
    'identity_none',
    'identity_none',
    'revision_conflict',
    'identity_none',
    'csr_invalid',
    'message_invalid',
    'identity_none',
    'identity_none',
  ]);
});

test('what an agent says it was shown is proven again, and its entry must let it be renewed', async () => {
  const {
    entries: [own],
  } = await firstView(web1);
  const item = (selectors: string[], presented: readonly Uint8Array[]): SignX509Item => {
    const pair = makePair();
    return {
      entryId: 'ns-a-sa-one',
      entryRevision: own!.revision,
      csr: Buffer.from(makeCertificateRequest(pair.publicKey, pair.privateKey)),
      ttlSeconds: 0n,
      selectors,
      caller: { pid: 0n, uid: 0n, gid: 0n, certificate: 'ab' },
      presented: presented.map((der) => Buffer.from(der)),
    };
  };
  const attested = (await sign(web1, [item(['unix:path:/one'], [])])).results[0]?.kind;
  if (attested?.$case !== 'signed') throw new Error('not signed');
  const node = await attest(tokenEvidence(await token('web-presented')));
  const { results } = await sign(web1, [
    item(['unix:path:/one'], [Buffer.from('nothing')]),
    item(['unix:path:/one'], node.certificates),
    item(['unix:path:/one'], attested.signed.certificates),
  ]);
  expect(results.map(({ kind }) => (kind?.$case === 'failure' ? kind.failure.code : 'signed'))).toEqual([
    'certificate_unusable',
    'certificate_unusable',
    'identity_none',
  ]);
});

test('a renewed node may show its new certificate and the one before, no older one', async () => {
  const given = await attest(tokenEvidence(await token('web-6')));
  const first = client(given);
  const second = await renewAs(first);
  await renew(first);
  const third = await renewAs(first);
  await expect(renew(second)).rejects.toMatchObject({ code: 'node_refused' });
  await renew(third);
});

test('an evicted node is refused from the next call on, and its open stream ends', async () => {
  const node = client(await attest(tokenEvidence(await token('web-7'))));
  const updates = watchView(node, { agentVersion: 'test', policyNumber: 0 }, new AbortController().signal);
  expect((await updates.next()).done).toBe(false);
  await admin('POST', '/v1/nodes/web-7/evict', {});
  await expect(renew(node)).rejects.toMatchObject({ code: 'node_refused' });
  await expect(updates.next()).rejects.toMatchObject({ code: 'node_refused' });
  // A new token lets it in again.
  await renew(client(await attest(tokenEvidence(await token('web-7')))));
});

test('a banned node is refused and cannot attest', async () => {
  const node = client(await attest(tokenEvidence(await token('web-8'))));
  const value = 'spiffe://mesh.test/countersign/node/web-8';
  await admin('POST', '/v1/bans', { kind: 'spiffe-id', value, reason: 'stolen' });
  await expect(renew(node)).rejects.toMatchObject({ code: 'node_refused' });
  await expect(attest(tokenEvidence(await token('web-8')))).rejects.toMatchObject({
    code: 'identity_banned',
  });
});

test('an agent that does not say that it knows rollouts is sent none', async () => {
  const text = (spec: string) =>
    `{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: p, namespace: a}, spec: ${spec}}`;
  await admin('POST', '/v1/apply', { files: [{ file: 'f', text: text('{rules: [{}]}') }] });
  await admin('POST', '/v1/policy-rollout', { files: [{ file: 'f', text: text('{}') }] });
  const told = async (capabilities?: string[]) => (await firstView(web1, capabilities)).policyRollout?.stage;
  expect([await told([]), await told(['other']), await told()]).toEqual([undefined, undefined, 'shadow']);
  await admin('DELETE', '/v1/policy-rollout');
});

test('a batch of events that is sent twice is kept once, and losses are counted', async () => {
  const loss = {
    type: 'loss' as const,
    time: new Date(),
    what: 'decision' as const,
    count: 7,
    from: new Date(),
    to: new Date(),
    cause: 'queue_full',
  };
  const batch = {
    epoch: 'ab'.repeat(16),
    sequence: 1,
    events: [decision({ destination: 'spiffe://mesh.test/ns/a/sa/one' }), loss],
  };
  for (const _ of [1, 2, 3]) expect(await ship(web1, batch)).toBe(1n);
  const { items } = (await admin('GET', '/v1/audit?type=decision,loss')) as {
    items: { event: Record<string, unknown> }[];
  };
  expect(items.map(({ event }) => event['type']).sort()).toEqual(['decision', 'loss']);
  expect(items.find(({ event }) => event['type'] === 'decision')?.event).toMatchObject({
    caller: { node: 'web-1' },
  });
});

test.each([
  ['no epoch', { epoch: '', sequence: 1 }],
  ['no sequence', { epoch: 'cd'.repeat(16), sequence: 0 }],
])('a batch of events is refused: %s', async (_, wrong) => {
  await expect(ship(web1, { ...wrong, events: [] })).rejects.toMatchObject({ code: 3 });
});

test.each(['', 'Web', '../x', 'x509pop-1', 'k8s-a', 'a'.repeat(129)])(
  'a join token for %j is refused',
  async (node) => {
    await expect(admin('POST', '/v1/join-tokens', { node })).rejects.toThrow('node_name_invalid');
  },
);

async function joinNode(name: string): Promise<NodeClient> {
  return client(await attest(tokenEvidence(await token(name))));
}

function client(identity: NodeIdentity): NodeClient {
  const made = openNodeChannel(channel, identity);
  scope.defer(() => made.close());
  return made;
}

async function attest(evidence: Evidence): Promise<NodeIdentity> {
  const pair = makePair();
  return identityOf(await attestNode(channel, evidence, pair), pair.privateKey);
}

async function renewAs(node: NodeClient): Promise<NodeClient> {
  const pair = makePair();
  return client(identityOf(await renew(node, pair), pair.privateKey));
}

function renew(node: NodeClient, pair = makePair()): Promise<NodeCertificate> {
  const csr = Buffer.from(makeCertificateRequest(pair.publicKey, pair.privateKey));
  return ask((metadata, options, done) => node.renew({ csr }, metadata, options, done));
}

function sign(node: NodeClient, items: SignX509Item[]): Promise<SignX509Results> {
  return ask((metadata, options, done) => node.signX509({ items }, metadata, options, done));
}

function ship(node: NodeClient, batch: Parameters<typeof writeShipment>[0]): Promise<bigint> {
  return new Promise((resolve, reject) => {
    const call = node.shipEvents();
    call.on('data', ({ sequence }: EventsAccepted) => {
      resolve(sequence);
      call.end();
    });
    call.on('error', reject);
    call.write(writeShipment(batch));
  });
}

async function firstView(node: NodeClient, capabilities?: readonly string[]) {
  const stop = new AbortController();
  for await (const { kind } of watchView(
    node,
    { agentVersion: 'test', policyNumber: 0, ...(capabilities && { capabilities }) },
    stop.signal,
  ) as AsyncIterable<ViewUpdate>) {
    stop.abort();
    if (kind?.$case === 'full') return kind.full;
  }
  throw new Error('no view');
}

function identityOf({ certificates }: NodeCertificate, privateKey: Uint8Array): NodeIdentity {
  return { certificates: certificates.map((der) => new Uint8Array(der)), privateKey };
}

function makePair() {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  return {
    publicKey: new Uint8Array(publicKey.export({ type: 'spki', format: 'der' })),
    privateKey: new Uint8Array(privateKey.export({ type: 'pkcs8', format: 'der' })),
  };
}

function tokenEvidence(text: string): Evidence {
  return { kind: 'join_token', secret: parseJoinSecret(text).secret };
}

function machineEvidence(ca: OpensslCa, name: string): Extract<Evidence, { kind: 'x509pop' }> {
  const pair = makePair();
  const csrFile = join(directory, `${name}.csr`);
  const csr = makeCertificateRequest(pair.publicKey, pair.privateKey);
  writeFileSync(csrFile, encodePem('CERTIFICATE REQUEST', csr));
  const chain = pem(
    ca.sign(csrFile, 'keyUsage = critical, digitalSignature\nextendedKeyUsage = clientAuth\n'),
  );
  return { kind: 'x509pop', certificates: chain.slice(0, 1), privateKey: pair.privateKey };
}

function pem(text: string): Uint8Array[] {
  return decodePem(text, 'CERTIFICATE', { maxBytes: 100_000 });
}

async function token(node: string): Promise<string> {
  return ((await admin('POST', '/v1/join-tokens', { node })) as { token: string }).token;
}

function admin(method: string, path: string, body?: unknown): Promise<unknown> {
  return askAdmin(adminSocket, method, path, body);
}
