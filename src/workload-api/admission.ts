import type { Clock } from '../clock.ts';
import { MeshError } from '../errors.ts';
import type { UnixPeer } from '../identity/evidence.ts';
import { createRateLimit, type RateLimits } from '../identity/rate-limit.ts';
import { createTurns, type Turns } from '../identity/turns.ts';

/** What callers may take. */
export type AdmissionLimits = {
  /** Streams of one uid over all its connections. */
  readonly streamsPerUid: number;
  readonly streams: number;
  /** Streams that one uid may open, granted or not. */
  readonly opens: RateLimits;
  /** Tokens that one uid may have signed, granted or not. */
  readonly mints: RateLimits;
  /** Tokens that one uid may have validated. */
  readonly validations: RateLimits;
  /** Unary calls that are worked on at once; more wait, in the order they came. */
  readonly atOnce: number;
  /** Of them, those of one uid. */
  readonly atOncePerUid: number;
  /** Unary calls that work or wait; one more is turned away. */
  readonly waiting: number;
  /** Of them, those of one uid. */
  readonly waitingPerUid: number;
};

export const defaultAdmissionLimits: AdmissionLimits = {
  streamsPerUid: 4_096,
  streams: 16_384,
  opens: { burst: 4_096, perSecond: 200 },
  mints: { burst: 500, perSecond: 50 },
  validations: { burst: 2_000, perSecond: 500 },
  atOnce: 32,
  atOncePerUid: 8,
  waiting: 1_024,
  waitingPerUid: 256,
};

/** Lets callers in, each uid within its own bounds, so that one cannot take what others need. */
export type Admission = {
  /** Runs a stream. @throws MeshError `rate_limited`, `stream_limit`, or what `work` throws */
  readonly stream: (peer: UnixPeer, work: () => Promise<void>) => Promise<void>;
  /** Runs a unary call when its turn has come. @throws MeshError `stream_limit`, or what `work` throws */
  readonly unary: <T>(peer: UnixPeer, work: () => Promise<T>) => Promise<T>;
  /** Takes one token from what the uid has left. @throws MeshError `rate_limited` */
  readonly spend: (kind: 'mints' | 'validations', peer: UnixPeer) => void;
};

export function createAdmission(limits: AdmissionLimits, clock: Clock): Admission {
  const take = {
    opens: createRateLimit(limits.opens, clock),
    mints: createRateLimit(limits.mints, clock),
    validations: createRateLimit(limits.validations, clock),
  };
  const turns = createTurns(limits.atOnce);
  const perUid = new Map<number, number>();
  const calls = new Map<number, { readonly turns: Turns; pending: number }>();
  let streams = 0;
  let pending = 0;

  const spend = (kind: keyof typeof take, { uid }: UnixPeer): void => {
    if (take[kind](uid)) return;
    throw new MeshError('rate_limited', `uid ${uid} asks too often`, {
      fix: 'keep streams open, and tokens until half of their life is over',
    });
  };
  return {
    spend,
    stream: async (peer, work) => {
      spend('opens', peer);
      const { uid } = peer;
      const ofUid = perUid.get(uid) ?? 0;
      if (streams >= limits.streams || ofUid >= limits.streamsPerUid) {
        throw new MeshError('stream_limit', `uid ${uid} has ${ofUid} streams open`);
      }
      streams += 1;
      perUid.set(uid, ofUid + 1);
      try {
        await work();
      } finally {
        streams -= 1;
        const left = (perUid.get(uid) ?? 1) - 1;
        if (left > 0) perUid.set(uid, left);
        else perUid.delete(uid);
      }
    },
    unary: async ({ uid }, work) => {
      const own = calls.get(uid) ?? { turns: createTurns(limits.atOncePerUid), pending: 0 };
      if (pending >= limits.waiting || own.pending >= limits.waitingPerUid) {
        throw new MeshError('stream_limit', `too many calls wait already, ${own.pending} of uid ${uid}`);
      }
      calls.set(uid, own);
      pending += 1;
      own.pending += 1;
      try {
        // Its own turn first: to attest a caller may take seconds, and it is the caller who decides how many.
        return await own.turns(() => turns(work));
      } finally {
        pending -= 1;
        own.pending -= 1;
        if (own.pending === 0) calls.delete(uid);
      }
    },
  };
}
