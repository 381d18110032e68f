import type { Clock } from '../clock.ts';
import { MeshError } from '../errors.ts';
import type { Attest } from '../identity/evidence.ts';
import type { Selector, SelectorKind } from '../identity/selector.ts';
import { readCgroups } from './cgroup.ts';
import type { SelectorSource, Subject } from './source.ts';

export type AttestorParts = {
  /** What the kernel says of the process; without it there is no attestation. */
  readonly unix: Attest;
  readonly sources: readonly SelectorSource[];
  /** The kinds that entries name now. A costly source is asked from the first time one of its own is among them. */
  readonly wanted: () => ReadonlySet<SelectorKind>;
  readonly clock: Clock;
  /** Told at most once a minute that a source failed, and why. */
  readonly warn: (source: string, why: string) => void;
  /** Told of each question to a source: why there was no answer, or null. */
  readonly note?: (source: string, failure: string | null) => void;
  /** How long all sources together may take. */
  readonly limitMs?: number;
  readonly readCgroups?: (pid: number) => Subject['cgroups'];
};

/**
 * Puts attestors together. The sources are asked at once; one that fails, or is late, adds no selectors and keeps nobody
 * from theirs.
 * @throws MeshError (from the attestor) `attestation_failed` as `unix` does, and when the process ended meanwhile
 */
export function createAttestor(parts: AttestorParts): Attest {
  const { unix, sources, clock, limitMs = 4_000 } = parts;
  const warn = createMinuteWarning(parts);
  const everWanted = new Set<SelectorKind>();
  return async (peer) => {
    const first = await unix(peer);
    // Kinds are never unlearnt: callers would seem to have changed when the last entry that names one is deleted.
    for (const kind of parts.wanted()) everWanted.add(kind);
    const isAsked = ({ isCostly, kinds }: SelectorSource): boolean =>
      !isCostly || kinds.some((kind) => everWanted.has(kind));
    const [asked, left] = [sources.filter(isAsked), sources.filter((source) => !isAsked(source))];
    let hasFailed = false;
    const subject: Subject = { peer, cgroups: (parts.readCgroups ?? readCgroups)(peer.pid) };
    const [late, done] = [new AbortController(), new AbortController()];
    void clock.sleep(limitMs, done.signal).then(() => done.signal.aborted || late.abort());
    const found = await Promise.all(
      asked.map(async (source) => {
        try {
          const selectors = await orLate(source.selectorsOf(subject, late.signal), late.signal);
          parts.note?.(source.name, null);
          return selectors;
        } catch (error) {
          const why = error instanceof Error ? error.message : 'unknown';
          hasFailed = true;
          warn(source.name, why);
          parts.note?.(source.name, why);
          return [];
        }
      }),
    );
    done.abort(answered);
    // INVARIANT: asked after the last source has answered. Alive now means that what they read of the pid was read of
    // this very process.
    if (!peer.isAlive()) throw new MeshError('attestation_failed', 'the caller has ended');
    return {
      ...first,
      selectors: merge([...first.selectors, ...found.flat()]),
      lacks: () => left.some(({ kinds }) => kinds.some((kind) => parts.wanted().has(kind))),
      retryAt: hasFailed ? new Date(clock.now().getTime() + retryMs) : null,
    };
  };
}

function orLate<T>(work: Promise<T>, late: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    late.addEventListener('abort', () => reject(new Error('it did not answer in time')), { once: true });
    work.then(resolve, reject);
  });
}

function merge(selectors: readonly Selector[]): readonly Selector[] {
  const byText = new Map(selectors.map((selector) => [selector.text, selector]));
  return [...byText.values()].sort((a, b) => (a.text < b.text ? -1 : 1));
}

function createMinuteWarning({ clock, warn }: AttestorParts): AttestorParts['warn'] {
  const toldMs = new Map<string, number>();
  return (source, why) => {
    const nowMs = clock.now().getTime();
    const ageMs = nowMs - (toldMs.get(source) ?? -Infinity);
    if (ageMs >= 0 && ageMs < minuteMs) return;
    toldMs.set(source, nowMs);
    warn(source, why);
  };
}

// Without a reason each abort makes an error with a stack of its own.
const answered = 'answered';
const minuteMs = 60_000;
const retryMs = 10_000;
