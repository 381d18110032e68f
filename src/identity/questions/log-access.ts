import { type AnswerRow, answerTable, findings, numbered } from './answer.ts';
import { actorName, personalOf, readEvent, textOf } from './event-fields.ts';
import { paging, window } from './parameter.ts';
import { readAll, windowOf } from './ports.ts';
import { defineQuestion } from './question.ts';

/** Who read the log, and when nobody wrote it. */
export const logAccess = defineQuestion({
  name: 'log-access',
  line: 'who read or exported the log, when the server started and stopped, and what was lost',
  parameters: { ...window, ...paging },
  find: async (asked, asking) => {
    const span = windowOf(asked);
    const page = await asking.read({
      types: ['admin'],
      where: ['action=audit_read'],
      ...span,
      limit: asked.limit,
      ...(asked.cursor === null ? {} : { cursor: asked.cursor }),
    });
    const reads = page.rows.map(readEvent).map((logged) => {
      const { index, time, event } = logged;
      return {
        index,
        time,
        by: actorName(event),
        read: textOf(event, 'route'),
        asked: textOf(event, 'detail'),
        address: personalOf(logged, 'sourceAddress'),
      };
    });
    const runs = await readAll(asking, { types: ['lifecycle'], ...span }, maxRuns);
    const rows = runRows(runs.rows.toReversed().map(readEvent));
    const crashes = rows.filter(({ note }) => note === crashed).length;
    const losses = await readAll(asking, { types: ['loss'], ...span }, maxRuns);
    const lost = losses.rows.map(readEvent);
    return findings({
      says: [
        `${numbered(reads.length, 'reading')}${page.next === null ? '' : ' are shown; there are more'}`,
        `${numbered(rows.filter(({ action }) => action === 'started').length, 'start')}, ${crashes} after a stop that is not in the log`,
        numbered(lost.length, 'loss', 'losses'),
      ],
      missing: [
        ...(asking.may('audit:personal') ? [] : ['addresses: they take the permission audit:personal']),
        'copies of the database or of an export that were read elsewhere',
      ],
      tables: [
        answerTable('reads', ['index', 'time', 'by', 'read', 'asked', 'address'], reads, {
          more: page.next !== null,
        }),
        answerTable('runs', ['index', 'time', 'action', 'version', 'note'], rows, { more: runs.more }),
        answerTable(
          'losses',
          ['index', 'from', 'to', 'what', 'count', 'cause'],
          lost.map(({ index, event }) => ({
            index,
            from: textOf(event, 'from'),
            to: textOf(event, 'to'),
            what: textOf(event, 'what'),
            count: Number(event['count'] ?? 0),
            cause: textOf(event, 'cause'),
          })),
          { more: losses.more },
        ),
      ],
      next: page.next,
    });
  },
});

/** Starts and stops in the order of the log; a start upon a start says that something ended in between, unsaid. */
function runRows(runs: readonly ReturnType<typeof readEvent>[]): readonly (AnswerRow & Run)[] {
  return runs.map(({ index, time, event }, at) => {
    const action = textOf(event, 'action');
    const before = runs[at - 1];
    const isUnsaid =
      action === 'started' && before !== undefined && textOf(before.event, 'action') === 'started';
    return { index, time, action, version: textOf(event, 'version'), note: isUnsaid ? crashed : '' };
  });
}

type Run = { readonly action: string; readonly note: string };

const crashed = 'the run before it ended without a word';
const maxRuns = 200;
