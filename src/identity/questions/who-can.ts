import { isMethod } from '../../authz/request.ts';
import { type OpenRule, type PartialCall, type Reach, whoCan as surveyCallers } from '../../authz/reach.ts';
import type { Snapshot } from '../../authz/snapshot.ts';
import { canonicalPath } from '../../authz/path.ts';
import { MeshError, quote } from '../../errors.ts';
import { SpiffeId } from '../../spiffe/id.ts';
import { inBreaths } from '../breath.ts';
import { lookBack } from '../decision-past.ts';
import { findStandingDenial } from '../standing-denial.ts';
import { type AnswerRow, answerTable, findings, numbered } from './answer.ts';
import { entriesAt, type EntriesAt } from './entries-at.ts';
import { numberOf, readEvent } from './event-fields.ts';
import { anyText, duration, identity, moment, optional, paging, refuse, required } from './parameter.ts';
import { type Asking, defineQuestion } from './question.ts';
import { ruleUseOf } from './rule-use.ts';

/** Who may call a service, now or under the policies of another time, and which rules nobody used. */
export const whoCan = defineQuestion({
  name: 'who-can',
  line: 'who may call a service, now or at a time, by which rules, and which of its rules nobody used',
  parameters: {
    destination: required('SPIFFE ID of the called service', identity),
    method: optional('HTTP method; any when it is left out', method, null),
    path: optional('HTTP path without query; any when it is left out', path, null),
    at: optional('under the policies of this time; now when it is left out', moment, null),
    unused: optional(
      'a rule that nobody used for so long is unused: 90d when it is left out',
      duration,
      7_776_000_000,
    ),
    limit: paging.limit,
    cursor: optional('where an earlier answer ended: its next', anyText, null),
  },
  needs: ['authz:explain', 'policies:read', 'entries:read'],
  find: async (asked, asking) => {
    const destination = SpiffeId.parse(asked.destination);
    const { snapshot, words, entries, missing } = await snapshotOf(asking, destination, asked.at);
    const call: PartialCall = {
      ...(asked.method === null ? {} : { method: asked.method }),
      ...(asked.path === null ? {} : { path: asked.path }),
    };
    const { rows, banned, next } = await callersOf(asking, snapshot, entries, destination, call, asked);
    const use = await ruleUseOf(asking, snapshot, destination, asked);
    return findings({
      says: [
        `${numbered(rows.length, 'registered identity', 'registered identities')} may call ${destination.text}${next === null ? '' : ' up to here; there may be more'}, ${words}`,
        ...(banned === 0
          ? []
          : [`${numbered(banned, 'identity', 'identities')} could by the policies, but a ban denies it`]),
        ...use.says,
      ],
      missing: [...missing, ...use.missing],
      tables: [
        answerTable('callers', ['index', 'may', 'caller', 'by', 'unless'], rows, { more: next !== null }),
        ...use.tables,
      ],
      next,
    });
  },
});

type Then = {
  readonly snapshot: Snapshot;
  readonly words: string;
  readonly entries: EntriesAt['entries'];
  readonly missing: readonly string[];
};

/** The policies and registrations of now, or of a time. */
async function snapshotOf(asking: Asking, destination: SpiffeId, at: Date | null): Promise<Then> {
  const { current, archive, settings, breathe, read } = asking;
  const live = current();
  if (at === null) {
    const { entries } = live.mesh;
    return { snapshot: live.snapshot, words: 'by the policies in force', entries, missing: [] };
  }
  const { rows } = await read({
    types: ['policy_revision'],
    where: ['action!=dropped'],
    until: new Date(at.getTime() + 1).toISOString(),
    limit: 1,
  });
  const number = rows[0] === undefined ? 0 : numberOf(readEvent(rows[0]).event, 'number');
  const record = number === 0 ? null : await archive.revision(number);
  const { entries, why: inDoubt } = await entriesAt(asking, at);
  const mesh = { ...live.mesh, entries };
  const past = lookBack(archive, { ...live, mesh }, settings, destination, breathe);
  const mode = record === null ? null : await past.modeOf(record);
  if (record === null || mode === null) {
    const why =
      number === 0 ? 'no policies were in force then' : `policy revision ${number} is kept no longer`;
    throw new MeshError('policy_revision_not_found', `${at.toISOString()}: ${why}`, {
      fix: 'see countersign policy log for those that are kept',
    });
  }
  return {
    snapshot: await past.snapshotAt(number, mode),
    words: `by policy revision ${number}, in force at ${at.toISOString()}, with the entries of ${inDoubt === '' ? 'then' : 'today'}`,
    entries,
    missing: inDoubt === '' ? [] : [`the entries of then: ${inDoubt}`],
  };
}

/** Those who may, of all registered identities in the order of their names. */
async function callersOf(
  { current, breathe, now }: Asking,
  snapshot: Snapshot,
  entries: EntriesAt['entries'],
  destination: SpiffeId,
  call: PartialCall,
  asked: { readonly limit: number; readonly cursor: string | null; readonly at: Date | null },
): Promise<{ readonly rows: readonly AnswerRow[]; readonly banned: number; readonly next: string | null }> {
  const { bans } = current();
  const identities = new Map([...entries.values()].map(({ spiffeId }) => [spiffeId.text, spiffeId]));
  const names = [...identities.keys()].sort();
  let from = asked.cursor === null ? 0 : names.findIndex((name) => name > (asked.cursor ?? ''));
  if (from < 0) from = names.length;
  const rows: AnswerRow[] = [];
  let banned = 0;
  for (let rounds = 0; rounds < maxRounds && from < names.length && rows.length < asked.limit; rounds++) {
    const some = names.slice(from, from + callersInRound).flatMap((name) => identities.get(name) ?? []);
    const answer = await inBreaths(
      surveyCallers(snapshot, destination, call, some, asked.at ?? now()),
      breathe,
    );
    for (const { caller, ...reach } of answer?.callers ?? []) {
      if (rows.length >= asked.limit) break;
      from++;
      const id = identities.get(caller);
      const isBanned =
        asked.at === null && id !== undefined && findStandingDenial(bans, { id }, destination, now());
      if (reach.reach === 'never') continue;
      if (isBanned) banned++;
      else rows.push(callerRow(caller, reach));
    }
  }
  return { rows, banned, next: from < names.length ? (names[from - 1] ?? null) : null };
}

function callerRow(caller: string, { reach, allow, unless, allowOmitted, unlessOmitted }: Reach): AnswerRow {
  return {
    index: null,
    may: reach,
    caller,
    by: [...allow.map(ruleText), ...(allowOmitted > 0 ? [`${allowOmitted} more`] : [])],
    unless: [...unless.map(ruleText), ...(unlessOmitted > 0 ? [`${unlessOmitted} more`] : [])],
  };
}

/** `pay/ledger rule[0] at ledger.yaml:3:5`, and whether it depends on more than who calls. */
function ruleText({ rule, place, from, to, when }: OpenRule): string {
  const isOpen = [from, to, when].some((lists) => lists.some((list) => list.length > 0));
  return `${rule} at ${place}${isOpen ? ' for some calls' : ''}`;
}

function method(text: string, name: string): string {
  return isMethod(text) ? text : refuse(name, `${quote(text)} is no HTTP method`, 'write it as GET or POST');
}

function path(text: string, name: string): string {
  const canonical = canonicalPath(text);
  return typeof canonical === 'string' ? canonical : refuse(name, canonical.why, 'write it as /accounts/7');
}

const callersInRound = 500;
const maxRounds = 8;
