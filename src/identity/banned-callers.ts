import { SpiffeId } from '../spiffe/id.ts';
import { type Ban, isInForce } from './ban.ts';

/** The bans in force at one moment, as those need them who decide by the caller's ID alone. */
export type BannedCallers = {
  readonly ids: readonly SpiffeId[];
  /** Whether certificates or keys are banned, of which the ID alone does not tell. */
  readonly hasOthers: boolean;
  /** When the first of these bans ends; null when none does. */
  readonly until: Date | null;
};

/** Sorts out the bans that are in force at `now`. */
export function bannedCallers(bans: Iterable<Ban>, now: Date): BannedCallers {
  const ids: SpiffeId[] = [];
  let hasOthers = false;
  let until: Date | null = null;
  for (const ban of bans) {
    if (!isInForce(ban, now)) continue;
    if (ban.kind === 'spiffe-id') ids.push(SpiffeId.parseWorkload(ban.value));
    else hasOthers = true;
    if (ban.until !== null && (until === null || ban.until < until)) until = ban.until;
  }
  return { ids, hasOthers, until };
}
