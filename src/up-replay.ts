import type { Clock } from './clock.ts';
import { MeshError } from './errors.ts';
import type { ReplayRoutePorts } from './http/replay-routes.ts';
import type { Breathe } from './identity/breath.ts';
import type { MeshHolder } from './identity/current-mesh.ts';
import type { TrustDomain } from './spiffe/id.ts';
import type { Store } from './store/store.ts';
import { logReaders } from './up-log-readers.ts';

/** Recorded calls, to be judged anew: one who asks at a time, for all of the log may have to be read. */
export function replayPorts(parts: {
  readonly store: Store;
  readonly holder: MeshHolder;
  readonly trustDomain: TrustDomain;
  readonly rootNamespace: string;
  /** Lifetime of a certificate whose entry names none. */
  readonly ttlSeconds: number;
  readonly clock: Clock;
  readonly breathe: Breathe;
}): ReplayRoutePorts {
  const { store, holder, trustDomain, rootNamespace, ttlSeconds, clock, breathe } = parts;
  let isOpen = false;
  return {
    openReplay: (isLeft) => {
      if (isOpen) {
        throw new MeshError('policy_replay_busy', 'recorded calls are being replayed for somebody already', {
          fix: 'wait until that is done, and ask again',
        });
      }
      isOpen = true;
      const end = performance.now() + longestMs;
      const isTimeUp = (): boolean => performance.now() > end || isLeft();
      const policyMode = holder.current().snapshot.mode;
      return {
        ports: {
          ...logReaders(store, clock, isTimeUp),
          current: holder.current,
          settings: { trustDomain, rootNamespace, ttlSeconds, policyMode },
          history: { revision: store.policyRevision, past: store.policyPast },
          readCalls: store.readCalls,
          breathe,
          isLeft,
        },
        close: () => {
          isOpen = false;
        },
      };
    },
  };
}

// Whoever waits longer asks for less: a million records take a quarter of it.
const longestMs = 120_000;
