import { describe, expect, test } from 'vitest';
import type { AuditEvent, DecisionEvent, LossEvent, RecordEvents } from '../../src/audit/event.ts';
import type { Clock } from '../../src/clock.ts';
import { MeshError } from '../../src/errors.ts';
import { allowedCalls } from '../audit/events.ts';
import { createDecisionLog, type DecisionLogOptions } from '../../src/ext-authz/decision-log.ts';

describe('the queue of decisions', () => {
  test('writes in order, in batches, without being waited for', async () => {
    const { log, batches } = start({ maxBatch: 10 });
    for (let i = 0; i < 25; i++) log.push(event(i));
    expect(batches).toEqual([]);
    await log.close();
    expect(batches.map((batch) => batch.length)).toEqual([10, 10, 5]);
    expect(ids(batches)).toEqual(range(0, 25));
  });

  test('a batch is small enough not to hold up checks while it is encoded', async () => {
    const { log, batches } = start({});
    for (let i = 0; i < 1_000; i++) log.push(event(i));
    await log.close();
    expect(ids(batches)).toEqual(range(0, 1_000));
    expect(Math.max(...batches.map((batch) => batch.length))).toBeLessThanOrEqual(250);
  });

  test.each(['caller_unknown', 'destination_forged'] as const)(
    'a flood of %s is counted, not written',
    async (reason) => {
      const { log, batches } = start({});
      for (let i = 0; i < 5_000; i++) log.push({ ...event(i), verdict: 'deny', reason });
      for (let i = 5_000; i < 5_010; i++) log.push(event(i));
      await log.close();
      const written = ids(batches);
      expect(written.slice(-10)).toEqual(range(5_000, 5_010));
      expect(written.length).toBeLessThan(120);
      const lost = losses(batches).reduce((sum, { count }) => sum + count, 0);
      expect(written.length + lost).toBe(5_010);
      expect(losses(batches).every(({ cause }) => cause === 'repeated')).toBe(true);
    },
  );

  test('a flood that has ended is told of without another decision', async () => {
    const { log, batches } = start({});
    for (let i = 0; i < 200; i++) log.push({ ...event(i), verdict: 'deny', reason: 'caller_unknown' });
    await until(() => losses(batches).length === 1);
    log.push({ ...event(200), time: now, verdict: 'deny', reason: 'caller_unknown' });
    await until(() => losses(batches).length === 2);
    expect(losses(batches).at(-1)).toMatchObject({ count: 1, cause: 'repeated' });
    await log.close();
  });

  test('an event alone is written after the flush time', async () => {
    const { log, batches } = start({});
    log.push(event(1));
    await until(() => batches.length === 1);
    log.push(event(2));
    await until(() => batches.length === 2);
    expect(ids(batches)).toEqual([1, 2]);
    await log.close();
  });

  test("allowed calls are counted until the end, wait in nobody's way and are lost by their number", async () => {
    let isFull = true;
    const { log, batches } = start({
      allowedCallsWindowSeconds: 300,
      before: (events) => {
        if (isFull && events.some(({ type }) => type === 'allowed_calls')) {
          throw new MeshError('audit_event_too_large', 'too large');
        }
      },
    });
    const { type: _, from: _from, to: _to, count: _count, ...call } = allowedCalls();
    for (let i = 0; i < 1_000; i++) log.count?.({ ...call, time: at(i) });
    expect(log.depth()).toEqual({ queued: 1, lost: 0, lostInAll: 0 });
    log.push(event(0));
    expect(log.depth()).toEqual({ queued: 2, lost: 0, lostInAll: 0 });
    await log.close();
    expect(losses(batches)).toMatchObject([
      { count: 1_000, what: 'decision', from: at(0), to: at(999), cause: 'audit_event_too_large' },
    ]);
    isFull = false;
    const again = start({ allowedCallsWindowSeconds: 300 });
    for (let i = 0; i < 7; i++) again.log.count?.(call);
    await again.log.close();
    expect(again.batches).toMatchObject([[{ type: 'allowed_calls', count: 7 }]]);
    again.log.count?.(call);
    expect(again.log.depth()).toEqual({ queued: 0, lost: 1, lostInAll: 1 });
  });

  test('a full queue counts its losses and says so once the log works', async () => {
    const gate = createGate();
    const { log, batches } = start({ maxQueued: 5, record: gate.record });
    for (let i = 0; i < 5; i++) log.push(event(i));
    await until(() => gate.waiting() === 1);
    for (let i = 5; i < 12; i++) log.push(event(i));
    expect(log.depth()).toEqual({ queued: 5, lost: 7, lostInAll: 7 });
    gate.open();
    await until(() => log.depth().lost === 0);
    log.push(event(12));
    await log.close();
    batches.push(...gate.batches);
    expect(ids(batches)).toEqual([0, 1, 2, 3, 4, 12]);
    expect(losses(batches)).toEqual([
      { type: 'loss', time: now, what: 'decision', count: 7, from: at(5), to: at(11), cause: 'queue_full' },
    ]);
  });

  test('a store that is away loses nothing that fits', async () => {
    let down = true;
    const { log, batches, errors } = start({
      maxQueued: 100,
      maxBatch: 10,
      before: () => {
        if (down) throw new MeshError('store_unavailable', 'the disk is full');
      },
    });
    for (let i = 0; i < 30; i++) log.push(event(i));
    await until(() => errors.length >= 12);
    expect(log.depth()).toEqual({ queued: 30, lost: 0, lostInAll: 0 });
    down = false;
    await until(() => log.depth().queued === 0);
    expect(ids(batches)).toEqual(range(0, 30));
    expect(errors.every((error) => error.lost === 0)).toBe(true);
    await log.close();
    expect(losses(batches)).toEqual([]);
  });

  test('an event the log will never take is lost alone', async () => {
    const { log, batches, errors } = start({
      before: (events) => {
        if (events.some((e) => e.type === 'decision' && Number(e.decisionId) % 10 === 3)) {
          throw new MeshError('audit_event_too_large', 'too large');
        }
      },
    });
    for (let i = 0; i < 20; i++) log.push(event(i));
    await log.close();
    expect(ids(batches)).toEqual(range(0, 20).filter((i) => i % 10 !== 3));
    expect(losses(batches)).toMatchObject([
      { count: 2, from: at(3), to: at(13), cause: 'audit_event_too_large' },
    ]);
    expect(errors.map(({ lost }) => lost)).toEqual([1, 1]);
  });

  test('an event that fails for no known reason blocks the others for a while, not for ever', async () => {
    const { log, batches } = start({
      before: (events) => {
        if (events.some((e) => e.type === 'decision' && e.decisionId === '3')) throw new TypeError('bug');
      },
    });
    for (let i = 0; i < 8; i++) log.push(event(i));
    await until(() => log.depth().queued === 0);
    await log.close();
    expect(ids(batches)).toEqual([0, 1, 2, 4, 5, 6, 7]);
    expect(losses(batches)).toMatchObject([{ count: 1, cause: 'internal' }]);
  });

  test('a close that cannot write ends, and tells how many are gone', async () => {
    const { log, batches, errors } = start({
      before: () => {
        throw new MeshError('store_unavailable', 'the disk is full');
      },
    });
    for (let i = 0; i < 30; i++) log.push(event(i));
    await log.close();
    log.push(event(99));
    expect(batches).toEqual([]);
    expect(errors.at(-1)).toMatchObject({ code: 'store_unavailable', lost: 30 });
  });

  test('a close of an empty queue writes nothing', async () => {
    const { log, batches } = start({});
    await log.close();
    await log.close();
    expect(batches).toEqual([]);
  });

  test('every event is written or counted, whatever fails', async () => {
    const random = pseudoRandom(7);
    const { log, batches } = start({
      maxQueued: 40,
      maxBatch: 7,
      before: () => {
        if (random() < 0.3) throw new MeshError('store_unavailable', 'away');
      },
    });
    for (let i = 0; i < 2_000; i++) {
      log.push(event(i));
      if (random() < 0.1) await new Promise((resolve) => setImmediate(resolve));
      const { queued } = log.depth();
      expect(queued).toBeLessThanOrEqual(40);
    }
    await until(() => log.depth().queued === 0 && log.depth().lost === 0);
    await log.close();
    const written = ids(batches);
    const lost = losses(batches).reduce((sum, { count }) => sum + count, 0);
    expect(written).toEqual([...written].sort((a, b) => a - b));
    expect(new Set(written).size).toBe(written.length);
    expect(written.length + lost).toBe(2_000);
    expect(lost).toBeGreaterThan(0);
  });
});

const now = new Date('2026-01-02T03:04:05Z');

/** Stands still; sleeping costs one turn of the loop. */
const clock: Clock = {
  now: () => now,
  sleep: () => new Promise((resolve) => setImmediate(resolve)),
};

function start(options: Partial<DecisionLogOptions> & { before?: (events: readonly AuditEvent[]) => void }) {
  const batches: (readonly AuditEvent[])[] = [];
  const errors: { code: string; lost: number }[] = [];
  const { before, ...rest } = options;
  const record: RecordEvents = async (events) => {
    await new Promise((resolve) => setImmediate(resolve));
    before?.(events);
    batches.push(events);
    return events.map((_, index) => index);
  };
  const log = createDecisionLog({
    record,
    clock,
    allowedCallsWindowSeconds: 0,
    onError: (error, lost) =>
      errors.push({ code: error instanceof MeshError ? error.code : 'unknown', lost }),
    ...rest,
  });
  return { log, batches, errors };
}

function createGate() {
  const batches: (readonly AuditEvent[])[] = [];
  let waiting: (() => void)[] = [];
  let opened = false;
  const record: RecordEvents = async (events) => {
    if (!opened) await new Promise<void>((resolve) => waiting.push(resolve));
    batches.push(events);
    return [];
  };
  return {
    record,
    batches,
    waiting: () => waiting.length,
    open: () => {
      opened = true;
      for (const resolve of waiting) resolve();
      waiting = [];
    },
  };
}

function at(i: number): Date {
  return new Date(now.getTime() + i);
}

function event(i: number): DecisionEvent {
  return {
    type: 'decision',
    time: at(i),
    decisionId: `${i}`,
    verdict: 'deny',
    reason: 'no_policy',
    rule: '',
    why: 'no policy applies',
    revision: 1,
    source: '',
    destination: '',
    protocol: 'http',
    method: 'GET',
    host: '',
    path: { personal: '/' },
    port: 0,
    sourceSerial: '',
    sourceAddress: { personal: '' },
    caller: { pid: 1, uid: 1, gid: 1 },
  };
}

function ids(batches: readonly (readonly AuditEvent[])[]): number[] {
  return batches.flat().flatMap((e) => (e.type === 'decision' ? [Number(e.decisionId)] : []));
}

function losses(batches: readonly (readonly AuditEvent[])[]): LossEvent[] {
  return batches.flat().filter((e) => e.type === 'loss');
}

function range(from: number, to: number): number[] {
  return Array.from({ length: to - from }, (_, i) => from + i);
}

function pseudoRandom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state * 1_103_515_245 + 12_345) % 2_147_483_648;
    return state / 2_147_483_648;
  };
}

async function until(condition: () => boolean): Promise<void> {
  const deadline = Date.now() + 30_000;
  while (!condition()) {
    if (Date.now() > deadline) throw new Error('it did not happen within 30 s');
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}
