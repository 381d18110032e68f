import type { Clock } from '../clock.ts';
import type { NodeRegistry } from './node-registry.ts';

/** How long a node is remembered after its last certificate has ended, in days. */
export const rememberedDays = 30;

/**
 * Forgets nodes that have not been seen for a month, once at the start and then every hour: machines come and go, and the
 * list of them would only grow. One that comes back attests as if it were new; that it was banned is kept elsewhere.
 */
export function keepForgetting(
  registry: Pick<NodeRegistry, 'forget'>,
  clock: Clock,
  onError: (error: unknown) => void,
): { readonly close: () => Promise<void> } {
  const stop = new AbortController();
  const run = async (): Promise<void> => {
    while (!stop.signal.aborted) {
      try {
        await registry.forget(new Date(clock.now().getTime() - rememberedDays * 86_400_000));
      } catch (error) {
        onError(error);
      }
      await clock.sleep(everyMs, stop.signal);
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
