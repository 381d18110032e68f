import { formatCursor } from '../../audit/cursor.ts';
import { type AnswerRow, answerTable, findings, numbered } from './answer.ts';
import { actorName, type LoggedEvent, numberOf, readEvent, textOf } from './event-fields.ts';
import { duration, optional, paging, policyKey, window } from './parameter.ts';
import { effectOf } from './policy-effect.ts';
import { type LogReader, readAll, windowOf } from './ports.ts';
import { defineQuestion } from './question.ts';

/** Who changed policies, what the difference was, and whose calls fared otherwise afterwards. */
export const policyChanges = defineQuestion({
  name: 'policy-changes',
  line: 'who changed policies, the difference, and whose calls fared otherwise after the latest change',
  parameters: {
    policy: optional(
      'namespace/name, for differences and effects; every policy when it is left out',
      policyKey,
      null,
    ),
    around: optional('how long before and after a change calls are counted', duration, 86_400_000),
    ...window,
    ...paging,
  },
  find: async (asked, asking) => {
    const { policy } = asked;
    const page = await asking.read({
      types: ['policy_change'],
      ...(policy === null ? {} : { where: [`policy=${policy}`] }),
      ...windowOf(asked),
      limit: asked.limit,
      ...(asked.cursor === null ? {} : { cursor: asked.cursor }),
    });
    const changes = page.rows.map(readEvent);
    const messages = await messagesOf(asking, changes);
    const rows = changes.map((change) => changeRow(change, messages));
    const tables = [
      answerTable('changes', changeColumns, rows, { details: changeDetails, more: page.next !== null }),
    ];
    const missing: string[] = ['approvals: whoever may write a policy needs nobody beside them'];
    if (policy !== null) {
      const differences = await differencesOf(asking, changes.slice(0, maxDifferences), policy);
      const more = changes.length > maxDifferences || page.next !== null;
      tables.push(answerTable('differences', ['index', 'before', 'after'], differences, { more }));
    }
    const [latest] = changes;
    if (policy !== null && latest !== undefined && asked.cursor === null) {
      const effect = await effectOf(asking, latest, policy, asked.around);
      tables.push(...effect.tables);
      missing.push(...effect.missing);
    }
    return findings({
      says: [
        `${numbered(changes.length, 'change')}${page.next === null ? '' : ' are shown; there are more'}`,
      ],
      missing,
      tables,
      next: page.next,
    });
  },
});

function changeRow({ index, time, event }: LoggedEvent, messages: ReadonlyMap<number, string>) {
  const revision = numberOf(event, 'revision');
  return {
    index,
    time,
    action: textOf(event, 'action'),
    policy: textOf(event, 'policy'),
    revision,
    by: actorName(event),
    message: messages.get(revision) ?? '',
    breakGlass: textOf(event, 'breakGlass'),
    beforeSha256: textOf(event, 'beforeSha256'),
    afterSha256: textOf(event, 'afterSha256'),
  };
}

/** What their authors said, by the revision of the mesh. */
async function messagesOf(
  ports: LogReader,
  changes: readonly LoggedEvent[],
): Promise<ReadonlyMap<number, string>> {
  const [newest, oldest] = [changes[0], changes.at(-1)];
  if (newest === undefined || oldest === undefined) return new Map();
  // What was put in force is recorded behind the changes that led to it.
  const { rows } = await readAll(
    ports,
    {
      types: ['policy_revision'],
      order: 'oldest',
      cursor: formatCursor({ order: 'oldest', index: oldest.index, since: null, until: null }),
    },
    changes.length,
  );
  return new Map(
    rows.map(readEvent).map(({ event }) => [numberOf(event, 'revision'), textOf(event, 'message')]),
  );
}

/** The documents before and after each change, newest first; the one before the oldest is looked up. */
async function differencesOf(
  { read }: LogReader,
  changes: readonly LoggedEvent[],
  policy: string,
): Promise<readonly AnswerRow[]> {
  const oldest = changes.at(-1);
  if (oldest === undefined) return [];
  const { rows } = await read({
    types: ['policy_change'],
    where: [`policy=${policy}`],
    cursor: formatCursor({ order: 'newest', index: oldest.index, since: null, until: null }),
    limit: 1,
  });
  const older = [...changes.slice(1), ...rows.map(readEvent)];
  return changes.map(({ index, event }, at) => ({
    index,
    before: documentOf(older[at], textOf(event, 'beforeSha256')),
    after: documentOf({ event }, textOf(event, 'afterSha256')),
  }));
}

/** Null: it is not in the log, because it was too large or is older than the log; empty: there was none. */
function documentOf(change: Pick<LoggedEvent, 'event'> | undefined, sha256: string): string | null {
  if (sha256 === '') return '';
  if (change === undefined || textOf(change.event, 'afterSha256') !== sha256) return null;
  const document = textOf(change.event, 'document');
  return document === '' ? null : document;
}

const changeColumns = ['index', 'time', 'action', 'policy', 'revision', 'by', 'message', 'breakGlass'];
const changeDetails = ['beforeSha256', 'afterSha256'];
const maxDifferences = 20;
