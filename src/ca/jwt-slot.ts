import type { SlotState } from './slot.ts';

/** Kinds of key that sign tokens: ES256, or RS256 for validators that know nothing else. */
export const jwtKeyTypes = ['ec-p256', 'rsa-2048'] as const;
export type JwtKeyType = (typeof jwtKeyTypes)[number];

/**
 * One JWT key in rotation:
 *
 * - `prepared`: published, and signs nothing yet
 * - `active`: published, and the one that signs
 * - `retiring`: published while tokens of it are valid, and signs no more
 * - `retired`: not published, and its private key is forgotten
 */
export type JwtSlot = {
  /** The `kid`: subject key identifier, lower-case hex. */
  readonly keyId: string;
  readonly keyType: JwtKeyType;
  /** SPKI, DER. */
  readonly publicKey: Uint8Array;
  readonly state: SlotState;
  readonly publishedAt: Date;
  /** When it began to sign; null before. */
  readonly activatedAt: Date | null;
  /** When it ceased to sign; null before. */
  readonly stoppedAt: Date | null;
};

/** All JWT keys and the bundle they make. */
export type JwtKeyState = {
  readonly slots: readonly JwtSlot[];
  /** Of the bundle in force; grows by one with every change of the bundle. */
  readonly sequence: number;
};

/** What a rotation of JWT keys goes by. Who validates a token confirms nothing, so all of it is time. */
export type JwtEvidence = {
  /** Since when this process can have handed out the bundle. */
  readonly servedSince: Date;
  /** When the last token recorded under each key expires, by key ID. */
  readonly lastExpiries: ReadonlyMap<string, Date>;
  /** Why the time cannot be relied upon; null when it can. */
  readonly doubt: string | null;
};

/** After how long everybody who looks at the bundle has seen a change: twice the refresh hint of 300 seconds. */
export const propagationSeconds = 600;
/** How long a key signs before the next one does by itself. */
export const signingSeconds = 30 * 86_400;
/** How long before that the next one is published: for those who look less often than they are asked to. */
export const leadSeconds = 86_400;
/** How far the clock of a validator may be behind ours. */
export const skewSeconds = 60;
/** The most keys in a bundle. */
export const maxPublishedJwtKeys = 8;

/** The keys that tokens are to be verified with. */
export function publishedJwtKeys({ slots }: JwtKeyState): readonly JwtSlot[] {
  return slots.filter(({ state }) => state !== 'retired');
}

/** The one that signs; undefined only until there is a first, or another in place of one that was tainted. */
export function jwtSignerOf({ slots }: JwtKeyState): JwtSlot | undefined {
  return slots.find(({ state }) => state === 'active');
}

/** From when on every validator can have a prepared key. */
export function provenFrom({ publishedAt }: JwtSlot, { servedSince }: JwtEvidence): Date {
  // INVARIANT: a key that was published while nobody could ask for it was not published.
  return later(publishedAt > servedSince ? publishedAt : servedSince, propagationSeconds);
}

/** From when on no token of a retiring key is valid anywhere. */
export function unusedFrom({ keyId, stoppedAt, publishedAt }: JwtSlot, { lastExpiries }: JwtEvidence): Date {
  // A token whose record was being written when the key ceased to sign is in no evidence yet.
  const settled = later(stoppedAt ?? publishedAt, propagationSeconds);
  const last = lastExpiries.get(keyId);
  const expired = last === undefined ? settled : later(last, skewSeconds);
  return expired > settled ? expired : settled;
}

/** A step that the calendar takes by itself, and from when on somebody may ask for it without force. */
export type JwtSchedule = {
  readonly step: 'prepare' | 'activate' | 'retire';
  /** Null: of a key that is to be made. */
  readonly keyId: string | null;
  readonly safeFrom: Date;
  readonly byItselfAt: Date;
};

/** What happens next, the earliest first. */
export function jwtSchedule(state: JwtKeyState, evidence: JwtEvidence): readonly JwtSchedule[] {
  const signer = jwtSignerOf(state);
  const steps = state.slots.flatMap((slot): JwtSchedule[] => {
    if (slot.state === 'retiring') {
      const from = unusedFrom(slot, evidence);
      return [{ step: 'retire', keyId: slot.keyId, safeFrom: from, byItselfAt: from }];
    }
    if (slot.state !== 'prepared') return [];
    const safeFrom = provenFrom(slot, evidence);
    const lead = later(slot.publishedAt, leadSeconds);
    const byItselfAt = lead > safeFrom ? lead : safeFrom;
    return [{ step: 'activate', keyId: slot.keyId, safeFrom, byItselfAt }];
  });
  const isPrepared = steps.some(({ step }) => step === 'activate');
  if (signer !== undefined && !isPrepared) {
    const since = signer.activatedAt ?? signer.publishedAt;
    const byItselfAt = later(since, signingSeconds - leadSeconds);
    steps.push({ step: 'prepare', keyId: null, safeFrom: since, byItselfAt });
  }
  return steps.sort((a, b) => a.byItselfAt.getTime() - b.byItselfAt.getTime());
}

function later(time: Date, seconds: number): Date {
  return new Date(time.getTime() + seconds * 1_000);
}
