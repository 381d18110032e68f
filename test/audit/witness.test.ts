import fc from 'fast-check';
import { beforeEach, describe, expect, test } from 'vitest';
import { signCheckpoint } from '../../src/audit/checkpoint.ts';
import { createCosigner, openCosignatures, parseWitnessKey } from '../../src/audit/cosignature.ts';
import { proveConsistency } from '../../src/audit/merkle-proof.ts';
import { emptyRoot, readRoot, type ReadHashes } from '../../src/audit/merkle-tree.ts';
import { leafHash } from '../../src/audit/leaf.ts';
import {
  createWitness,
  type Fork,
  type HeldCheckpoint,
  type WitnessAnswer,
} from '../../src/audit/witness.ts';
import { manualClock } from '../harness/manual-clock.ts';
import { logKey, logSigner, makeNoteSigner, someEntries } from './log-files.ts';

const cosigner = createCosigner('example.net/witness', makeNoteSigner('x', 9).privateKey);
const witnessKey = parseWitnessKey(cosigner.verifierKey);

/** A log that is in memory alone. */
function makeLog(word = 'entry', count = 300) {
  const leaves = someEntries(count, word).map(leafHash);
  // Level 0 alone: all that trees of less than 256 leaves are read by.
  const read: ReadHashes = (_level, first, width) => leaves.slice(first, first + width);
  const noteOf = (
    size: number,
    signer: Pick<typeof logSigner, 'name' | 'sign' | 'verifierKey'> = logSigner,
  ) => signCheckpoint({ size, root: readRoot(read, size) }, signer);
  const ask = (from: number, to: number, note = noteOf(to)) =>
    bodyOf(from, from === 0 ? [] : proveConsistency(read, from, to), note);
  return { read, noteOf, ask };
}

const base64 = (hash: Uint8Array) => Buffer.from(hash).toString('base64');
const bodyOf = (old: number | string, proof: readonly (Uint8Array | string)[], note: string) =>
  [`old ${old}`, ...proof.map((hash) => (typeof hash === 'string' ? hash : base64(hash))), '', note].join(
    '\n',
  );

const log = makeLog('entry', 200);
const forked = makeLog('other', 200);
let held: Map<string, HeldCheckpoint>;
let kept: number;
let forks: Fork[];
const clock = manualClock();
let witness: ReturnType<typeof open>;

function open(beforeKeep: () => Promise<void> = async () => undefined) {
  const made = createWitness({
    logs: [logKey],
    cosigner,
    held: async (origin) => held.get(origin) ?? null,
    keep: async (next, from) => {
      await beforeKeep();
      if ((held.get(next.origin)?.size ?? null) !== from) return false;
      held.set(next.origin, next);
      kept++;
      return true;
    },
    reportFork: (fork) => forks.push(fork),
    clock,
  });
  return async (body: string | Uint8Array): Promise<WitnessAnswer> =>
    made.addCheckpoint(typeof body === 'string' ? Buffer.from(body) : body);
}

beforeEach(() => {
  held = new Map();
  [kept, forks] = [0, []];
  witness = open();
});

function cosigned(answer: WitnessAnswer, note: string) {
  expect(answer.kind).toBe('cosigned');
  return openCosignatures(note + (answer.kind === 'cosigned' ? answer.lines : ''), [witnessKey]);
}

describe('a witness', () => {
  test('cosigns the first checkpoint, and each that goes on from it', async () => {
    for (const [from, to] of [
      [0, 5],
      [5, 5],
      [5, 8],
      [8, 200],
    ] as const) {
      const note = log.noteOf(to);
      expect(cosigned(await witness(log.ask(from, to)), note)).toMatchObject([{ key: witnessKey }]);
      expect(held.get(logKey.name)).toMatchObject({ size: to });
      // What it serves has the signature of the log, and its own.
      const { note: kept } = held.get(logKey.name)!;
      expect(kept.startsWith(note)).toBe(true);
      expect(openCosignatures(kept, [witnessKey])).toHaveLength(1);
    }
  });

  test('keeps of a checkpoint no signatures of others', async () => {
    const stranger = makeNoteSigner('other.example/log', 2);
    const note = log.noteOf(5);
    const others = stranger.sign(note.slice(0, note.indexOf('\n\n') + 1)).split('\n\n')[1]!;
    expect(await witness(bodyOf(0, [], note + others.repeat(50)))).toMatchObject({ kind: 'cosigned' });
    expect(held.get(logKey.name)!.note.split('\n')).toHaveLength(7);
  });

  test('passes over what a log says besides, and cosigns it', async () => {
    const note = logSigner.sign(`${log.noteOf(5).split('\n\n')[0]}\nmore of it\n`);
    expect(cosigned(await witness(bodyOf(0, [], note)), note)).toHaveLength(1);
  });

  test('cosigns an empty log of the root that empty logs have', async () => {
    const note = signCheckpoint({ size: 0, root: emptyRoot }, logSigner);
    expect(await witness(bodyOf(0, [], note))).toMatchObject({ kind: 'cosigned' });
    expect(await witness(log.ask(0, 5))).toMatchObject({ kind: 'cosigned' });
    const wrong = signCheckpoint({ size: 0, root: new Uint8Array(32) }, logSigner);
    held.clear();
    expect(await witness(bodyOf(0, [], wrong))).toEqual({ kind: 'inconsistent' });
  });

  test('says the same for a minute, without writing, and then anew', async () => {
    const first = await witness(log.ask(0, 5));
    clock.jump(59_000);
    expect(await witness(log.ask(5, 5))).toEqual(first);
    expect(kept).toBe(1);
    clock.jump(1_000);
    const later = cosigned(await witness(log.ask(5, 5)), log.noteOf(5));
    expect([kept, later[0]!.at]).toEqual([2, clock.now()]);
  });

  const proof = proveConsistency(log.read, 5, 9);
  const note = log.noteOf(9);
  test.each<[string, string | Uint8Array, WitnessAnswer['kind'] | { size: number }]>([
    ['nothing', '', 'malformed'],
    ['no old size', `\n\n${note}`, 'malformed'],
    ['an old size with a zero', bodyOf('05', proof, note), 'malformed'],
    ['an old size with a sign', bodyOf('+5', proof, note), 'malformed'],
    ['an old size that no number holds', bodyOf('9007199254740992', proof, note), 'malformed'],
    ['a carriage return', bodyOf('5\r', proof, note), 'malformed'],
    ['no empty line', bodyOf(5, proof, note).replace('\n\n', '\n'), 'malformed'],
    ['64 lines of proof', bodyOf(5, Array<string>(64).fill(base64(proof[0]!)), note), 'malformed'],
    ['a short hash', bodyOf(5, ['AAAA'], note), 'malformed'],
    ['a hash in base64url', bodyOf(5, [`${'_'.repeat(43)}=`], note), 'malformed'],
    ['no note', bodyOf(5, proof, ''), 'malformed'],
    ['no signature', bodyOf(5, proof, note.slice(0, note.indexOf('\n\n') + 1)), 'malformed'],
    [
      'bytes that are no UTF-8',
      Buffer.concat([Buffer.from(bodyOf(5, proof, note)), Buffer.of(0xff)]),
      'malformed',
    ],
    ['a byte order mark', `\ufeff${bodyOf(5, proof, note)}`, 'malformed'],
    ['a checkpoint of two lines', bodyOf(5, proof, logSigner.sign('example.org/audit\n9\n')), 'malformed'],
    ['a larger old size', bodyOf(10, proof, note), 'malformed'],
    ['another log', log.ask(5, 9, log.noteOf(9, makeNoteSigner('other.example/log', 2))), 'unknown_log'],
    ['a key of somebody else', log.ask(5, 9, log.noteOf(9, makeNoteSigner(logKey.name, 3))), 'unsigned'],
    ['a signature over another text', log.ask(5, 9, note.replace('\n9\n', '\n8\n')), 'unsigned'],
    [
      'a wrong signature besides a good one',
      log.ask(5, 9, note + forked.noteOf(9).split('\n\n')[1]!),
      'unsigned',
    ],
    ['an old size that is not held', log.ask(4, 9), { size: 5 }],
    ['none', log.ask(0, 9), { size: 5 }],
    ['the empty tree though one is held', bodyOf(0, [], note), { size: 5 }],
    ['no proof', bodyOf(5, [], note), 'inconsistent'],
    ['a proof that goes on', bodyOf(5, [...proof, proof[0]!], note), 'inconsistent'],
    ['a proof the other way round', bodyOf(5, proof.toReversed(), note), 'inconsistent'],
    ['another history', forked.ask(5, 9), 'inconsistent'],
    ['another history of the same size', forked.ask(5, 5), 'inconsistent'],
    ['a proof where none belongs', bodyOf(5, proof, log.noteOf(5)), 'inconsistent'],
  ])('that holds 5 entries cosigns nothing for %s', async (_, body, expected) => {
    await witness(log.ask(0, 5));
    const before = held.get(logKey.name);
    const answer = await witness(body);
    expect(answer.kind === 'conflict' ? { size: answer.size } : answer.kind).toEqual(expected);
    expect(held.get(logKey.name)).toBe(before);
  });

  test('keeps the two notes of a log that is caught with two roots of one size, whatever the request', async () => {
    await witness(log.ask(0, 5));
    for (const old of [0, 5]) {
      await witness(bodyOf(old, [], forked.noteOf(5)));
      expect(forks.pop()).toMatchObject({ origin: logKey.name, other: forked.noteOf(5) });
    }
    await witness(forked.ask(0, 6));
    expect(forks).toEqual([]);
  });

  test('cosigns one of many that come at once, and tells the others what is held', async () => {
    await witness(log.ask(0, 5));
    const gate = Promise.withResolvers<void>();
    const slow = open(() => gate.promise);
    const answers = [9, 12, 30, 9].map((to) => slow(log.ask(5, to)));
    gate.resolve();
    const kinds = (await Promise.all(answers)).map((answer) =>
      answer.kind === 'conflict' ? answer.size : answer.kind,
    );
    expect(kinds).toEqual(['cosigned', 9, 9, 9]);
    expect(held.get(logKey.name)!.size).toBe(9);
  });

  test('keeps the two notes of a log that shows two roots of one size at once', async () => {
    const gate = Promise.withResolvers<void>();
    const slow = open(() => gate.promise);
    const answers = [slow(log.ask(0, 5)), slow(forked.ask(0, 5))];
    gate.resolve();
    expect(await Promise.all(answers)).toMatchObject([{ kind: 'cosigned' }, { kind: 'conflict', size: 5 }]);
    expect(forks).toMatchObject([{ origin: logKey.name, other: forked.noteOf(5) }]);
  });

  test('never goes back and never says two roots of one size, whatever is asked', async () => {
    const step = fc.record({
      isForked: fc.boolean(),
      from: fc.oneof(fc.constant('held' as const), fc.nat({ max: 20 })),
      more: fc.nat({ max: 20 }),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 20 }), async (steps) => {
        held = new Map();
        const said = new Map<number, string>();
        let last = 0;
        for (const { isForked, from, more } of steps) {
          const size = held.get(logKey.name)?.size ?? 0;
          const old = from === 'held' ? size : from;
          const shown = isForked ? forked : log;
          const next = old + more;
          const answer = await witness(shown.ask(old, next));
          if (answer.kind !== 'cosigned') continue;
          expect(next).toBeGreaterThanOrEqual(last);
          last = next;
          const root = shown.noteOf(next).split('\n')[2]!;
          expect(said.get(next) ?? root).toBe(root);
          said.set(next, root);
        }
      }),
      { numRuns: 60 },
    );
  });
});
