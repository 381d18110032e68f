import { answerTable, findings, numbered } from './answer.ts';
import { actorName, type LoggedEvent, readEvent, textOf } from './event-fields.ts';
import { choice, optional, paging, window } from './parameter.ts';
import { windowOf } from './ports.ts';
import { defineQuestion } from './question.ts';

/** Every step in the life of a signing key, and of the bundle that others trust. */
export const keys = defineQuestion({
  name: 'keys',
  line: 'every step of a CA key, of a key for tokens and of the trust bundle: who took it, and on what evidence',
  parameters: {
    of: optional('ca or jwt; both when it is left out', choice('ca', 'jwt'), null),
    ...window,
    ...paging,
  },
  find: async (asked, { read }) => {
    const page = await read({
      types: asked.of === 'ca' ? ['authority'] : asked.of === 'jwt' ? ['jwt_key'] : ['authority', 'jwt_key'],
      ...windowOf(asked),
      limit: asked.limit,
      ...(asked.cursor === null ? {} : { cursor: asked.cursor }),
    });
    const rows = page.rows.map(readEvent).map(keyRow);
    const forced = rows.filter(({ action }) => action === 'forced').length;
    return findings({
      says: [
        `${numbered(rows.length, 'step')}${page.next === null ? '' : ' are shown; there are more'}`,
        `${forced} of them ${forced === 1 ? 'was' : 'were'} forced, without the evidence it takes`,
      ],
      missing: ['approvals: one actor takes a step, and what permits it is its evidence'],
      tables: [
        answerTable('steps', columns, rows, {
          details: ['serial', 'trustDomain', 'sha256'],
          more: page.next !== null,
        }),
      ],
      next: page.next,
    });
  },
});

function keyRow({ index, type, time, event }: LoggedEvent) {
  return {
    index,
    time,
    action: textOf(event, 'action'),
    kind: type === 'jwt_key' ? 'token key' : textOf(event, 'kind'),
    key: textOf(event, 'keyId'),
    notAfter: textOf(event, 'notAfter'),
    by: actorName(event),
    evidence: textOf(event, 'evidence'),
    serial: textOf(event, 'serial'),
    trustDomain: textOf(event, 'trustDomain'),
    sha256: textOf(event, type === 'jwt_key' ? 'spkiSha256' : 'certificateSha256'),
  };
}

const columns = ['index', 'time', 'action', 'kind', 'key', 'notAfter', 'by', 'evidence'];
