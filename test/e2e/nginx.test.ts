import { readFileSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { checkServerIdentity, connect } from 'node:tls';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { CaReport } from '../../src/http/ca-report.ts';
import { main } from '../cli/run-cli.ts';
import { type Authority, startAuthority } from '../harness/authority.ts';
import { type Child, startChild } from '../harness/child.ts';
import { eventually } from '../harness/eventually.ts';
import { ask } from '../harness/http.ts';
import { type Nginx, prepareNginx, startNginx } from '../harness/nginx.ts';
import { createScope } from '../harness/scope.ts';
import { freePorts, makeTempDir } from '../harness/temp.ts';
import { forgeKeyPair, shakeHands } from '../harness/tls-client.ts';

const scope = createScope();
afterAll(() => scope.close());

const id = 'spiffe://mesh.test/ns/shop/sa/nginx';
const clientId = 'spiffe://mesh.test/ns/shop/sa/web';
let authority: Authority;
let agent: Child;
let nginx: Nginx;
let directory: string;
let broken: string;

beforeAll(async () => {
  directory = makeTempDir(scope);
  authority = await startAuthority(scope, { directory });
  for (const spiffeId of [id, clientId]) {
    await authority.apply(
      JSON.stringify({
        apiVersion: 'countersign.dev/v1',
        kind: 'RegistrationEntry',
        metadata: { name: spiffeId.split('/').at(-1) },
        spec: { spiffeId, selectors: [`unix:uid:${process.geteuid?.()}`], ttlSeconds: 20 },
      }),
    );
  }
  const [port = 0] = await freePorts(1);
  const start = {
    directory: join(directory, 'nginx'),
    files: join(directory, 'server'),
    port,
    answer: 'ok $ssl_client_serial\\n',
  };
  const { reload } = prepareNginx(start);
  broken = join(directory, 'hook-broken');
  // While that file is there the hook fails, as if the configuration of NGINX were wrong.
  const hook = ['sh', '-c', 'test ! -e "$0" && exec "$@"', broken, ...reload];
  const file = join(directory, 'files.yaml');
  writeFileSync(
    file,
    JSON.stringify({
      apiVersion: 'countersign.dev/v1',
      kind: 'FilesConfiguration',
      spec: {
        workloadSocket: authority.workloadSocket,
        metricsFile: join(directory, 'files.prom'),
        outputs: [
          { name: 'nginx', spiffeId: id, directory: start.files, onChange: hook },
          { name: 'client', spiffeId: clientId, directory: join(directory, 'client') },
        ],
      },
    }),
  );
  // NGINX does not start without files; the hook, which cannot reach it yet, is tried again.
  agent = startChild(scope, {
    command: process.execPath,
    args: [main, 'agent', 'files', '-f', file],
    logFile: join(directory, 'files.log'),
  });
  await eventually(
    'the files',
    () => read('server', 'bundle.pem') !== '' && read('client', 'key.pem') !== '',
  );
  nginx = await startNginx(scope, start);
  await eventually('the first reload', () => agent.output().includes('hook ok'));
}, 60_000);

test('a client with a certificate of the mesh is served, and a stranger is refused', async () => {
  expect(await call()).toMatch(/^ok [0-9A-F]{40}$/);
  expect(await shakeHands(nginx.port, null)).toMatchObject({
    accepted: true,
    answer: expect.stringContaining('400 ') as string,
  });
  const forged = await shakeHands(nginx.port, await forgeKeyPair(clientId));
  expect(forged).toMatchObject({
    accepted: true,
    answer: expect.stringMatching(/400 .*[^]*certificate error/i) as string,
  });
  for (const { answer } of [forged] as { answer: string }[]) expect(answer).not.toContain('ok ');
});

test('a root is rotated from prepare to retire with certificates of 20 s, and not one request fails', async () => {
  const load = startCalls();
  await ca('rotate', { scope: 'root' });
  await eventually('everybody to have reloaded with both roots', async () => (await report()).next?.safe, {
    withinMs: 30_000,
  });
  await ca('activate');
  await eventually('the old root to be needless', async () => (await report()).next?.safe, {
    withinMs: 40_000,
    everyMs: 250,
  });
  await ca('retire');
  // Both sides renew once more under the new root alone, and there are calls enough for a failure to show.
  const [clientsBefore, serversBefore] = [load.seen.clients.size, load.seen.servers.size];
  await eventually(
    'both sides to renew',
    () =>
      load.seen.clients.size > Math.max(clientsBefore, 2) &&
      load.seen.servers.size > Math.max(serversBefore, 2) &&
      load.passed() > 500,
    { withinMs: 60_000, everyMs: 100 },
  );
  const { passed, failures, clients, servers } = await load.stop();
  console.log(
    `${passed} calls passed, with ${servers.size} certificates of NGINX and ${clients.size} of the client`,
  );
  expect([...failures]).toEqual([]);
  expect(passed).toBeGreaterThan(500);
  expect(servers.size).toBeGreaterThanOrEqual(3);
  expect(clients.size).toBeGreaterThanOrEqual(3);
  expect(read('server', 'bundle.pem').match(/BEGIN CERTIFICATE/g)).toHaveLength(1);
}, 120_000);

test('while NGINX cannot be reloaded a rotation waits, and names it', async () => {
  writeFileSync(broken, '');
  await ca('rotate', { scope: 'root' });
  await eventually('the hook to fail', () => agent.output().includes('HOOK FAILED'));
  // The other output of the same process uses the new bundle by now, which does not count for this one; and its
  // certificate is renewed meanwhile.
  const before = read('client', 'svid.pem');
  await eventually('the client to renew', () => read('client', 'svid.pem') !== before, { withinMs: 20_000 });
  expect((await report()).laggards.map(({ spiffeId }) => spiffeId)).toContain(id);
  const refused = await ask({
    to: authority.adminSocket,
    method: 'POST',
    path: '/v1/ca/activate',
    headers: { 'content-type': 'application/json' },
    body: '{}',
  });
  expect([refused.status, refused.body]).toEqual([409, expect.stringContaining(id)]);
  expect(readFileSync(join(directory, 'files.prom'), 'utf8')).toContain(
    'countersign_files_hook_failing{output="nginx"} 1',
  );
  rmSync(broken);
  await eventually('everybody to confirm', async () => (await report()).next?.safe, { withinMs: 30_000 });
  await ca('activate');
  expect(await call()).toMatch(/^ok /);
}, 90_000);

/** One call on a connection of its own, with the certificate of the moment, that trusts only the bundle of the moment. */
async function call(
  seen: { servers: Set<string>; clients: Set<string> } = { servers: new Set(), clients: new Set() },
): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect({
      host: '127.0.0.1',
      port: nginx.port,
      ...pair(),
      minVersion: 'TLSv1.3',
      checkServerIdentity: (host, peer) =>
        peer.subjectaltname === `URI:${id}` ? undefined : checkServerIdentity(host, peer),
    });
    let answer = '';
    socket.setTimeout(5_000, () => socket.destroy(new Error('no answer within 5 s')));
    socket.on('secureConnect', () => {
      seen.servers.add(socket.getPeerX509Certificate()?.serialNumber ?? '');
      socket.write('GET / HTTP/1.1\r\nhost: nginx\r\nconnection: close\r\n\r\n');
    });
    socket.on('data', (chunk: Buffer) => (answer += chunk.toString('latin1')));
    socket.on('error', reject);
    socket.on('close', () => {
      const body = /^HTTP\/1.1 200 [^]*?\r\n\r\n([^]*?)\n$/.exec(answer)?.[1];
      if (body === undefined) reject(new Error(`answered ${answer.slice(0, 60)}`));
      else {
        seen.clients.add(body);
        resolve(body);
      }
    });
  });
}

function startCalls() {
  const failures = new Map<string, number>();
  const seen = { servers: new Set<string>(), clients: new Set<string>() };
  let [running, passed] = [true, 0];
  const one = async (): Promise<void> => {
    while (running) {
      try {
        await call(seen);
        passed += 1;
      } catch (error) {
        const why = (error as Error).message;
        failures.set(why, (failures.get(why) ?? 0) + 1);
      }
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  };
  const all = Promise.all([one(), one()]);
  return {
    seen,
    passed: () => passed,
    stop: async () => {
      running = false;
      await all;
      return { passed, failures, ...seen };
    },
  };
}

/** Resolved once, as a careful reader does: certificate and key are of one version. */
function pair(): { cert: string; key: string; ca: string } {
  for (;;) {
    try {
      const version = join('client', readlinkSync(join(directory, 'client', '..data')));
      return {
        cert: read(version, 'svid.pem'),
        key: read(version, 'key.pem'),
        ca: read(version, 'bundle.pem'),
      };
    } catch (error) {
      // The version was replaced, and removed, between the two steps: look again.
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    }
  }
}

function read(...path: readonly string[]): string {
  return readFileSync(join(directory, ...path), 'utf8');
}

async function report(): Promise<CaReport> {
  return JSON.parse((await ask({ to: authority.adminSocket, path: '/v1/ca' })).body) as CaReport;
}

async function ca(step: string, body: object = {}): Promise<void> {
  const answer = await ask({
    to: authority.adminSocket,
    method: 'POST',
    path: `/v1/ca/${step}`,
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
    timeoutMs: 20_000,
  });
  if (answer.status !== 200) throw new Error(`${step}: ${answer.body}`);
}
