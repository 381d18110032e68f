import { Socket } from 'node:net';
import { expect, test } from 'vitest';
import { inFairTurns } from '../../src/grpc/fair-turns.ts';
import { oneInTurn } from '../../src/grpc/listener.ts';
import { until } from '../xds/harness.ts';

const turn = () => new Promise((resolve) => setImmediate(resolve));

test('one a turn, one owner after the other, and again after a rest', async () => {
  const done: string[] = [];
  const put = inFairTurns<string>(
    (one) => one[0] ?? '',
    (one) => done.push(one),
  );
  for (let round = 1; round <= 2; round++) {
    done.length = 0;
    ['a1', 'a2', 'a3', 'b1', 'c1', 'b2'].forEach(put);
    expect(done).toEqual([]);
    for (let turns = 1; turns <= 6; turns++) {
      await turn();
      expect(done).toHaveLength(turns);
    }
    expect(done).toEqual(['a1', 'b1', 'c1', 'a2', 'b2', 'a3']);
    await turn();
  }
});

test('what comes while work is done waits for its own turn', async () => {
  const done: number[] = [];
  const put = inFairTurns<number>(String, (one) => {
    done.push(one);
    if (one < 3) put(one + 1);
  });
  put(0);
  for (const count of [1, 2, 3, 4]) {
    await turn();
    expect(done).toHaveLength(count);
  }
});

test('sockets that were served or have gone keep nobody waiting who comes from elsewhere', async () => {
  const owners = new Map<Socket, string>();
  const served: string[] = [];
  const serve = oneInTurn(
    (socket: Socket) => served.push(owners.get(socket) ?? ''),
    (socket) => owners.get(socket) ?? '',
  );
  const come = (owner: string, isGone: boolean): void => {
    const socket = new Socket();
    owners.set(socket, owner);
    if (isGone) socket.destroy();
    serve(socket);
  };
  for (let i = 0; i < 100; i++) come('a', i % 2 === 0);
  come('b', false);
  come('c', true);
  await until(() => served.length === 51);
  expect(served.indexOf('b')).toBeLessThanOrEqual(1);
  expect(served.filter((owner) => owner === 'a')).toHaveLength(50);
  expect(served).not.toContain('c');
  // It begins again after a rest.
  come('d', false);
  await until(() => served.at(-1) === 'd');
});

test.each([
  ['one', undefined, [1, 2]],
  ['as many as it is told', { perTurn: 3, turns: 7 }, [3, 6]],
])('%s in a turn, and who has gone takes nobody’s place', async (_, pace, expected) => {
  const served: Socket[] = [];
  const serve = oneInTurn((socket: Socket) => served.push(socket), undefined, pace);
  for (let i = 0; i < 20; i++) {
    const socket = new Socket();
    if (i % 4 === 0) socket.destroy();
    serve(socket);
  }
  const counts: number[] = [];
  for (const _turn of expected) {
    await turn();
    counts.push(served.length);
  }
  expect(counts).toEqual(expected);
  await until(() => served.length === 15);
});
