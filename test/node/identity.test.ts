import { beforeAll, beforeEach, afterEach, expect, test } from 'vitest';
import { type ErrorCode, MeshError } from '../../src/errors.ts';
import type { Evidence, NodeIdentity } from '../../src/node/node-client.ts';
import {
  type IdentityKeeper,
  keepIdentity,
  type KeyPair,
  type ShownKeys,
} from '../../src/node/node-identity.ts';
import { makeTestAuthority } from '../ca/test-authority.ts';
import { type ManualClock, manualClock, settle } from '../harness/manual-clock.ts';
import { makeNodeCertificate } from './node-certificates.ts';

const token = (secret: string): Evidence => ({ kind: 'join_token', secret });
const machine: Evidence = {
  kind: 'x509pop',
  certificates: [Uint8Array.of(1)],
  privateKey: Uint8Array.of(2),
};

/** Made before, since a manual clock does not wait for threads: each is valid for an hour from its moment. */
let made: readonly { readonly atMs: number; readonly certificates: readonly Uint8Array[] }[];
let ours: Awaited<ReturnType<typeof makeTestAuthority>>;
let clock: ManualClock;
let stop: AbortController;
let evidence: Evidence | null;
/** What the server says, one answer for each attempt; the last one again and again. */
let answers: (ErrorCode | 'yes')[];
let shown: (Evidence | 'renewal')[];
let keys: unknown[];
let complaints: string[];
let running: Promise<void>;

beforeAll(async () => {
  ours = await makeTestAuthority(new Date('2025-12-31T00:00:00Z'), {}, 'mesh.test');
  const startMs = manualClock().now().getTime();
  const minutes = [...Array.from({ length: 12 }, (_, at) => at * 10), ...hoursUpTo(64).map((at) => at * 60)];
  made = await Promise.all(
    minutes.map(async (minute) => {
      const atMs = startMs + minute * 60_000;
      return { atMs, ...(await makeNodeCertificate(ours, 'web-1', new Date(atMs))) };
    }),
  );
});
beforeEach(() => {
  clock = manualClock();
  stop = new AbortController();
  evidence = null;
  answers = ['yes'];
  [shown, keys, complaints] = [[], [], []];
  running = Promise.resolve();
});
afterEach(async () => {
  stop.abort();
  await running;
});

function hoursUpTo(most: number): readonly number[] {
  return Array.from({ length: most - 1 }, (_, at) => at + 2);
}

/** Valid for most of an hour. */
function certificate(): NodeIdentity {
  const now = clock.now().getTime();
  const { certificates = [] } = made.findLast(({ atMs }) => atMs <= now) ?? {};
  return { certificates, privateKey: new Uint8Array(1) };
}

async function answer(what: Evidence | 'renewal', key: unknown): Promise<NodeIdentity> {
  shown.push(what);
  keys.push(key);
  const said = answers.length > 1 ? answers.shift() : answers[0];
  if (said !== 'yes' && said !== undefined) throw new MeshError(said, 'the server says no');
  return certificate();
}

async function open(kept: NodeIdentity | null, shownKeys?: ShownKeys): Promise<IdentityKeeper> {
  const keeper = await keepIdentity({
    shownKeys,
    kept,
    evidence: () => evidence,
    attest: answer,
    renew: (_, key) => answer('renewal', key),
    generateKeyPair: async () => ({ publicKey: new Uint8Array(1), privateKey: new Uint8Array(1) }),
    clock,
    random: () => 0.5,
    complain: (error) => complaints.push((error as MeshError).code),
    signal: stop.signal,
  });
  running = keeper.run();
  return keeper;
}

const hours = (count: number) => clock.advance(count * 3_600_000);

test.each<ErrorCode>(['node_evidence_invalid', 'identity_banned', 'server_untrusted', 'csr_invalid'])(
  'a first start that is refused with %s ends: nothing would mend it',
  async (code) => {
    [evidence, answers] = [token('a'), [code]];
    await expect(open(null)).rejects.toMatchObject({ code });
    expect(shown).toHaveLength(1);
  },
);

test('a join token is shown with the very key that an earlier process has shown it with', async () => {
  const book = new Map<string, KeyPair>();
  const shownKeys: ShownKeys = {
    load: (digest) => book.get(digest),
    save: (digest, key) => void book.set(digest, key),
  };
  [evidence, answers] = [token('a'), ['csr_invalid', 'yes']];
  await expect(open(null, shownKeys)).rejects.toMatchObject({ code: 'csr_invalid' });
  await open(null, shownKeys);
  expect(new Set(keys).size).toBe(1);
  expect(book.size).toBe(1);
});

test('a join token is not shown while its key cannot be kept', async () => {
  let isFull = true;
  const save = () => {
    if (isFull) throw new MeshError('store_unavailable', 'the disk is full');
  };
  evidence = token('a');
  const opening = open(null, { load: () => undefined, save });
  await settle();
  expect(shown).toEqual([]);
  isFull = false;
  await clock.advance(20_000);
  await opening;
  expect(shown).toHaveLength(1);
});

test.each([
  { what: 'is replaced at once', issuer: { urgent: true }, withinMs: 60_000, renewals: 1 },
  { what: 'of one node is replaced in time', issuer: { nodes: 1 }, withinMs: 2_500, renewals: 1 },
  { what: 'of many is replaced in time', issuer: { nodes: 10_000 }, withinMs: 300_000, renewals: 1 },
  { what: 'of many is replaced in time', issuer: { nodes: 10_000 }, withinMs: 60_000, renewals: 0 },
  { what: 'of a number no fleet has is replaced', issuer: { nodes: 1e15 }, withinMs: 900_000, renewals: 1 },
  { what: 'is another', issuer: { urgent: true, keyId: 'ab' }, withinMs: 15 * 60_000, renewals: 0 },
])('when a CA $what a node has renewed $renewals times within $withinMs ms', async (row) => {
  const held = certificate();
  const keeper = await open(held);
  const keyId = Buffer.from(ours.intermediate.key.publicKey.keyId).toString('hex');
  const outgoing = [{ keyId, urgent: false, nodes: 10_000, ...row.issuer }];
  keeper.leave(outgoing);
  // Told again with every change of the view.
  keeper.leave(outgoing);
  await clock.advance(row.withinMs);
  expect(shown).toHaveLength(row.renewals);
});

test('a first start with nothing to show ends', async () => {
  await expect(open(null)).rejects.toMatchObject({ code: 'node_evidence_invalid' });
});

test.each<ErrorCode>([
  'server_unreachable',
  'rate_limited',
  'shutting_down',
  'internal',
  'store_unavailable',
])(
  'a first start that meets %s is tried again, with the same key, until the server is there',
  async (code) => {
    [evidence, answers] = [token('a'), [code, code, code, 'yes']];
    const opening = open(null);
    await settle();
    expect(shown).toHaveLength(1);
    await clock.advance(20_000);
    await opening;
    expect(shown).toHaveLength(4);
    // An answer that was lost on its way can be asked for again.
    expect(new Set(keys).size).toBe(1);
  },
);

test('a first start that is stopped says so', async () => {
  [evidence, answers] = [token('a'), ['server_unreachable']];
  const opening = open(null);
  await settle();
  stop.abort();
  await expect(opening).rejects.toMatchObject({ code: 'shutting_down' });
});

test('a certificate is renewed around the middle of its life, and not before', async () => {
  await open(certificate());
  await clock.advance(25 * 60_000);
  expect(shown).toEqual([]);
  await clock.advance(10 * 60_000);
  expect(shown).toEqual(['renewal']);
});

test('one that has expired is no obstacle to the start, and is replaced with what the machine shows', async () => {
  const kept = certificate();
  await hours(60);
  [evidence, answers] = [machine, ['server_unreachable', 'server_unreachable', 'yes']];
  const keeper = await open(kept);
  expect(keeper.current()).toBe(kept);
  await settle();
  expect(keeper.trouble()).toMatchObject({ code: 'server_unreachable' });
  await clock.advance(10_000);
  expect(shown).toEqual([machine, machine, machine]);
  expect(keeper.current()).not.toBe(kept);
  expect(keeper.trouble()).toBeNull();
});

test('a token that is spent is shown once, and a new one in its place is used without a restart', async () => {
  const kept = certificate();
  await hours(60);
  [evidence, answers] = [token('old'), ['node_evidence_invalid', 'yes']];
  const keeper = await open(kept);
  await hours(1);
  expect(shown).toEqual([token('old')]);
  expect(keeper.trouble()).toMatchObject({
    code: 'node_evidence_invalid',
    fix: expect.stringContaining('join token') as string,
  });
  evidence = token('new');
  await clock.advance(2_000);
  expect(shown).toEqual([token('old'), token('new')]);
  expect(keeper.trouble()).toBeNull();
});

test('a token file that comes late is found', async () => {
  const kept = certificate();
  await hours(60);
  const keeper = await open(kept);
  await hours(1);
  expect(shown).toEqual([]);
  expect(keeper.trouble()).toMatchObject({ code: 'node_evidence_invalid' });
  evidence = token('new');
  await clock.advance(2_000);
  expect(shown).toEqual([token('new')]);
});

test('an evicted node attests anew while its certificate is still good', async () => {
  evidence = machine;
  const keeper = await open(certificate());
  const held = keeper.current();
  const changed: unknown[] = [];
  keeper.onChange(() => changed.push(keeper.current()));
  keeper.refused(held);
  await settle();
  expect(shown).toEqual([machine]);
  expect(changed).toEqual([keeper.current()]);
  expect(keeper.current()).not.toBe(held);
});

test('what is said of a certificate that was replaced meanwhile counts no longer', async () => {
  evidence = machine;
  const keeper = await open(certificate());
  const held = keeper.current();
  keeper.refused(held);
  await settle();
  keeper.refused(held);
  await hours(0.1);
  expect(shown).toEqual([machine]);
});

test('two machines with the same evidence do not push each other out without an end', async () => {
  evidence = machine;
  const keeper = await open(certificate());
  const push = clock.sleep(0).then(async () => {
    while (!stop.signal.aborted) {
      keeper.refused(keeper.current());
      await clock.sleep(1_000, stop.signal);
    }
  });
  await clock.advance(600_000);
  stop.abort();
  await push;
  expect(shown.length).toBeGreaterThan(3);
  expect(shown.length).toBeLessThan(15);
});

test('a node that is banned comes back by itself when the ban is lifted, and hammers nobody meanwhile', async () => {
  [evidence, answers] = [machine, ['identity_banned']];
  const keeper = await open(certificate());
  keeper.refused(keeper.current());
  await clock.advance(900_000);
  expect(shown.length).toBeLessThan(10);
  keeper.taken(keeper.current());
  await settle();
  expect(keeper.trouble()).toBeNull();
  const before = shown.length;
  await clock.advance(600_000);
  expect(shown).toHaveLength(before);
});

test('a renewal that is refused leads to another attestation', async () => {
  [evidence, answers] = [machine, ['node_refused', 'yes']];
  await open(certificate());
  await clock.advance(35 * 60_000);
  expect(shown).toEqual(['renewal', machine]);
});

test('evidence that cannot be read is named, and looked at again', async () => {
  const kept = certificate();
  await hours(60);
  let broken = true;
  evidence = machine;
  const keeper = await keepIdentity({
    kept,
    evidence: () => {
      if (broken) throw new MeshError('file_permissions', 'the token is open to other users');
      return evidence;
    },
    attest: answer,
    renew: (_, key) => answer('renewal', key),
    generateKeyPair: async () => ({ publicKey: new Uint8Array(1), privateKey: new Uint8Array(1) }),
    clock,
    random: () => 0.5,
    complain: () => undefined,
    signal: stop.signal,
  });
  running = keeper.run();
  await settle();
  expect(keeper.trouble()).toMatchObject({ code: 'file_permissions' });
  broken = false;
  await clock.advance(2_000);
  expect(shown).toEqual([machine]);
});
