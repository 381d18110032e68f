import { lstatSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { RandomBytes } from './ca/serial.ts';
import type { Clock } from './clock.ts';
import { MeshError } from './errors.ts';
import { createLatch, latchOrSleep } from './identity/notice.ts';
import {
  type AgentState,
  demandLatest,
  openGeneration,
  openShownKey,
  openState,
  sealGeneration,
  sealShownKey,
  sealState,
} from './node/agent-cache.ts';
import type { KeyPair, ShownKeys } from './node/node-identity.ts';
import { TrustDomain } from './spiffe/id.ts';
import {
  ensureKeyEncryptionKey,
  ensurePrivateDirectory,
  readPrivateFile,
  removeKeyFile,
  writeKeyFile,
} from './store/key-files.ts';

/** The sealed cache of an agent on disk. */
export type AgentCache = {
  /**
   * What an earlier process kept; null when there is nothing that can be used.
   * @param trustDomain that the agent is told to be of; null for whichever it was of
   * @param onRefused told of a cache that cannot be used: damaged, of another machine, or older than it was. It stays
   *   where it is until the next save
   * @throws MeshError `file_permissions`
   */
  readonly load: (
    trustDomain: TrustDomain | null,
    onRefused: (error: MeshError) => void,
  ) => AgentState | null;
  /** @throws MeshError `store_unavailable` when the disk takes no more */
  readonly save: (state: Omit<AgentState, 'generation'>) => void;
  /** Of the join token that was shown last, until the certificate for it is in the cache. */
  readonly shownKeys: ShownKeys;
  /** Saves a moment after it is asked to, once for many, and every minute. */
  readonly keepSaved: (
    save: () => void,
    clock: Clock,
    onError: (error: unknown) => void,
  ) => { readonly saveSoon: () => void; readonly close: () => Promise<void> };
};

/** @param dir made with mode 0700 when it is missing */
export function openAgentCache(dir: string, randomBytes: RandomBytes): AgentCache {
  ensurePrivateDirectory(dir);
  const path = join(dir, fileName);
  const key = ensureKeyEncryptionKey(dir);
  const machineId = readMachineId();
  const countPath = join(dir, countName);
  const readCount = (): number | null =>
    isThere(countPath) ? openGeneration(readPrivateFile(countPath), { machineId, key }) : null;
  let count: number | undefined;
  let shown: KeyPair | undefined;
  const shownPath = join(dir, shownName);
  return {
    shownKeys: {
      load: (digest) =>
        (shown = isThere(shownPath)
          ? openShownKey(digest, readPrivateFile(shownPath), { machineId, key })
          : undefined),
      save: (digest, made) => {
        writeKeyFile(dir, shownName, sealShownKey(digest, made, { machineId, key }, randomBytes));
        shown = made;
      },
    },
    load: (trustDomain, onRefused) => {
      if (!isThere(path)) return null;
      const bytes = readPrivateFile(path, maxCacheBytes);
      try {
        const own = trustDomain ?? trustDomainOf(bytes);
        const state = openState(bytes, { trustDomain: own, machineId, key });
        const known = readCount();
        demandLatest(state.generation, known);
        count = known ?? 0;
        return state;
      } catch (error) {
        if (!(error instanceof MeshError) || error.code !== 'agent_cache_invalid') throw error;
        onRefused(error);
        return null;
      }
    },
    save: (state) => {
      const { trustDomain } = state.view.bundle;
      // One more than what is on the disk, and not than what should be: a crash, or a disk that is full between the two
      // writes, leaves a cache that is ahead of its count by one, and that is good.
      const generation = (count ??= countOrNone(readCount)) + 1;
      const sealed = sealState({ ...state, generation }, { trustDomain, machineId, key }, randomBytes);
      writeKeyFile(dir, fileName, sealed);
      writeKeyFile(dir, countName, sealGeneration(generation, { machineId, key }));
      count = generation;
      if (shown !== undefined && Buffer.from(shown.privateKey).equals(state.identity.privateKey)) {
        removeKeyFile(dir, shownName);
        shown = undefined;
      }
    },
    keepSaved: (save, clock, onError) => {
      const latch = createLatch();
      const stop = new AbortController();
      const run = async (): Promise<void> => {
        let isOver = false;
        while (!isOver) {
          await latchOrSleep(latch, everyMs, clock, stop.signal);
          if (!stop.signal.aborted) await clock.sleep(gatherMs, stop.signal);
          isOver = stop.signal.aborted;
          try {
            save();
          } catch (error) {
            onError(error);
          }
        }
      };
      latch.raise();
      const running = run();
      return {
        saveSoon: latch.raise,
        close: async () => {
          stop.abort('closed');
          await running;
        },
      };
    },
  };
}

/** It says so before the seal; with the wrong one the seal does not open. */
function trustDomainOf(bytes: Uint8Array): TrustDomain {
  const header = Buffer.from(bytes.subarray(0, 320)).toString('latin1').split('\n')[0] ?? '';
  try {
    return TrustDomain.parse(header.split(' ')[1] ?? '');
  } catch (cause) {
    throw new MeshError('agent_cache_invalid', 'the sealed cache is damaged', {
      fix: 'remove it, and attest the node again',
      cause,
    });
  }
}

function isThere(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false }) !== undefined;
}

/** A count that cannot be read was named when the cache was refused; a new one begins. */
function countOrNone(read: () => number | null): number {
  try {
    return read() ?? 0;
  } catch (error) {
    if (error instanceof MeshError && error.code === 'agent_cache_invalid') return 0;
    throw error;
  }
}

/** @see machine-id(5); a machine without one binds the cache to the key file alone */
function readMachineId(): string {
  try {
    return readFileSync('/etc/machine-id', 'utf8').trim();
  } catch {
    return '';
  }
}

const fileName = 'cache.sealed';
const countName = 'cache.count';
const shownName = 'shown.sealed';
const maxCacheBytes = 268_435_456;
const gatherMs = 250;
const everyMs = 60_000;
