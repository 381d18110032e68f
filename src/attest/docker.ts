import type { Clock } from '../clock.ts';
import type { Selector } from '../identity/selector.ts';
import { boundedGet } from './bounded-get.ts';
import { containerOf } from './container.ts';
import { field, readLabels, text } from './pod-list.ts';
import { type SelectorSource, validSelector } from './source.ts';

export type DockerOptions = {
  /** The engine's Unix socket, usually /var/run/docker.sock. */
  readonly socketPath: string;
  readonly clock: Clock;
  readonly timeoutMs?: number;
  readonly maxBytes?: number;
  /** Told of each question to the engine: why there was no answer, or null. */
  readonly note?: (failure: string | null) => void;
};

/**
 * `docker:*`: labels and image of the container that the kernel says a process is in, as the Docker engine describes it.
 * Neither can change while a container lives, so an answer holds for a minute. Where there is no socket there are no
 * such selectors.
 */
export function createDockerSource(options: DockerOptions): SelectorSource {
  const { clock } = options;
  const known = new Map<string, { readonly atMs: number; readonly selectors: readonly Selector[] }>();
  const underWay = new Map<string, Promise<readonly Selector[]>>();
  return {
    name: 'Docker engine',
    kinds: ['docker:label', 'docker:image-id', 'docker:image'],
    isCostly: false,
    selectorsOf: async ({ cgroups }, signal) => {
      const id = containerOf(cgroups)?.containerId;
      if (id === undefined) return [];
      const last = known.get(id);
      const age = last === undefined ? freshMs : clock.now().getTime() - last.atMs;
      if (last !== undefined && age >= 0 && age < freshMs) return last.selectors;
      const asking = underWay.get(id) ?? inspect(options, id).finally(() => underWay.delete(id));
      underWay.set(id, asking);
      const selectors = await asking;
      if (signal.aborted) throw new Error('the Docker engine did not answer in time');
      known.delete(id);
      known.set(id, { atMs: clock.now().getTime(), selectors });
      for (const oldest of known.keys()) {
        if (known.size <= maxKnown) break;
        known.delete(oldest);
      }
      return selectors;
    },
  };
}

async function inspect(options: DockerOptions, id: string): Promise<readonly Selector[]> {
  const { note = () => undefined } = options;
  try {
    const selectors = await ask(options, id);
    note(selectors === undefined ? 'there is no socket' : null);
    return selectors ?? [];
  } catch (error) {
    note(error instanceof Error ? error.message : 'unknown');
    throw error;
  }
}

/** @returns undefined when there is no engine */
async function ask(options: DockerOptions, id: string): Promise<readonly Selector[] | undefined> {
  const { socketPath, timeoutMs = 2_000, maxBytes = 1_048_576 } = options;
  const body: Buffer[] = [];
  let status: number;
  try {
    status = await boundedGet({
      options: { socketPath, path: `/containers/${id}/json`, headers: { host: 'docker' } },
      tls: false,
      maxBytes,
      signal: AbortSignal.timeout(timeoutMs),
      onData: (chunk) => body.push(chunk),
    });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
  // A container of another runtime, which the engine does not know.
  if (status === 404) return [];
  if (status !== 200) throw new Error(`the Docker engine answered ${status}`);
  const container: unknown = JSON.parse(Buffer.concat(body).toString('utf8'));
  if (text(container, 'Id') !== id || field(field(container, 'State'), 'Running') !== true) return [];
  const config = field(container, 'Config');
  return [
    // A key with a colon in it could be read as a shorter key with a longer value.
    ...readLabels(field(config, 'Labels'))
      .filter(([key]) => key !== '' && !key.includes(':'))
      .flatMap(([key, value]) => validSelector('docker:label', `${key}:${value}`)),
    ...validSelector('docker:image-id', /^sha256:[0-9a-f]{64}$/.exec(text(container, 'Image') ?? '')?.[0]),
    ...validSelector('docker:image', text(config, 'Image')),
  ];
}

const freshMs = 60_000;
const maxKnown = 1_024;
