import { sign, verify } from 'node:crypto';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { readCsr } from '../../src/ca/csr.ts';
import type { LintLeaf } from '../../src/ca/lint.ts';
import { MeshError } from '../../src/errors.ts';
import { type ProofThread, startProofThread } from '../../src/signing/thread.ts';
import { SpiffeId } from '../../src/spiffe/id.ts';
import { makeCsr } from '../ca/csr-writer.ts';
import { makeKey, makeTestAuthority } from '../ca/test-authority.ts';

const now = new Date('2026-11-21T12:00:00Z');
const key = makeKey('ec-prime256v1');
const good = makeCsr(key);
const lost: string[] = [];
let thread: ProofThread;
beforeAll(() => {
  thread = startProofThread((cause) => lost.push(cause));
});
afterAll(async () => {
  await thread.close();
  expect(lost).toEqual([]);
});

const flipped = (bytes: Uint8Array, at: number) => {
  const copy = Uint8Array.from(bytes);
  copy[at] = (copy[at] ?? 0) ^ 1;
  return copy;
};

describe('a request is read there as it is here:', () => {
  test.each(['ec-prime256v1', 'ec-secp384r1', 'rsa-2048'])('%s', async (kind) => {
    const pair = makeKey(kind);
    const csr = makeCsr(pair);
    const [there, here] = [await thread.readCsr(csr), readCsr(csr)];
    expect({ ...there, key: null }).toEqual({ ...here, key: null });
    expect(there.key.equals(here.key)).toBe(true);
    const proof = sign('sha256', good, pair.privateKey);
    expect(verify('sha256', good, there.key, proof)).toBe(true);
  });

  test.each<[string, Uint8Array]>([
    ['nothing', new Uint8Array(0)],
    ['no DER', Buffer.from('hello')],
    ['too much', new Uint8Array(16_385)],
    ['the most there may be, of zeros', new Uint8Array(16_384)],
    ['a byte too many', Buffer.concat([good, Uint8Array.of(0)])],
    ['a byte too few', good.subarray(0, -1)],
    ['another signature', flipped(good, good.length - 1)],
    ['a point that is on no curve', flipped(good, good.length - 90)],
  ])('%s', async (_, csr) => {
    const here = catching(() => readCsr(csr));
    const there = await thread.readCsr(csr).catch((error: unknown) => error);
    expect(there).toBeInstanceOf(MeshError);
    const { code, message, fix } = there as MeshError;
    expect({ code, message, fix }).toEqual({ code: here.code, message: here.message, fix: here.fix });
  });
});

test('the bytes of the caller stay as they are', async () => {
  const csr = Uint8Array.from(good);
  await thread.readCsr(csr);
  expect(csr).toEqual(Uint8Array.from(good));
});

/** An authority whose leaves are spoilt between the signature and the judgement. */
async function issue(lint: LintLeaf, spoil: (der: Uint8Array) => Uint8Array = (der) => der, path = '/web') {
  const seen: LintLeaf = (der, expected, issuer) => lint(spoil(der), expected, issuer);
  const { authority } = await makeTestAuthority(now, {}, 'example.org', seen);
  const id = SpiffeId.parse(`spiffe://example.org${path}`);
  return authority.sign(
    authority.prepare({ id, publicKey: key.spki, dnsNames: ['a.b'], ttlSeconds: 600 }, now),
  );
}

describe('a leaf', () => {
  test('passes', async () => {
    expect((await issue(thread.lintLeaf)).certificates).toHaveLength(2);
  });

  test.each([0, 20, 60, 200, 300, 400, -1])('with a changed byte at %i does not leave', async (at) => {
    const spoilt = issue(thread.lintLeaf, (der) => flipped(der, at < 0 ? der.length + at : at));
    await expect(spoilt).rejects.toMatchObject({ code: 'lint_failed' });
  });

  test('of a second issuer passes as well', async () => {
    const all = await Promise.all([issue(thread.lintLeaf), issue(thread.lintLeaf), issue(thread.lintLeaf)]);
    expect(new Set(all.map(({ serial }) => serial)).size).toBe(3);
  });
});

test('each asker gets its own answer, whatever is asked at once', async () => {
  const requests = Array.from({ length: 8 }, () => makeCsr(makeKey('ec-prime256v1')));
  const hashes = requests.map((csr) => readCsr(csr).spkiSha256);
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(fc.nat(7), fc.boolean()), { maxLength: 80, minLength: 1 }),
      async (asked) => {
        const answers = await Promise.all(
          asked.map(async ([which, spoilt]) => {
            const csr = requests[which] ?? good;
            const answer = thread.readCsr(spoilt ? flipped(csr, csr.length - 1) : csr);
            return answer.then(
              ({ spkiSha256 }) => spkiSha256,
              (error: unknown) => (error as MeshError).code,
            );
          }),
        );
        expect(answers).toEqual(
          asked.map(([which, spoilt]) => (spoilt ? 'csr_proof_invalid' : hashes[which])),
        );
      },
    ),
    { numRuns: 20 },
  );
});

describe('what the thread cannot answer is answered here:', () => {
  test('all that waits when it is closed, and what comes later', async () => {
    const own = startProofThread((cause) => lost.push(cause));
    const waiting = Array.from({ length: 100 }, (_, i) => own.readCsr(i % 2 === 0 ? good : flipped(good, 9)));
    const settled = Promise.allSettled(waiting);
    await own.close();
    expect((await settled).map(({ status }) => status)).toEqual(
      waiting.map((_, i) => (i % 2 === 0 ? 'fulfilled' : 'rejected')),
    );
    expect((await own.readCsr(good)).spkiSha256).toBe(readCsr(good).spkiSha256);
    expect((await issue(own.lintLeaf)).certificates).toHaveLength(2);
    await expect(issue(own.lintLeaf, (der) => flipped(der, 100))).rejects.toMatchObject({
      code: 'lint_failed',
    });
    await own.close();
  });
});

function catching(work: () => unknown): MeshError {
  try {
    work();
  } catch (error) {
    if (error instanceof MeshError) return error;
    throw error;
  }
  throw new Error('nothing was refused');
}
