import { createHash } from 'node:crypto';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { Actor } from '../../src/audit/event.ts';
import { type BanInput, parseBan } from '../../src/identity/ban.ts';
import { type BanList, indexBans, noBans } from '../../src/identity/ban-list.ts';
import type { WorkloadCredentials } from '../../src/identity/credentials.ts';
import type { RegistrationEntry } from '../../src/identity/entry.ts';
import { parseEntry } from '../../src/identity/entry-parse.ts';
import type { Attestation } from '../../src/identity/evidence.ts';
import { createIssuer, type IssueX509 } from '../../src/identity/issuer.ts';
import { createKeeper, type Keeper } from '../../src/identity/keeper.ts';
import { createNotice } from '../../src/identity/notice.ts';
import { indexEntries } from '../../src/identity/registry.ts';
import { parseSelector } from '../../src/identity/selector.ts';
import { createWatch } from '../../src/identity/watch.ts';
import { makeKey, makeTestAuthority } from '../ca/test-authority.ts';
import type { TrustBundle } from '../../src/spiffe/bundle.ts';
import { TrustDomain } from '../../src/spiffe/id.ts';
import { type ManualClock, manualClock, settle } from '../harness/manual-clock.ts';

const trustDomain = TrustDomain.parse('mesh.test');
const bundle: TrustBundle = { trustDomain, x509Authorities: [], sequence: 1 };
const actor: Actor = { kind: 'uid', uid: 0, role: 'admin' };
const attestation: Attestation = {
  selectors: [parseSelector('unix:uid:1')],
  caller: { pid: 1, uid: 1, gid: 1 },
};

let clock: ManualClock;
let keeper: Keeper;
let entries: RegistrationEntry[];
let bans: BanList;
let issued: string[];
let failures: unknown[];
let stop: AbortController;
let hold: Promise<void>;
const changed = createNotice();

const issue: IssueX509 = async ({ entry: { spiffeId, ttlSeconds } }) => {
  await hold;
  const now = clock.now();
  issued.push(spiffeId.text.slice('spiffe://mesh.test/'.length));
  return {
    certificates: [new Uint8Array([issued.length])],
    serial: `0${issued.length}`,
    issuerKeyId: 'aa',
    notBefore: now,
    notAfter: new Date(now.getTime() + ttlSeconds * 1_000),
  };
};

beforeEach(() => {
  clock = manualClock();
  bans = noBans;
  hold = Promise.resolve();
  [issued, failures] = [[], []];
  // The default one has the more telling selector.
  entries = [entry('web'), entry('zebra')];
  stop = new AbortController();
  let keys = 0;
  keeper = createKeeper({
    issue,
    bans: () => bans,
    onChange: changed.subscribe,
    generateKeyPair: async () => ({ publicKey: new Uint8Array([++keys]), privateKey: new Uint8Array(1) }),
    clock,
    random: () => 0.5,
    onFailure: (_, error) => failures.push(error),
  });
});

afterEach(() => {
  stop.abort();
  keeper.close();
});

function entry(id: string): RegistrationEntry {
  const input = { id, spiffeId: `spiffe://mesh.test/${id}`, selectors: ['unix:uid:1'], ttlSeconds: 100 };
  return parseEntry(input, { trustDomain, ttlSeconds: 100 }, 1);
}

function setBans(...inputs: readonly Partial<BanInput>[]): Promise<void> {
  bans = indexBans(inputs.map(made));
  changed.announce();
  return settle();
}

function made(input: Partial<BanInput>) {
  const whole = { kind: 'spiffe-id', value: 'spiffe://mesh.test/web', reason: 'test', ...input };
  return parseBan(whole, trustDomain, { actor, revision: 1, now: clock.now() });
}

function follow(): WorkloadCredentials[] {
  const seen: WorkloadCredentials[] = [];
  const watch = createWatch({
    trustDomain,
    registry: () => indexEntries(entries),
    bans: () => bans,
    bundles: () => new Map([['mesh.test', bundle]]),
    jwtBundles: () => new Map(),
    keeper,
    clock,
    onChange: changed.subscribe,
  });
  void (async () => {
    for await (const credentials of watch(attestation, stop.signal)) seen.push(credentials);
  })();
  return seen;
}

/** `web=01 zebra=02`, a banned identity as `-web`, and `!` when the default is banned. */
const states = (seen: readonly WorkloadCredentials[]) =>
  seen.map(({ svids, banned, isDefaultBanned }) =>
    [
      ...svids.map(({ entryId, serial }) => `${entryId}=${serial}`),
      ...banned.map(({ path }) => `-${path.slice(1)}`),
      ...(isDefaultBanned ? ['!'] : []),
    ].join(' '),
  );

describe('a watch', () => {
  test('loses the banned identity at once and keeps the other, which does not become the default', async () => {
    const seen = follow();
    await settle();
    await setBans({});
    expect(states(seen)).toEqual(['web=01 zebra=02', 'zebra=02 -web !']);
    await setBans();
    expect(states(seen).at(-1)).toBe('web=03 zebra=02');
  });

  test('keeps its default when another identity is banned', async () => {
    const seen = follow();
    await settle();
    await setBans({ value: 'spiffe://mesh.test/zebra' });
    expect(states(seen).at(-1)).toBe('web=01 -zebra');
    expect(seen.at(-1)?.bundles.size).toBe(1);
  });

  test('has nothing left, bundles neither, when its only identity is banned', async () => {
    entries = [entry('web')];
    const seen = follow();
    await settle();
    await setBans({});
    expect(states(seen)).toEqual(['web=01', '-web !']);
    expect(seen.at(-1)?.bundles.size).toBe(0);
  });

  test('that begins during a ban is given nothing, and is given its identity when the ban is lifted', async () => {
    entries = [entry('web')];
    await setBans({});
    const seen = follow();
    await clock.advance(500_000);
    expect([states(seen), issued]).toEqual([['-web !'], []]);
    await setBans();
    expect(states(seen)).toEqual(['-web !', 'web=01']);
  });

  test('wakes by itself at the end of a ban, and not before', async () => {
    entries = [entry('web')];
    const seen = follow();
    await settle();
    await setBans({ until: '10m' });
    await clock.advance(599_000);
    expect(states(seen)).toEqual(['web=01', '-web !']);
    await clock.advance(1_000);
    expect(states(seen)).toEqual(['web=01', '-web !', 'web=02']);
  });

  test('is not touched by the ban of somebody else', async () => {
    const seen = follow();
    await settle();
    await setBans({ value: 'spiffe://mesh.test/other' }, { kind: 'serial', value: '77' });
    expect(states(seen)).toEqual(['web=01 zebra=02']);
  });
});

describe('the keeper', () => {
  test('neither issues nor renews during a ban, and forgets what it had', async () => {
    entries = [entry('web')];
    follow();
    await settle();
    await setBans({});
    expect(keeper.kept()).toEqual([]);
    await clock.advance(1_000_000);
    expect([issued, failures]).toEqual([['web'], []]);
  });

  test('drops what comes back from the issuer after the ban', async () => {
    entries = [entry('web')];
    const { promise, resolve } = Promise.withResolvers<void>();
    hold = promise;
    const seen = follow();
    await settle();
    await setBans({});
    resolve();
    await settle();
    expect([states(seen), keeper.kept()]).toEqual([['-web !'], []]);
  });

  test.each([
    ['serial', '01'],
    [
      'key',
      createHash('sha256')
        .update(new Uint8Array([1]))
        .digest('hex'),
    ],
  ])('replaces a certificate at once whose %s is banned, and leaves the others', async (kind, value) => {
    const seen = follow();
    await settle();
    await setBans({ kind, value });
    expect(states(seen)).toEqual(['web=01 zebra=02', 'web=03 zebra=02']);
    expect(issued).toEqual(['web', 'zebra', 'web']);
  });
});

describe('the issuer', () => {
  const key = makeKey('ec-prime256v1');
  const spkiSha256 = createHash('sha256').update(key.spki).digest('hex');
  const moments = ['before', 'while the record is written', 'while it is signed'] as const;

  test.each(moments)('refuses an identity that is banned %s', async (moment) => {
    const { authority } = await makeTestAuthority(clock.now(), {}, 'mesh.test');
    const recorded: unknown[] = [];
    const ban = () => {
      bans = indexBans([made({})]);
    };
    if (moment === 'before') ban();
    const issuer = createIssuer({
      authority: () => ({
        ...authority,
        sign: async (prepared) => {
          const signed = await authority.sign(prepared);
          if (moment === 'while it is signed') ban();
          return signed;
        },
      }),
      record: async (event) => {
        recorded.push(event);
        if (moment === 'while the record is written') ban();
        return null;
      },
      clock,
      mayStillSign: () => true,
      isCurrent: () => true,
      bans: () => bans,
    });
    const request = { entry: entry('web'), publicKey: key.spki, attestation };
    await expect(issuer(request)).rejects.toMatchObject({ code: 'identity_banned', kind: 'forbidden' });
    expect(recorded).toHaveLength(moment === 'before' ? 0 : 1);
    await expect(issuer({ ...request, entry: entry('zebra') })).resolves.toBeDefined();
  });

  test('refuses a banned key for whatever identity, and records nothing', async () => {
    const { authority } = await makeTestAuthority(clock.now(), {}, 'mesh.test');
    const recorded: unknown[] = [];
    bans = indexBans([made({ kind: 'key', value: spkiSha256, until: '1h' })]);
    const issuer = createIssuer({
      authority: () => authority,
      record: async (event) => {
        recorded.push(event);
        return null;
      },
      clock,
      isCurrent: () => true,
      mayStillSign: () => true,
      bans: () => bans,
    });
    const request = { entry: entry('zebra'), publicKey: key.spki, attestation };
    await expect(issuer(request)).rejects.toMatchObject({ code: 'identity_banned' });
    expect(recorded).toEqual([]);
    await clock.advance(3_600_000);
    await expect(issuer(request)).resolves.toBeDefined();
  });
});
