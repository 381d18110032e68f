import { describe, expect, test } from 'vitest';
import type { WalState } from '../../src/store/protocol.ts';
import type { ThreadRequest } from '../../src/store/thread.ts';
import { paceWal } from '../../src/store/wal-pacing.ts';
import { manualClock, settle } from '../harness/manual-clock.ts';

const asked = 'backfill above 8000';

describe('of a WAL', () => {
  type Answer = readonly [frames: number, backfilled: number] | null | Error;
  test.each<[string, readonly Answer[], passes: number, rest: boolean]>([
    ['that is short, nothing is copied', [[8_000, 0]], 1, false],
    [
      'that is long, the writer copies the rest',
      [
        [8_001, 8_001],
        [8_030, 8_030],
      ],
      2,
      true,
    ],
    [
      'of which little is left, it does',
      [
        [9_000, 9_000],
        [11_000, 9_000],
      ],
      2,
      true,
    ],
    [
      'of which much is left, it does not',
      [
        [9_000, 9_000],
        [11_001, 9_000],
      ],
      2,
      false,
    ],
    [
      'that somebody reads, it does not',
      [
        [9_000, 12],
        [9_100, 12],
      ],
      2,
      false,
    ],
    [
      'that a commit began anew meanwhile, it does not',
      [
        [9_000, 9_000],
        [27, 0],
      ],
      2,
      false,
    ],
    ['for which there is no room, it does not', [null], 1, false],
    ['that somebody else copies from, it does not', [[9_000, 9_000], null], 2, false],
    ['that cannot be copied, it does not', [new Error('damaged')], 1, false],
    ['that can no longer be copied, it does not', [[9_000, 9_000], new Error('gone')], 2, false],
  ])('%s', async (_, answers, passes, rest) => {
    const world = start(answers.map(answerOf));
    world.pacing.committed();
    await world.clock.advance(100);
    expect([world.checkpointer.calls, world.writer.calls]).toEqual([
      Array.from({ length: passes }, () => asked),
      rest ? [asked] : [],
    ]);
    // Whatever came of it: nothing is asked until something is written, and then it is.
    await world.clock.advance(10_000);
    expect([world.checkpointer.calls.length, world.clock.sleepers()]).toEqual([passes, 0]);
    world.pacing.committed();
    await world.clock.advance(100);
    expect(world.checkpointer.calls.length).toBe(passes + 1);
    await world.pacing.close();
  });

  function answerOf(answer: Answer): WalState | null | Error {
    if (answer === null || answer instanceof Error) return answer;
    const [frames, backfilled] = answer;
    return { frames, backfilled };
  }
});

describe('the checkpointer is asked', () => {
  test('once in 100 ms, however much is written', async () => {
    const { pacing, checkpointer, clock } = start();
    for (let ms = 0; ms < 1_000; ms++) {
      pacing.committed();
      await clock.advance(1);
    }
    expect(checkpointer.calls.length).toBe(10);
    await pacing.close();
  });

  test('again only when it has answered', async () => {
    const { pacing, checkpointer, clock } = start();
    const release = checkpointer.hold();
    for (let tenth = 0; tenth < 20; tenth++) {
      pacing.committed();
      await clock.advance(100);
    }
    expect(checkpointer.calls.length).toBe(1);
    release();
    await settle();
    await clock.advance(100);
    expect(checkpointer.calls.length).toBe(2);
    await pacing.close();
  });

  test('no more once it is closed, and what is under way is waited for', async () => {
    const { pacing, checkpointer, clock } = start();
    pacing.committed();
    await pacing.close();
    expect(checkpointer.calls).toEqual([]);

    const other = start();
    const release = other.checkpointer.hold();
    other.pacing.committed();
    await other.clock.advance(100);
    let isClosed = false;
    const closed = other.pacing.close().then(() => (isClosed = true));
    await settle();
    expect(isClosed).toBe(false);
    release();
    await closed;
    expect([clock.sleepers(), other.clock.sleepers()]).toEqual([0, 0]);
  });
});

describe('a fold', () => {
  test.each([true, false])('answers whether it could: %s', async (done) => {
    const { pacing, writer } = start();
    writer.answers.push(done);
    expect(await pacing.fold()).toBe(done);
    expect(writer.calls).toEqual(['fold']);
  });

  test('fails as the writer does, and the next one does not', async () => {
    const { pacing, writer } = start();
    writer.answers.push(new Error('the disk'), true);
    await expect(pacing.fold()).rejects.toThrow('the disk');
    expect(await pacing.fold()).toBe(true);
  });

  test('does not come behind a copy that fails', async () => {
    const world = start([new Error('the disk')], () => world.checkpointer.calls.length === 0);
    const release = world.checkpointer.hold();
    world.pacing.committed();
    await world.clock.advance(100);
    const folded = world.pacing.fold();
    release();
    expect([await folded, world.writer.calls]).toEqual([false, []]);
    await world.pacing.close();
  });

  test('waits for what is copied, which waits for a fold', async () => {
    const { pacing, checkpointer, writer, clock } = start();
    const releaseCopy = checkpointer.hold();
    pacing.committed();
    await clock.advance(100);
    const folded = pacing.fold();
    await settle();
    expect(writer.calls).toEqual([]);
    const releaseFold = writer.hold();
    releaseCopy();
    await settle();
    expect(writer.calls).toEqual(['fold']);
    pacing.committed();
    await clock.advance(200);
    expect(checkpointer.calls.length).toBe(1);
    releaseFold();
    await folded;
    await settle();
    expect(checkpointer.calls.length).toBe(2);
    await pacing.close();
  });
});

/** With threads that answer as they are told, and else that the WAL is empty. */
function start(answers: readonly unknown[] = [], mayFold = () => true) {
  const clock = manualClock();
  const [checkpointer, writer] = [thread(answers), thread([])];
  return { clock, checkpointer, writer, pacing: paceWal(checkpointer, writer, clock, mayFold) };
}

function thread(given: readonly unknown[]) {
  const answers = [...given];
  const calls: string[] = [];
  let held: Promise<void> | undefined;
  return {
    answers,
    calls,
    /** Keeps the next answer back. @returns what lets it go */
    hold: (): (() => void) => {
      const { promise, resolve } = Promise.withResolvers<void>();
      held = promise;
      return resolve;
    },
    call: async (request: ThreadRequest): Promise<unknown> => {
      calls.push(request.kind === 'backfill' ? `backfill above ${request.above}` : request.kind);
      const answer = answers.length > 0 ? answers.shift() : { frames: 0, backfilled: 0 };
      const waiting = held;
      held = undefined;
      await waiting;
      if (answer instanceof Error) throw answer;
      return answer;
    },
  };
}
