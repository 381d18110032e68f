import type { Clock } from '../clock.ts';
import type { NodeRegistry } from './node-registry.ts';

/** How long a node is remembered after its last certificate has ended, in days. */
export const rememberedDays = 30;

/**
 * Forgets nodes that have not been seen for a month, every hour: machines come and go, and the list of them would only
 * grow. One that comes back attests as if it were new; that it was banned is kept elsewhere.
 */
export function keepForgetting(
  registry: Pick<NodeRegistry, 'forget'>,
  clock: Clock,
  onError: (error: unknown) => void,
): { readonly close: () => Promise<void> } {
  const stop = new AbortController();
  const run = async (): Promise<void> => {
    for (;;) {
      const lastMs = clock.now().getTime();
      await clock.sleep(everyMs, stop.signal);
      if (stop.signal.aborted) return;
      // INVARIANT: over at two looks. A node that came by a join token could not come back by itself, so a clock that
      // jumps ahead, or is wrong when a machine starts, and is put right within the hour must not make us forget it.
      const overMs = Math.min(lastMs, clock.now().getTime());
      try {
        await registry.forget(new Date(overMs - rememberedDays * 86_400_000));
      } catch (error) {
        onError(error);
      }
    }
  };
  const running = run();
  return {
    close: async () => {
      stop.abort('closed');
      await running;
    },
  };
}

const everyMs = 3_600_000;
