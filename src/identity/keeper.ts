import { createHash } from 'node:crypto';
import type { Clock } from '../clock.ts';
import { MeshError } from '../errors.ts';
import type { BanList, BanSubject } from './ban-list.ts';
import type { X509Svid } from './credentials.ts';
import type { RegistrationEntry } from './entry.ts';
import type { Attestation } from './evidence.ts';
import { formatEntry } from './entry-parse.ts';
import type { IssueX509 } from './issuer.ts';
import { createLatch, type Latch, latchOrSleep } from './notice.ts';
import { createTurns, type Turns } from './turns.ts';
import { peerCertificateIds } from '../spiffe/svid.ts';

/** Makes a key pair where it will be used. */
export type GenerateKeyPair = () => Promise<{
  /** SPKI DER. */
  readonly publicKey: Uint8Array;
  /** PKCS#8 DER. */
  readonly privateKey: Uint8Array;
}>;

export type KeeperParts = {
  readonly issue: IssueX509;
  readonly generateKeyPair: GenerateKeyPair;
  readonly bans: () => BanList;
  /** Calls back when a ban may have changed. */
  readonly onChange: (listener: () => void) => () => void;
  readonly clock: Clock;
  /** 0 to 1, evenly spread; spreads renewals. */
  readonly random: () => number;
  /** A certificate of an earlier process for this very entry, with its key. Asked once, before the first one is made. */
  readonly recall?: (entry: RegistrationEntry) => X509Svid | undefined;
  /** A certificate could not be made; the keeper tries again by itself. */
  readonly onFailure: (entry: RegistrationEntry, error: unknown) => void;
};

/**
 * Keeps one live certificate for each entry that somebody holds, shared by all who hold it: issued when first held,
 * renewed at half its life, replaced at once when the entry changes or the certificate or its key is banned, forgotten
 * a while after the last holder left, and at once when the identity is banned.
 */
export type Keeper = {
  readonly hold: (entry: RegistrationEntry, attestation: Attestation, onChange: () => void) => Lease;
  /** Certificates kept now, for status and metrics. */
  readonly kept: () => readonly X509Svid[];
  /**
   * Replaces every certificate that one of these CAs signed, now or later: spread over a tenth of what is left of its
   * life, and a minute at most.
   */
  readonly reissue: (issuerKeyIds: readonly string[]) => void;
  /** Stops every renewal. */
  readonly close: () => void;
};

export type Lease = {
  /** The current certificate, or undefined while there is none (first issuance under way, or expired). */
  readonly svid: () => X509Svid | undefined;
  /** Why the last attempt to make one failed; undefined when there was none, or it succeeded. */
  readonly failure: () => unknown;
  readonly release: () => void;
};

type Slot = {
  entry: RegistrationEntry;
  readonly holders: Map<symbol, { readonly attestation: Attestation; readonly onChange: () => void }>;
  svid: X509Svid | undefined;
  /** SHA-256 of the public key in `svid`, lower-case hex. */
  spkiSha256: string;
  failure: unknown;
  /** What of the entry the current certificate was made from. */
  madeFrom: string;
  /** When it is replaced because its CA is, in ms; Infinity for never. */
  replaceAt: number;
  readonly latch: Latch;
  readonly stop: AbortController;
};

// A proxy that restarts finds its certificate still kept.
const lingerMs = 30_000;
const firstRetryMs = 250;
const longestRetryMs = 15_000;
// Those who wait for it look again this often, for the clock may have been put back.
const longestSleepMs = 60_000;
// A clock put back by less than this leaves a certificate valid: it begins 30 s before it was made.
const toleratedStepMs = 30_000;
// Each costs the event loop under a millisecond, in bursts of as many as one commit records.
const issuedAtOnce = 16;

export function createKeeper(parts: KeeperParts): Keeper {
  const slots = new Map<string, Slot>();
  const turns = createTurns(issuedAtOnce);
  const outgoing = new Set<string>();
  const unsubscribe = parts.onChange(() => {
    for (const slot of slots.values()) slot.latch.raise();
  });
  return {
    hold: (entry, attestation, onChange) => {
      const slot = slots.get(entry.id) ?? openSlot(entry, slots, turns, outgoing, parts);
      if (slot.entry !== entry) {
        slot.entry = entry;
        slot.latch.raise();
      }
      const holder = Symbol(entry.id);
      slot.holders.set(holder, { attestation, onChange });
      slot.latch.raise();
      return {
        svid: () => slot.svid,
        failure: () => slot.failure,
        release: () => {
          slot.holders.delete(holder);
          slot.latch.raise();
        },
      };
    },
    kept: () => [...slots.values()].flatMap((slot) => (slot.svid === undefined ? [] : [slot.svid])),
    reissue: (issuerKeyIds) => {
      for (const keyId of issuerKeyIds) outgoing.add(keyId);
      for (const slot of slots.values()) {
        if (slot.svid === undefined || !outgoing.has(slot.svid.issuerKeyId)) continue;
        // Nobody has it now, and nobody shall be given it again.
        if (slot.holders.size === 0) [slot.svid, slot.madeFrom] = [undefined, ''];
        else slot.replaceAt = Math.min(slot.replaceAt, replacementTime(slot.svid, parts));
        slot.latch.raise();
      }
    },
    close: () => {
      unsubscribe();
      for (const slot of slots.values()) slot.stop.abort();
      slots.clear();
    },
  };
}

function openSlot(
  entry: RegistrationEntry,
  slots: Map<string, Slot>,
  turns: Turns,
  outgoing: ReadonlySet<string>,
  parts: KeeperParts,
): Slot {
  const slot: Slot = {
    entry,
    holders: new Map(),
    svid: undefined,
    spkiSha256: '',
    failure: undefined,
    madeFrom: '',
    replaceAt: Infinity,
    latch: createLatch(),
    stop: new AbortController(),
  };
  slots.set(entry.id, slot);
  // INVARIANT: forgotten in the very step in which it ends, so that nobody takes hold of one that is never renewed.
  void keep(slot, turns, outgoing, parts, () => slots.delete(entry.id));
  return slot;
}

/** Owns what of the slot changes, but for its entry: nobody else writes it. Ends when it was unheld for a while. */
async function keep(
  slot: Slot,
  turns: Turns,
  outgoing: ReadonlySet<string>,
  parts: KeeperParts,
  forget: () => void,
): Promise<void> {
  const { signal } = slot.stop;
  let retryMs = firstRetryMs;
  let [madeAt, renewAt] = recalled(slot, parts);
  let unheldSince: number | undefined;
  while (!signal.aborted) {
    const now = parts.clock.now().getTime();
    if (
      slot.svid !== undefined &&
      (slot.svid.notAfter.getTime() <= now || isBanned({ ...slot.svid, spkiSha256: slot.spkiSha256 }, parts))
    ) {
      slot.svid = undefined;
      slot.madeFrom = '';
      tell(slot);
    }
    if (slot.holders.size === 0) {
      unheldSince ??= now;
      if (Math.abs(now - unheldSince) >= lingerMs) return forget();
      await latchOrSleep(slot.latch, unheldSince + lingerMs - now, parts.clock, signal);
      continue;
    }
    unheldSince = undefined;
    if (isBanned({ id: slot.entry.spiffeId }, parts)) {
      // Those who hold it leave in their turn.
      await latchOrSleep(slot.latch, longestSleepMs, parts.clock, signal);
      continue;
    }
    // Compared with our own clock, not with notBefore: an issuer whose clock is ahead must not make this spin.
    const dueAt = Math.min(renewAt, slot.replaceAt);
    const inTime = now < dueAt && now > madeAt - toleratedStepMs;
    if (slot.madeFrom === certificateInput(slot.entry) && inTime) {
      await latchOrSleep(slot.latch, Math.min(dueAt - now, longestSleepMs), parts.clock, signal);
      continue;
    }
    try {
      const renewed = await turns(() => renew(slot, outgoing, parts));
      if (renewed !== undefined) [madeAt, renewAt] = renewed;
      retryMs = firstRetryMs;
    } catch (error) {
      slot.failure = error;
      parts.onFailure(slot.entry, error);
      if (slot.svid === undefined) tell(slot);
      await parts.clock.sleep(retryMs * (0.5 + parts.random() / 2), signal);
      retryMs = Math.min(retryMs * 2, longestRetryMs);
    }
  }
}

/** Takes a certificate over. @returns as {@link renew}; it is due in the middle of its life, as if it were made here */
function recalled(slot: Slot, { recall, clock, random }: KeeperParts): readonly [number, number] {
  const svid = recall?.(slot.entry);
  if (svid === undefined || !svid.id.equals(slot.entry.spiffeId)) return [0, 0];
  const [leaf = new Uint8Array(0)] = svid.certificates;
  slot.svid = { ...svid, hint: slot.entry.hint };
  slot.spkiSha256 = peerCertificateIds(leaf).spkiSha256;
  slot.madeFrom = certificateInput(slot.entry);
  const [from, until] = [svid.notBefore.getTime(), svid.notAfter.getTime()];
  return [clock.now().getTime(), from + (until - from) * (0.45 + random() / 10)];
}

/**
 * Replaces the certificate and tells the holders.
 * @returns when it was made and when it is due again, in ms; undefined when everybody left before its turn came
 */
async function renew(
  slot: Slot,
  outgoing: ReadonlySet<string>,
  parts: KeeperParts,
): Promise<readonly [number, number] | undefined> {
  const { issue, generateKeyPair, clock, random } = parts;
  const { entry } = slot;
  const [holder] = slot.holders.values();
  if (holder === undefined || slot.stop.signal.aborted) return undefined;
  const { publicKey, privateKey } = await generateKeyPair();
  const issued = await issue({ entry, publicKey, attestation: holder.attestation });
  const spkiSha256 = createHash('sha256').update(publicKey).digest('hex');
  // A failure, not a certificate to drop and make anew: an issuer elsewhere may hear of a ban later than we do.
  if (isBanned({ id: entry.spiffeId, serial: issued.serial, spkiSha256 }, parts)) {
    throw new MeshError('identity_banned', 'the identity was banned while its certificate was being made');
  }
  slot.svid = { ...issued, id: entry.spiffeId, privateKey, hint: entry.hint, entryId: entry.id };
  slot.spkiSha256 = spkiSha256;
  slot.madeFrom = certificateInput(entry);
  // It may have been signed just before its CA was replaced.
  slot.replaceAt = outgoing.has(issued.issuerKeyId) ? replacementTime(slot.svid, parts) : Infinity;
  slot.failure = undefined;
  tell(slot);
  const now = clock.now().getTime();
  const left = issued.notAfter.getTime() - now;
  // Half of what is left, give or take a tenth, so that a fleet that started together does not renew together.
  return [now, now + left * (0.45 + random() / 10)];
}

/** Some moment in the next tenth of what is left of its life, and within a minute. */
function replacementTime({ notAfter }: X509Svid, { clock, random }: KeeperParts): number {
  const now = clock.now().getTime();
  return now + random() * Math.min((notAfter.getTime() - now) / 10, longestSleepMs);
}

function isBanned(certificate: BanSubject, { bans, clock }: KeeperParts): boolean {
  return bans().find(certificate, clock.now()) !== undefined;
}

function tell(slot: Slot): void {
  for (const { onChange } of [...slot.holders.values()]) onChange();
}

/** The parts of an entry that end up in, or beside, its certificate: labels and selectors do not. */
function certificateInput(entry: RegistrationEntry): string {
  const { spiffeId, ttlSeconds, dnsNames, hint } = formatEntry(entry);
  return JSON.stringify([spiffeId, ttlSeconds, dnsNames, hint]);
}
