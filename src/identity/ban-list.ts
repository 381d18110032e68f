import type { SpiffeId } from '../spiffe/id.ts';
import { type Ban, type BanKind, isInForce } from './ban.ts';

/** Who or what is asked about; what is left out, or empty, is not known and matches no ban. */
export type BanSubject = {
  readonly id?: SpiffeId | null;
  /** Of its certificate, lower-case hex. */
  readonly serial?: string;
  /** SHA-256 of its SubjectPublicKeyInfo, lower-case hex. */
  readonly spkiSha256?: string;
};

/** The bans of one mesh revision, ready to be asked at every call. Immutable. */
export type BanList = {
  /** Those that have run out included. */
  readonly size: number;
  /** A ban that holds for the subject at `now`, or undefined. */
  readonly find: (subject: BanSubject, now: Date) => Ban | undefined;
  /** When the first of the bans that hold for these identities at `now` ends, so that a watcher knows when to look. */
  readonly nextEnd: (ids: readonly SpiffeId[], now: Date) => Date | null;
};

/** Indexes bans. */
export function indexBans(bans: Iterable<Ban>): BanList {
  const byKind: Record<BanKind, Map<string, Ban>> = {
    'spiffe-id': new Map(),
    serial: new Map(),
    key: new Map(),
  };
  let size = 0;
  for (const ban of bans) {
    byKind[ban.kind].set(ban.value, ban);
    size += 1;
  }
  const holding = (kind: BanKind, value: string | undefined, now: Date): Ban | undefined => {
    const ban = value === undefined ? undefined : byKind[kind].get(value);
    return ban !== undefined && isInForce(ban, now) ? ban : undefined;
  };
  return {
    size,
    find: ({ id, serial, spkiSha256 }, now) =>
      size === 0
        ? undefined
        : (holding('spiffe-id', id?.text, now) ??
          holding('serial', serial, now) ??
          holding('key', spkiSha256, now)),
    nextEnd: (ids, now) =>
      ids.reduce<Date | null>((earliest, id) => {
        const until = holding('spiffe-id', id.text, now)?.until ?? null;
        return until !== null && (earliest === null || until < earliest) ? until : earliest;
      }, null),
  };
}

/** Nobody is banned. */
export const noBans: BanList = indexBans([]);
