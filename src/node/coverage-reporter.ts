import type { Clock } from '../clock.ts';
import { MeshError } from '../errors.ts';
import { createLatch } from '../identity/notice.ts';
import type { NodeClient } from '../wire/node.ts';
import { type CoverageNote, noteToWire } from './coverage-wire.ts';
import { ask } from './node-client.ts';

/** Tells the server what the processes of this node were sent and have taken into use. */
export type CoverageReporter = {
  /** Takes a note without waiting. One for which there is no room counts as never confirmed, which is the safe side. */
  readonly add: (note: CoverageNote) => void;
  readonly close: () => Promise<void>;
};

export function createCoverageReporter(client: () => NodeClient, clock: Clock): CoverageReporter {
  const latch = createLatch();
  const stop = new AbortController();
  // The many streams of one process say the same: what waits is told once, at the place of the last.
  const waiting = new Map<string, CoverageNote>();
  const settle = (batch: readonly (readonly [string, CoverageNote])[]): void => {
    // INVARIANT: what was said again while it was under way is told again.
    for (const [key, note] of batch) if (waiting.get(key) === note) waiting.delete(key);
  };

  const run = async (): Promise<void> => {
    while (!stop.signal.aborted) {
      await latch.next(stop.signal);
      await clock.sleep(gatherMs, stop.signal);
      while (waiting.size > 0) {
        const batch = [...waiting].slice(0, maxNotes);
        try {
          const own = client();
          const report = { notes: batch.map(([, note]) => noteToWire(note)), agent: undefined };
          await ask(
            (metadata, options, done) => own.reportCoverage(report, metadata, options, done),
            stop.signal,
          );
          settle(batch);
        } catch (error) {
          if (stop.signal.aborted) return;
          // INVARIANT: what the server will never take does not hold up what comes after it.
          if (error instanceof MeshError && (error.kind === 'invalid' || error.kind === 'too_large')) {
            settle(batch);
            continue;
          }
          // Told again: the server takes a note twice as it takes it once.
          await clock.sleep(retryMs, stop.signal);
        }
      }
    }
  };
  const running = run();
  return {
    add: (note) => {
      const key = keyOf(note);
      if (!waiting.delete(key) && waiting.size >= maxWaiting) return;
      waiting.set(key, note);
      latch.raise();
    },
    close: async () => {
      stop.abort('closed');
      await running;
    },
  };
}

/** What the server tells notes apart by. */
function keyOf({ isConfirmed, client: { uid, pid }, name, content }: CoverageNote): string {
  const what =
    content.kind === 'bundle' ? content.sequence : `${content.serial} ${content.bundleSequence ?? 'alone'}`;
  return `${isConfirmed ? 'confirmed' : 'sent'} ${uid} ${pid} ${what} ${name}`;
}

const maxWaiting = 8_192;
// With the longest names there are it stays below the 1 MiB that the server receives.
const maxNotes = 64;
const gatherMs = 200;
const retryMs = 2_000;
