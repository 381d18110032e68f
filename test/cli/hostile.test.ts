import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync } from 'node:fs';
import { createServer as createHttpServer, type Server } from 'node:http';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { text as readText } from 'node:stream/consumers';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { makeNoteSigner } from '../audit/log-files.ts';
import { startChild } from '../harness/child.ts';
import { eventually } from '../harness/eventually.ts';
import { createScope } from '../harness/scope.ts';
import { makeTempDir } from '../harness/temp.ts';
import { main, openCli, runCli } from './run-cli.ts';

const scope = createScope();
const dir = makeTempDir(scope);
const socket = join(dir, 'hostile.sock');
const evil = '\u001b[2J\u001b]0;owned\u0007\r\n\u009b31m\u202eabc';
let answer: { status: number; body: string } = { status: 200, body: '{}' };
let server: Server;
const run = openCli(scope, { cwd: dir });

// A server that is not ours, or ours with names of an attacker's choice in it.
beforeAll(async () => {
  server = createHttpServer((_request, response) => {
    response.writeHead(answer.status, { 'content-type': 'application/json' }).end(answer.body);
  });
  await new Promise<void>((resolve) => server.listen(socket, resolve));
  scope.defer(() => server.close());
});
afterAll(() => scope.close());

const logKey = makeNoteSigner('\u202eabc').verifierKey;
const proof = (index: number, note = '') => `c2sp.org/tlog-proof@v1\nindex ${index}\n\n${note}`;
const page = (item: object) => JSON.stringify({ items: [item], next: null, size: 1, revision: 1 });
const entry = {
  id: evil,
  spiffeId: evil,
  selectors: [evil],
  ttlSeconds: 1,
  dnsNames: [evil],
  labels: { [evil]: evil },
  hint: evil,
  expiresAt: null,
  revision: 1,
};
const ban = {
  kind: evil,
  value: evil,
  reason: evil,
  until: evil,
  inForce: true,
  createdAt: evil,
  actor: { kind: evil, tokenId: evil, role: evil },
  revision: 1,
  certificatesValidUntil: evil,
};
const status = {
  trustDomain: evil,
  ready: false,
  causes: [evil],
  workloadSocket: evil,
  adminSocket: evil,
  adminUrl: evil,
  dataDir: evil,
  custody: evil,
  attestation: evil,
  authorities: [{ kind: evil, keyId: evil, notAfter: evil }],
  revision: evil,
  entries: 1,
  policies: 1,
  policyRevision: { number: evil, id: evil },
  policyRollout: {
    id: evil,
    base: evil,
    stage: evil,
    percent: evil,
    since: evil,
    judged: evil,
    newlyDenied: evil,
    newlyAllowed: evil,
  },
  breakGlass: [evil],
  auditSize: evil,
  streams: evil,
  version: evil,
  startedAt: evil,
};
const ca = {
  bundleSequence: evil,
  authorities: [
    {
      kind: evil,
      keyId: evil,
      state: evil,
      tainted: true,
      notBefore: evil,
      notAfter: evil,
      certificateSha256: evil,
    },
  ],
  coverage: { sequence: evil, confirmed: evil, holders: evil },
  next: { step: evil, safe: true },
  laggards: [{ spiffeId: evil, node: evil, lastSeen: evil, why: evil, until: evil }],
  moreLaggards: 1,
  doubt: evil,
};
const listedPolicy = { key: evil, revision: 1, file: evil, line: 1, sha256: evil };
const revision = {
  number: evil,
  id: evil,
  parent: { number: evil, id: evil },
  restores: evil,
  time: evil,
  active: true,
  author: { kind: evil },
  message: evil,
  changes: { created: evil, updated: evil, deleted: evil },
  recordSha256: evil,
  publicKey: evil,
  signature: evil,
};
const moved = { ...revision, active: { number: evil, id: evil }, changes: [{ key: evil, action: evil }] };
const token = { id: evil, role: evil, expiresAt: evil, label: evil };
const event = { type: 'decision', time: evil, verdict: evil, source: evil, destination: evil, why: evil };

test.each([
  [['entry', 'list'], 200, page(entry)],
  [['entry', 'show', 'x'], 200, JSON.stringify(entry)],
  [['entry', 'show', 'x', '-o', 'json'], 200, JSON.stringify(entry)],
  [['ban', 'list'], 200, page(ban)],
  [['ban', 'serial', 'ff', '--reason', 'x'], 200, JSON.stringify(ban)],
  [['unban', 'serial', 'ff'], 200, JSON.stringify(ban)],
  [['policy', 'list'], 200, page(listedPolicy)],
  [['token', 'list'], 200, page(token)],
  [['ca', 'status'], 200, JSON.stringify(ca)],
  [['ca', 'status', '-o', 'json'], 200, JSON.stringify(ca)],
  [['status'], 200, JSON.stringify(status)],
  [['status', '-o', 'json'], 200, JSON.stringify(status)],
  [['policy', 'log'], 200, page(revision)],
  [['policy', 'log', '--verify'], 200, page(revision)],
  [['policy', 'diff', '1', '2'], 200, page(listedPolicy)],
  [
    ['policy', 'show', '--revision', '1'],
    200,
    JSON.stringify({ ...revision, items: [listedPolicy], next: null }),
  ],
  [['policy', 'rollback'], 200, JSON.stringify(moved)],
  [['policy', 'renumber', '--after', '1'], 200, JSON.stringify({ number: evil })],
  [['policy', 'show', 'a/b'], 200, JSON.stringify({ source: evil })],
  [['audit', 'list'], 200, page({ index: 0, leafHash: evil, personal: { path: evil }, event })],
  [['audit', 'list'], 200, page({ index: 0, leafHash: '', personal: {}, event: { type: { kind: evil } } })],
  [['audit', 'prove', '3'], 200, proof(3, evil)],
  [['audit', 'prove', '3', '-o', 'json'], 200, JSON.stringify({ index: evil, checkpoint: evil })],
  [['audit', 'key'], 200, logKey],
  [['audit', 'verify', '--key', logKey], 200, evil],
  [['trust-bundle'], 200, evil],
  [['entry', 'show', 'x'], 404, JSON.stringify({ code: 'entry_not_found', detail: evil, fix: evil })],
  [
    ['entry', 'show', 'x'],
    404,
    JSON.stringify({ code: 'entry_not_found', detail: evil, place: { file: evil, line: 1, column: 1 } }),
  ],
  [['entry', 'show', 'x'], 500, JSON.stringify({ code: evil, detail: evil })],
  [['entry', 'show', 'x'], 500, JSON.stringify({ code: '__proto__', detail: evil })],
  [['entry', 'show', 'x'], 502, evil],
  [['entry', 'show', 'x', '-o', 'json'], 502, 'null'],
  [['status'], 200, '[]'],
  [['status'], 200, 'null'],
])('%j prints nothing that drives a terminal (%i)', async (args, status, body) => {
  answer = { status, body };
  const { code, out, err } = await run([...args, '--socket', socket]);
  expect(out + err).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u202e]/);
  expect(err).not.toMatch(/\n +at /);
  if (status !== 200) expect([2, 70]).toContain(code);
});

test.each([
  ['the proof of another entry', ['audit', 'prove', '3'], proof(4), 1, 'audit_proof_invalid'],
  ['a proof that drives a terminal', ['audit', 'prove', '3'], proof(3, evil), 2, 'audit_note_invalid'],
  ['a checkpoint of any length', ['audit', 'verify', '--key', logKey], 'x'.repeat(70_000), 69, 'too long'],
])('%s is refused', async (_, args, body, code, why) => {
  answer = { status: 200, body };
  const refused = await run([...args, '--socket', socket]);
  expect([refused.code, refused.out, refused.err]).toEqual([code, '', expect.stringContaining(why)]);
});

test('a reader that goes away is no failure', async () => {
  answer = { status: 200, body: page({ ...entry, id: 'x'.repeat(1_000_000) }) };
  const child = spawn(process.execPath, [main, 'entry', 'list', '--socket', socket]);
  let err = '';
  child.stderr.on('data', (chunk: Buffer) => (err += chunk.toString()));
  child.stdout.once('data', () => child.stdout.destroy());
  const code = await new Promise((resolve) => child.once('close', resolve));
  expect([code, err]).toEqual([0, '']);
});

test.each([
  [['--server', 'https://localhost:1', '--socket', socket], {}, 64],
  [['--server', 'https://localhost:1'], {}, 64],
  [[], { COUNTERSIGN_SERVER: 'http://localhost:1' }, 64],
  [['--socket', socket], { COUNTERSIGN_SERVER: 'http://localhost:1' }, 0],
  [[], { COUNTERSIGN_ADMIN_SOCKET: socket }, 0],
])('the server named by %j and %j: exit %i', async (args, env, code) => {
  answer = { status: 200, body: page(entry) };
  expect((await runCli(['entry', 'list', ...args], { env })).code).toBe(code);
});

test.each([
  ['words', [], /^error\[file_permissions\]: the answer cannot be written \(ENOSPC\)\nfix: /],
  ['JSON', ['-o', 'json'], /^\{"error":\{"code":"file_permissions"/],
])('an answer that finds no room is a failure, in %s', async (_, more, said) => {
  const full = openSync('/dev/full', 'w');
  const child = spawn(process.execPath, [main, 'inspect', 'id', 'spiffe://a.test/x', ...more], {
    stdio: ['ignore', full, 'pipe'],
  });
  closeSync(full);
  const [err, [code]] = await Promise.all([readText(child.stderr!), once(child, 'close')]);
  expect([code, err]).toEqual([77, expect.stringMatching(said)]);
});

test('what cannot be said changes nothing of how a command ends', async () => {
  const full = openSync('/dev/full', 'w');
  const child = spawn(process.execPath, [main, 'apply', '-f', join(dir, 'absent.yaml')], {
    stdio: ['ignore', 'ignore', full],
  });
  closeSync(full);
  expect((await once(child, 'close'))[0]).toBe(2);
});

test('a token file is read, and never shown', async () => {
  const file = join(dir, 'secret.token');
  await writeFile(file, 'sesame', { mode: 0o600 });
  const { code, err } = await runCli(['status', '--server', 'https://localhost:1', '--token-file', file]);
  expect(code).toBe(64);
  expect(err).not.toContain('sesame');
});

test('two signals end it, one way or the other', async () => {
  const child = startChild(scope, {
    command: process.execPath,
    args: [
      main,
      'up',
      '--data-dir',
      join(dir, 'data'),
      '--workload-socket',
      join(dir, 'w.sock'),
      '--admin-address',
      'off',
    ],
    env: { COUNTERSIGN_ADMIN_SOCKET: join(dir, 'a.sock') },
    logFile: join(dir, 'up.log'),
  });
  await eventually('the status', () => child.output().includes('Ctrl-C stops'), { withinMs: 30_000 });
  child.kill('SIGTERM');
  child.kill('SIGINT');
  expect([0, 1]).toContain(await child.exited);
});

test('colours stay away from a file, and NO_COLOR keeps them away from everywhere', async () => {
  const plain = await runCli(['entry', 'lst']);
  const forbidden = await runCli(['entry', 'lst'], { env: { NO_COLOR: '1' } });
  expect(plain.err + forbidden.err).not.toContain('\u001b');
});
