import type { AuditEventType } from '../../audit/event.ts';
import { createSample, isSeed } from '../../audit/sample.ts';
import { quote } from '../../errors.ts';
import { defaultTtlSeconds } from '../entry.ts';
import { type AnswerRow, answerTable, findings, numbered } from './answer.ts';
import { actorName, fieldsOf, type LoggedEvent, numberOf, readEvent, textOf } from './event-fields.ts';
import { duration, optional, refuse, required, window, wholeNumber } from './parameter.ts';
import { type LogQuestion, windowOf } from './ports.ts';
import { type Asking, defineQuestion } from './question.ts';

/** All changes of a window of time, counted, a sample of them that anybody can draw again, and what broke the rules. */
export const sample = defineQuestion({
  name: 'sample',
  line: 'all changes of a window counted, a sample drawn by a seed, and exceptions to the rules for lifetimes',
  parameters: {
    ...window,
    seed: required(
      '1 to 64 of A-Za-z0-9._- of your own choice: the same seed draws the same sample',
      (text, name) =>
        isSeed(text) ? text : refuse(name, `${quote(text)} is no seed`, 'use 1 to 64 of A-Za-z0-9._-'),
    ),
    size: optional('how many changes to draw', wholeNumber(1, 200), 25),
    lifetime: optional(
      'the longest lifetime of a certificate that is no exception: 1h when it is left out',
      duration,
      defaultTtlSeconds * 1_000,
    ),
  },
  find: async (asked, asking) => {
    const drawing = createSample<LoggedEvent>(asked.seed, asked.size);
    const kinds = new Map<string, Kind>();
    const exceptions: AnswerRow[] = [];
    let total = 0;
    for (const some of populations) {
      await eachEvent(asking, { ...some, ...windowOf(asked) }, (logged) => {
        if (++total > maxPopulation) {
          refuse('since', `the window holds more than ${maxPopulation} changes`, 'ask for a shorter window');
        }
        drawing.take(logged);
        const name = `${logged.type} ${textOf(logged.event, 'action')}`;
        const kind = kinds.get(name) ?? { index: 0, changes: 0, firstIndex: logged.index };
        kinds.set(name, {
          index: Math.max(kind.index, logged.index),
          changes: kind.changes + 1,
          firstIndex: Math.min(kind.firstIndex, logged.index),
        });
        const why = exceptionOf(logged, asked.lifetime);
        if (why !== '' && exceptions.length <= maxExceptions) exceptions.push({ ...changeRow(logged), why });
      });
    }
    const drawn = drawing.drawn().map(changeRow);
    const population = [...kinds]
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([kind, { index, changes, firstIndex }]) => ({ index, kind, changes, firstIndex }));
    return findings({
      says: [
        `${numbered(total, 'change')} in all, ${drawn.length} drawn with the seed ${asked.seed}`,
        'drawn are those with the lowest SHA-256 of <seed>:<index>',
        `${exceptions.length > maxExceptions ? `more than ${maxExceptions}` : numbered(exceptions.length, 'exception')}: lifetimes above ${asked.lifetime / 1_000} s, break-glass grants, forced steps of keys`,
      ],
      missing: ['approvals: one actor makes a change; policies carry owner and ticket in their text'],
      tables: [
        answerTable('population', ['index', 'kind', 'changes', 'firstIndex'], population),
        answerTable('sample', changeColumns, drawn),
        answerTable('exceptions', [...changeColumns, 'why'], exceptions.slice(0, maxExceptions), {
          more: exceptions.length > maxExceptions,
        }),
      ],
    });
  },
});

type Kind = { readonly index: number; readonly changes: number; readonly firstIndex: number };

/** Goes through all records. INVARIANT: all or none: a sample of a part would be taken for one of the whole. */
async function eachEvent(
  { read, isTimeUp }: Asking,
  question: LogQuestion,
  take: (logged: LoggedEvent) => void,
): Promise<void> {
  let cursor: string | undefined;
  do {
    const page = await read({ ...question, limit: 1_000, ...(cursor === undefined ? {} : { cursor }) });
    for (const row of page.rows) take(readEvent(row));
    cursor = page.next ?? undefined;
    if (cursor !== undefined && isTimeUp()) {
      refuse('since', 'the window takes too long to count', 'ask for a shorter window');
    }
  } while (cursor !== undefined);
}

/** Why a change is one that somebody should look at; empty when it is not. */
function exceptionOf({ type, event }: LoggedEvent, lifetimeMs: number): string {
  if (type === 'entry_change') {
    const ttlSeconds = numberOf(fieldsOf(event, 'after'), 'ttlSeconds');
    return ttlSeconds * 1_000 > lifetimeMs ? `certificates live for ${ttlSeconds} s` : '';
  }
  if (type === 'policy_change') {
    const glass = textOf(event, 'breakGlass');
    return glass === '' ? '' : `break glass: ${glass}`;
  }
  if (type !== 'authority' && type !== 'jwt_key') return '';
  return textOf(event, 'action') === 'forced' ? 'forced without the evidence it takes' : '';
}

function changeRow({ index, type, time, event }: LoggedEvent) {
  const subject = subjects.map((name) => textOf(event, name)).find((text) => text !== '');
  return {
    index,
    time,
    kind: `${type} ${textOf(event, 'action')}`,
    what: subject ?? '',
    by: actorName(event),
  };
}

const changeTypes: readonly AuditEventType[] = [
  'entry_change',
  'policy_change',
  'policy_revision',
  'grant_change',
  'node_alias_change',
  'ban',
  'authority',
  'jwt_key',
];
/** Together, and none twice, all that somebody changed. */
const populations: readonly LogQuestion[] = [
  { types: changeTypes },
  ...['token_created', 'token_revoked'].map((action) => ({
    types: ['admin', 'node'],
    where: [`action=${action}`],
  })),
  ...['evicted', 'forgotten'].map((action) => ({ types: ['node'], where: [`action=${action}`] })),
];
const subjects = ['entryId', 'policy', 'grant', 'alias', 'value', 'keyId', 'node', 'detail', 'id'];
const changeColumns = ['index', 'time', 'kind', 'what', 'by'];
const maxPopulation = 100_000;
const maxExceptions = 200;
