import { beforeAll, beforeEach, expect, test } from 'vitest';
import type { StoredAuthority } from '../../src/ca/stored.ts';
import { type Coverage, createCoverage, type IssuedCertificate } from '../../src/identity/coverage.ts';
import { type AttestedNode, nodeSpiffeId } from '../../src/identity/node.ts';
import type { KeptTrust } from '../../src/identity/node-presence.ts';
import { bundleSha256, type TrustBundle } from '../../src/spiffe/bundle.ts';
import { checkX509SvidLeaf } from '../../src/spiffe/svid.ts';
import { createNodeCoverage, isOverForNode, type NodeCoverage } from '../../src/up-node-coverage.ts';
import { makeTestAuthority, type TestAuthority } from '../ca/test-authority.ts';
import { type ManualClock, manualClock } from '../harness/manual-clock.ts';
import { attestedNode, makeNodeCertificate, type Shown } from './node-certificates.ts';

// One node, which has `first` from the old CA, and renews to `second` from the new one.
let old: TestAuthority;
let fresh: TestAuthority;
let [first, second]: Shown[] = [];
let clock: ManualClock;
let bundle: TrustBundle;
let coverage: Coverage;
let covers: NodeCoverage;
let node: AttestedNode;
let notes: number;
let known: readonly TestAuthority[];

beforeAll(async () => {
  const now = manualClock().now();
  [old, fresh] = await Promise.all([
    makeTestAuthority(now, {}, 'mesh.test'),
    makeTestAuthority(now, {}, 'mesh.test'),
  ]);
  first = await makeNodeCertificate(old, 'web-1', now);
  second = await makeNodeCertificate(fresh, 'web-1', now, 7_200);
});
beforeEach(() => {
  clock = manualClock();
  bundle = { ...old.authority.bundle, sequence: 2 };
  coverage = createCoverage([]);
  notes = 0;
  known = [old, fresh];
  covers = createNodeCoverage({
    note: (isConfirmed, ...told) => {
      notes += 1;
      coverage[isConfirmed ? 'confirmed' : 'sent'](...told);
    },
    authority: { bundle: () => bundle, stored: () => known.map(storedOf) },
    clock,
  });
  node = attestedNode('web-1', [shown('first')], clock.now());
  covers.attested(node, issuedOf('first'));
});

type Which = 'first' | 'second';
function shown(which: Which): Shown {
  return (which === 'first' ? first : second)!;
}

function keyIdOf({ intermediate }: TestAuthority): string {
  return Buffer.from(intermediate.key.publicKey.keyId).toString('hex');
}

function storedOf(authority: TestAuthority): StoredAuthority {
  const keyId = keyIdOf(authority);
  const slot = { kind: 'intermediate', keyId, rootKeyId: keyId } as StoredAuthority;
  return { ...slot, certificate: authority.intermediate.certificate };
}

function issuedOf(which: Which) {
  const { certificates, serial, notAfter } = shown(which);
  const issuerKeyId = keyIdOf(which === 'first' ? old : fresh);
  return { certificates, serial, notAfter, issuerKeyId, notBefore: clock.now() };
}

function renew(): void {
  node = attestedNode('web-1', [shown('second'), shown('first')], clock.now());
  covers.renewed(node, issuedOf('second'));
}

/** The node says over a connection on which it has shown one certificate that it has kept this. */
function say(on: Which, kept: Partial<KeptTrust> = {}): void {
  const leaf = checkX509SvidLeaf(shown(on).certificates[0]!);
  const peer = { connectionId: '1', remoteAddress: '', certificates: shown(on).certificates };
  covers.keeps(
    { node, leaf, peer },
    {
      bundleSequence: bundle.sequence,
      bundleSha256: bundleSha256(bundle),
      serial: shown(on).serial,
      ...kept,
    },
  );
}

function recorded(which: Which): IssuedCertificate {
  const { serial, notAfter, issuerKeyId } = issuedOf(which);
  const spiffeId = nodeSpiffeId(old.trustDomain, 'web-1').text;
  return { serial, spiffeId, entryId: 'countersign.node.web-1', issuerKeyId, notAfter };
}

/** Who is in the way of what: `2: old` has confirmed bundle 2, and may present one of the old CA. */
function holders(): readonly string[] {
  const names = new Map([
    [keyIdOf(old), 'old'],
    [keyIdOf(fresh), 'new'],
  ]);
  const all = [recorded('first'), ...(node.serials.length > 1 ? [recorded('second')] : [])];
  return coverage
    .evidence(all, clock.now(), null, (one) => isOverForNode(old.trustDomain, () => node, one))
    .holders.map(
      ({ sequence, leaves }) =>
        `${sequence ?? 'none'}: ${leaves.map(({ issuerKeyId }) => names.get(issuerKeyId) ?? 'any').join()}`,
    );
}

test.each<[string, () => void, string]>([
  ['nothing', () => undefined, '0: old'],
  ['what is so', () => say('first'), '2: old'],
  ['an older bundle', () => say('first', { bundleSequence: 1 }), '1: old'],
  ['one that is not there yet', () => say('first', { bundleSequence: 3 }), '0: old'],
  ['one that will never be', () => say('first', { bundleSequence: Number.MAX_SAFE_INTEGER }), '0: old'],
  ['other roots under its number', () => say('first', { bundleSha256: 'ab'.repeat(32) }), '0: old'],
  ['no digest', () => say('first', { bundleSha256: '' }), '0: old'],
  ['an older one than before', () => (say('first'), say('first', { bundleSequence: 1 })), '1: old'],
  ['a lie after the truth', () => (say('first'), say('first', { bundleSequence: 9 })), '0: old'],
  ['the truth after a lie', () => (say('first', { bundleSequence: 9 }), say('first')), '2: old'],
  [
    'the truth, and then attests anew',
    () => (say('first'), covers.attested(node, issuedOf('first'))),
    '0: old',
  ],
  [
    'just as much before it attests anew and after that',
    () => {
      say('first', { serial: '00' });
      covers.attested(node, issuedOf('first'));
      say('first', { serial: '00' });
    },
    '2: old',
  ],
  [
    'the truth, and the bundle changes',
    () => (say('first'), (bundle = { ...bundle, sequence: 3 })),
    '2: old',
  ],
])('a node that says %s has confirmed just that', (_, act, expected) => {
  act();
  expect(holders()).toEqual([expected]);
});

test.each<[string, () => void, string]>([
  ['says nothing since', () => undefined, '2: old,new'],
  ['shows the new one, and has kept it', () => say('second'), '2: new'],
  [
    'shows the new one, and has not kept it',
    () => say('second', { serial: shown('first').serial }),
    '2: old,new',
  ],
  [
    'has kept the new one, and shows the old one',
    () => say('first', { serial: shown('second').serial }),
    '2: old,new',
  ],
  ['goes on with the old one: the answer was lost', () => say('first'), '2: old,new'],
  ['names one that is nobody’s', () => say('second', { serial: '00' }), '2: old,new'],
  ['takes back what it said', () => (say('second'), say('first')), '2: new'],
  [
    'shows the new one, of a CA that nobody knows any more',
    () => {
      known = [old];
      say('second');
    },
    '2: any',
  ],
])('a node that has renewed and %s may present just that', (_, act, expected) => {
  say('first');
  renew();
  act();
  expect(holders()).toEqual([expected]);
});

test('a note of the node about a process of its own does not speak for its agent', () => {
  const liar = { uid: 0, pid: 0, node: 'agent', host: 'web-1' };
  coverage.confirmed(liar, 'trust', { kind: 'bundle', sequence: 2 }, clock.now());
  coverage.confirmed(liar, 'node', { kind: 'bundle', sequence: 2 }, clock.now());
  expect(holders()).toEqual(['0: old']);
});

test('what is said again is kept once in ten minutes, and so is told that the node is there', async () => {
  say('first');
  const before = notes;
  for (let count = 0; count < 100; count += 1) say('first');
  expect(notes).toBe(before);
  await clock.advance(600_000);
  say('first');
  expect(notes).toBe(before + 2);
});

test.each<[string, (now: AttestedNode) => AttestedNode | undefined, string[]]>([
  ['is there', (now) => now, ['2: old']],
  ['was evicted', (now) => ({ ...now, evictedAt: now.attestedAt, serials: [] }), []],
  // No certificate of it has ended a month ago, so that cannot be.
  ['is unknown', () => undefined, ['2: old']],
  ['attests anew', (now) => ({ ...now, serials: [], notAfter: now.attestedAt }), ['2: old']],
  ['has attested anew', (now) => ({ ...now, serials: ['0b'], notAfter: shown('second').notAfter }), []],
])('a certificate of a node that %s', (_, change, expected) => {
  say('first');
  const now = change(node);
  const { holders: left } = coverage.evidence([recorded('first')], clock.now(), null, (one) =>
    isOverForNode(old.trustDomain, () => now, one),
  );
  expect(left.map(({ sequence }) => `${sequence}: old`)).toEqual(expected);
});

test('a certificate of a workload is over for no reason of its node', () => {
  const workload = { ...recorded('first'), spiffeId: 'spiffe://mesh.test/ns/a/sa/countersign/node/web-1' };
  expect(isOverForNode(old.trustDomain, () => ({ ...node, evictedAt: clock.now() }), workload)).toBe(false);
});
