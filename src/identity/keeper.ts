import type { Clock } from '../clock.ts';
import type { X509Svid } from './credentials.ts';
import type { RegistrationEntry } from './entry.ts';
import type { Attestation } from './evidence.ts';
import { formatEntry } from './entry-parse.ts';
import type { IssueX509 } from './issuer.ts';
import { createLatch, type Latch, latchOrSleep } from './notice.ts';

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
  readonly clock: Clock;
  /** 0 to 1, evenly spread; spreads renewals. */
  readonly random: () => number;
  /** A certificate could not be made; the keeper tries again by itself. */
  readonly onFailure: (entry: RegistrationEntry, error: unknown) => void;
};

/**
 * Keeps one live certificate for each entry that somebody holds, shared by all who hold it: issued when first held,
 * renewed at half its life, replaced at once when the entry changes, forgotten a while after the last holder left.
 */
export type Keeper = {
  readonly hold: (entry: RegistrationEntry, attestation: Attestation, onChange: () => void) => Lease;
  /** Certificates kept now, for status and metrics. */
  readonly kept: () => readonly X509Svid[];
  /** Stops every renewal. */
  readonly close: () => void;
};

export type Lease = {
  /** The current certificate, or undefined while there is none (first issuance under way, or expired). */
  readonly svid: () => X509Svid | undefined;
  readonly release: () => void;
};

type Slot = {
  entry: RegistrationEntry;
  readonly holders: Map<symbol, { readonly attestation: Attestation; readonly onChange: () => void }>;
  svid: X509Svid | undefined;
  /** What of the entry the current certificate was made from. */
  madeFrom: string;
  readonly latch: Latch;
  readonly stop: AbortController;
};

// A proxy that restarts finds its certificate still kept.
const lingerMs = 30_000;
const firstRetryMs = 250;
const longestRetryMs = 15_000;

export function createKeeper(parts: KeeperParts): Keeper {
  const slots = new Map<string, Slot>();
  return {
    hold: (entry, attestation, onChange) => {
      const slot = slots.get(entry.id) ?? openSlot(entry, slots, parts);
      if (slot.entry !== entry) {
        slot.entry = entry;
        slot.latch.raise();
      }
      const holder = Symbol(entry.id);
      slot.holders.set(holder, { attestation, onChange });
      slot.latch.raise();
      return {
        svid: () => slot.svid,
        release: () => {
          slot.holders.delete(holder);
          slot.latch.raise();
        },
      };
    },
    kept: () => [...slots.values()].flatMap((slot) => (slot.svid === undefined ? [] : [slot.svid])),
    close: () => {
      for (const slot of slots.values()) slot.stop.abort();
      slots.clear();
    },
  };
}

function openSlot(entry: RegistrationEntry, slots: Map<string, Slot>, parts: KeeperParts): Slot {
  const slot: Slot = {
    entry,
    holders: new Map(),
    svid: undefined,
    madeFrom: '',
    latch: createLatch(),
    stop: new AbortController(),
  };
  slots.set(entry.id, slot);
  void keep(slot, parts).finally(() => {
    if (slots.get(entry.id) === slot) slots.delete(entry.id);
  });
  return slot;
}

/** Owns `slot.svid` and `slot.madeFrom`: nobody else writes them. Ends when the slot was unheld for a while. */
async function keep(slot: Slot, parts: KeeperParts): Promise<void> {
  const { signal } = slot.stop;
  let retryMs = firstRetryMs;
  let renewAt = parts.clock.now().getTime();
  let unheldSince: number | undefined;
  while (!signal.aborted) {
    const now = parts.clock.now().getTime();
    if (slot.svid !== undefined && slot.svid.notAfter.getTime() <= now) {
      slot.svid = undefined;
      tell(slot);
    }
    if (slot.holders.size === 0) {
      unheldSince ??= now;
      if (now - unheldSince >= lingerMs) return;
      await latchOrSleep(slot.latch, unheldSince + lingerMs - now, parts.clock, signal);
      continue;
    }
    unheldSince = undefined;
    if (slot.madeFrom === certificateInput(slot.entry) && now < renewAt) {
      await latchOrSleep(slot.latch, renewAt - now, parts.clock, signal);
      continue;
    }
    try {
      renewAt = await renew(slot, parts);
      retryMs = firstRetryMs;
    } catch (error) {
      parts.onFailure(slot.entry, error);
      await parts.clock.sleep(retryMs * (0.5 + parts.random() / 2), signal);
      retryMs = Math.min(retryMs * 2, longestRetryMs);
    }
  }
}

/** Replaces the certificate and tells the holders. @returns when it is due again, in ms */
async function renew(slot: Slot, { issue, generateKeyPair, clock, random }: KeeperParts): Promise<number> {
  const { entry } = slot;
  const [holder] = slot.holders.values();
  if (holder === undefined) return clock.now().getTime();
  const { publicKey, privateKey } = await generateKeyPair();
  const issued = await issue({ entry, publicKey, attestation: holder.attestation });
  slot.svid = { ...issued, id: entry.spiffeId, privateKey, hint: entry.hint, entryId: entry.id };
  slot.madeFrom = certificateInput(entry);
  tell(slot);
  const now = clock.now().getTime();
  const left = issued.notAfter.getTime() - now;
  // Half of what is left, give or take a tenth, so that a fleet that started together does not renew together.
  return now + left * (0.45 + random() / 10);
}

function tell(slot: Slot): void {
  for (const { onChange } of [...slot.holders.values()]) onChange();
}

/** The parts of an entry that end up in, or beside, its certificate: labels and selectors do not. */
function certificateInput(entry: RegistrationEntry): string {
  const { spiffeId, ttlSeconds, dnsNames, hint } = formatEntry(entry);
  return JSON.stringify([spiffeId, ttlSeconds, dnsNames, hint]);
}
