import { formatCursor } from '../../audit/cursor.ts';
import { MeshError, quote } from '../../errors.ts';
import { type AnswerTable, answerTable, findings } from './answer.ts';
import { issuedColumns, issuedDetails, issuedRow } from './certificates.ts';
import { actorName, type LoggedEvent, numberOf, readEvent, textOf } from './event-fields.ts';
import { required, serial } from './parameter.ts';
import { type LogReader, readAll } from './ports.ts';
import { type Asking, defineQuestion } from './question.ts';
import { usesOf } from './uses.ts';

/** One certificate or token, from its evidence to its last use. */
export const certificate = defineQuestion({
  name: 'certificate',
  line: 'one certificate by its serial number: evidence, entry, policies, renewals, bans and uses',
  parameters: {
    serial: required('the serial number of a certificate or the jti of a token, in hex', serial),
  },
  find: async (asked, asking) => {
    const found = await asking.read({
      serial: asked.serial,
      types: issuanceTypes,
      order: 'oldest',
      limit: 2,
    });
    const [issued, again] = found.rows.map(readEvent);
    if (issued === undefined) throw unknown(asked.serial);
    const { tables, missing } = await tableOfUses(asking, asked.serial);
    return findings({
      says: [
        `${textOf(issued.event, 'spiffeId')} was given it under entry ${textOf(issued.event, 'entryId')}, revision ${numberOf(issued.event, 'entryRevision')}`,
        ...(again === undefined ? [] : ['the serial was given more than once: the first is told of']),
      ],
      missing,
      tables: [
        answerTable('issued', issuedColumns, [issuedRow(issued)], { details: issuedDetails }),
        answerTable('because', ['index', 'time', 'what', 'revision', 'by'], await reasonsOf(asking, issued)),
        await renewalsOf(asking, issued),
        await bansOf(asking, issued, asked.serial),
        ...tables,
      ],
    });
  },
});

const issuanceTypes = ['issuance', 'jwt_issuance'] as const;

function unknown(text: string): MeshError {
  return new MeshError('audit_certificate_not_found', `no certificate ${quote(text)} is in the log`, {
    fix: 'a certificate that our keys signed and the log does not have was made by somebody else: ban it, and see countersign audit ask keys',
  });
}

/** The entry as it was, and the policies in force. */
async function reasonsOf(ports: LogReader, issued: LoggedEvent) {
  const before = formatCursor({ order: 'newest', index: issued.index, since: null, until: null });
  const [entries, policies] = await Promise.all([
    entryOf(ports, issued, before),
    ports.read({ types: ['policy_revision'], where: ['action!=dropped'], cursor: before, limit: 1 }),
  ]);
  return [
    ...entries.map((entry) => ({
      index: entry.index,
      time: entry.time,
      what: `entry ${textOf(entry.event, 'entryId')} ${textOf(entry.event, 'action')}`,
      revision: numberOf(entry.event, 'revision'),
      by: actorName(entry.event),
    })),
    ...policies.rows.map(readEvent).map((policy) => ({
      index: policy.index,
      time: policy.time,
      what: `policy revision ${numberOf(policy.event, 'number')} in force`,
      revision: numberOf(policy.event, 'number'),
      by: actorName(policy.event),
    })),
  ];
}

/**
 * The change that made the entry what it was, if the log has it: nearly always the latest before the certificate. Revisions grow
 * along the log: one before the first of an entry is not there, and a busy entry is not searched for it.
 */
async function entryOf(
  { read }: LogReader,
  { event }: LoggedEvent,
  before: string,
): Promise<readonly LoggedEvent[]> {
  const revision = numberOf(event, 'entryRevision');
  const ofEntry = `entryId=${textOf(event, 'entryId')}`;
  const changes = { types: ['entry_change'], where: [ofEntry], limit: 1 };
  const [latest] = (await read({ ...changes, cursor: before })).rows.map(readEvent);
  if (latest === undefined || revisionOf(latest) < revision) return [];
  if (revisionOf(latest) === revision) return [latest];
  const [first] = (await read({ ...changes, order: 'oldest' })).rows.map(readEvent);
  if (first === undefined || revisionOf(first) > revision) return [];
  const found = await read({ ...changes, where: [ofEntry, `revision=${revision}`], cursor: before });
  return found.rows.map(readEvent);
}

function revisionOf({ event }: LoggedEvent): number {
  return numberOf(event, 'revision');
}

/** What was issued under the same entry just before it, and just after. */
async function renewalsOf(ports: LogReader, issued: LoggedEvent): Promise<AnswerTable> {
  const { index, type, event } = issued;
  const near = (order: 'newest' | 'oldest') =>
    readAll(
      ports,
      {
        types: [type],
        source: textOf(event, 'spiffeId'),
        where: [`entryId=${textOf(event, 'entryId')}`],
        order,
        cursor: formatCursor({ order, index, since: null, until: null }),
      },
      shownAround,
    );
  const [earlier, later] = await Promise.all([near('newest'), near('oldest')]);
  const rows = [
    ...earlier.rows.toReversed().map((row) => ({ when: 'before', ...issuedRow(readEvent(row)) })),
    ...later.rows.map((row) => ({ when: 'after', ...issuedRow(readEvent(row)) })),
  ];
  return answerTable('renewals', ['index', 'time', 'when', 'serial', 'notAfter', 'process'], rows, {
    more: earlier.more || later.more,
  });
}

/** Bans of the certificate, of its identity and of its key. */
async function bansOf(ports: LogReader, { event }: LoggedEvent, number: string): Promise<AnswerTable> {
  const values = [number, textOf(event, 'spiffeId'), textOf(event, 'spkiSha256')].filter(
    (value) => value !== '',
  );
  const found = await Promise.all(
    values.map((value) => readAll(ports, { types: ['ban'], where: [`value=${value}`] }, maxBans)),
  );
  const rows = found
    .flatMap(({ rows: some }) => some)
    .map(readEvent)
    .sort((a, b) => a.index - b.index)
    .map((ban) => ({
      index: ban.index,
      time: ban.time,
      action: textOf(ban.event, 'action'),
      kind: textOf(ban.event, 'kind'),
      reason: textOf(ban.event, 'reason'),
      until: textOf(ban.event, 'until'),
      by: actorName(ban.event),
    }));
  const columns = ['index', 'time', 'action', 'kind', 'reason', 'until', 'by'];
  return answerTable('bans', columns, rows, { more: found.some(({ more }) => more) });
}

/** Where it was shown, by the proxies that saw it. */
async function tableOfUses(asking: Asking, number: string) {
  if (!asking.may('audit:decisions')) {
    return { tables: [], missing: ['where it was used: that takes the permission audit:decisions'] };
  }
  const uses = await usesOf(asking, { serial: number });
  return { tables: [uses.table], missing: uses.missing };
}

const shownAround = 5;
const maxBans = 50;
