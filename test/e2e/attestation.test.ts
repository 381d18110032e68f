import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { appendFileSync, chmodSync, copyFileSync, createReadStream } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Authority, startAuthority } from '../harness/authority.ts';
import { eventually } from '../harness/eventually.ts';
import { entry, idOf } from '../harness/mesh.ts';
import { createScope } from '../harness/scope.ts';
import { followSecret } from '../harness/sds-stream.ts';
import { makeTempDir } from '../harness/temp.ts';

const scope = createScope();
afterAll(() => scope.close());

const client = join(import.meta.dirname, '../harness/secret-client.ts');
const isRoot = process.getuid?.() === 0;
let authority: Authority;
let directory: string;
let other: string;

beforeAll(async () => {
  directory = makeTempDir(scope);
  // Another user has to reach the socket.
  chmodSync(directory, 0o755);
  authority = await startAuthority(scope, { directory });
  // The same program with one byte more, which changes nothing but its digest.
  other = join(directory, 'node');
  copyFileSync(process.execPath, other);
  appendFileSync(other, 'x');
  chmodSync(other, 0o755);
});

test('a stream that waits since before there was such an entry gets to reconnect, and finds it', async () => {
  const waiting = followSecret(scope, authority.workloadSocket);
  await eventually('the refusal in the log', async () => (await authority.audit('type=refusal')).length > 0);
  await authority.apply(
    entry(idOf(authority, 'shop/late'), '/', {
      selectors: [`unix:sha256:${await sha256(process.execPath)}`],
    }),
  );
  await eventually('the stream to end', () => waiting.ended());
  // UNAVAILABLE: clients come again by themselves.
  expect(waiting.ended()).toMatch(/^14 /);
  const again = followSecret(scope, authority.workloadSocket);
  await eventually('the certificate', () => again.certificates.length > 0);
  await authority.deleteEntry('ns-shop-sa-late');
});

test('two executables under one uid are told apart by their digests', async () => {
  const [web, pay] = [idOf(authority, 'shop/web'), idOf(authority, 'shop/pay')];
  const [first, second] = await Promise.all([sha256(process.execPath), sha256(other)]);
  expect(first).not.toBe(second);
  const uid = `unix:uid:${process.getuid?.()}`;
  await authority.apply(
    entry(web, '/', { selectors: [uid, `unix:sha256:${first}`] }) +
      entry(pay, '/', { selectors: [uid, `unix:sha256:${second}`] }),
  );
  expect(await ask(process.execPath)).toBe(`URI:${web}`);
  expect(await ask(other)).toBe(`URI:${pay}`);
  await authority.deleteEntry('ns-shop-sa-pay');
  expect(await ask(other, { waitMs: 1_000 })).toBe('none');
  const refusals = await authority.audit('type=refusal');
  expect(JSON.stringify(refusals.at(-1))).toContain(`unix:sha256:${second}`);
  await authority.deleteEntry('ns-shop-sa-web');
});

test('an identity by uid is for that uid alone', async () => {
  const own = process.getuid?.() ?? -1;
  const theirs = isRoot ? 65_534 : own + 1;
  await authority.apply(entry(idOf(authority, 'shop/user'), '/', { selectors: [`unix:uid:${theirs}`] }));
  // Ours is another: refused, and the record says who we are.
  expect(await ask(process.execPath, { waitMs: 1_000 })).toBe('none');
  const refusals = await authority.audit('type=refusal');
  expect(refusals.at(-1)).toMatchObject({ code: 'identity_none' });
  expect(JSON.stringify(refusals.at(-1))).toContain(`unix:uid:${own}`);
  // Only root can be somebody else.
  if (isRoot) expect(await ask(other, { uid: theirs })).toBe(`URI:${idOf(authority, 'shop/user')}`);
});

/** What a process of that executable and user is given. */
function ask(
  executable: string,
  { uid, waitMs = 10_000 }: { uid?: number; waitMs?: number } = {},
): Promise<string> {
  const child = spawn(executable, [client, authority.workloadSocket, String(waitMs)], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: {},
    ...(uid === undefined ? {} : { uid, gid: uid, cwd: '/' }),
  });
  let output = '';
  child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()));
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', () => resolve(output.trim()));
  });
}

async function sha256(file: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(file)) hash.update(chunk as Buffer);
  return hash.digest('hex');
}
