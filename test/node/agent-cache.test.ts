import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { openAgentCache } from '../../src/agent-cache.ts';
import { isStale, staleSnapshot } from '../../src/agent-staleness.ts';
import { deniesAt } from '../../src/agent-status.ts';
import { decide } from '../../src/authz/decide.ts';
import { untold } from '../../src/authz/context.ts';
import type { AuthzRequest } from '../../src/authz/decision.ts';
import { banKey, parseBan } from '../../src/identity/ban.ts';
import { parseEntry } from '../../src/identity/entry-parse.ts';
import {
  type AgentState,
  type CacheBinding,
  openShownKey,
  openState,
  sealShownKey,
  sealState,
} from '../../src/node/agent-cache.ts';
import { backOff } from '../../src/node/node-identity.ts';
import { viewFromWire, viewToWire } from '../../src/node/view-wire.ts';
import { SpiffeId, TrustDomain } from '../../src/spiffe/id.ts';
import { View } from '../../src/wire/node.ts';
import { makeTestAuthority } from '../ca/test-authority.ts';
import { createScope } from '../harness/scope.ts';
import { makeTempDir } from '../harness/temp.ts';
import { makeNodeCertificate } from './node-certificates.ts';

const scope = createScope();
afterAll(() => scope.close());

const now = new Date('2026-01-01T00:00:00.000Z');
const trustDomain = TrustDomain.parse('mesh.test');
const binding: CacheBinding = { trustDomain, machineId: 'one machine', key: new Uint8Array(32).fill(7) };
let state: AgentState;

beforeAll(async () => {
  const authority = await makeTestAuthority(now, {}, 'mesh.test');
  const shown = await makeNodeCertificate(authority, 'web-1', now);
  const { nodes: _, ...entry } = parseEntry(
    {
      id: 'web',
      spiffeId: 'spiffe://mesh.test/ns/shop/sa/web',
      selectors: ['unix:uid:1000'],
      labels: { app: 'web' },
      expiresAt: '2027-01-01T00:00:00Z',
    },
    { trustDomain, ttlSeconds: 60 },
    3,
  );
  const ban = parseBan({ kind: 'serial', value: 'ab', reason: 'stolen', until: '2h' }, trustDomain, {
    actor: { kind: 'system' },
    revision: 4,
    now,
  });
  const policy = { key: 'a/b', source: 'x: 1\n', file: 'f', line: 2, sha256: 'ab', revision: 2 };
  state = {
    identity: { certificates: shown.certificates, privateKey: Uint8Array.of(1, 2, 3) },
    view: {
      revision: 5,
      mesh: {
        revision: 4,
        entries: new Map([[entry.id, entry]]),
        policies: new Map([[policy.key, policy]]),
        bans: new Map([[banKey(ban), ban]]),
      },
      bundle: authority.authority.bundle,
      jwtBundle: { trustDomain, authorities: [{ keyId: 'k', publicKey: Uint8Array.of(9) }], sequence: 2 },
      crls: [Uint8Array.of(4, 5)],
      outgoing: [{ keyId: 'ab12', urgent: true, nodes: 3 }],
      settings: {
        trustDomain: 'mesh.test',
        rootNamespace: 'istio-system',
        ttlSeconds: 60,
        maxStalenessSeconds: 3_600,
      },
    },
    freshAt: now,
    generation: 3,
    auditLogKey: 'example.org/audit+ea56f524+AW15',
    svids: [
      {
        id: entry.spiffeId,
        certificates: shown.certificates,
        privateKey: Uint8Array.of(6),
        serial: shown.serial,
        issuerKeyId: 'ab',
        notBefore: now,
        notAfter: shown.notAfter,
        hint: '',
        entryId: 'web',
      },
    ],
  };
});

test('a view comes back from the wire as it went', () => {
  const bytes = View.encode(viewToWire(state.view)).finish();
  expect(viewFromWire(View.decode(bytes))).toEqual(state.view);
});

test('a state comes back from its seal as it went', () => {
  expect(openState(seal(), binding)).toEqual(state);
});

test('no two seals are alike', () => {
  expect(Buffer.from(seal()).equals(Buffer.from(seal()))).toBe(false);
});

test.each<[string, Partial<CacheBinding>, string]>([
  ['another machine', { machineId: 'another machine' }, 'is of another machine, or damaged'],
  ['another key file', { key: new Uint8Array(32) }, 'is of another machine, or damaged'],
  [
    'another trust domain',
    { trustDomain: TrustDomain.parse('other.test') },
    'is of the trust domain "mesh.test"',
  ],
])('a cache is refused on %s', (_, other, why) => {
  expect(() => openState(seal(), { ...binding, ...other })).toThrow(
    expect.objectContaining({ code: 'agent_cache_invalid', message: `the sealed cache ${why}` }),
  );
});

test.each<[string, (bytes: Buffer) => Uint8Array]>([
  ['nothing', () => new Uint8Array(0)],
  ['a header alone', (bytes) => bytes.subarray(0, bytes.indexOf(10) + 1)],
  ['a cut tag', (bytes) => bytes.subarray(0, bytes.indexOf(10) + 20)],
  ['a cut end', (bytes) => bytes.subarray(0, -1)],
  ['something after it', (bytes) => Buffer.concat([bytes, Buffer.from('x')])],
  [
    'another version',
    (bytes) => Buffer.concat([Buffer.from('countersign-agent-cache-9'), bytes.subarray(25)]),
  ],
  ['a megabyte without a line', () => new Uint8Array(1_048_576).fill(97)],
])('a damaged cache is refused: %s', (_, damage) => {
  expect(() => openState(damage(Buffer.from(seal())), binding)).toThrow(
    expect.objectContaining({ code: 'agent_cache_invalid' }),
  );
});

test('every flipped byte is noticed', () => {
  const bytes = seal();
  for (let at = 0; at < bytes.length; at += 97) {
    const flipped = Uint8Array.from(bytes);
    flipped[at] = (flipped[at] ?? 0) ^ 0x20;
    expect(() => openState(flipped, binding)).toThrow(
      expect.objectContaining({ code: 'agent_cache_invalid' }),
    );
  }
});

test.each<[string, string, Partial<CacheBinding>, (bytes: Uint8Array) => Uint8Array, boolean]>([
  ['here', 'ab', {}, (bytes) => bytes, true],
  ['for another token', 'cd', {}, (bytes) => bytes, false],
  ['on another machine', 'ab', { machineId: 'another machine' }, (bytes) => bytes, false],
  ['cut', 'ab', {}, (bytes) => bytes.subarray(0, 40), false],
  ['gone', 'ab', {}, () => new Uint8Array(0), false],
])('the key that a token was shown with, %s', (_, digest, other, spoil, opens) => {
  const key = { publicKey: Uint8Array.of(1, 2), privateKey: Uint8Array.of(3) };
  const sealed = sealShownKey('ab', key, binding, (size) => new Uint8Array(randomBytes(size)));
  expect(openShownKey(digest, spoil(sealed), { ...binding, ...other })).toEqual(opens ? key : undefined);
});

test('of a token that was shown the key is kept until the certificate for it is', async () => {
  const dir = makeTempDir(scope);
  const random = (size: number) => new Uint8Array(randomBytes(size));
  const key = { publicKey: Uint8Array.of(1, 2), privateKey: Uint8Array.of(3) };
  openAgentCache(dir, random).shownKeys.save('ab', key);
  const cache = openAgentCache(dir, random);
  expect(cache.shownKeys.load('ab')).toEqual(key);
  cache.save(state);
  expect(openAgentCache(dir, random).shownKeys.load('ab')).toEqual(key);
  cache.save({ ...state, identity: { ...state.identity, privateKey: key.privateKey } });
  expect(openAgentCache(dir, random).shownKeys.load('ab')).toBeUndefined();
});

test.each<[string, Partial<AuthzRequest>]>([
  ['a call', {}],
  ['a TCP connection', { protocol: 'tcp', method: '', host: '', path: '' }],
])('a policy that is too old denies %s, by a rule that says so', (_, change) => {
  const settings = { trustDomain, rootNamespace: 'istio-system', ttlSeconds: 60 };
  const request: AuthzRequest = {
    source: SpiffeId.parse('spiffe://mesh.test/ns/shop/sa/web'),
    destination: SpiffeId.parse('spiffe://mesh.test/ns/pay/sa/ledger'),
    protocol: 'http',
    method: 'GET',
    host: 'ledger',
    hostPort: null,
    path: '/',
    port: 1,
    context: untold,
    ...change,
  };
  expect(
    decide(staleSnapshot({ revision: 9 }, settings), request, new Date('2026-11-21T12:00:00Z')),
  ).toMatchObject({
    verdict: 'deny',
    revision: 9,
    rule: expect.stringContaining('countersign-stale-policy') as string,
  });
});

const day = 86_400_000;
test.each<[string, number, boolean, number]>([
  ['just now', 0, false, day],
  ['for a day less a second', -day + 1_000, false, 1_000],
  ['for a day', -day, false, 0],
  ['for longer than a day', -day - 1, true, -1],
  ['in an hour, by a clock that was put back', 3_600_000, false, day + 3_600_000],
  ['in two days, by a clock that was put back', 2 * day, true, 0],
])('when calls are denied is told as it is: policy was confirmed %s', (_, atMs, stale, deniesInMs) => {
  const freshAt = new Date(now.getTime() + atMs);
  const settings = { ...state.view.settings, maxStalenessSeconds: 86_400 };
  expect(isStale(freshAt, now, settings)).toBe(stale);
  expect(deniesAt(freshAt, now, settings).getTime() - now.getTime()).toBe(deniesInMs);
});

test.each([
  [0, 250],
  [1, 500],
  [3, 2_000],
  [6, 10_000],
  [1_000_000, 10_000],
])('after %i failures it waits anything up to %i ms', (failures, most) => {
  expect(backOff(failures, () => 0)).toBe(0);
  expect(backOff(failures, () => 1)).toBe(most);
});

function seal(): Uint8Array {
  return sealState(state, binding, (size) => new Uint8Array(randomBytes(size)));
}
