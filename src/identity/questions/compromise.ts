import { MeshError, quote } from '../../errors.ts';
import { isInForce } from '../ban.ts';
import { acceptedSince } from './accepted.ts';
import { type AnswerTable, answerTable, findings, numbered } from './answer.ts';
import { actorName, type LoggedEvent, numberOf, readEvent, textOf } from './event-fields.ts';
import { required, refuse } from './parameter.ts';
import { readAll } from './ports.ts';
import { type Asking, defineQuestion } from './question.ts';

/** After a compromise: what was banned, who still accepted it, and what of it is still valid. */
export const compromise = defineQuestion({
  name: 'compromise',
  line: 'after a ban: the last accepted call at each proxy, certificates still valid, and nodes that lag behind',
  parameters: {
    ban: required(
      'what was banned: a SPIFFE ID, a serial number or the SHA-256 of a key, in hex',
      (text, name) =>
        text.startsWith('spiffe://') || /^[0-9a-f:]{1,80}$/i.test(text)
          ? text.startsWith('spiffe://')
            ? text
            : text.replaceAll(':', '').toLowerCase()
          : refuse(
              name,
              `${quote(text)} can be no ban`,
              'give a SPIFFE ID, or a serial number or SHA-256 in hex',
            ),
    ),
  },
  needs: ['audit:decisions', 'nodes:read', 'bans:read'],
  find: async ({ ban: value }, asking) => {
    const { rows } = await readAll(asking, { types: ['ban'], where: [`value=${value}`] }, maxBans);
    const bans = rows.map(readEvent).toReversed();
    const made = bans.findLast(({ event }) => textOf(event, 'action') === 'created');
    if (made === undefined) {
      throw new MeshError('ban_not_found', `no ban of ${quote(value)} is in the log`, {
        fix: 'see countersign audit list --type ban',
      });
    }
    const kind = textOf(made.event, 'kind');
    const late = await acceptedSince(asking, kind, value, made.time);
    const alive = await aliveOf(asking, kind, value);
    const alarms = await alarmsOf(asking, kind, value);
    const laggards = laggardsOf(asking);
    const isBanned = [...asking.current().mesh.bans.values()].some(
      (ban) => ban.kind === kind && ban.value === value && isInForce(ban, asking.now()),
    );
    const after = late.last;
    return findings({
      says: [
        `${kind} ${value} was banned at ${made.time} by ${actorName(made.event)}: ${textOf(made.event, 'reason')}`,
        ...(isBanned ? [] : ['the ban is in force no longer']),
        after === undefined
          ? 'no proxy is known to have accepted it afterwards'
          : `the last call that was accepted afterwards came ${secondsBetween(made.time, after.last)} s after the ban, at ${after.proxy}`,
        ...(alarms.items.length === 0
          ? []
          : [
              `${numbered(alarms.items.length, 'certificate')} in its name ${alarms.items.length === 1 ? 'was' : 'were'} accepted that the log has no issuance of: somebody else may have a key of the CA`,
            ]),
        `${numbered(alive.items.length, 'certificate')} of it ${alive.items.length === 1 ? 'is' : 'are'} still valid; ${numbered(laggards.items.length, 'node')} ${laggards.items.length === 1 ? 'lags' : 'lag'} behind or ${laggards.items.length === 1 ? 'is' : 'are'} away`,
      ],
      missing: [...late.missing, 'when the compromise was noticed: the log knows when it was banned'],
      tables: [
        answerTable('bans', ['index', 'time', 'action', 'kind', 'reason', 'by'], bans.map(banRow)),
        ...late.tables,
        alarms,
        alive,
        laggards,
      ],
    });
  },
});

function banRow({ index, time, event }: LoggedEvent) {
  return {
    index,
    time,
    action: textOf(event, 'action'),
    kind: textOf(event, 'kind'),
    reason: textOf(event, 'reason'),
    by: actorName(event),
    revision: numberOf(event, 'revision'),
  };
}

/** Certificates that proxies accepted and nobody here gave out: in its name, or with its serial number. */
async function alarmsOf(asking: Asking, kind: string, value: string): Promise<AnswerTable> {
  const about = kind === 'spiffe-id' ? { where: [`claimedSource=${value}`] } : { serial: value };
  const { rows, more } =
    kind === 'key'
      ? { rows: [], more: false }
      : await readAll(asking, { types: ['alarm'], ...about }, maxAlarms);
  const items = rows.map(readEvent).map(({ index, time, event }) => ({
    index,
    time,
    serial: textOf(event, 'serial'),
    identity: textOf(event, 'claimedSource'),
    proxy: textOf(event, 'destination'),
    seenIn: textOf(event, 'seenIn'),
  }));
  return answerTable('alarms', ['index', 'time', 'serial', 'identity', 'proxy', 'seenIn'], items, { more });
}

/** What was issued to it and has not ended. */
async function aliveOf(asking: Asking, kind: string, value: string): Promise<AnswerTable> {
  const { certificates } = await asking.certificates({
    spiffeIds: kind === 'spiffe-id' ? [value] : [],
    serials: kind === 'serial' ? [value] : [],
    keys: kind === 'key' ? [value] : [],
  });
  const rows = certificates.slice(0, maxAlive).map(({ serial, spiffeId, notAfter }) => ({
    index: null,
    serial,
    identity: spiffeId,
    notAfter: notAfter.toISOString(),
  }));
  return answerTable('still valid', ['index', 'serial', 'identity', 'notAfter'], rows, {
    more: certificates.length > maxAlive,
  });
}

/** Nodes that do not have what the server has, or are away: they may go by older bans. */
function laggardsOf({ nodes }: Asking): AnswerTable {
  const rows = nodes()
    .filter(({ presence }) => !presence.connected || presence.behindSince !== null)
    .map(({ name, presence }) => ({
      index: null,
      node: name,
      why: presence.connected ? 'behind' : 'not connected',
      since: (presence.connected ? presence.behindSince : presence.since)?.toISOString() ?? '',
      lastContact: presence.lastContactAt?.toISOString() ?? '',
    }));
  return answerTable('laggards', ['index', 'node', 'why', 'since', 'lastContact'], rows.slice(0, maxAlive), {
    more: rows.length > maxAlive,
  });
}

function secondsBetween(from: string, to: string): number {
  return Math.max(0, Math.round((Date.parse(to) - Date.parse(from)) / 1_000));
}

const maxBans = 100;
const maxAlarms = 200;
const maxAlive = 1_000;
