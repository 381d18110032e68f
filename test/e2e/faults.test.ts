import { spawn } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { closeSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { credentials, status } from '@grpc/grpc-js';
import SqliteDatabase from 'better-sqlite3';
import { afterEach, expect, test } from 'vitest';
import type { CaReport } from '../../src/http/ca-report.ts';
import { CheckResponse } from '../../src/wire/authz.ts';
import { SigningClient, type SignX509Response } from '../../src/wire/sign.ts';
import { makeCsr } from '../ca/csr-writer.ts';
import { checkBytes } from '../ext-authz/check-input.ts';
import { type Authority, startAuthority } from '../harness/authority.ts';
import { sendCheck } from '../harness/check-client.ts';
import { eventually } from '../harness/eventually.ts';
import { ask } from '../harness/http.ts';
import { policy } from '../harness/mesh.ts';
import { createScope, type Scope } from '../harness/scope.ts';
import { followSecret } from '../harness/sds-stream.ts';
import { seeded } from '../harness/seeded.ts';
import { makeTempDir } from '../harness/temp.ts';

let scope = createScope();
afterEach(async () => {
  await scope.close();
  scope = createScope();
});

const id = 'spiffe://mesh.test/ns/shop/sa/web';
// More of them take a quarter of an hour: `KILLS=200 bash tool/run vitest run test/e2e/faults.test.ts -t SIGKILL`.
const kills = Number(process.env['KILLS'] ?? 5);

test(
  'SIGKILL at any moment under load: what was handed out is on record, without a gap, and one CA signs',
  async () => {
    const authority = await start(scope);
    const seed = Number(process.env['SEED'] ?? Date.now() % 1_000_000);
    const random = seeded(seed);
    const handedOut = new Set<string>();
    for (let round = 0; round < kills; round++) {
      const end = new AbortController();
      const before = handedOut.size;
      const load = Promise.all(Array.from({ length: 4 }, () => signOn(authority, end.signal, handedOut)));
      // There is a load, however slow the machine is.
      await eventually('two certificates', () => handedOut.size >= before + 2);
      await sleep(random() * 500);
      const rotation = post(authority, '/v1/ca/rotate', { scope: 'intermediate' }).catch(() => undefined);
      await sleep(random() * 1_200);
      await authority.kill();
      end.abort();
      await Promise.all([load, rotation]);
      await authority.restart();

      const context = `seed ${seed}, round ${round}`;
      const events = await wholeLog(authority);
      expect(
        events.map(({ index }) => index),
        context,
      ).toEqual(events.map((_, at) => at));
      const recorded = new Set(events.map(({ event }) => (event.type === 'issuance' ? event.serial : '')));
      expect(
        [...handedOut].filter((serial) => !recorded.has(serial)),
        context,
      ).toEqual([]);
      const { authorities } = await caReport(authority);
      const signers = authorities.filter(({ kind, state }) => kind === 'intermediate' && state === 'active');
      expect(signers, context).toHaveLength(1);
      const roots = authorities.filter(({ kind }) => kind === 'root').map(({ keyId }) => keyId);
      expect(roots, context).toContain(signers[0]?.rootKeyId);
    }
    expect(handedOut.size).toBeGreaterThan(kills);
  },
  Math.max(180_000, kills * 30_000),
);

test('a key stays with its identity over a restart: for another one it is refused, and that is on record', async () => {
  const authority = await start(scope);
  const selectors = [`unix:uid:${process.getuid?.() ?? 0}`];
  const rival = 'spiffe://mesh.test/ns/shop/sa/rival';
  expect((await post(authority, '/v1/entries', { id: 'rival', spiffeId: rival, selectors })).status).toBe(
    201,
  );
  const csr = Buffer.from(makeCsr());
  await sign(authority, { csr, spiffeId: id });
  await authority.kill();
  await authority.restart();
  await expect(sign(authority, { csr, spiffeId: rival })).rejects.toMatchObject({ code: status.ABORTED });
  const refused = await eventually('the record', async () => {
    const found = await authority.audit('type=refusal');
    return found.length > 0 && found;
  });
  expect(refused).toMatchObject([{ door: 'issue', code: 'public_key_in_use', resource: rival }]);
  expect((await sign(authority, { csr, spiffeId: id })).certificates).toHaveLength(2);
}, 60_000);

test('a process that stands still holds its data: nobody takes it over, and it goes on when it is woken', async () => {
  const authority = await start(scope);
  authority.child().kill('SIGSTOP');
  const rival = await upOn(authority);
  expect(rival.output).toContain('store_locked');
  expect(rival.output).toContain(`process ${authority.child().pid}`);
  expect(rival.code).toBe(2);
  authority.child().kill('SIGCONT');
  expect((await post(authority, '/v1/ca/rotate', { scope: 'intermediate' })).status).toBe(200);
}, 60_000);

test('a database that somebody else holds for ten seconds: what is served is served, the rest is refused and comes back', async () => {
  const authority = await start(scope);
  const stream = followSecret(scope, authority.workloadSocket);
  await eventually('a certificate', () => stream.certificates.length === 1);
  const database = new SqliteDatabase(join(authority.dataDir, 'countersign.db'));
  scope.defer(() => database.close());
  database.exec('BEGIN IMMEDIATE');
  const held = sleep(10_000);
  await expect(sign(authority)).rejects.toMatchObject({ code: status.UNAVAILABLE });
  expect(await verdict(authority)).toBe(0);
  await held;
  database.exec('ROLLBACK');
  const { certificates } = await eventually('issuance to come back', () => sign(authority), {
    withinMs: 10_000,
  });
  expect(certificates).toHaveLength(2);
  await eventually(
    'it to be ready',
    async () => (await ask({ to: authority.adminSocket, path: '/readyz' })).status === 200,
  );
  expect([stream.certificates.length, stream.withdrawals(), stream.ended()]).toEqual([1, 0, undefined]);
}, 60_000);

test('a page that goes bad under a running authority: it says so, serves what it has, and issues no more', async () => {
  const authority = await start(scope);
  // Enough for the pages of the log to be apart from those of the state.
  for (let i = 0; i < 100; i++)
    await ask({ to: authority.adminSocket, path: `/v1/entries/none-${i}`, method: 'DELETE' });
  for (let i = 0; i < 40; i++) {
    await authority.apply(
      policy('shop', `p${i}`, { rules: [{ to: [{ operation: { paths: [`/${'x'.repeat(400)}`] } }] }] }),
    );
  }
  await authority.kill();
  const path = join(authority.dataDir, 'countersign.db');
  const database = new SqliteDatabase(path);
  database.pragma('wal_checkpoint(TRUNCATE)');
  const pages = database
    .prepare("SELECT pageno FROM dbstat WHERE name = 'audit_leaves' AND pagetype = 'leaf' ORDER BY pageno")
    .pluck();
  const bad = pages.all() as number[];
  database.close();
  await authority.restart();
  const stream = followSecret(scope, authority.workloadSocket);
  await eventually('a certificate', () => stream.certificates.length === 1);
  const file = openSync(path, 'r+');
  for (const page of bad) writeSync(file, Buffer.alloc(4_096, 0xa5), 0, 4_096, (page - 1) * 4_096);
  closeSync(file);

  const listed = await ask({ to: authority.adminSocket, path: '/v1/audit?order=oldest&limit=1000' });
  expect([listed.status, (JSON.parse(listed.body) as { code: string }).code]).toEqual([503, 'store_corrupt']);
  const { status: unready, body } = await ask({ to: authority.adminSocket, path: '/readyz' });
  expect([unready, body]).toEqual([503, expect.stringMatching(/store: .*SQLITE_CORRUPT/)]);
  await expect(sign(authority)).rejects.toMatchObject({ code: status.UNAVAILABLE });
  expect(await verdict(authority)).toBe(0);
  expect([stream.certificates.length, stream.withdrawals(), stream.ended()]).toEqual([1, 0, undefined]);
  await authority.child().stop();
  const again = await upOn(authority);
  expect(again.output).toContain('store_corrupt');
}, 60_000);

type Started = Authority & { readonly dataDir: string };

/** An authority that knows this process as {@link id} and lets it call itself. */
async function start(inScope: Scope): Promise<Started> {
  const directory = makeTempDir(inScope);
  const authority = await startAuthority(inScope, { directory });
  const selectors = [`unix:uid:${process.getuid?.() ?? 0}`];
  expect((await post(authority, '/v1/entries', { id: 'web', spiffeId: id, selectors })).status).toBe(201);
  await authority.apply(policy('shop', 'all', { rules: [{}] }));
  return { ...authority, dataDir: join(directory, 'data') };
}

/** Starts another authority on the same data, and waits for its end. */
function upOn({ dataDir }: Started): Promise<{ code: number | null; output: string }> {
  const main = join(import.meta.dirname, '../../src/cli/main.ts');
  const sockets = ['--workload-socket', `${dataDir}-w.sock`, '--admin-address', 'off'];
  const child = spawn(process.execPath, [main, 'up', '--data-dir', dataDir, ...sockets], {
    env: { ...process.env, COUNTERSIGN_ADMIN_SOCKET: `${dataDir}-a.sock` },
    timeout: 50_000,
  });
  let output = '';
  child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()));
  child.stderr.on('data', (chunk: Buffer) => (output += chunk.toString()));
  return new Promise((resolve) => child.once('close', (code) => resolve({ code, output })));
}

async function signOn(authority: Authority, signal: AbortSignal, handedOut: Set<string>): Promise<void> {
  while (!signal.aborted) {
    try {
      const [leaf = Buffer.alloc(0)] = (await sign(authority)).certificates;
      handedOut.add(new X509Certificate(leaf).serialNumber.toLowerCase());
    } catch {
      await sleep(20);
    }
  }
}

function sign(
  { workloadSocket }: Authority,
  wish: { readonly csr?: Buffer; readonly spiffeId?: string } = {},
): Promise<SignX509Response> {
  const client = new SigningClient(`unix:${workloadSocket}`, credentials.createInsecure(), {
    'grpc.use_local_subchannel_pool': 1,
  });
  const request = { csr: Buffer.from(makeCsr()), spiffeId: '', ttlSeconds: 0n, ...wish };
  return new Promise<SignX509Response>((resolve, reject) => {
    client.signX509(
      request,
      { deadline: Date.now() + 20_000 } as never,
      (error: Error | null, answer: SignX509Response) => (error === null ? resolve(answer) : reject(error)),
    );
  }).finally(() => client.close());
}

async function verdict({ workloadSocket }: Authority): Promise<number | undefined> {
  const bytes = await sendCheck(workloadSocket, checkBytes({ principal: id, destination: id }));
  return CheckResponse.decode(bytes).status?.code;
}

async function post(authority: Authority, path: string, body: object) {
  const headers = { 'content-type': 'application/json' };
  return ask({ to: authority.adminSocket, method: 'POST', path, headers, body: JSON.stringify(body) });
}

async function caReport({ adminSocket }: Authority): Promise<CaReport> {
  return JSON.parse((await ask({ to: adminSocket, path: '/v1/ca' })).body) as CaReport;
}

type Item = { readonly index: number; readonly event: { readonly type: string; readonly serial?: string } };

async function wholeLog({ adminSocket }: Authority): Promise<readonly Item[]> {
  const found: Item[] = [];
  for (let cursor: string | null = ''; cursor !== null;) {
    const more: string = cursor === '' ? '' : `&cursor=${encodeURIComponent(cursor)}`;
    const { body } = await ask({ to: adminSocket, path: `/v1/audit?order=oldest&limit=1000${more}` });
    const page = JSON.parse(body) as { items: Item[]; next: string | null };
    found.push(...page.items);
    cursor = page.next;
  }
  return found;
}
