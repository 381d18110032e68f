import { beforeEach, describe, expect, test } from 'vitest';
import { signCheckpoint } from '../../src/audit/checkpoint.ts';
import { createCosigner, openCosignatures, parseWitnessKey } from '../../src/audit/cosignature.ts';
import { createGathering, type WitnessReply } from '../../src/audit/gather.ts';
import { leafHash } from '../../src/audit/leaf.ts';
import { proveConsistency } from '../../src/audit/merkle-proof.ts';
import { type ReadHashes, readRoot } from '../../src/audit/merkle-tree.ts';
import { createWitness, type HeldCheckpoint } from '../../src/audit/witness.ts';
import { parseWitnessPolicy } from '../../src/audit/witness-policy.ts';
import { manualClock } from '../harness/manual-clock.ts';
import { logKey, logSigner, makeNoteSigner, someEntries } from './log-files.ts';

const clock = manualClock();
const names = ['A', 'B', 'C'] as const;
const cosigners = names.map((name, at) =>
  createCosigner(`${name}.example/w`, makeNoteSigner('x', 20 + at).privateKey),
);
const keys = cosigners.map(({ verifierKey }) => parseWitnessKey(verifierKey));
const ordinaryPolicy = [
  ...cosigners.map(
    ({ verifierKey }, at) => `witness ${names[at]} ${verifierKey} https://${names[at]}.example`,
  ),
  'group two 2 A B C',
  'quorum two',
].join('\n');

/** Witnesses that remember, and a log that they are asked to cosign. */
function makeWorld() {
  const held = names.map(() => null as HeldCheckpoint | null);
  const witnesses = cosigners.map((cosigner, at) =>
    createWitness({
      logs: [logKey],
      cosigner,
      held: async () => held[at] ?? null,
      keep: async (next) => ((held[at] = next), true),
      reportFork: () => undefined,
      clock,
    }),
  );
  let leaves: Uint8Array[] = [];
  const read: ReadHashes = (_level, first, count) => leaves.slice(first, first + count);
  const world = {
    held,
    size: 0,
    isFull: false,
    kept: null as string | null,
    asked: [] as string[],
    /** What a witness answers instead of what it would. */
    instead: new Map<string, (reply: WitnessReply) => WitnessReply>(),
    away: new Set<string>(),
    write: (count: number, word = 'entry') => {
      leaves = someEntries(count, word).map(leafHash);
      world.size = count;
    },
  };
  const open = () =>
    createGathering({
      policy: parseWitnessPolicy(policyText, 'policy'),
      logKey,
      latest: async () =>
        world.size === 0
          ? null
          : signCheckpoint({ size: world.size, root: readRoot(read, world.size) }, logSigner),
      kept: async () => world.kept,
      keep: async (_size, note) => {
        if (world.isFull) throw new Error('the disk is full');
        world.kept = note;
      },
      proveGrowth: async (from, to) =>
        from > to || to > world.size ? null : proveConsistency(read, from, to),
      ask: async ({ name }, body) => {
        world.asked.push(name);
        if (world.away.has(name)) throw new Error('connect ECONNREFUSED');
        const answer = await witnesses[names.indexOf(name as 'A')]!.addCheckpoint(Buffer.from(body));
        const reply: WitnessReply =
          answer.kind === 'cosigned'
            ? { status: 200, text: answer.lines }
            : answer.kind === 'conflict'
              ? { status: 409, text: `${answer.size}\n` }
              : {
                  status: { malformed: 400, unknown_log: 404, unsigned: 403, inconsistent: 422 }[answer.kind],
                  text: '',
                };
        return world.instead.get(name)?.(reply) ?? reply;
      },
      clock,
    });
  return { world, open };
}

let policyText = ordinaryPolicy;
let world: ReturnType<typeof makeWorld>['world'];
let open: ReturnType<typeof makeWorld>['open'];
beforeEach(() => {
  ({ world, open } = makeWorld());
  policyText = ordinaryPolicy;
});
const keptBy = () =>
  world.kept === null ? [] : openCosignatures(world.kept, keys).map(({ key }) => key.name[0]);
const states = (gathering: ReturnType<typeof open>) => gathering.state().witnesses.map(({ state }) => state);

test('all witnesses cosign what grows, once each, and after a restart it goes on', async () => {
  const gathering = open();
  await gathering.round();
  expect([world.asked, gathering.state()]).toMatchObject([[], { size: null, behindSince: null }]);
  for (const size of [5, 5, 9, 130]) {
    world.write(size);
    await gathering.round();
    expect([keptBy(), gathering.state()]).toMatchObject([['A', 'B', 'C'], { size, behindSince: null }]);
  }
  expect(world.asked).toHaveLength(9);
  const again = open();
  await again.round();
  expect([world.asked.length, again.state()]).toMatchObject([9, { size: 130, behindSince: null }]);
  world.write(140);
  await again.round();
  // A new process learns by one more answer what each holds.
  expect([world.asked.length, keptBy()]).toEqual([15, ['A', 'B', 'C']]);
});

test('a quorum is enough; who comes back is asked after a while, about the same checkpoint too', async () => {
  world.away.add('B');
  const gathering = open();
  world.write(5);
  await gathering.round();
  expect([keptBy(), states(gathering), gathering.state().size]).toEqual([
    ['A', 'C'],
    ['ok', 'failing', 'ok'],
    5,
  ]);
  expect(gathering.state().witnesses[1]!.failure).toBe('connect ECONNREFUSED');
  world.away.clear();
  await gathering.round();
  expect(world.asked).toHaveLength(3);
  await clock.advance(2_000);
  await gathering.round();
  expect([keptBy(), states(gathering)]).toEqual([
    ['A', 'B', 'C'],
    ['ok', 'ok', 'ok'],
  ]);
});

test('without a quorum nothing is kept, it is told since when, and nobody is asked in haste', async () => {
  for (const name of names) world.away.add(name);
  const gathering = open();
  world.write(5);
  const since = clock.now();
  for (let at = 0; at < 300; at++) {
    await gathering.round();
    await clock.advance(2_000);
  }
  expect([world.kept, gathering.state().behindSince]).toEqual([null, since]);
  // Ten minutes: at most one question a minute, after a few.
  expect(world.asked.length).toBeLessThan(3 * 18);
  world.away.clear();
  clock.jump(-86_400_000);
  await gathering.round();
  expect([keptBy(), gathering.state().behindSince]).toEqual([['A', 'B', 'C'], null]);
});

test('what could not be kept is kept the next time, though nobody cosigns anew', async () => {
  const gathering = open();
  world.write(5);
  world.isFull = true;
  await expect(gathering.round()).rejects.toThrow('full');
  expect([world.kept, gathering.state().size]).toEqual([null, null]);
  world.isFull = false;
  await gathering.round();
  expect([keptBy(), gathering.state(), world.asked.length]).toMatchObject([['A', 'B', 'C'], { size: 5 }, 3]);
});

test('where no quorum is demanded the log is never behind', async () => {
  policyText = policyText.replace('quorum two', 'quorum none');
  for (const name of names) world.away.add(name);
  const gathering = open();
  for (const size of [5, 9]) {
    world.write(size);
    await gathering.round();
    expect([keptBy(), gathering.state()]).toMatchObject([[], { size, behindSince: null }]);
  }
});

describe('what a witness answers is believed no further than it proves', () => {
  const others = cosigners[0]!;
  test.each<[string, (reply: WitnessReply) => WitnessReply, string]>([
    ['nothing', () => ({ status: 200, text: '' }), 'failing'],
    [
      'the cosignature of another',
      (reply) => ({ ...reply, text: others.cosign('x\n', clock.now()) }),
      'failing',
    ],
    ['a page', () => ({ status: 200, text: '<html>\n' }), 'failing'],
    [
      'its name and no signature',
      () => ({ status: 200, text: `— B.example/w ${'A'.repeat(8)}\n` }),
      'failing',
    ],
    [
      'a changed cosignature',
      ({ text }) => ({ status: 200, text: text.replace(/.{5}\n$/, 'AAAA\n') }),
      'failing',
    ],
    ['409 with no size', () => ({ status: 409, text: '' }), 'failing'],
    ['409 with a sign', () => ({ status: 409, text: '-1\n' }), 'failing'],
    ['409 with what it was told', () => ({ status: 409, text: '0\n' }), 'failing'],
    ['409 with more than there is', () => ({ status: 409, text: '9000\n' }), 'disputes'],
    ['409 with less than it holds', () => ({ status: 409, text: '3\n' }), 'failing'],
    ['422', () => ({ status: 422, text: '' }), 'disputes'],
    ['404', () => ({ status: 404, text: '' }), 'failing'],
    ['a redirect', () => ({ status: 302, text: '' }), 'failing'],
  ])('%s', async (_, instead, state) => {
    world.instead.set('B', instead);
    const gathering = open();
    world.write(5);
    await gathering.round();
    expect([keptBy(), states(gathering)]).toEqual([
      ['A', 'C'],
      ['ok', state, 'ok'],
    ]);
    expect(world.asked.filter((name) => name === 'B').length).toBeLessThanOrEqual(4);
  });
});

test('a cosignature over a text that the witness has added is none, and spoils no checkpoint', async () => {
  world.write(5);
  const leaves = someEntries(5, 'entry').map(leafHash);
  const root = readRoot((_level, first, count) => leaves.slice(first, first + count), 5);
  const added = `${signCheckpoint({ size: 5, root }, logSigner)}more\n`;
  world.instead.set('B', () => ({
    status: 200,
    text: `more\n\n${cosigners[1]!.cosign(added, clock.now())}`,
  }));
  const gathering = open();
  await gathering.round();
  expect([states(gathering), keptBy()]).toEqual([
    ['ok', 'failing', 'ok'],
    ['A', 'C'],
  ]);
});

test('a witness that has once told a wrong size is asked again', async () => {
  world.instead.set('B', () => ({ status: 409, text: '9000\n' }));
  const gathering = open();
  world.write(5);
  await gathering.round();
  expect(states(gathering)).toEqual(['ok', 'disputes', 'ok']);
  world.instead.clear();
  await clock.advance(60_000);
  await gathering.round();
  expect(states(gathering)).toEqual(['ok', 'ok', 'ok']);
});

test.each<[string, number, string]>([
  ['set back to an older state', 6, 'entry'],
  ['written anew', 12, 'other'],
])('a log that was %s is disputed by every witness', async (_, size, word) => {
  world.write(9);
  await open().round();
  expect(keptBy()).toEqual(['A', 'B', 'C']);
  const before = world.kept;
  world.write(size, word);
  const gathering = open();
  await gathering.round();
  expect(states(gathering)).toEqual(['disputes', 'disputes', 'disputes']);
  expect(gathering.state().witnesses[0]!.failure).toContain('9');
  expect(world.kept).toBe(before);
});
