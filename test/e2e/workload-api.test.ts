import { copyFileSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { CaReport } from '../../src/http/ca-report.ts';
import { type Authority, startAuthority } from '../harness/authority.ts';
import { type Child, startChild } from '../harness/child.ts';
import { eventually } from '../harness/eventually.ts';
import { ask } from '../harness/http.ts';
import { entry } from '../harness/mesh.ts';
import { createScope } from '../harness/scope.ts';
import { makeTempDir } from '../harness/temp.ts';
import { buildGoClient, goIsHere } from '../interop/go-client.ts';

// Two services without a proxy, on go-spiffe alone: each a copy of its client, told apart by where it lies.
const scope = createScope();
afterAll(() => scope.close());

const [web, orders] = ['spiffe://mesh.test/ns/shop/sa/web', 'spiffe://mesh.test/ns/shop/sa/orders'];
// The shortest there is: renewed after ten seconds.
const ttlSeconds = 20;

let authority: Authority;
let directory: string;

describe.skipIf(!goIsHere())('go-spiffe', () => {
  beforeAll(async () => {
    const client = await buildGoClient('spiffeclient');
    directory = makeTempDir(scope);
    authority = await startAuthority(scope, { directory });
    for (const id of [web, orders]) {
      mkdirSync(join(directory, nameOf(id)));
      copyFileSync(client, binaryOf(id));
    }
  }, 600_000);

  test('a service that has no entry yet gets its certificate soon after it has one', async () => {
    const waiting = run(web, 'watch', '-for', '60s');
    await eventually('to be refused', () => says(waiting, 'watch_error').length > 0);
    expect(says(waiting, 'watch_error')[0]).toMatchObject({ code: 'PermissionDenied' });
    await authority.apply(entry(web, binaryOf(web), { ttlSeconds }));
    await eventually('the certificate', () => says(waiting, 'x509').length > 0);
    expect(says(waiting, 'x509')[0]).toMatchObject({ svids: [{ id: web, verified: true }] });
    await waiting.stop();
    const refusals = await authority.audit('type=refusal');
    expect(refusals[0]).toMatchObject({ door: 'workload_api', code: 'identity_none' });
    expect(refusals[0]?.['selectors']).toContain(`unix:path:${binaryOf(web)}`);
  }, 30_000);

  test('a root is rotated under two services that acknowledge nothing, and no call fails', async () => {
    await authority.apply(entry(orders, binaryOf(orders), { ttlSeconds }));
    const server = run(orders, 'serve', '-peer', web, '-for', '180s');
    const address = await eventually('the server', () => says(server, 'serving')[0]?.['addr'] as string);
    const caller = run(web, 'call', '-peer', orders, '-addr', address, '-for', '180s');
    await eventually('calls', () => says(caller, 'called').length > 0);

    await ca('rotate', { scope: 'root' });
    // Nobody can say that the new bundle was read by whoever has a certificate from before it.
    const refused = await post('activate');
    expect(refused).toMatchObject({ status: 409, body: { code: 'rotation_unproven' } });
    for (const id of [web, orders]) expect(refused.body['detail']).toContain(id);
    expect((await report()).laggards).toContainEqual(
      expect.objectContaining({
        spiffeId: web,
        node: `pid ${caller.pid}, Workload API`,
        why: 'has confirmed bundle 1, not 2',
      }),
    );
    // Once renewed, with the new bundle in the same message, it only waits for the old ones to run out.
    const safe = { withinMs: 60_000, everyMs: 250 };
    // A certificate that is recorded, and is not with its holder yet, has confirmed nothing either: for that moment no.
    const activate = async () => (await post('activate')).status === 200;
    await eventually(
      'the old certificates to run out',
      async () => (await report()).next?.safe === true && activate(),
      safe,
    );
    await eventually('the old root to be needless', async () => (await report()).next?.safe, safe);
    await ca('retire');
    await eventually('both to go on', async () => (await report()).coverage.holders >= 2);
    const before = says(server, 'request').length;
    await eventually('calls under the new root', () => says(server, 'request').length > before + 20);

    caller.kill('SIGTERM');
    await caller.exited;
    expect(says(caller, 'call_failed')).toEqual([]);
    const [calls] = says(caller, 'calls');
    expect(calls).toMatchObject({ failed: 0 });
    // The server's certificate was replaced again and again meanwhile.
    expect(says(caller, 'called').length).toBeGreaterThanOrEqual(3);
    console.log(`${String(calls?.['passed'])} calls passed, each with a handshake of its own`);
    await server.stop();
  }, 200_000);

  test('a token that one service fetches is validated by the other, until a ban ends it all', async () => {
    const minted = run(web, 'jwt', '-aud', 'orders,billing');
    expect(await minted.exited).toBe(0);
    const [jwt] = says(minted, 'jwt');
    expect(jwt).toMatchObject({ id: web, aud: ['orders', 'billing'] });
    const token = String(jwt?.['token']);
    const good = run(orders, 'validate', '-aud', 'orders', '-token', token);
    expect(await good.exited).toBe(0);
    expect(said(good)).toMatchObject([
      { event: 'validated_by_server', id: web },
      { event: 'validated_here', id: web },
    ]);

    const watching = run(web, 'watch', '-for', '60s');
    await eventually('the certificate', () => says(watching, 'x509').length > 0);
    const from = Date.now();
    await authority.ban('spiffe-id', web);
    await eventually('the stream to end', () => says(watching, 'watch_error').length > 0, { everyMs: 10 });
    console.log(`${Date.now() - from} ms from the ban to the end of the stream`);
    expect(says(watching, 'watch_error')[0]).toMatchObject({ code: 'PermissionDenied' });
    const bad = run(orders, 'validate', '-aud', 'orders', '-token', token);
    expect(await bad.exited).toBe(1);
    expect(said(bad)[0]).toMatchObject({ event: 'refused_by_server', code: 'InvalidArgument' });
    expect(String(said(bad)[0]?.['error'])).toContain('identity_banned');
    for (const mode of ['fetch', 'jwt']) {
      const denied = run(web, mode);
      expect(await denied.exited).toBe(1);
      expect(said(denied)).toMatchObject([{ event: 'failed', code: 'PermissionDenied' }]);
    }

    await authority.unban('spiffe-id', web);
    const held = says(watching, 'x509').length;
    await eventually('a new certificate', () => says(watching, 'x509').length > held, { withinMs: 20_000 });
    await watching.stop();
    expect(await authority.audit('type=jwt_issuance')).toHaveLength(1);
    const codes = (await authority.audit('type=refusal')).map(
      ({ door, code }) => `${String(door)} ${String(code)}`,
    );
    expect(codes).toContain('workload_api identity_banned');
  }, 60_000);

  test('when the authority ends and comes back, so do the streams', async () => {
    const watching = run(orders, 'watch', '-for', '60s');
    await eventually('the certificate', () => says(watching, 'x509').length > 0);
    expect(await authority.child().stop()).toBe(0);
    await eventually('to be told', () => says(watching, 'watch_error').length > 0);
    expect(says(watching, 'watch_error')[0]).toMatchObject({ code: 'Unavailable' });
    const held = says(watching, 'x509').length;
    await authority.restart();
    await eventually('a new certificate', () => says(watching, 'x509').length > held, { withinMs: 20_000 });
    await watching.stop();
  }, 60_000);
});

function nameOf(id: string): string {
  return id.split('/').at(-1) ?? '';
}

function binaryOf(id: string): string {
  return join(directory, nameOf(id), 'service');
}

let runs = 0;

/** Runs a service, which finds the socket as every SPIFFE library does. */
function run(id: string, mode: string, ...args: readonly string[]): Child {
  runs += 1;
  return startChild(scope, {
    command: binaryOf(id),
    args: [mode, ...args],
    env: { SPIFFE_ENDPOINT_SOCKET: `unix://${authority.workloadSocket}` },
    logFile: join(directory, `${nameOf(id)}-${runs}.log`),
  });
}

type Line = Record<string, unknown> & { readonly event: string };

function said(child: Child): Line[] {
  // The last line may be half written.
  const lines = child.output().split('\n').slice(0, -1);
  return lines.filter((line) => line.startsWith('{')).map((line) => JSON.parse(line) as Line);
}

function says(child: Child, event: string): Line[] {
  return said(child).filter((line) => line.event === event);
}

async function report(): Promise<CaReport> {
  const { body } = await ask({ to: authority.adminSocket, path: '/v1/ca' });
  return JSON.parse(body) as CaReport;
}

async function post(step: string, body: object = {}) {
  const answer = await ask({
    to: authority.adminSocket,
    method: 'POST',
    path: `/v1/ca/${step}`,
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
    timeoutMs: 20_000,
  });
  return { status: answer.status, body: JSON.parse(answer.body) as Record<string, unknown> };
}

async function ca(step: string, body: object = {}): Promise<void> {
  const { status, body: answer } = await post(step, body);
  if (status !== 200) throw new Error(`${step}: ${JSON.stringify(answer)}`);
}
