import { type AddressInfo, connect, createServer } from 'node:net';
import { afterEach, expect, test, vi } from 'vitest';
import { ask, openNodeChannel } from '../../src/node/node-client.ts';
import { makeTestAuthority } from '../ca/test-authority.ts';
import { createScope } from '../harness/scope.ts';
import { makeNodeCertificate } from './node-certificates.ts';

const scope = createScope();
afterEach(() => scope.close());

test('a channel that could not connect and was closed does not connect later either', async () => {
  const authority = await makeTestAuthority(new Date(), {}, 'mesh.test');
  const { certificates, key } = await makeNodeCertificate(authority, 'web-1', new Date());
  let connections = 0;
  const listener = createServer((socket) => {
    connections += 1;
    socket.destroy();
  });
  scope.defer(() => listener.close());
  await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve));
  const { port } = listener.address() as AddressInfo;
  const { trustDomain, x509Authorities: roots } = authority.authority.bundle;
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
  scope.defer(() => void vi.useRealTimers());
  const privateKey = new Uint8Array(key.export({ type: 'pkcs8', format: 'der' }));
  const server = { host: '127.0.0.1', port };
  const client = openNodeChannel({ server, roots, trustDomain }, { certificates, privateKey });
  const call = ask((metadata, options, done) => client.signX509({ items: [] }, metadata, options, done));
  await expect(call).rejects.toMatchObject({ code: 'server_unreachable' });
  client.close();
  await vi.advanceTimersByTimeAsync(60_000);
  // Whoever connected before is counted before.
  const fence = connect(port, '127.0.0.1');
  await new Promise((resolve) => fence.once('close', resolve));
  expect(connections).toBe(2);
});
