import type { AuditEventType } from '../../audit/event.ts';
import { quote } from '../../errors.ts';
import { answerTable, findings, numbered } from './answer.ts';
import {
  actorName,
  fieldsOf,
  type LoggedEvent,
  numberOf,
  personalOf,
  readEvent,
  textOf,
} from './event-fields.ts';
import { choice, optional, paging, refuse, window } from './parameter.ts';
import { windowOf } from './ports.ts';
import { defineQuestion } from './question.ts';

/** What one human or machine did over the admin API, how it was known, and from where. */
export const actions = defineQuestion({
  name: 'actions',
  line: 'what an administrator did, break-glass grants included: how they were known, and from which address',
  parameters: {
    actor: optional(
      'uid:<n>, token:<id>, a SPIFFE ID or oidc:<subject>; everybody when it is left out',
      actor,
      null,
    ),
    reads: optional('no leaves out readings of the log', choice('yes', 'no'), 'yes'),
    ...window,
    ...paging,
  },
  find: async (asked, { read, may }) => {
    const page = await read({
      types: actionTypes,
      where: [...(asked.actor ?? []), ...(asked.reads === 'no' ? ['action!=audit_read'] : [])],
      ...windowOf(asked),
      limit: asked.limit,
      ...(asked.cursor === null ? {} : { cursor: asked.cursor }),
    });
    const rows = page.rows.map(readEvent).map(actionRow);
    const glass = rows.filter(({ breakGlass }) => breakGlass !== '').length;
    return findings({
      says: [
        `${numbered(rows.length, 'action')}${page.next === null ? '' : ' are shown; there are more'}`,
        ...(glass > 0 ? [`${numbered(glass, 'of them is', 'of them are')} about break-glass grants`] : []),
      ],
      missing: [
        ...(may('audit:personal') ? [] : ['addresses: they take the permission audit:personal']),
        'second factors: who signs in with an ID token was checked by its issuer',
      ],
      tables: [
        answerTable('actions', columns, rows, { details: ['breakGlass', 'code'], more: page.next !== null }),
      ],
      next: page.next,
    });
  },
});

function actionRow(logged: LoggedEvent) {
  const { index, time, type, event } = logged;
  const actor = fieldsOf(event, 'actor');
  return {
    index,
    time,
    by: actorName(event),
    knownBy: methods.get(textOf(actor, 'kind')) ?? '',
    role: textOf(actor, 'role'),
    action: `${type} ${textOf(event, 'action')}`.trim(),
    what: whatOf(logged),
    address: personalOf(logged, 'sourceAddress'),
    breakGlass: textOf(event, 'breakGlass'),
    code: textOf(event, 'code'),
  };
}

/** What was acted upon, in a few words. */
function whatOf({ type, event }: LoggedEvent): string {
  const words = (...names: readonly string[]): string =>
    names
      .map((name) => (typeof event[name] === 'number' ? `${numberOf(event, name)}` : textOf(event, name)))
      .filter((word) => word !== '')
      .join(' ');
  switch (type) {
    case 'admin':
      return words('method', 'route', 'code', 'detail');
    case 'entry_change':
      return words('entryId', 'spiffeId');
    case 'policy_change':
      return words('policy', 'breakGlass');
    case 'policy_revision':
      return words('number', 'message');
    case 'ban':
      return words('kind', 'value', 'reason');
    case 'grant_change':
      return words('grant');
    case 'node_alias_change':
      return words('alias');
    case 'node':
      return words('node', 'method', 'code');
    case 'authority':
    case 'jwt_key':
      return words('kind', 'keyId', 'evidence');
    case 'jwt_issuance':
      return words('spiffeId', 'jwtId');
    default:
      return '';
  }
}

/** The conditions that an actor is found by. */
function actor(text: string, name: string): readonly string[] {
  const [, kind = '', value = ''] = /^(uid|token|oidc):(.{1,1024})$/su.exec(text) ?? [];
  if (kind === 'uid' && /^[0-9]{1,10}$/.test(value)) return ['actor.kind=uid', `actor.uid=${Number(value)}`];
  if (kind === 'token') return ['actor.kind=token', `actor.tokenId=${value}`];
  if (kind === 'oidc') return ['actor.kind=oidc', `actor.subject=${value}`];
  if (text.startsWith('spiffe://')) return ['actor.kind=svid', `actor.spiffeId=${text}`];
  if (text === 'system' || text === 'anonymous') return [`actor.kind=${text}`];
  return refuse(
    name,
    `${quote(text)} names nobody`,
    'write uid:0, token:<id>, spiffe://..., oidc:<subject>, system or anonymous',
  );
}

const actionTypes: readonly AuditEventType[] = [
  'admin',
  'entry_change',
  'policy_change',
  'policy_revision',
  'ban',
  'grant_change',
  'node_alias_change',
  'node',
  'authority',
  'jwt_key',
];
const methods: ReadonlyMap<string, string> = new Map([
  ['uid', 'user of the admin socket'],
  ['token', 'admin token'],
  ['svid', 'client certificate'],
  ['oidc', 'ID token'],
  ['anonymous', 'nothing'],
]);
const columns = ['index', 'time', 'by', 'knownBy', 'role', 'action', 'what', 'address'];
