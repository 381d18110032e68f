import type { AuditEventType } from '../../audit/event.ts';
import { isSeed, type Population, type SampleMark } from '../../audit/sample.ts';
import { quote } from '../../errors.ts';
import { defaultTtlSeconds } from '../entry.ts';
import { answerTable, findings, numbered } from './answer.ts';
import { actorName, fieldsOf, type LoggedEvent, numberOf, readEvent, textOf } from './event-fields.ts';
import { duration, optional, refuse, required, window, wholeNumber } from './parameter.ts';
import { defineQuestion } from './question.ts';

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
    const { seed, size, since, until, lifetime } = asked;
    const limits = { maxMarked: maxExceptions + 1, maxRecords: maxPopulation };
    const marks = exceptionsAbove(lifetime);
    const taken = await asking.sample({ populations, since, until, seed, size, marks, ...limits });
    const { end, kinds, records } = taken;
    // INVARIANT: all or none: a sample of a part would be taken for one of the whole.
    if (end === 'too_many')
      refuse('since', `the window holds more than ${maxPopulation} changes`, 'ask for a shorter window');
    if (end === 'time_up') refuse('since', 'the window takes too long to count', 'ask for a shorter window');
    const exceptions = taken.marked
      .map(readEvent)
      .map((logged) => ({ ...changeRow(logged), why: exceptionOf(logged, lifetime) }))
      .filter(({ why }) => why !== '');
    const drawn = taken.drawn.map(readEvent).map(changeRow);
    const population = kinds
      .map(({ type, action, records: changes, firstIndex, lastIndex }) => ({
        index: lastIndex,
        kind: `${type} ${action}`,
        changes,
        firstIndex,
      }))
      .sort((x, y) => (x.kind < y.kind ? -1 : 1));
    return findings({
      says: [
        `${numbered(records, 'change')} in all, ${drawn.length} drawn with the seed ${seed}`,
        'drawn are those with the lowest SHA-256 of <seed>:<index>',
        `${exceptions.length > maxExceptions ? `more than ${maxExceptions}` : numbered(exceptions.length, 'exception')}: lifetimes above ${lifetime / 1_000} s, break-glass grants, forced steps of keys`,
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

/** What finds the changes that {@link exceptionOf} tells of. */
function exceptionsAbove(lifetimeMs: number): readonly SampleMark[] {
  return [
    { types: ['entry_change'], field: 'after.ttlSeconds', is: { above: lifetimeMs / 1_000 } },
    { types: ['policy_change'], field: 'breakGlass', is: 'present' },
    { types: ['authority', 'jwt_key'], field: 'action', is: { text: 'forced' } },
  ];
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
const populations: readonly Population[] = [
  { types: changeTypes, action: null },
  ...['token_created', 'token_revoked'].map((action) => ({ types: ['admin', 'node'], action }) as const),
  ...['evicted', 'forgotten'].map((action) => ({ types: ['node'], action }) as const),
];
const subjects = ['entryId', 'policy', 'grant', 'alias', 'value', 'keyId', 'node', 'detail', 'id'];
const changeColumns = ['index', 'time', 'kind', 'what', 'by'];
const maxPopulation = 100_000;
const maxExceptions = 200;
