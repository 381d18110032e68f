import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { afterEach, expect, test, vi } from 'vitest';
import { ask, openNodeChannel } from '../../src/node/node-client.ts';
import type { NodeClient } from '../../src/wire/node.ts';
import { makeTestAuthority } from '../ca/test-authority.ts';
import { eventually } from '../harness/eventually.ts';
import { createScope } from '../harness/scope.ts';
import { makeNodeCertificate } from './node-certificates.ts';

const scope = createScope();
afterEach(() => scope.close());

test('a channel that could not connect and was closed does not connect later either', async () => {
  let connections = 0;
  const { port, openChannel } = await listen((socket) => {
    connections += 1;
    socket.destroy();
  });
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
  scope.defer(() => void vi.useRealTimers());
  const client = openChannel();
  await expect(callOn(client)).rejects.toMatchObject({ code: 'server_unreachable' });
  client.close();
  await vi.advanceTimersByTimeAsync(60_000);
  // Whoever connected before is counted before.
  const fence = connect(port, '127.0.0.1');
  await new Promise((resolve) => fence.once('close', resolve));
  expect(connections).toBe(2);
});

test('a channel that is closed while it connects leaves no connection to a server that says nothing', async () => {
  let connections = 0;
  const open = new Set<Socket>();
  const { openChannel } = await listen((socket) => {
    connections += 1;
    open.add(socket.resume().on('error', () => undefined));
    socket.once('close', () => open.delete(socket));
  });
  for (let tries = 0; tries < 20 || connections === 0; tries += 1) {
    const client = openChannel();
    const call = callOn(client).catch(() => undefined);
    // Mostly the connection is on its way by then.
    await new Promise(setImmediate);
    client.close();
    await call;
  }
  await eventually('them to end', () => open.size === 0);
});

/** A server for which everybody who connects is a socket, and channels to it. */
async function listen(serve: (socket: Socket) => void) {
  const authority = await makeTestAuthority(new Date(), {}, 'mesh.test');
  const { certificates, key } = await makeNodeCertificate(authority, 'web-1', new Date());
  const listener = createServer(serve);
  scope.defer(() => listener.close());
  await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve));
  const { port } = listener.address() as AddressInfo;
  const { trustDomain, x509Authorities: roots } = authority.authority.bundle;
  const privateKey = new Uint8Array(key.export({ type: 'pkcs8', format: 'der' }));
  const server = { host: '127.0.0.1', port };
  return {
    port,
    openChannel: () => openNodeChannel({ server, roots, trustDomain }, { certificates, privateKey }),
  };
}

function callOn(client: NodeClient): Promise<unknown> {
  return ask((metadata, options, done) => client.signX509({ items: [] }, metadata, options, done));
}
