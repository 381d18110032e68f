import type { Authority } from './ca/authority.ts';
import {
  listLifeSeconds,
  maxRevoked,
  type RevocationList,
  type RevokedCertificate,
  signRevocationList,
} from './ca/crl.ts';
import { openIssuer, type Issuer } from './ca/issuer.ts';
import type { CaKey } from './ca/key-port.ts';
import type { StoredAuthority } from './ca/stored.ts';
import type { Clock } from './clock.ts';
import { MeshError, publicError } from './errors.ts';
import type { MeshHolder } from './identity/current-mesh.ts';
import { createLatch, createNotice, latchOrSleep } from './identity/notice.ts';
import { expiredKeptMs, namedBy, type Revocations, revocationsOf } from './identity/revoked.ts';
import { createTurns } from './identity/turns.ts';
import type { Log } from './log.ts';
import type { TrustDomain } from './spiffe/id.ts';
import type { Store } from './store/store.ts';
import type { KeptAuthority } from './up-authority.ts';

/** The revocation lists of the CAs of this process. */
export type RevocationLists = {
  /**
   * What proxies are given: one current list of every CA whose leaves may be presented; none at all while nothing is
   * revoked, or when one of the lists cannot be had. The same array until it changes.
   */
  readonly published: () => readonly Uint8Array[];
  /** Calls back when what is published has changed. */
  readonly onChange: (listener: () => void) => () => void;
  /** One current list of every CA, made now if need be. @throws MeshError `store_unavailable`, `internal` */
  readonly current: () => Promise<readonly RevocationList[]>;
  /** Who signs leaves: the active CA, from when no proxy is left that has lists and not the one of that CA. */
  readonly signer: () => Authority;
  readonly close: () => Promise<void>;
};

export type RevocationParts = {
  readonly authority: Pick<KeptAuthority, 'current' | 'stored' | 'mayStillSign' | 'onChange'>;
  readonly openKey: (keyId: string) => Promise<CaKey>;
  readonly holder: MeshHolder;
  readonly store: Pick<Store, 'namedCertificates' | 'readMeta' | 'commitMeta'>;
  readonly trustDomain: TrustDomain;
  readonly clock: Clock;
  readonly log: Pick<Log, 'warn' | 'error'>;
};

/**
 * Keeps the lists in step with the bans and the CAs. A proxy with lists demands one of every CA whose leaf it meets, and
 * refuses all handshakes with a list that has expired, so:
 *
 * - lists are published only while a certificate is revoked, and then those of all CAs in one step
 * - a list lives three times as long as the longest leaf and is renewed after one: a proxy cut off from us loses its
 *   certificate before its lists
 * - a CA that was made meanwhile signs no leaf before proxies have had its list for as long as leaves live; it is the CA
 *   before it that goes on, unless that may not, or ends: then whoever has its list alone has no leaf any more either
 * - what cannot be renewed in time is withdrawn, with an alarm: ext_authz enforces every ban without it
 */
export async function openRevocationLists(parts: RevocationParts): Promise<RevocationLists> {
  const { authority, holder, clock, log } = parts;
  const notice = createNotice();
  const latch = createLatch();
  const inTurn = createTurns(1);
  const stop = new AbortController();
  const issuers = new Map<string, Issuer>();
  let lists: readonly RevocationList[] = [];
  let published: Published = { lists: [], ders: [] };
  /** Sets that proxies may still hold, with the moment they were replaced. */
  let earlier: readonly { readonly keyIds: ReadonlySet<string>; readonly untilMs: number }[] = [];
  let signer: Authority | undefined;
  let lastNumber: number | undefined;

  const refresh = async (): Promise<Revocations> => {
    const now = clock.now();
    const bans = [...holder.current().mesh.bans.values()];
    const names = namedBy(bans, now);
    const isIdle = names.spiffeIds.length + names.serials.length + names.keys.length === 0;
    const named = isIdle
      ? nothingNamed
      : await parts.store.namedCertificates(names, new Date(now.getTime() - expiredKeptMs));
    const revocations = revocationsOf(bans, named, now);
    if (revocations.omitted > 0) log.warn({ omitted: revocations.omitted }, 'revocation lists are full');
    const wanted = signingAuthorities(authority.stored()).map((stored) => ({
      stored,
      entries: entriesFor(stored.keyId, revocations),
    }));
    const kept = (keyId: string) => lists.find(({ issuerKeyId }) => issuerKeyId === keyId);
    const due = wanted.filter(({ stored, entries }) => {
      const list = kept(stored.keyId);
      return list === undefined || isOld(list, now) || !sameEntries(list.entries, entries);
    });
    // INVARIANT: a number is spent durably before it is used, so that none is ever used twice.
    let number = await reserve(due.length);
    const made = await Promise.all(
      due.map(async ({ stored, entries }) =>
        signRevocationList(await issuerOf(stored), { number: number++, entries, now }),
      ),
    );
    const next = new Map([...lists, ...made].map((list) => [list.issuerKeyId, list]));
    lists = wanted.flatMap(({ stored }) => next.get(stored.keyId) ?? []);
    return revocations;
  };
  const reserve = async (count: number): Promise<number> => {
    lastNumber ??= Number((await parts.store.readMeta('crl_number')) ?? '0');
    if (!Number.isSafeInteger(lastNumber))
      throw new MeshError('store_corrupt', 'the store holds no CRL number');
    if (count > 0) await parts.store.commitMeta('crl_number', `${lastNumber + count}`, []);
    const first = lastNumber + 1;
    lastNumber += count;
    return first;
  };
  const issuerOf = async ({ keyId, certificate }: StoredAuthority): Promise<Issuer> => {
    const known = issuers.get(keyId);
    if (known !== undefined) return known;
    const issuer = openIssuer(certificate, await parts.openKey(keyId), parts.trustDomain);
    issuers.set(keyId, issuer);
    return issuer;
  };
  const publish = (wanted: readonly RevocationList[]): void => {
    const now = clock.now().getTime();
    if (wanted.length === published.lists.length && wanted.every((list) => published.lists.includes(list)))
      return;
    const keyIds = new Set(published.lists.map(({ issuerKeyId }) => issuerKeyId));
    // INVARIANT: one for each set of CAs, of which there are few: bans, which are many, push none of them out.
    earlier = earlier.filter((set) => now - set.untilMs < longestHoldMs && !isSameSet(set.keyIds, keyIds));
    if (keyIds.size > 0) earlier = [...earlier, { keyIds, untilMs: now }];
    published = { lists: wanted, ders: wanted.map(({ der }) => der) };
    notice.announce();
  };
  /** Brings all up to date. @returns for how long nothing is to be done, in ms */
  const follow = async (): Promise<number> => {
    const isIdle = holder.current().mesh.bans.size === 0;
    if (isIdle) {
      publish([]);
      return Number.POSITIVE_INFINITY;
    }
    const { byIssuer, nextEnd } = await refresh();
    publish(byIssuer.size === 0 ? [] : lists);
    const now = clock.now().getTime();
    const renewal = Math.min(...lists.map(({ nextUpdate }) => nextUpdate.getTime() - renewBeforeMs));
    return Math.max(minPauseMs, Math.min(renewal, nextEnd?.getTime() ?? renewal) - now);
  };
  let retryMs = firstRetryMs;
  /** @returns for how long nothing is to be done, in ms */
  const attempt = async (): Promise<number> => {
    try {
      const waitMs = await inTurn(follow);
      retryMs = firstRetryMs;
      return waitMs;
    } catch (error) {
      log.error(publicError(error), 'no revocation list could be made: ext_authz alone enforces bans');
      if (!isGood(published, signingAuthorities(authority.stored()), clock.now())) publish([]);
      const waitMs = retryMs;
      retryMs = Math.min(retryMs * 2, longestRetryMs);
      return waitMs;
    }
  };
  const run = async (firstWaitMs: number): Promise<void> => {
    for (let waitMs = firstWaitMs; ; waitMs = await attempt()) {
      if (waitMs === Number.POSITIVE_INFINITY) await latch.next(stop.signal);
      else await latchOrSleep(latch, waitMs, clock, stop.signal);
      // Bans come in handfuls.
      await clock.sleep(gatherMs, stop.signal);
      if (stop.signal.aborted) return;
    }
  };
  /** The last moment at which a proxy may have been given lists without that of this CA; 0 for never. */
  const uncoveredAt = (keyId: string, now: number): number => {
    const isOut =
      published.lists.length > 0 && published.lists.every(({ issuerKeyId }) => issuerKeyId !== keyId);
    return isOut ? now : Math.max(0, ...earlier.map((set) => (set.keyIds.has(keyId) ? 0 : set.untilMs)));
  };
  const unsubscribe = [holder.onChange(latch.raise), authority.onChange(latch.raise)];
  // Before any proxy is served: after a restart none shall be given less than it had.
  const running = run(await attempt());

  return {
    published: () => published.ders,
    onChange: notice.subscribe,
    current: () =>
      inTurn(async () => {
        await refresh();
        return lists;
      }),
    signer: () => {
      const active = authority.current();
      if (signer === undefined || signer === active || signer.issuerKeyId === active.issuerKeyId) {
        signer = active;
        return active;
      }
      const now = clock.now().getTime();
      const uncovered = uncoveredAt(active.issuerKeyId, now);
      // A change of the signing CA alone is announced by nobody: whoever is about to use it notices.
      if (uncovered === now) latch.raise();
      const isHeld =
        uncovered > 0 &&
        now - uncovered < longestLeafMs(holder) &&
        signer.notAfter.getTime() - now > lastMinutesMs;
      if (!isHeld || !authority.mayStillSign(signer)) signer = active;
      return signer;
    },
    close: async () => {
      stop.abort();
      for (const end of unsubscribe) end();
      await running;
    },
  };
}

type Published = { readonly lists: readonly RevocationList[]; readonly ders: readonly Uint8Array[] };

/** The CAs whose leaves somebody may present, or will. */
function signingAuthorities(stored: readonly StoredAuthority[]): readonly StoredAuthority[] {
  return stored.filter(({ kind, state }) => kind === 'intermediate' && state !== 'retired');
}

function entriesFor(keyId: string, { byIssuer }: Revocations): readonly RevokedCertificate[] {
  const entries = [...(byIssuer.get(keyId) ?? []), ...(byIssuer.get('') ?? [])];
  return entries.slice(0, maxRevoked).sort((a, b) => (a.serial < b.serial ? -1 : 1));
}

function sameEntries(a: readonly RevokedCertificate[], b: readonly RevokedCertificate[]): boolean {
  return (
    a.length === b.length &&
    a.every(({ serial, reason }, i) => serial === b[i]?.serial && reason === b[i]?.reason)
  );
}

function isSameSet(a: ReadonlySet<string>, b: ReadonlySet<string>): boolean {
  return a.size === b.size && [...a].every((one) => b.has(one));
}

function isOld({ nextUpdate }: RevocationList, now: Date): boolean {
  const leftMs = nextUpdate.getTime() - now.getTime();
  // A clock that was put back leaves a list from the future.
  return leftMs <= renewBeforeMs || leftMs > listLifeSeconds * 1_000 + toleratedStepMs;
}

/** Whether lists that cannot be renewed may stay: they name every CA, and outlive every leaf. */
function isGood({ lists }: Published, signing: readonly StoredAuthority[], now: Date): boolean {
  return (
    signing.every(({ keyId }) => lists.some(({ issuerKeyId }) => issuerKeyId === keyId)) &&
    lists.every(({ nextUpdate }) => nextUpdate.getTime() - now.getTime() > longestHoldMs)
  );
}

/** For as long a proxy that hears nothing from us may still have a certificate to speak with. */
function longestLeafMs(holder: MeshHolder): number {
  let seconds = 0;
  for (const { ttlSeconds } of holder.current().mesh.entries.values())
    seconds = Math.max(seconds, ttlSeconds);
  return seconds * 1_000;
}

const nothingNamed = { certificates: [], unknownSerials: [] };
// No leaf lives longer than a day.
const longestHoldMs = 86_400_000;
const renewBeforeMs = 2 * longestHoldMs;
const toleratedStepMs = 60_000;
// With less than this its leaves are too short to be of use.
const lastMinutesMs = 300_000;
const gatherMs = 25;
const minPauseMs = 1_000;
const firstRetryMs = 1_000;
const longestRetryMs = 60_000;
