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
  let waiting: CoverageNote[] = [];

  const run = async (): Promise<void> => {
    while (!stop.signal.aborted) {
      await latch.next(stop.signal);
      await clock.sleep(gatherMs, stop.signal);
      while (waiting.length > 0) {
        const batch = waiting.slice(0, maxNotes);
        try {
          const own = client();
          const report = { notes: batch.map(noteToWire) };
          await ask((metadata, options, done) => own.reportCoverage(report, metadata, options, done));
          waiting = waiting.slice(batch.length);
        } catch (error) {
          if (stop.signal.aborted) return;
          // INVARIANT: what the server will never take does not hold up what comes after it.
          if (error instanceof MeshError && (error.kind === 'invalid' || error.kind === 'too_large')) {
            waiting = waiting.slice(batch.length);
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
      if (waiting.length >= maxWaiting) return;
      waiting.push(note);
      latch.raise();
    },
    close: async () => {
      stop.abort('closed');
      await running;
    },
  };
}

const maxWaiting = 8_192;
// With the longest names there are it stays below the 1 MiB that the server receives.
const maxNotes = 64;
const gatherMs = 200;
const retryMs = 2_000;
