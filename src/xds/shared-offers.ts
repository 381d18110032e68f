import type { WatchCredentials } from '../identity/credentials.ts';
import type { Attestation } from '../identity/evidence.ts';
import type { Follower, FollowOffers, Offer, OfferOf } from './source.ts';

/**
 * Follows credentials for many streams at once: those that were attested together, which is in one turn of the event
 * loop, share what they may have. A few to each watch, because whoever paces watches has them wait for no more than that.
 * @param onChange calls back, at once, when anything changed that credentials are made of; without it nobody shares
 */
export function shareOffers(
  watch: WatchCredentials,
  offerOf: OfferOf,
  onChange: ((listener: () => void) => void) | undefined,
): FollowOffers {
  let open = new WeakMap<Attestation, Group>();
  // INVARIANT: nobody who comes later is given what was taken away meanwhile.
  onChange?.(() => (open = new WeakMap()));
  return (attestation, follower) => {
    let group = open.get(attestation);
    if (group === undefined || group.isOver() || group.size() >= followersOfOne) {
      group = startGroup(watch, attestation, offerOf);
      if (onChange !== undefined) open.set(attestation, group);
    }
    return group.join(follower);
  };
}

/** Streams that share one watch. */
type Group = {
  readonly size: () => number;
  readonly isOver: () => boolean;
  /** Offers what there is at once. @returns leaves the group */
  readonly join: (follower: Follower) => () => void;
};

function startGroup(watch: WatchCredentials, attestation: Attestation, offerOf: OfferOf): Group {
  const over = new AbortController();
  const followers = new Set<Follower>();
  let last: Offer | undefined;
  const tell = (what: (follower: Follower) => void): void => {
    for (const follower of [...followers]) if (followers.has(follower)) what(follower);
  };
  const run = async (): Promise<void> => {
    try {
      for await (const credentials of watch(attestation, over.signal)) {
        const offer = offerOf(credentials);
        last = offer;
        tell((follower) => follower.offered(offer));
      }
      over.abort(left);
      tell((follower) => follower.ended());
    } catch (error) {
      over.abort(left);
      tell((follower) => follower.failed(error));
    }
  };
  let isRunning = false;
  return {
    size: () => followers.size,
    isOver: () => over.signal.aborted,
    join: (follower) => {
      followers.add(follower);
      if (last !== undefined) follower.offered(last);
      if (!isRunning) void run();
      isRunning = true;
      return () => {
        // INVARIANT: without anybody who follows there is no watch.
        if (followers.delete(follower) && followers.size === 0) over.abort(left);
      };
    },
  };
}

const followersOfOne = 16;
// Without a reason each abort makes an error with a stack of its own.
const left = 'left';
