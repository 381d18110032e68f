import { beforeAll, expect, test } from 'vitest';
import type { KeptTrust } from '../../src/identity/node-presence.ts';
import { createBelievedBundle } from '../../src/node/believed-bundle.ts';
import { createTrustKeeper, keptTrustFromWire, keptTrustToWire } from '../../src/node/kept-trust.ts';
import type { NodeIdentity } from '../../src/node/node-client.ts';
import { bundleSha256, type TrustBundle } from '../../src/spiffe/bundle.ts';
import { makeTestAuthority } from '../ca/test-authority.ts';
import { makeNodeCertificate } from './node-certificates.ts';

const now = new Date('2026-01-01T00:00:00Z');
let identity: NodeIdentity;
let serial: string;
let one: TrustBundle;
let other: TrustBundle;
beforeAll(async () => {
  const ours = await makeTestAuthority(now, {}, 'mesh.test');
  one = ours.authority.bundle;
  other = (await makeTestAuthority(now, {}, 'mesh.test')).authority.bundle;
  const { certificates, ...made } = await makeNodeCertificate(ours, 'web-1', now);
  identity = { certificates, privateKey: new Uint8Array(1) };
  serial = made.serial;
});

type Step = ['first' | 'later' | 'certificate', number];
test.each<[string, number | null, Step[], number | null]>([
  ['nothing was said', null, [], null],
  ['what was kept', 3, [], 3],
  ['the first certificate', null, [['certificate', 1]], 1],
  ['the first view', 1, [['first', 2]], 2],
  [
    'a change',
    null,
    [
      ['first', 1],
      ['later', 2],
    ],
    2,
  ],
  [
    'a newer one with a certificate',
    null,
    [
      ['first', 1],
      ['certificate', 2],
    ],
    2,
  ],
  [
    'and a view without it',
    null,
    [
      ['first', 1],
      ['certificate', 2],
      ['later', 1],
    ],
    2,
  ],
  [
    'and the view that has it',
    null,
    [
      ['first', 1],
      ['certificate', 2],
      ['later', 2],
    ],
    2,
  ],
  [
    'an answer that a view has overtaken',
    null,
    [
      ['first', 1],
      ['later', 2],
      ['certificate', 1],
    ],
    2,
  ],
  ['a server that was restored', 5, [['first', 3]], 3],
  ['the answer of a server that was restored, before its view', 5, [['certificate', 3]], 5],
])('the server is verified with the latest it has said: %s', (_, kept, steps, sequence) => {
  const at = (number: number): TrustBundle => ({ ...one, sequence: number });
  const believed = createBelievedBundle(kept === null ? null : at(kept));
  for (const [how, number] of steps) {
    if (how === 'certificate') believed.withCertificate(at(number));
    else believed.withView(at(number), how === 'first');
  }
  expect(believed.current()?.sequence ?? null).toBe(sequence);
});

test('only what is in force, and was saved, is told; what is saved again is no news', () => {
  const bundle = (sequence: number): TrustBundle => ({ ...one, sequence });
  const [two, three] = [bundle(2), bundle(3)];
  let inForce = two;
  const keeper = createTrustKeeper(() => inForce);
  let news = 0;
  keeper.onChange(() => (news += 1));
  expect(keeper.current()).toBeNull();
  const told = (bundleSequence: number): KeptTrust => ({
    bundleSequence,
    bundleSha256: bundleSha256(one),
    serial,
  });
  keeper.saved(identity, two);
  keeper.saved(identity, two);
  expect([keeper.current(), news]).toEqual([told(2), 1]);
  // In force and not saved yet: a crash would take it back.
  inForce = three;
  expect(keeper.current()).toEqual(told(2));
  keeper.saved(identity, three);
  expect([keeper.current(), news]).toEqual([told(3), 2]);
  // The server was restored, and what is saved is of before.
  inForce = bundle(1);
  expect(keeper.current()).toBeNull();
  inForce = bundle(3);
  expect(keeper.current()).toBeNull();
  keeper.saved({ ...identity }, inForce);
  expect([keeper.current(), news]).toEqual([told(3), 3]);
});

test('the digest tells bundles apart that have one sequence, and the order of their roots', () => {
  const both = (...bundles: TrustBundle[]) =>
    bundleSha256({ ...one, x509Authorities: bundles.flatMap(({ x509Authorities }) => x509Authorities) });
  const digests = [both(one), both(other), both(one, other), both(other, one)];
  expect(new Set(digests).size).toBe(digests.length);
  expect(bundleSha256({ ...one, sequence: 99 })).toBe(bundleSha256(one));
});

test('what is kept travels whole, and an impossible sequence is refused', () => {
  const kept = { bundleSequence: 4, bundleSha256: 'ab'.repeat(32), serial: '0a' };
  expect(keptTrustFromWire(keptTrustToWire(kept))).toEqual(kept);
  for (const bundleSequence of [-1n, 2n ** 60n]) {
    expect(() => keptTrustFromWire({ ...keptTrustToWire(kept), bundleSequence })).toThrow(
      expect.objectContaining({ code: 'message_invalid' }),
    );
  }
});
