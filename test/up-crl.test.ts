import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { Authority } from '../src/ca/authority.ts';
import { listLifeSeconds } from '../src/ca/crl.ts';
import type { CaKey } from '../src/ca/key-port.ts';
import type { StoredAuthority } from '../src/ca/stored.ts';
import { MeshError } from '../src/errors.ts';
import type { Ban } from '../src/identity/ban.ts';
import { banKey } from '../src/identity/ban.ts';
import { compileMesh, createMeshHolder } from '../src/identity/current-mesh.ts';
import type { RegistrationEntry } from '../src/identity/entry.ts';
import { createNotice } from '../src/identity/notice.ts';
import type { NamedCertificate } from '../src/identity/revoked.ts';
import { SpiffeId, TrustDomain } from '../src/spiffe/id.ts';
import { openRevocationLists, type RevocationLists } from '../src/up-crl.ts';
import { makeIssuer } from './ca/crl-issuer.ts';
import { manualClock, settle } from './harness/manual-clock.ts';

const trustDomain = TrustDomain.parse('mesh.test');
const settings = { trustDomain, rootNamespace: 'istio-system', ttlSeconds: 3_600 };
const web = 'spiffe://mesh.test/ns/shop/sa/web';
const cas = ['ecdsa-p256', 'ecdsa-p384'].map((kind) => makeIssuer(kind).issuer);
const [first, second] = cas.map(({ certificate }) => certificate.keyId) as [string, string];
const hourMs = 3_600_000;

let clock: ReturnType<typeof manualClock>;
let world: ReturnType<typeof openWorld>;
let lists: RevocationLists;

beforeEach(async () => {
  clock = manualClock();
  world = openWorld();
  lists = await open();
});
afterEach(() => lists.close());

const open = () => openRevocationLists({ ...world.parts, trustDomain, clock });

/** CAs that are there or not, a store that answers or not, bans that come and go. */
function openWorld() {
  const state = {
    signing: [first],
    active: first,
    mayStillSign: true,
    ends: new Map<string, Date>(),
    broken: false,
    number: null as string | null,
    certificates: [] as NamedCertificate[],
    alarms: [] as string[],
  };
  const authorities = createNotice();
  const entries = new Map([
    ['web', { id: 'web', spiffeId: SpiffeId.parse(web), selectors: [], labels: {}, ttlSeconds: 3_600 }],
  ]);
  const mesh = (bans: readonly Ban[]) =>
    compileMesh(
      {
        revision: 1,
        entries: entries as unknown as ReadonlyMap<string, RegistrationEntry>,
        policies: new Map(),
        bans: new Map(bans.map((one) => [banKey(one), one])),
      },
      new Map(),
      settings,
    );
  const holder = createMeshHolder(mesh([]));
  const answer = <T>(value: T): T => {
    if (state.broken) throw new MeshError('store_unavailable', 'broken');
    return value;
  };
  const parts = {
    authority: {
      current: () =>
        ({
          issuerKeyId: state.active,
          notAfter: state.ends.get(state.active) ?? new Date(clock.now().getTime() + 999 * hourMs),
        }) as Authority,
      stored: () =>
        state.signing.map(
          (keyId): StoredAuthority =>
            ({
              kind: 'intermediate',
              keyId,
              state: 'active',
              certificate: cas.find(({ certificate }) => certificate.keyId === keyId)?.certificate.der,
            }) as unknown as StoredAuthority,
        ),
      mayStillSign: () => state.mayStillSign,
      onChange: authorities.subscribe,
    },
    openKey: async (keyId: string): Promise<CaKey> =>
      cas.find(({ certificate }) => certificate.keyId === keyId)?.key as CaKey,
    holder,
    store: {
      namedCertificates: async () => answer({ certificates: state.certificates, unknownSerials: [] }),
      readMeta: async () => answer(state.number),
      commitMeta: async (_key: string, value: string) => {
        answer(null);
        expect(Number(value)).toBeGreaterThan(Number(state.number ?? '0'));
        state.number = value;
      },
    },
    log: {
      warn: () => undefined,
      error: (_detail: unknown, message?: string) => void state.alarms.push(message ?? ''),
    } as never,
  };
  const setBans = async (...bans: readonly Ban[]): Promise<void> => {
    holder.replace(mesh(bans));
    await clock.advance(100);
  };
  return { state, parts, authorities, setBans };
}

const ban = (rest: Partial<Ban> = {}): Ban => ({
  kind: 'spiffe-id',
  value: web,
  reason: 'test',
  until: null,
  createdAt: clock.now(),
  actor: { kind: 'uid', uid: 0, role: 'admin' },
  revision: 1,
  ...rest,
});
const certificate = (serial: string, rest: Partial<NamedCertificate> = {}): NamedCertificate => ({
  serial,
  spiffeId: web,
  spkiSha256: 'aa'.repeat(32),
  issuerKeyId: first,
  notAfter: new Date(clock.now().getTime() + hourMs),
  ...rest,
});

describe('lists', () => {
  test('are published while a certificate is revoked, of all CAs, and withdrawn after', async () => {
    world.state.signing = [first, second];
    world.state.certificates = [certificate('40aa')];
    const told: number[] = [];
    lists.onChange(() => told.push(lists.published().length));
    expect(lists.published()).toEqual([]);
    await world.setBans(ban());
    expect(lists.published()).toHaveLength(2);
    expect((await lists.current()).map(({ entries }) => entries.length)).toEqual([1, 0]);
    // Nothing changes: the same array, and no proxy is woken.
    const same = lists.published();
    await world.setBans(ban());
    expect(lists.published()).toBe(same);
    await world.setBans();
    expect(lists.published()).toEqual([]);
    expect(told).toEqual([2, 0]);
  });

  test('a ban of nobody who has a certificate publishes none', async () => {
    await world.setBans(ban());
    expect(lists.published()).toEqual([]);
    expect(await lists.current()).toHaveLength(1);
  });

  test('are withdrawn when the last certificate in them has expired, and when its ban ends', async () => {
    world.state.certificates = [certificate('40aa')];
    await world.setBans(ban());
    expect(lists.published()).toHaveLength(1);
    await clock.advance(hourMs);
    // For those whose clocks are behind.
    expect(lists.published()).toHaveLength(1);
    await clock.advance(310_000);
    expect(lists.published()).toEqual([]);
    world.state.certificates = [certificate('40bb')];
    await world.setBans(ban({ until: new Date(clock.now().getTime() + 60_000) }));
    expect((await lists.current())[0]?.entries).toMatchObject([
      { serial: '40bb', reason: 'certificate_hold' },
    ]);
    await clock.advance(61_000);
    expect(lists.published()).toEqual([]);
  });

  test('are renewed while two thirds of their life are left, with a number of their own', async () => {
    world.state.certificates = [
      certificate('40aa', { notAfter: new Date(clock.now().getTime() + 90 * hourMs) }),
    ];
    await world.setBans(ban());
    const [before] = await lists.current();
    await clock.advance(25 * hourMs);
    const [after] = await lists.current();
    expect(after?.number).toBeGreaterThan(before?.number ?? 0);
    expect((after?.nextUpdate.getTime() ?? 0) - clock.now().getTime()).toBeGreaterThan(48 * hourMs);
    expect(lists.published()).toEqual([after?.der]);
  });

  test('of a store that is away stay while they outlive every leaf, then are withdrawn, and come back', async () => {
    world.state.certificates = [
      certificate('40aa', { notAfter: new Date(clock.now().getTime() + 200 * hourMs) }),
    ];
    await world.setBans(ban());
    world.state.broken = true;
    await clock.advance(listLifeSeconds * 1_000 - 26 * hourMs);
    expect(lists.published()).toHaveLength(1);
    expect(world.state.alarms.length).toBeGreaterThan(0);
    await clock.advance(3 * hourMs);
    expect(lists.published()).toEqual([]);
    await expect(lists.current()).rejects.toMatchObject({ code: 'store_unavailable' });
    world.state.broken = false;
    await clock.advance(61_000);
    expect(lists.published()).toHaveLength(1);
  });

  test('start anew after a restart before anybody is served, with higher numbers', async () => {
    world.state.certificates = [certificate('40aa')];
    await world.setBans(ban());
    const [before] = await lists.current();
    await lists.close();
    lists = await open();
    expect(lists.published()).toHaveLength(1);
    expect((await lists.current())[0]?.number).toBeGreaterThan(before?.number ?? 0);
  });

  test('a clock that was put back leaves no list from the future', async () => {
    world.state.certificates = [certificate('40aa')];
    await world.setBans(ban());
    clock.jump(-10 * hourMs);
    const [list] = await lists.current();
    expect(list?.thisUpdate.getTime()).toBeLessThan(clock.now().getTime());
  });
});

describe('a CA that takes over', () => {
  const takeOver = async (): Promise<void> => {
    lists.signer();
    world.state.signing = [first, second];
    world.state.active = second;
    await settle();
  };
  const signs = () => lists.signer().issuerKeyId;

  test('signs at once when no proxy has lists', async () => {
    await takeOver();
    expect(signs()).toBe(second);
  });

  test('signs when its list is out for as long as leaves live', async () => {
    world.state.certificates = [
      certificate('40aa', { notAfter: new Date(clock.now().getTime() + 9 * hourMs) }),
    ];
    await world.setBans(ban());
    await takeOver();
    expect(signs()).toBe(first);
    await clock.advance(1_000);
    expect(lists.published()).toHaveLength(2);
    await clock.advance(hourMs - 60_000);
    expect(signs()).toBe(first);
    await clock.advance(120_000);
    expect(signs()).toBe(second);
  });

  test('waits for those who hear no more of us also when the ban is lifted', async () => {
    world.state.certificates = [certificate('40aa')];
    await world.setBans(ban());
    await takeOver();
    await world.setBans();
    expect(signs()).toBe(first);
    await clock.advance(hourMs + 1_000);
    expect(signs()).toBe(second);
  });

  test('signs at once when the one before it may not any more', async () => {
    world.state.certificates = [certificate('40aa')];
    await world.setBans(ban());
    await takeOver();
    world.state.mayStillSign = false;
    expect(signs()).toBe(second);
  });

  test('waits no longer than the one before it can sign', async () => {
    world.state.ends.set(first, new Date(clock.now().getTime() + hourMs / 2));
    world.state.certificates = [
      certificate('40aa', { notAfter: new Date(clock.now().getTime() + 9 * hourMs) }),
    ];
    await world.setBans(ban());
    await takeOver();
    expect(signs()).toBe(first);
    await clock.advance(hourMs / 2 - 120_000);
    expect(signs()).toBe(second);
  });

  test('takes over at once from one that has ended', async () => {
    world.state.ends.set(first, new Date(clock.now().getTime() + 1_000));
    world.state.certificates = [certificate('40aa')];
    await world.setBans(ban());
    await clock.advance(2_000);
    await takeOver();
    expect(signs()).toBe(second);
  });

  test('waits as long however often bans come and go meanwhile', async () => {
    const over = { notAfter: new Date(clock.now().getTime() + 9 * hourMs) };
    world.state.certificates = [certificate('40aa', over)];
    await world.setBans(ban());
    await takeOver();
    expect(signs()).toBe(first);
    await clock.advance(1_000);
    for (let at = 0; at < 70; at++) {
      world.state.certificates.push(certificate(`41${String(at).padStart(2, '0')}`, over));
      await world.setBans(ban());
    }
    expect(lists.published()).toHaveLength(2);
    expect(signs()).toBe(first);
    await clock.advance(hourMs);
    expect(signs()).toBe(second);
  });

  test('that was prepared while lists were out signs at once', async () => {
    world.state.certificates = [
      certificate('40aa', { notAfter: new Date(clock.now().getTime() + 9 * hourMs) }),
    ];
    await world.setBans(ban());
    world.state.signing = [first, second];
    world.authorities.announce();
    await clock.advance(2 * hourMs);
    lists.signer();
    world.state.active = second;
    expect(signs()).toBe(second);
  });
});
