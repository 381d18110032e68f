import { lstatSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { RandomBytes } from './ca/serial.ts';
import type { Clock } from './clock.ts';
import { createLatch, latchOrSleep } from './identity/notice.ts';
import { type AgentState, openState, sealState } from './node/agent-cache.ts';
import { TrustDomain } from './spiffe/id.ts';
import {
  ensureKeyEncryptionKey,
  ensurePrivateDirectory,
  readPrivateFile,
  writeKeyFile,
} from './store/key-files.ts';

/** The sealed cache of an agent on disk. */
export type AgentCache = {
  /**
   * What an earlier process kept; null when there is nothing.
   * @param trustDomain that the agent is told to be of; null for whichever it was of
   * @throws MeshError `agent_cache_invalid`, `file_permissions`
   */
  readonly load: (trustDomain: TrustDomain | null) => AgentState | null;
  /** @throws MeshError `store_unavailable` when the disk takes no more */
  readonly save: (state: AgentState) => void;
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
  return {
    load: (trustDomain) => {
      if (lstatSync(path, { throwIfNoEntry: false }) === undefined) return null;
      const bytes = readPrivateFile(path, maxCacheBytes);
      const own = trustDomain ?? trustDomainOf(bytes);
      return openState(bytes, { trustDomain: own, machineId, key });
    },
    save: (state) => {
      const { trustDomain } = state.view.bundle;
      writeKeyFile(dir, fileName, sealState(state, { trustDomain, machineId, key }, randomBytes));
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
  return TrustDomain.parse(header.split(' ')[1] ?? '');
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
const maxCacheBytes = 268_435_456;
const gatherMs = 250;
const everyMs = 60_000;
