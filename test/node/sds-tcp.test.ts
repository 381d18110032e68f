import { realpathSync } from 'node:fs';
import { join } from 'node:path';
import { credentials } from '@grpc/grpc-js';
import { afterAll, expect, test } from 'vitest';
import { loadConfig } from '../../src/config.ts';
import { openLog } from '../../src/log.ts';
import { startServer } from '../../src/server.ts';
import { SecretDiscoveryServiceClient } from '../../src/wire/sds.ts';
import { shownOf } from '../grpc/sds-door.ts';
import type { OddShown } from '../grpc/odd-certificate.ts';
import { ask } from '../harness/http.ts';
import { entry } from '../harness/mesh.ts';
import { startAgentHere, startServerHere } from '../harness/node-mesh.ts';
import { createScope } from '../harness/scope.ts';
import { fetchKeyPair } from '../harness/sds-client.ts';
import { freePorts, makeTempDir } from '../harness/temp.ts';
import { followStream, type TestStream } from '../xds/harness.ts';

const scope = createScope();
afterAll(() => scope.close());
const id = 'spiffe://mesh.test/ns/shop/sa/web';

test('an agent renews over the network what it has handed out, and the server proves it again', async () => {
  const directory = makeTempDir(scope);
  const server = await startServerHere(scope, directory);
  const labels = { 'countersign.dev/renew-over-network': 'true' };
  const self = realpathSync(process.execPath);
  await server.apply(entry(id, self, { nodes: ['node:web-1'] }, labels));
  const [sdsPort] = (await freePorts(1)) as [number];
  const agent = startAgentHere(scope, {
    directory: join(directory, 'agent'),
    port: server.port,
    token: await server.token('web-1'),
    flags: { sdsAddress: `127.0.0.1:${sdsPort}` },
  });
  await agent.started;
  const root = await rootsOf(directory);
  const attested = await fetchKeyPair(agent.workloadSocket);

  const shown = { certificate: attested.cert, privateKey: attested.key };
  const stream = open(sdsPort, shown, root);
  stream.send({ resourceNames: ['default'] });
  const next = shownOf(await stream.response());
  expect(next.id).toBe(`URI:${id}`);
  const issued = await server.audit('type=issuance');
  const [first, renewed] = issued.filter(({ spiffeId }) => spiffeId === id);
  expect(first).toMatchObject({ caller: { pid: process.pid, node: 'web-1' } });
  expect(renewed).toMatchObject({
    serial: next.serial,
    selectors: [],
    caller: { pid: 0, uid: 0, gid: 0, node: 'web-1', certificate: (first as { serial: string }).serial },
  });

  await server.apply(entry(id, self, { nodes: ['node:web-1'] }));
  expect((await stream.status()).code).not.toBe(0);
  const after = open(sdsPort, next, root);
  after.send({ resourceNames: ['default'] });
  expect(await after.status()).toMatchObject({ code: 7 });
});

test('a server of nodes has no such door', async () => {
  const directory = makeTempDir(scope);
  const config = loadConfig({
    flags: { trustDomain: 'mesh.test', dataDir: join(directory, 'data'), sdsAddress: '127.0.0.1:1' },
    environment: {},
    file: null,
    isRoot: false,
  });
  await expect(startServer(config, openLog('silent'))).rejects.toMatchObject({ code: 'config_invalid' });
});

async function rootsOf(directory: string): Promise<Buffer> {
  const { body } = await ask({ to: join(directory, 'a.sock'), method: 'GET', path: '/v1/trust-bundle' });
  return Buffer.from(body);
}

function open(port: number, { certificate, privateKey }: OddShown, root: Buffer): TestStream {
  const ssl = credentials.createSsl(root, Buffer.from(privateKey), Buffer.from(certificate), {
    // The agent shows the certificate of its node, which names no host.
    checkServerIdentity: (_, { subjectaltname }) =>
      subjectaltname === 'URI:spiffe://mesh.test/countersign/node/web-1'
        ? undefined
        : new Error('another node'),
  });
  const client = new SecretDiscoveryServiceClient(`localhost:${port}`, ssl, {
    'grpc.use_local_subchannel_pool': 1,
  });
  scope.defer(() => client.close());
  return followStream(client.streamSecrets());
}
