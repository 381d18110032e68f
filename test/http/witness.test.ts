import { createHash } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { signCheckpoint } from '../../src/audit/checkpoint.ts';
import { createCosigner, openCosignatures, parseWitnessKey } from '../../src/audit/cosignature.ts';
import { leafHash } from '../../src/audit/leaf.ts';
import { proveConsistency } from '../../src/audit/merkle-proof.ts';
import { type ReadHashes, readRoot } from '../../src/audit/merkle-tree.ts';
import { createWitness } from '../../src/audit/witness.ts';
import { openStore, type Store } from '../../src/store/store.ts';
import { logKey, logSigner, makeNoteSigner, someEntries } from '../audit/log-files.ts';
import { manualClock } from '../harness/manual-clock.ts';
import { createScope } from '../harness/scope.ts';
import { makeTempDir } from '../harness/temp.ts';
import { startTrust, type TrustAsk, type TrustHarness } from './trust-harness.ts';

// A witness on a real store behind the real door.
const scope = createScope();
const cosigner = createCosigner('example.net/witness', makeNoteSigner('x', 9).privateKey);
const witnessKey = parseWitnessKey(cosigner.verifierKey);
let store: Store;
let trust: TrustHarness;

beforeAll(async () => {
  const clock = manualClock();
  store = await openStore({
    dataDir: makeTempDir(scope),
    clock,
    randomBytes: (count) => new Uint8Array(count),
  });
  scope.defer(() => store.close());
  const witness = createWitness({
    logs: [logKey],
    cosigner,
    held: store.heldCheckpoint,
    keep: store.keepHeld,
    reportFork: () => undefined,
    clock,
  });
  trust = await startTrust({
    rates: { perAddress: { burst: 1_000, perSecond: 1 }, total: { burst: 1_000, perSecond: 1 } },
    witness: { ...witness, heldCheckpoints: store.heldCheckpoints },
  });
  scope.defer(() => trust.listener.close(0));
});
afterAll(() => scope.close());

const leaves = someEntries(200).map(leafHash);
const read: ReadHashes = (_level, first, count) => leaves.slice(first, first + count);
const noteOf = (size: number, signer = logSigner) =>
  signCheckpoint({ size, root: readRoot(read, size) }, signer);
const bodyOf = (from: number, to: number, note = noteOf(to)) =>
  [
    `old ${from}`,
    ...proveConsistency(read, from, to).map((hash) => Buffer.from(hash).toString('base64')),
    '',
    note,
  ].join('\n');
const add = (body: string, more: Partial<TrustAsk> = {}) =>
  trust.ask({ path: '/witness/add-checkpoint', method: 'POST', body, ...more });
const monitored = (origin: string) =>
  `/witness/${createHash('sha256').update(origin).digest('hex')}/checkpoint`;

test('what was never cosigned is not there', async () => {
  const { status, json } = await trust.ask({ path: monitored(logKey.name) });
  expect([status, json.code]).toEqual([404, 'witness_log_unknown']);
});

describe('a witness that has cosigned 5 entries', () => {
  beforeAll(async () => {
    const { status, headers, text } = await add(bodyOf(0, 5));
    expect([status, headers['content-type']]).toEqual([200, 'text/plain; charset=utf-8']);
    expect(openCosignatures(noteOf(5) + text, [witnessKey])).toHaveLength(1);
  });

  test('shows the checkpoint with the signatures of the log and its own', async () => {
    const { status, text, headers } = await trust.ask({ path: monitored(logKey.name) });
    expect([status, headers['cache-control']]).toEqual([200, 'public, max-age=5']);
    expect(text.startsWith(noteOf(5))).toBe(true);
    expect(openCosignatures(text, [witnessKey])).toHaveLength(1);
    const head = await trust.ask({ path: monitored(logKey.name), method: 'HEAD' });
    expect([head.status, head.text, head.headers['content-length']]).toEqual([
      200,
      '',
      `${Buffer.byteLength(text)}`,
    ]);
  });

  const stranger = makeNoteSigner('other.example/log', 2);
  test.each<[string, string, number, string]>([
    ['nothing', '', 400, 'body_invalid'],
    ['a larger old size', bodyOf(0, 5).replace('old 0', 'old 6'), 400, 'body_invalid'],
    ['another log', bodyOf(5, 9, noteOf(9, stranger)), 404, 'witness_log_unknown'],
    ['another key', bodyOf(5, 9, noteOf(9, makeNoteSigner(logKey.name, 3))), 403, 'witness_unsigned'],
    ['no proof', `old 5\n\n${noteOf(9)}`, 422, 'witness_inconsistent'],
    ['too much', `old 5\n\n${noteOf(9)}${'x'.repeat(40_000)}`, 413, 'body_too_large'],
  ])('refuses %s', async (_, body, status, code) => {
    const answer = await add(body);
    expect([answer.status, answer.json.code]).toEqual([status, code]);
    const chunked = await add(body, { headers: { 'transfer-encoding': 'chunked' } });
    expect([chunked.status, chunked.json.code]).toEqual([status, code]);
  });

  test.each<[string, Partial<TrustAsk>, number]>([
    ['reading', { method: 'GET', body: '' }, 405],
    ['putting', { method: 'PUT' }, 405],
    ['another path', { path: '/witness/add-checkpoint/' }, 404],
    ['a subtree', { path: '/witness/sign-subtree' }, 404],
    ['writing where one reads', { path: monitored(logKey.name) }, 405],
    ['a hash in capitals', { path: monitored(logKey.name).toUpperCase(), method: 'GET' }, 404],
  ])('refuses %s', async (_, more, status) => {
    expect((await add(bodyOf(5, 9), more)).status).toBe(status);
  });

  test('names the size that it holds, in the media type for it', async () => {
    const { status, headers, text } = await add(bodyOf(4, 9));
    expect([status, headers['content-type'], text]).toEqual([409, 'text/x.tlog.size', '5\n']);
  });

  test('gives leave to send a body to whoever waits for it', async () => {
    const body = bodyOf(5, 5);
    const head = `POST /witness/add-checkpoint HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\nconnection: close\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n`;
    // The dash of a note has three bytes; what is sent is taken as latin1.
    const answer = await trust.raw(head + Buffer.from(body).toString('latin1'));
    expect(answer).toMatch(/^HTTP\/1\.1 100 Continue\r\n\r\nHTTP\/1\.1 200 /);
  });

  test('does nothing for a body that is cut short, and reports no failure', async () => {
    const before = trust.failures.length;
    const socket = await trust.dial();
    socket.write(
      'POST /witness/add-checkpoint HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\nold 5\n',
    );
    const closed = new Promise((resolve) => socket.once('close', resolve));
    socket.destroy();
    await closed;
    expect((await add(bodyOf(5, 5))).status).toBe(200);
    expect(trust.failures.slice(before)).toEqual([]);
  });

  test('cosigns one of many that come at once', async () => {
    const sizes = Array.from({ length: 24 }, (_, at) => 9 + at);
    const answers = await Promise.all(sizes.map((size) => add(bodyOf(5, size))));
    const winner = answers.findIndex(({ status }) => status === 200);
    const held = (await store.heldCheckpoint(logKey.name))!;
    expect([answers.filter(({ status }) => status === 200).length, held.size]).toEqual([1, sizes[winner]]);
    for (const { status, text } of answers.toSpliced(winner, 1))
      expect([status, text]).toEqual([409, `${held.size}\n`]);
  });
});

test('a door that witnesses nothing has none of this', async () => {
  const plain = await startTrust();
  try {
    for (const path of ['/witness/add-checkpoint', monitored(logKey.name)]) {
      expect((await plain.ask({ path, method: 'POST', body: bodyOf(0, 5) })).status).toBe(404);
    }
  } finally {
    await plain.listener.close(0);
  }
});
