import { generateKeyPairSync } from 'node:crypto';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { createRefusals } from '../../src/identity/refusals.ts';
import { makeCertificateRequest } from '../../src/node/certificate-request.ts';
import { ask, attestNode, type ChannelOptions, openNodeChannel } from '../../src/node/node-client.ts';
import { learnServer, parseJoinSecret } from '../../src/node/server-trust.ts';
import { Caller, type NodeClient, SignX509Item, type SignX509Results } from '../../src/wire/node.ts';
import { eventually } from '../harness/eventually.ts';
import { entry } from '../harness/mesh.ts';
import { type ServerHere, startServerHere } from '../harness/node-mesh.ts';
import { createScope } from '../harness/scope.ts';
import { makeTempDir } from '../harness/temp.ts';

const scope = createScope();
afterAll(() => scope.close());

type Pair = { readonly publicKey: Uint8Array; readonly privateKey: Uint8Array };

let server: ServerHere;
let nodes: Readonly<Record<string, { readonly client: NodeClient; readonly pair: Pair }>>;
let channel: ChannelOptions;

beforeAll(async () => {
  server = await startServerHere(scope, makeTempDir(scope));
  const at = { host: '127.0.0.1', port: server.port };
  const { rootSha256 } = parseJoinSecret(await server.token('first'));
  channel = { server: at, ...(await learnServer(at, rootSha256, new Date())) };
  await server.apply(
    ['web-1', 'web-2']
      .map((name) => entry(`spiffe://mesh.test/ns/a/sa/${name}`, `/${name}`, { nodes: [`node:${name}`] }))
      .join(''),
  );
  nodes = { 'web-1': await joinAs('web-1'), 'web-2': await joinAs('web-2') };
});

test('one key under two identities is refused across nodes, on record, also after a restart', async () => {
  const shared = makePair();
  expect(await sign('web-1', shared)).toBe('signed');
  expect(await sign('web-2', shared)).toBe('public_key_in_use');
  expect(await sign('web-2', shared)).toBe('public_key_in_use');
  // Renewed with the key it has: that is nobody else.
  expect(await sign('web-1', shared)).toBe('signed');
  const refusals = () => server.audit('type=refusal');
  await eventually('the record', async () => (await refusals()).length > 0);
  expect(await refusals()).toEqual([
    expect.objectContaining({
      code: 'public_key_in_use',
      door: 'issue',
      resource: 'spiffe://mesh.test/ns/a/sa/web-2',
      caller: expect.objectContaining({ node: 'web-2' }) as object,
    }),
  ]);
  await server.stop();
  await server.start();
  expect(await sign('web-2', shared)).toBe('public_key_in_use');
  expect(await sign('web-1', shared)).toBe('signed');
});

test('the key of a node is no key for a workload, nor that of a workload for a node', async () => {
  expect(await sign('web-1', nodes['web-2']!.pair)).toBe('public_key_in_use');
  const workload = makePair();
  expect(await sign('web-1', workload)).toBe('signed');
  await expect(joinAs('web-3', workload)).rejects.toMatchObject({ code: 'public_key_in_use' });
});

test('refusals that repeat are one record with their number', () => {
  const recorded: unknown[] = [];
  const clock = { now: () => new Date(0), sleep: () => new Promise<void>(() => undefined) };
  const refusals = createRefusals((event) => recorded.push(event), clock, undefined, 'issue');
  const caller = { pid: 0, uid: 0, gid: 0, node: 'web-1' };
  const refusal = { code: 'public_key_in_use' as const, message: '', resource: 'x', selectors: [], caller };
  for (let count = 0; count < 1_000; count += 1) refusals.add(refusal);
  refusals.close();
  expect(recorded).toHaveLength(2);
});

async function joinAs(name: string, pair = makePair()) {
  const { secret } = parseJoinSecret(await server.token(name));
  const { certificates } = await attestNode(channel, { kind: 'join_token', secret }, pair);
  const client = openNodeChannel(channel, {
    certificates: certificates.map((der) => new Uint8Array(der)),
    privateKey: pair.privateKey,
  });
  scope.defer(() => client.close());
  return { client, pair };
}

/** @returns `signed`, or the code it was refused with */
async function sign(node: 'web-1' | 'web-2', pair: Pair): Promise<string> {
  const { items } = (await server.admin('GET', '/v1/entries')) as {
    items: { id: string; revision: number }[];
  };
  const { id, revision } = items.find((one) => one.id.endsWith(node))!;
  const item: SignX509Item = {
    ...SignX509Item.decode(new Uint8Array(0)),
    entryId: id,
    entryRevision: BigInt(revision),
    csr: Buffer.from(makeCertificateRequest(pair.publicKey, pair.privateKey)),
    selectors: [`unix:path:/${node}`],
    caller: Caller.decode(new Uint8Array(0)),
  };
  const { client } = nodes[node]!;
  const { results } = await eventually('an answer', () =>
    ask<SignX509Results>((metadata, options, done) =>
      client.signX509({ items: [item] }, metadata, options, done),
    ),
  );
  const kind = results[0]?.kind;
  return kind?.$case === 'failure' ? kind.failure.code : (kind?.$case ?? 'nothing');
}

function makePair(): Pair {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  return {
    publicKey: new Uint8Array(publicKey.export({ type: 'spki', format: 'der' })),
    privateKey: new Uint8Array(privateKey.export({ type: 'pkcs8', format: 'der' })),
  };
}
