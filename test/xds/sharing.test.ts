import { EventEmitter } from 'node:events';
import { getHeapStatistics, setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { expect, test } from 'vitest';
import type { WorkloadCredentials } from '../../src/identity/credentials.ts';
import type { Attestation, UnixPeer } from '../../src/identity/evidence.ts';
import { worldForm } from '../../src/xds/form.ts';
import { newNonce } from '../../src/xds/nonce.ts';
import { createPipeDeadlines, openPipe, type PipeCall, type PipeParts } from '../../src/xds/pipe.ts';
import type { Resource } from '../../src/xds/resource.ts';
import { secretTypeUrl } from '../../src/xds/secret.ts';
import { shareOffers } from '../../src/xds/shared-offers.ts';
import type { FollowOffers, Offer } from '../../src/xds/source.ts';
import { createTurn } from '../../src/xds/turn.ts';
import type { DiscoveryRequest } from '../../src/wire/discovery.ts';
import { manualClock } from '../harness/manual-clock.ts';
import { emptyRequest } from './harness.ts';

const turnOver = () => new Promise((resolve) => setImmediate(resolve));

function process(pid: number): UnixPeer & { asked: number; lives: boolean } {
  const peer = {
    kind: 'unix' as const,
    connectionId: `c-${pid}`,
    pid,
    uid: 1,
    gid: 1,
    asked: 0,
    lives: true,
    isAlive: () => {
      peer.asked += 1;
      return peer.lives;
    },
  };
  return peer;
}

test('a process is seen once a turn, and asked for once by each connection, after that', async () => {
  let looks = 0;
  const turn = createTurn(async (caller) => ({ selectors: [], caller, look: (looks += 1) }));
  const [first, second] = [process(7), process(7)];
  const seen = await turn.attest(first);
  expect([turn.attest(second), turn.attest(second), turn.attest(first)]).toEqual([seen, seen, seen]);
  expect([looks, first.asked, second.asked]).toEqual([1, 1, 1]);
  await turn.attest(process(8));
  expect(looks).toBe(2);
  await turnOver();
  await turn.attest(second);
  expect(looks).toBe(3);
});

test('who has ended is not given what was seen of it', async () => {
  const turn = createTurn(async (caller) => ({ selectors: [], caller }));
  const [first, late] = [process(7), process(7)];
  late.lives = false;
  const seeing = turn.attest(first);
  await expect(turn.attest(late)).rejects.toMatchObject({ code: 'attestation_failed' });
  await seeing;
  expect(() => turn.attest(late)).toThrow('the caller has ended');
});

test('sixteen share a watch, none after a change, and it ends with the last of them', async () => {
  let watches = 0;
  let change = (): void => undefined;
  const follow = shareOffers(
    async function* (_, signal) {
      watches += 1;
      yield {} as WorkloadCredentials;
      if (!signal.aborted) await new Promise((resolve) => signal.addEventListener('abort', resolve));
      watches -= 1;
    },
    () => ({}) as Offer,
    (listener) => (change = listener),
  );
  const attestation: Attestation = { selectors: [], caller: { pid: 7, uid: 1, gid: 1 } };
  let offers = 0;
  const nothing = () => undefined;
  const join = () =>
    follow(attestation, { offered: () => (offers += 1), failed: nothing, ended: nothing, beat: nothing });
  const stops = Array.from({ length: 17 }, join);
  await turnOver();
  expect([watches, offers]).toEqual([2, 17]);
  // What there is already is offered at once.
  stops.push(join());
  expect([watches, offers]).toEqual([2, 18]);
  change();
  stops.push(join());
  expect(watches).toBe(3);
  for (const stop of stops) stop();
  await turnOver();
  expect(watches).toBe(0);
});

test('a stream that ends with what it is offered first follows nothing any more', async () => {
  const secret: Resource = { name: 'default', version: '1', holdsKey: true, value: Buffer.of(1) };
  const offer = { find: () => secret, bannedOf: () => undefined } as unknown as Offer;
  let following = 0;
  const follow: FollowOffers = (_, { offered }) => {
    following += 1;
    offered(offer);
    return () => (following -= 1);
  };
  const peer = process(7);
  // Gone by the time at which it is looked at again for the key.
  peer.lives = false;
  const clock = manualClock();
  const parts: PipeParts = {
    ...createTurn(async (caller) => ({ selectors: [], caller })),
    refusals: { add: () => undefined, close: () => undefined },
    clock,
    observer: {},
    ignored: () => undefined,
    deadlines: createPipeDeadlines(clock, { firstRequestMs: 1_000, writeMs: 1_000, answerMs: 1_000 }),
  };
  const told: unknown[] = [];
  const call: unknown = Object.assign(new EventEmitter(), { write: () => told.push('a response') });
  const cargo = { sources: [{ typeUrl: secretTypeUrl, forNode: () => follow }], isAggregated: false };
  openPipe(call as PipeCall<DiscoveryRequest>, peer, worldForm, cargo, parts, (error) => told.push(error));
  (call as EventEmitter).emit('data', { ...emptyRequest, resourceNames: ['default'] });
  await turnOver();
  expect(told).toMatchObject([{ code: 'attestation_failed' }]);
  expect(following).toBe(0);
});

test('no nonce comes twice', () => {
  const nonces = Array.from({ length: 2_000 }, newNonce);
  expect(new Set(nonces).size).toBe(2_000);
  expect(nonces.every((nonce) => /^[0-9a-f]{32}$/.test(nonce))).toBe(true);
});

test('a nonce keeps nothing of those that were drawn with it', () => {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  const heldBytes = (): number => {
    collect();
    return getHeapStatistics().used_heap_size;
  };
  const before = heldBytes();
  const kept = Array.from({ length: 4_000 }, () => Array.from({ length: 256 }, newNonce)[0]);
  expect(heldBytes() - before).toBeLessThan(8_000_000);
  expect(kept).toHaveLength(4_000);
});
