import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, expect, test } from 'vitest';
import { type BatchAnswer, inspectBatch, maxLineBytes } from '../../src/cli/inspect-batch.ts';
import { type InspectKind, inspectKinds } from '../../src/cli/inspect-kinds.ts';
import { encodePem } from '../../src/spiffe/pem.ts';
import { oddCertificate } from '../spiffe/odd-certificate.ts';
import { startCpuWatch } from '../harness/cpu-watch.ts';

const directory = mkdtempSync(join(tmpdir(), 'cs-batch-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));
const idFile = join(directory, 'id');
writeFileSync(idFile, 'spiffe://example.org/web\n');
const longFile = join(directory, 'long');
writeFileSync(longFile, Buffer.alloc(1_048_577, 'a'));

const leaf = oddCertificate();
const base64 = Buffer.from(leaf).toString('base64');
const pem = encodePem('CERTIFICATE', leaf);

/** Feeds bytes in pieces of `size`, as a pipe would. */
async function* pieces(text: string, size = 65_536): AsyncGenerator<Buffer> {
  const bytes = Buffer.from(text);
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

async function collect(stream: AsyncIterable<BatchAnswer>): Promise<BatchAnswer[]> {
  const all: BatchAnswer[] = [];
  for await (const one of stream) all.push(one);
  return all;
}

async function answers(kind: InspectKind, text: string, size?: number): Promise<BatchAnswer[]> {
  return collect(inspectBatch(kind, pieces(text, size), {}));
}

test.each<[InspectKind, object, boolean, string | null]>([
  ['id', { input: 'spiffe://example.org/web' }, true, null],
  ['id', { input: 'spiffe://example.org/web', encoding: 'text' }, true, null],
  ['id', { input: 'spiffe://example.org/web\n' }, false, 'spiffe-id-2.2-path-char'],
  ['id', { input: '' }, false, 'spiffe-id-2-scheme'],
  ['id', { input: 'spiffe://a/\ud800' }, false, 'spiffe-id-2.2-path-char'],
  ['id', { file: idFile }, true, null],
  ['id', { file: join(directory, 'none') }, false, 'file_missing'],
  ['id', { file: directory }, false, 'file_missing'],
  ['id', { file: '/dev/zero' }, false, 'file_missing'],
  ['id', { file: 'a\0b' }, false, 'file_missing'],
  ['id', { file: '-' }, false, 'file_missing'],
  ['id', { file: longFile }, false, 'input_too_large'],
  ['id', { input: 'a'.repeat(1_048_577) }, false, 'input_too_large'],
  ['id', { input: 'x', file: idFile }, false, 'input_unreadable'],
  ['id', {}, false, 'input_unreadable'],
  ['id', { input: 1 }, false, 'input_unreadable'],
  ['id', { input: 'x', encoding: 'hex' }, false, 'input_unreadable'],
  ['svid', { input: pem, encoding: 'pem' }, true, null],
  ['svid', { input: pem }, true, null],
  ['svid', { input: pem + pem }, false, 'x509-svid-3.2-no-path'],
  ['svid', { input: base64, encoding: 'der-base64' }, true, null],
  ['svid', { input: `${base64}\n`, encoding: 'der-base64' }, false, 'input_unreadable'],
  ['svid', { input: base64 }, false, 'der_invalid'],
  ['svid', { input: '' }, false, 'der_invalid'],
  ['svid', { input: '', encoding: 'der-base64' }, false, 'der_invalid'],
  ['bundle', { input: '{"keys":[]}' }, true, null],
  ['bundle', { input: ' [' }, false, 'input_unreadable'],
  ['bundle', { input: pem }, false, 'x509-svid-3.2-no-path'],
  ['csr', { input: pem }, false, 'der_invalid'],
  ['csr', { input: base64, encoding: 'der-base64' }, false, 'der_invalid'],
  ['jwt', { input: 'a.b.c' }, false, 'input_unreadable'],
])('%s %j: ok %j, %j', async (kind, line, ok, error) => {
  const [answer, more] = await answers(kind, JSON.stringify({ name: 'n', ...line }));
  expect(answer).toMatchObject({ name: 'n', ok, error });
  expect(more).toBeUndefined();
});

test.each([1, 7, 65_536])('bad lines are answered, in order, in pieces of %i', async (size) => {
  const good = (name: string) => JSON.stringify({ name, input: 'spiffe://a/b' });
  const lines = [
    good('1'),
    'junk',
    '',
    'null',
    '[]',
    '"x"',
    '{"name":5}',
    '\u0000',
    `${good('2')}\r`,
    '   ',
    good('ä'),
  ];
  expect(
    (await answers('id', lines.join('\n'), size)).map(({ name, ok, error }) => [name, ok, error]),
  ).toEqual([
    ['1', true, null],
    [null, false, 'input_unreadable'],
    [null, false, 'input_unreadable'],
    [null, false, 'input_unreadable'],
    [null, false, 'input_unreadable'],
    [null, false, 'input_unreadable'],
    [null, false, 'input_unreadable'],
    ['2', true, null],
    ['ä', true, null],
  ]);
});

test('bytes that are no UTF-8 are one bad line', async () => {
  async function* bytes(): AsyncGenerator<Buffer> {
    yield Buffer.from([0xff, 0xfe, 0x0a]);
    yield Buffer.from('{"name":"a","input":"spiffe://a/b"}');
  }
  expect((await collect(inspectBatch('id', bytes(), {}))).map(({ ok }) => ok)).toEqual([false, true]);
});

test('a line without end is passed over in bounded memory', async () => {
  const chunk = Buffer.alloc(1_048_576, 0x20);
  const begin = process.memoryUsage().arrayBuffers;
  let peak = 0;
  async function* endless(): AsyncGenerator<Buffer> {
    for (let i = 0; i < 256; i++) {
      peak = Math.max(peak, process.memoryUsage().arrayBuffers - begin);
      yield Buffer.from(chunk);
    }
    yield Buffer.from('\n{"name":"after","input":"spiffe://a/b"}\n');
  }
  const found = await collect(inspectBatch('id', endless(), {}));
  expect(found.map(({ name, ok, error }) => [name, ok, error])).toEqual([
    [null, false, 'input_too_large'],
    ['after', true, null],
  ]);
  expect(peak).toBeLessThan(200 * 1_048_576);
});

test('a line of exactly the cap is read', async () => {
  const line = JSON.stringify({ name: 'a', input: 'spiffe://a/b', pad: '' });
  const full = line.replace('"pad":""', `"pad":"${'x'.repeat(maxLineBytes - line.length)}"`);
  expect(full).toHaveLength(maxLineBytes);
  expect((await answers('id', `${full}\n${full} \n`)).map(({ ok }) => ok)).toEqual([true, false]);
});

test('no input of any kind is an error of ours', async () => {
  const encoding = fc.constantFrom(undefined, 'pem', 'text', 'der-base64');
  const bent = fc.nat(leaf.length - 1).map((at) => Buffer.from(leaf.with(at, 0x30)).toString('base64'));
  const input = fc.oneof(fc.string({ unit: 'binary' }), bent, fc.json(), fc.constant(pem));
  await fc.assert(
    fc.asyncProperty(fc.constantFrom(...inspectKinds), input, encoding, async (kind, text, how) => {
      const usedMs = startCpuWatch();
      const [answer] = await answers(kind, JSON.stringify({ name: 'x', input: text, encoding: how }));
      expect(answer?.error).not.toBe('internal');
      expect(usedMs()).toBeLessThan(1_000);
    }),
    { numRuns: 1_000 },
  );
});
