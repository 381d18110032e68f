import { expect, test } from 'vitest';
import type { WorkloadCredentials } from '../../src/identity/credentials.ts';
import type { Attestation, UnixPeer } from '../../src/identity/evidence.ts';
import { newNonce } from '../../src/sds/nonce.ts';
import { shareOffers } from '../../src/sds/shared-offers.ts';
import type { Offer } from '../../src/sds/source.ts';
import { createTurn } from '../../src/sds/turn.ts';

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
  const join = () =>
    follow(attestation, { offered: () => (offers += 1), failed: () => undefined, ended: () => undefined });
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

test('no nonce comes twice', () => {
  const nonces = Array.from({ length: 2_000 }, newNonce);
  expect(new Set(nonces).size).toBe(2_000);
  expect(nonces.every((nonce) => /^[0-9a-f]{32}$/.test(nonce))).toBe(true);
});
