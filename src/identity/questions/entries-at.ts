import { MeshError } from '../../errors.ts';
import { SpiffeId } from '../../spiffe/id.ts';
import type { RegistrationEntry } from '../entry.ts';
import { fieldsOf, readEvent, textOf } from './event-fields.ts';
import { readAll, windowOf } from './ports.ts';
import type { Asking } from './question.ts';

/** What was registered at a time, as far as policies look at it. */
export type EntriesAt = {
  readonly entries: ReadonlyMap<string, RegistrationEntry>;
  /** Why they are those of today all the same; empty when they are those of then. */
  readonly why: string;
};

/**
 * The entries of a time: those of today, with all that has been recorded of them since undone. Of an entry only its ID, its SPIFFE
 * ID and its labels are of then.
 */
export async function entriesAt(asking: Asking, at: Date): Promise<EntriesAt> {
  const { entries } = asking.current().mesh;
  const today = (why: string): EntriesAt => ({ entries, why });
  // What was changed at that very moment was so then.
  const since = windowOf({ since: new Date(at.getTime() + 1), until: null });
  const { rows, more } = await readAll(
    asking,
    { types: ['entry_change'], order: 'oldest', ...since },
    maxChanges,
  );
  if (more) return today('too many entries have changed since');
  const { coverage } = await asking.read({ types: ['lifecycle'], limit: 1, ...since });
  if (coverage.pruned.some(({ class: kind }) => kind === 'records')) {
    return today('records of what has changed since are kept no longer');
  }
  const then = new Map(entries);
  const undone = new Set<string>();
  for (const row of rows) {
    const { event } = readEvent(row);
    const id = textOf(event, 'entryId');
    // The first change since tells what there was before all of them.
    if (undone.has(id)) continue;
    undone.add(id);
    if (event['before'] === null) {
      then.delete(id);
      continue;
    }
    const before = entryOf(id, fieldsOf(event, 'before'));
    if (before === undefined) return today('a record of an entry does not hold what it was');
    then.set(id, before);
  }
  return { entries: then, why: '' };
}

function entryOf(id: string, before: Readonly<Record<string, unknown>>): RegistrationEntry | undefined {
  try {
    const spiffeId = SpiffeId.parse(textOf(before, 'spiffeId'));
    const labels = Object.entries(fieldsOf(before, 'labels')).map(([name, value]) => [name, String(value)]);
    return { ...unread, id, spiffeId, labels: Object.fromEntries(labels) as Record<string, string> };
  } catch (error) {
    // A state that was too long is a hash.
    if (error instanceof MeshError) return undefined;
    throw error;
  }
}

const unread = { selectors: [], ttlSeconds: 0, dnsNames: [], hint: '', expiresAt: null, revision: 0 };
const maxChanges = 5_000;
