import { describe, expect, test } from 'vitest';
import type { Clock } from '../../src/clock.ts';
import { MeshError } from '../../src/errors.ts';
import { createCallers } from '../../src/ext-authz/callers.ts';
import type { Attestation, UnixPeer } from '../../src/identity/evidence.ts';

describe('the attestation of a connection', () => {
  test('is made once, and answers without waiting from then on', async () => {
    const { callers, attempts } = start();
    const one = peer('a');
    const [first, second] = await Promise.all([callers.attested(one), callers.attested(one)]);
    expect(second).toBe(first);
    expect(callers.attested(one)).toBe(first);
    expect(attempts()).toBe(1);
  });

  test('is not that of another connection', async () => {
    const { callers, attempts } = start();
    expect(await callers.attested(peer('a'))).not.toBe(await callers.attested(peer('b')));
    expect(attempts()).toBe(2);
  });

  test('is renewed behind the calls once it is ten seconds old', async () => {
    const { callers, attempts, move } = start();
    const one = peer('a');
    const first = await callers.attested(one);
    move(9_999);
    expect(callers.attested(one)).toBe(first);
    expect(attempts()).toBe(1);
    move(1);
    expect(callers.attested(one)).toBe(first);
    expect(callers.attested(one)).toBe(first);
    expect(attempts()).toBe(2);
    await settle();
    expect(callers.attested(one)).not.toBe(first);
    expect(attempts()).toBe(2);
  });

  test.each([
    ['too old', 30_000],
    ['from the future', -1],
  ])('is waited for when it is %s', async (_, ms) => {
    const { callers, attempts, move } = start();
    const one = peer('a');
    const first = await callers.attested(one);
    move(ms);
    expect(callers.attested(one)).toBeInstanceOf(Promise);
    expect(await callers.attested(one)).not.toBe(first);
    expect(attempts()).toBe(2);
  });

  test('ends when it cannot be renewed', async () => {
    const { callers, move, fail } = start();
    const one = peer('a');
    await callers.attested(one);
    move(10_000);
    fail(true);
    expect(callers.attested(one)).not.toBeInstanceOf(Promise);
    await settle();
    await expect(callers.attested(one)).rejects.toThrow('the process is gone');
    fail(false);
    await expect(callers.attested(one)).resolves.toBeDefined();
  });

  test('ends with its process, in the very next turn', async () => {
    const { callers, attempts } = start();
    let [alive, asked] = [true, 0];
    const isAlive = (): boolean => {
      asked += 1;
      return alive;
    };
    const one = { ...peer('a'), isAlive };
    await callers.attested(one);
    for (let i = 0; i < 10; i++) expect(callers.attested(one)).not.toBeInstanceOf(Promise);
    expect(asked).toBe(1);
    alive = false;
    await settle();
    expect(() => callers.attested(one)).toThrow(MeshError);
    expect(() => callers.attested(one)).toThrow(MeshError);
    expect(attempts()).toBe(1);
    expect(asked).toBe(3);
  });

  test('is forgotten when many newer connections have called', async () => {
    const { callers, attempts } = start();
    await callers.attested(peer('a'));
    await callers.attested(peer('b'));
    await callers.attested(peer('a'));
    await callers.attested(peer('c'));
    expect(attempts()).toBe(3);
    await callers.attested(peer('a'));
    expect(attempts()).toBe(3);
    await callers.attested(peer('b'));
    expect(attempts()).toBe(4);
  });
});

function start() {
  let time = Date.parse('2026-01-02T03:04:05Z');
  let attempts = 0;
  let failing = false;
  const clock: Clock = { now: () => new Date(time), sleep: async () => {} };
  const attest = async (): Promise<Attestation> => {
    attempts += 1;
    if (failing) throw new MeshError('attestation_failed', 'the process is gone');
    return { selectors: [], caller: { pid: 1, uid: 2, gid: 3 } };
  };
  return {
    callers: createCallers({ attest, clock, capacity: 2 }),
    attempts: () => attempts,
    move: (ms: number) => {
      time += ms;
    },
    fail: (value: boolean) => {
      failing = value;
    },
  };
}

function peer(connectionId: string): UnixPeer {
  return { kind: 'unix', connectionId, pid: 1, uid: 2, gid: 3, isAlive: () => true };
}

function settle(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
