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
import { renewalSpreadMs } from './renewal-spread.ts';
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
  /** A certificate made before for this very entry, with its key. Asked once, before the first one is made. */
  readonly recall?: (entry: RegistrationEntry) => X509Svid | undefined;
  /** One that nobody has held for a while is given up; it may be valid still. */
  readonly onForgotten?: (svid: X509Svid, entry: RegistrationEntry) => void;
  /** A certificate could not be made; the keeper tries again by itself. */
  readonly onFailure: (entry: RegistrationEntry, error: unknown) => void;
};

/**
 * Keeps one live certificate for each entry that somebody holds, shared by all who hold it; whoever is known by a
 * certificate alone shares with nobody but those who show the same one, so that each has a line of its own. Issued when first held,
 * renewed at half its life, replaced at once when the entry changes or the certificate or its key is banned, forgotten
 * a while after the last holder left, and at once when the identity is banned.
 */
export type Keeper = {
  readonly hold: (entry: RegistrationEntry, attestation: Attestation, onChange: () => void) => Lease;
  /** Certificates kept now, for status and metrics. */
  readonly kept: () => readonly X509Svid[];
  /** The same with those that have none yet, and what will become of them; for people. */
  readonly states: () => readonly KeptState[];
  /**
   * Replaces every certificate that one of these CAs signed, now or later. It is spread: over a tenth of what is left of
   * its life, and a minute at most. Where many nodes ask one CA it is spread over a quarter, and as long as so many take
   * between them (renewal-spread.ts).
   */
  readonly reissue: (issuerKeyIds: readonly string[], pace?: ReissuePace) => void;
  /** Stops every renewal. */
  readonly close: () => void;
};

/** How fast certificates are replaced. */
export type ReissuePace = 'soon' | { readonly nodes: number };

/** How the certificate of one entry stands. */
export type KeptState = {
  readonly entry: RegistrationEntry;
  readonly svid: X509Svid | undefined;
  /** When it is made anew, a moment of the past while that fails; null while nobody holds it. */
  readonly dueAt: Date | null;
  /** Why the last attempt to make one failed; undefined when there was none, or it succeeded. */
  readonly failure: unknown;
};

export type Lease = {
  /** The current certificate, or undefined while there is none (first issuance under way, or expired). */
  readonly svid: () => X509Svid | undefined;
  /** Why the last attempt to make one failed; undefined when there was none, or it succeeded. */
  readonly failure: () => unknown;
  readonly release: () => void;
};

type Outgoing = {
  /** By key id of the CA. */
  readonly paces: Map<string, ReissuePace>;
  /** How many certificates there are. */
  readonly count: () => number;
};

type Slot = {
  entry: RegistrationEntry;
  /** Whether those who hold it were attested, not known by a certificate alone. */
  readonly isAttested: boolean;
  readonly holders: Map<symbol, { readonly attestation: Attestation; readonly onChange: () => void }>;
  svid: X509Svid | undefined;
  /** SHA-256 of the public key in `svid`, lower-case hex. */
  spkiSha256: string;
  failure: unknown;
  /** What of the entry the current certificate was made from. */
  madeFrom: string;
  /** When it is replaced because its CA is, in ms; Infinity for never. */
  replaceAt: number;
  /** When it is made anew, in ms; 0 before the first. */
  dueAt: number;
  readonly latch: Latch;
  readonly stop: AbortController;
};

// A proxy that restarts finds its certificate still kept.
const lingerMs = 30_000;
const firstRetryMs = 250;
const longestRetryMs = 15_000;
// Each of these attempts is a certificate that was made, recorded and thrown away, and most end when somebody mends a setting.
const longestUnprovenRetryMs = 300_000;
const unproven: ReadonlySet<string> = new Set([
  'issuance_unproven',
  'audit_proof_invalid',
  'audit_signature_invalid',
  'audit_note_invalid',
]);
// Those who wait for it look again this often, for the clock may have been put back.
const longestSleepMs = 60_000;
// A clock put back by less than this leaves a certificate valid: it begins 30 s before it was made.
const toleratedStepMs = 30_000;
const soonShare = 1 / 10;
const soonMs = 60_000;
const sharedShare = 1 / 4;
// Each costs the event loop under a millisecond, in bursts of as many as one commit records.
const issuedAtOnce = 16;

export function createKeeper(parts: KeeperParts): Keeper {
  const slots = new Map<string, Slot>();
  const turns = createTurns(issuedAtOnce);
  const outgoing: Outgoing = { paces: new Map(), count: () => slots.size };
  const unsubscribe = parts.onChange(() => {
    for (const slot of slots.values()) slot.latch.raise();
  });
  return {
    hold: (entry, attestation, onChange) => {
      const key = slotKey(entry, attestation);
      const slot = slots.get(key) ?? openSlot(key, entry, slots, turns, outgoing, parts);
      if (slot.entry !== entry) {
        slot.entry = entry;
        slot.latch.raise();
      }
      const holder = Symbol(entry.id);
      // Of thousands who hold it only the first and the last make a difference to it.
      if (slot.holders.size === 0) slot.latch.raise();
      slot.holders.set(holder, { attestation, onChange });
      return {
        // Whoever keeps the slot may be waiting for an issuer that says nothing.
        svid: () =>
          slot.svid !== undefined && slot.svid.notAfter > parts.clock.now() ? slot.svid : undefined,
        failure: () => slot.failure,
        release: () => {
          slot.holders.delete(holder);
          if (slot.holders.size === 0) slot.latch.raise();
        },
      };
    },
    kept: () => [...slots.values()].flatMap((slot) => (slot.svid === undefined ? [] : [slot.svid])),
    states: () =>
      [...slots.values()].map(({ entry, svid, dueAt, failure, holders }) => ({
        entry,
        svid,
        dueAt: holders.size === 0 ? null : new Date(dueAt),
        failure,
      })),
    reissue: (issuerKeyIds, pace = 'soon') => {
      // What was asked for before stays planned as it is.
      const fresh = issuerKeyIds.filter((keyId) => {
        const known = outgoing.paces.get(keyId);
        return known === undefined || (pace === 'soon' && known !== 'soon');
      });
      for (const keyId of fresh) outgoing.paces.set(keyId, pace);
      for (const slot of slots.values()) {
        if (slot.svid === undefined || !fresh.includes(slot.svid.issuerKeyId)) continue;
        // Nobody has it now, and nobody shall be given it again.
        if (slot.holders.size === 0) [slot.svid, slot.madeFrom] = [undefined, ''];
        else slot.replaceAt = Math.min(slot.replaceAt, replacementTime(slot.svid, outgoing, parts));
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
  key: string,
  entry: RegistrationEntry,
  slots: Map<string, Slot>,
  turns: Turns,
  outgoing: Outgoing,
  parts: KeeperParts,
): Slot {
  const slot: Slot = {
    entry,
    isAttested: key === entry.id,
    holders: new Map(),
    svid: undefined,
    spkiSha256: '',
    failure: undefined,
    madeFrom: '',
    replaceAt: Infinity,
    dueAt: 0,
    latch: createLatch(),
    stop: new AbortController(),
  };
  slots.set(key, slot);
  // INVARIANT: forgotten in the very step in which it ends, so that nobody takes hold of one that is never renewed.
  void keep(slot, turns, outgoing, parts, () => slots.delete(key));
  return slot;
}

/** Owns what of the slot changes, but for its entry: nobody else writes it. Ends when it was unheld for a while. */
async function keep(
  slot: Slot,
  turns: Turns,
  outgoing: Outgoing,
  parts: KeeperParts,
  forget: () => void,
): Promise<void> {
  const { signal } = slot.stop;
  let retryMs = firstRetryMs;
  let [madeAt, renewAt] = recalled(slot, outgoing, parts);
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
      if (Math.abs(now - unheldSince) >= lingerMs) {
        if (slot.svid !== undefined && slot.isAttested) parts.onForgotten?.(slot.svid, slot.entry);
        return forget();
      }
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
    slot.dueAt = dueAt;
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
      // It may end meanwhile: then those who hold it are told.
      const left = (slot.svid?.notAfter.getTime() ?? Infinity) - parts.clock.now().getTime();
      await parts.clock.sleep(Math.min(retryMs * (0.5 + parts.random() / 2), left), signal);
      retryMs = Math.min(retryMs * 2, longestRetryOf(error));
    }
  }
}

/** Takes a certificate over. @returns as {@link renew}; it is due in the middle of its life, as if it were made here */
function recalled(slot: Slot, outgoing: Outgoing, parts: KeeperParts): readonly [number, number] {
  const { recall, clock, random } = parts;
  // What an earlier process kept was for attested callers.
  const svid = slot.isAttested ? recall?.(slot.entry) : undefined;
  if (svid === undefined || !svid.id.equals(slot.entry.spiffeId)) return [0, 0];
  const [leaf = new Uint8Array(0)] = svid.certificates;
  slot.svid = { ...svid, hint: slot.entry.hint };
  slot.spkiSha256 = peerCertificateIds(leaf).spkiSha256;
  slot.madeFrom = certificateInput(slot.entry);
  slot.replaceAt = replacementTime(svid, outgoing, parts);
  const [from, until] = [svid.notBefore.getTime(), svid.notAfter.getTime()];
  return [clock.now().getTime(), from + (until - from) * (0.45 + random() / 10)];
}

/**
 * Replaces the certificate and tells the holders.
 * @returns when it was made and when it is due again, in ms; undefined when everybody left before its turn came
 */
async function renew(
  slot: Slot,
  outgoing: Outgoing,
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
  const { presented } = holder.attestation;
  slot.svid = {
    ...issued,
    id: entry.spiffeId,
    privateKey,
    hint: entry.hint,
    entryId: entry.id,
    ...(presented === undefined ? {} : { renewedFrom: presented.serial }),
  };
  slot.spkiSha256 = spkiSha256;
  slot.madeFrom = certificateInput(entry);
  // It may have been signed just before its CA was replaced.
  slot.replaceAt = replacementTime(slot.svid, outgoing, parts);
  slot.failure = undefined;
  tell(slot);
  const now = clock.now().getTime();
  const left = issued.notAfter.getTime() - now;
  // Half of what is left, give or take a tenth, so that a fleet that started together does not renew together.
  return [now, now + left * (0.45 + random() / 10)];
}

/** All who hold what is under one key are known by the same evidence: selectors of the entry, or one certificate. */
function slotKey(entry: RegistrationEntry, { presented }: Attestation): string {
  return presented === undefined ? entry.id : `${entry.id} renewed from ${presented.serial}`;
}

/** Some moment in the time that the pace of its CA gives; Infinity when its CA stays. */
function replacementTime(
  { issuerKeyId, notAfter }: X509Svid,
  outgoing: Outgoing,
  { clock, random }: KeeperParts,
): number {
  const pace = outgoing.paces.get(issuerKeyId);
  if (pace === undefined) return Infinity;
  const now = clock.now().getTime();
  const [share, longestMs] =
    pace === 'soon' ? [soonShare, soonMs] : [sharedShare, renewalSpreadMs(pace.nodes, outgoing.count())];
  return now + random() * Math.min((notAfter.getTime() - now) * share, longestMs);
}

function longestRetryOf(error: unknown): number {
  return error instanceof MeshError && unproven.has(error.code) ? longestUnprovenRetryMs : longestRetryMs;
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
