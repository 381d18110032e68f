import type { Clock } from '../clock.ts';
import type { Container } from './container.ts';
import type { FetchPods } from './kubelet.ts';
import type { ContainerFacts, PodList } from './pod-list.ts';

/** Finds what the kubelet says of a container. */
export type FindContainer = (
  container: Container,
  signal: AbortSignal,
) => Promise<ContainerFacts | undefined>;

/**
 * Remembers the kubelet's last answer. It is asked again when the answer is older than five seconds, or does not know a
 * container that a living process is in: a container runs before the kubelet says so. Such questions are at least half a
 * second apart, twice as far after each failure, and shared by all who wait. A container that is not known after four of
 * them is not asked for again for ten seconds.
 *
 * While the kubelet is away, what it said within the last minute of a container holds: pod, service account and image of
 * a container never change, and its id is never given again.
 */
export function createPodBook(fetch: FetchPods, clock: Clock): FindContainer {
  let known: { readonly atMs: number; readonly list: PodList } | undefined;
  let underWay: Promise<void> | undefined;
  let lastStartMs = -Infinity;
  let paceMs = minPaceMs;
  const strangers = new Map<string, number>();
  const nowMs = (): number => clock.now().getTime();

  return async (container, signal) => {
    const { containerId, podUid } = container;
    const ofPod = (facts: ContainerFacts | 'ambiguous' | undefined): ContainerFacts | undefined =>
      facts !== 'ambiguous' && facts?.podUid === podUid ? facts : undefined;
    if (isWithin(strangers.get(containerId), strangerMs)) return undefined;
    for (let attempt = 0; attempt < maxAttempts && !signal.aborted; attempt++) {
      const facts = known?.list.get(containerId);
      if (facts !== undefined && isWithin(known?.atMs, freshMs)) return ofPod(facts);
      try {
        await refresh(signal);
      } catch (error) {
        if (facts !== undefined && isWithin(known?.atMs, staleMs)) return ofPod(facts);
        throw error;
      }
      const found = known?.list.get(containerId);
      if (found !== undefined) return ofPod(found);
    }
    if (signal.aborted) throw new Error('the kubelet did not name the container in time');
    noteStranger(containerId);
    return undefined;
  };

  function refresh(signal: AbortSignal): Promise<void> {
    // It outlives whoever asked first: others wait for it, or will find it. The wait before the question is shared too,
    // or all who waited would ask one after another.
    underWay ??= ask().finally(() => {
      underWay = undefined;
    });
    return orAborted(underWay, signal);
  }

  async function ask(): Promise<void> {
    const since = nowMs() - lastStartMs;
    if (since >= 0 && since < paceMs) await clock.sleep(paceMs - since);
    const atMs = nowMs();
    lastStartMs = atMs;
    try {
      known = { atMs, list: await fetch(never) };
      paceMs = minPaceMs;
    } catch (error) {
      paceMs = Math.min(paceMs * 2, maxPaceMs);
      throw error;
    }
  }

  function noteStranger(containerId: string): void {
    strangers.delete(containerId);
    strangers.set(containerId, nowMs());
    for (const oldest of strangers.keys()) {
      if (strangers.size <= maxStrangers) break;
      strangers.delete(oldest);
    }
  }

  function isWithin(atMs: number | undefined, maxAgeMs: number): boolean {
    if (atMs === undefined) return false;
    const age = nowMs() - atMs;
    return age >= 0 && age < maxAgeMs;
  }
}

function orAborted(work: Promise<void>, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const abort = (): void => reject(new Error('the kubelet did not answer in time'));
    signal.addEventListener('abort', abort, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
  });
}

const never = new AbortController().signal;
const minPaceMs = 500;
const maxPaceMs = 8_000;
const freshMs = 5_000;
const staleMs = 60_000;
const strangerMs = 10_000;
const maxStrangers = 1_024;
const maxAttempts = 4;
