import type { RetentionEvent } from '../audit/retention-event.ts';
import type { PrunedClass } from '../audit/retention.ts';
import type { PersonalBatch, PersonalFilter, PersonalMatches } from './audit-personal.ts';
import type { DueSpan, PruneQuestion } from './audit-due.ts';
import { type AnnouncedSpan, partsOfSpan } from './audit-pruned.ts';
import type { QuestionKind, Questions, RetentionChange } from './protocol.ts';

/** What goes of the log, and nothing else may: the schema refuses what was not announced. */
export type LogRetention = {
  /** The first span that is due and was not announced. */
  readonly dueSpan: (question: PruneQuestion) => Promise<DueSpan | null>;
  /** What was announced last: only that may not be done yet. */
  readonly lastPruned: () => Promise<{ readonly first: number; readonly class: PrunedClass } | null>;
  /** Announces what goes of a span; `event` says the same. */
  readonly announcePruning: (span: AnnouncedSpan, event: RetentionEvent) => Promise<void>;
  /**
   * Takes what was announced of a span, in bounded steps; again does no harm.
   * @throws MeshError `audit_log_damaged` when an entry is not what was recorded: it stays
   */
  readonly prune: (span: { readonly first: number; readonly class: PrunedClass }) => Promise<void>;
  /** Personal values of the first span, from an entry on, that is older than a time. */
  readonly oldPersonal: (beforeMs: number, from: number) => Promise<PersonalBatch | null>;
  /** Looks at a bounded number of personal values. */
  readonly findPersonal: (filter: PersonalFilter, from: number) => Promise<PersonalMatches>;
  /**
   * Overwrites values, in one transaction with the event that tells of it.
   * @param remove gives the room of those and all older ones back
   * @throws MeshError `revision_conflict` when one of them is gone already
   */
  readonly shredPersonal: (batch: PersonalBatch, event: RetentionEvent, remove?: boolean) => Promise<void>;
  /** Empties the WAL, where copies of what was overwritten are. @returns false when that must be tried again */
  readonly foldLog: () => Promise<boolean>;
};

/** How the store is written to, and how its WAL is emptied. */
export type RetentionCalls = readonly [
  write: (change: RetentionChange, events: readonly RetentionEvent[]) => Promise<unknown>,
  fold: () => Promise<unknown>,
];

export function logRetention(
  ask: <K extends QuestionKind>(kind: K, about: Questions[K]['ask']) => Promise<Questions[K]['answer']>,
  ...[write, fold]: RetentionCalls
): LogRetention {
  return {
    dueSpan: (question) => ask('dueSpan', question),
    lastPruned: () => ask('lastPruned', null),
    announcePruning: async (span, event) => {
      const { first, class: pruned, entries } = span;
      await write({ kind: 'prune', first, class: pruned, entries }, [event]);
    },
    prune: async (span) => {
      for (let part = 0; part < partsOfSpan; part++) await write({ kind: 'prune_part', ...span, part }, []);
    },
    oldPersonal: (beforeMs, from) => ask('oldPersonal', { beforeMs, from }),
    findPersonal: (filter, from) => ask('personal', { filter, from }),
    shredPersonal: async ({ ids }, event, remove = false) => {
      await write({ kind: 'shred', ids, remove }, [event]);
    },
    foldLog: async () => (await fold()) === true,
  };
}
