import type { Clock } from './clock.ts';
import { publicError } from './errors.ts';
import { mayPass } from './node/node-identity.ts';

/**
 * Says that something failed.
 * @param kind what it has in common with others, of which one is said for all
 */
export type Complain = (kind: string, message: string, detail: object) => void;

/**
 * Says the first of each kind at once, and then one in a minute with the number of those between them (`more`): an outage
 * fails a thousand things again and again, and must not fill the disk with what it says of them.
 */
export function createComplaints(clock: Clock, say: (detail: object, message: string) => void): Complain {
  const said = new Map<string, { readonly atMs: number; more: number }>();
  return (kind, message, detail) => {
    const key = `${message} ${kind}`;
    const atMs = clock.now().getTime();
    const last = said.get(key);
    if (last !== undefined && Math.abs(atMs - last.atMs) < sayEveryMs) {
      last.more += 1;
      return;
    }
    said.delete(key);
    for (const oldest of said.keys()) {
      if (said.size < maxKinds) break;
      said.delete(oldest);
    }
    said.set(key, { atMs, more: 0 });
    say(last === undefined || last.more === 0 ? detail : { ...detail, more: last.more }, message);
  };
}

/** Says that the certificate of an entry could not be made. */
export function complainOfEntry(
  complain: Complain,
): (entry: { readonly id: string }, error: unknown) => void {
  return (entry, error) => {
    const detail = publicError(error);
    // While the server is away, or its disk is full, all of them fail for the same reason.
    const kind = mayPass(error) ? detail.code : `${detail.code} ${entry.id}`;
    complain(kind, 'certificate could not be made', { entry: entry.id, ...detail });
  };
}

const sayEveryMs = 60_000;
const maxKinds = 1_024;
