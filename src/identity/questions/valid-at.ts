import { formatCursor } from '../../audit/cursor.ts';
import { maxTtlSeconds } from '../entry.ts';
import { type AnswerRow, answerTable, findings, numbered } from './answer.ts';
import { issuedColumns, issuedDetails, issuedRow } from './certificates.ts';
import { actorName, type LoggedEvent, readEvent, textOf } from './event-fields.ts';
import { identity, moment, optional, paging } from './parameter.ts';
import { type LogReader, readAll, windowOf } from './ports.ts';
import { defineQuestion } from './question.ts';

/** Which certificates were valid at a time, and which of them outlived the entry they were issued under. */
export const validAt = defineQuestion({
  name: 'valid-at',
  line: 'identities with a valid certificate at a time, and certificates that outlived their entry',
  parameters: {
    at: { line: 'the time; now when it is left out', parse: moment, otherwise: (now: Date) => now },
    identity: optional('SPIFFE ID; every identity when it is left out', identity, null),
    ...paging,
  },
  find: async ({ at, identity: of, limit, cursor }, asking) => {
    const { read } = asking;
    const source = of === null ? {} : { source: of };
    const span = lifetimesBefore(at);
    const valid: LoggedEvent[] = [];
    let next = cursor;
    for (let pages = 0; pages < maxPages && valid.length < limit; pages++) {
      const page = await read({
        types: ['issuance'],
        ...source,
        ...windowOf(span),
        limit: pageSize,
        ...(next === null ? {} : { cursor: next }),
      });
      next = page.next;
      for (const event of page.rows.map(readEvent)) {
        if (isValid(event, at)) valid.push(event);
        if (valid.length < limit) continue;
        next = formatCursor({ order: 'newest', index: event.index, ...span });
        break;
      }
      if (next === null) break;
    }
    const isLeft = next !== null;
    const outliving = await findOutliving(asking, at, source);
    const identities = new Set(valid.map(({ event }) => textOf(event, 'spiffeId')));
    return findings({
      says: [
        `at ${at.toISOString()}: ${numbered(valid.length, 'valid certificate')} of ${numbered(identities.size, 'identity', 'identities')}${isLeft ? ' up to here; there may be more' : ''}`,
        `${numbered(outliving.rows.length, 'certificate')} outlived the deletion of the entry`,
      ],
      tables: [
        answerTable('valid', issuedColumns, valid.map(issuedRow), { details: issuedDetails, more: isLeft }),
        answerTable('outliving', outlivingColumns, outliving.rows, { more: outliving.more }),
      ],
      next,
    });
  },
});

/** Certificates valid at a time whose entry had been deleted by then: each deletion, and what was issued before it. */
async function findOutliving(
  ports: LogReader,
  at: Date,
  source: { readonly source?: string },
): Promise<{ readonly rows: readonly AnswerRow[]; readonly more: boolean }> {
  const span = lifetimesBefore(at);
  const deleted = await readAll(
    ports,
    { types: ['entry_change'], where: ['action=deleted'], ...source, ...windowOf({ ...span, until: at }) },
    maxDeletions,
  );
  const rows: AnswerRow[] = [];
  let { more } = deleted;
  for (const row of deleted.rows) {
    const change = readEvent(row);
    const entryId = textOf(change.event, 'entryId');
    const issued = await readAll(
      ports,
      {
        types: ['issuance'],
        source: textOf(change.event, 'spiffeId'),
        where: [`entryId=${entryId}`],
        ...windowOf({ ...span, until: new Date(Date.parse(change.time) + slackMs) }),
      },
      maxOfEntry,
    );
    more ||= issued.more;
    for (const event of issued.rows.map(readEvent)) {
      // INVARIANT: the order of the log decides, not clocks: an entry of the same name may have been made again.
      if (event.index > change.index || !isValid(event, at)) continue;
      rows.push({
        ...issuedRow(event),
        deletedAt: change.time,
        deletedBy: actorName(change.event),
        deletedIndex: change.index,
      });
    }
  }
  return { rows, more };
}

function isValid({ event }: LoggedEvent, at: Date): boolean {
  return (
    Date.parse(textOf(event, 'notBefore')) <= at.getTime() &&
    at.getTime() < Date.parse(textOf(event, 'notAfter'))
  );
}

/** When what is valid at a time can have been issued. */
function lifetimesBefore(at: Date): { readonly since: Date; readonly until: Date } {
  return {
    since: new Date(at.getTime() - maxTtlSeconds * 1_000 - slackMs),
    until: new Date(at.getTime() + slackMs),
  };
}

const outlivingColumns = [
  'index',
  'identity',
  'serial',
  'notAfter',
  'entry',
  'deletedAt',
  'deletedBy',
  'deletedIndex',
];
// Certificates begin a little before they are made, for the clocks of others.
const slackMs = 120_000;
const pageSize = 500;
const maxPages = 2;
const maxDeletions = 50;
const maxOfEntry = 200;
