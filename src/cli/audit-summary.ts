/** A record as the API answers it. What is stored may be younger than this program, so nothing of it is taken for sure. */
export type AuditItem = {
  readonly index: number;
  readonly leafHash: string;
  readonly personal: Readonly<Record<string, string>>;
  /** Personal fields whose values are kept no longer. */
  readonly shredded?: readonly string[];
  readonly event: Readonly<Record<string, unknown>>;
};

/** One row of a table: index, time, type and one line that says what happened. */
export function summarise({ index, event, personal, shredded = [] }: AuditItem): readonly string[] {
  const field = (name: string): string => textOf(event[name] ?? '');
  const describe = descriptions.get(field('type'));
  const shown = { ...personal, ...Object.fromEntries(shredded.map((name) => [name, '(shredded)'])) };
  return [`${index}`, field('time'), field('type'), describe?.(field, shown) ?? ''];
}

type Describe = (field: (name: string) => string, personal: AuditItem['personal']) => string;

/** Of a break-glass grant, and of a call that only one let pass. */
function glassOf(field: (name: string) => string): string {
  return field('breakGlass') === '' ? '' : `break glass: ${field('breakGlass')}`;
}

const descriptions: ReadonlyMap<string, Describe> = new Map<string, Describe>([
  [
    'decision',
    (field, { path = '' }) =>
      words(
        field('verdict'),
        field('source') || '(no certificate)',
        '->',
        field('destination'),
        field('method'),
        path,
        field('reason'),
        field('rule'),
        glassOf(field),
      ),
  ],
  [
    'allowed_calls',
    (field) =>
      words(
        times(field('count')),
        field('source') || '(no certificate)',
        '->',
        field('destination'),
        field('method'),
        field('pathPattern'),
        field('reason'),
        field('rule'),
      ),
  ],
  [
    'outcome',
    (field) =>
      words(
        field('outcome'),
        field('source') || '(no certificate)',
        '->',
        field('destination'),
        field('method'),
        field('status') === '0' ? '' : field('status'),
        field('details'),
        field('flags'),
        field('decisionId') === '' ? '' : `decision ${field('decisionId')}`,
      ),
  ],
  [
    'outcomes',
    (field) =>
      words(
        times(field('count')),
        field('outcome'),
        field('source') || '(no certificate)',
        '->',
        field('destination'),
        field('method'),
        field('statusClass'),
        field('flags'),
        field('rule'),
      ),
  ],
  [
    'connections',
    (field) =>
      words(
        times(field('count')),
        field('kind'),
        field('source') || '(no identity)',
        '->',
        field('destination'),
        field('failure'),
        // Never without the word: nobody verified it.
        field('claimedSource') === '' ? '' : `claimed ${field('claimedSource')}`,
      ),
  ],
  [
    'alarm',
    (field) =>
      words(
        field('kind'),
        'serial',
        field('serial'),
        'claimed',
        field('claimedSource'),
        '->',
        field('destination'),
      ),
  ],
  [
    'proxy_verdict',
    (field, { path = '' }) =>
      words(
        field('verdict'),
        'by the proxy',
        field('source') || '(no certificate)',
        '->',
        field('destination'),
        field('method'),
        path,
        field('reason'),
        field('rule'),
      ),
  ],
  [
    'proxy_verdicts',
    (field) =>
      words(
        times(field('count')),
        field('verdict'),
        'by the proxy',
        field('source') || '(no certificate)',
        '->',
        field('destination'),
        field('method'),
        field('pathPattern'),
        field('reason'),
        field('rule'),
      ),
  ],
  [
    'proxy_coverage',
    (field) =>
      words(
        field('destination'),
        'counted',
        field('count'),
        field('missing') === '0' ? 'and told of all' : `and did not tell of ${field('missing')}`,
      ),
  ],
  ['issuance', (field) => words(field('spiffeId'), 'serial', field('serial'), 'until', field('notAfter'))],
  [
    'refusal',
    (field) => words(field('door'), field('code'), field('message'), times(field('count')), field('caller')),
  ],
  [
    'entry_change',
    (field) => words(field('action'), field('entryId'), field('spiffeId'), 'by', field('actor')),
  ],
  ['policy_change', (field) => words(field('action'), field('policy'), 'by', field('actor'), glassOf(field))],
  ['policy_text', (field) => words(field('policy'), 'part', field('part'), 'of', field('parts'))],
  [
    'policy_revision',
    (field) =>
      words(
        field('action'),
        field('first') === field('number') ? field('number') : `${field('first')} to ${field('number')}`,
        field('id').slice(0, 12),
        field('restores') === '0' ? '' : `as ${field('restores')}`,
        'by',
        field('actor'),
        field('message'),
      ),
  ],
  [
    'policy_rollout',
    (field) =>
      words(
        field('action'),
        field('action') === 'canary' ? `${field('percent')}%` : '',
        field('rollout').slice(0, 8),
        'beside revision',
        field('base'),
        'by',
        field('actor'),
        field('message'),
        field('cause'),
        field('source') === '' ? '' : `${field('source')} -> ${field('destination')} ${field('rule')}`,
      ),
  ],
  [
    'candidate_calls',
    (field) =>
      words(
        times(field('count')),
        field('change'),
        field('applied') === 'active' ? '' : `(${field('applied')})`,
        field('source'),
        '->',
        field('destination'),
        field('method'),
        field('pathPattern'),
        field('candidateReason'),
        field('candidateRule') || field('rule'),
      ),
  ],
  ['loss', (field) => words(field('count'), field('what'), 'records lost:', field('cause'))],
  [
    'authority',
    (field) =>
      words(
        field('action'),
        field('kind'),
        'CA of',
        field('trustDomain'),
        field('serial'),
        field('actor') === '' ? '' : `by ${field('actor')}`,
        field('evidence'),
      ),
  ],
  [
    'admin',
    (field) =>
      words(
        field('action'),
        field('method'),
        field('route'),
        field('code'),
        'by',
        field('actor'),
        field('detail'),
      ),
  ],
  [
    'ban',
    (field) =>
      words(
        'ban',
        field('action'),
        field('kind'),
        field('value'),
        'by',
        `${field('actor')}:`,
        field('reason'),
      ),
  ],
  [
    'jwt_issuance',
    (field) =>
      words(
        field('spiffeId'),
        'for',
        field('audiences'),
        'token',
        field('jwtId'),
        'until',
        field('notAfter'),
        field('actor') === '' ? '' : `by ${field('actor')}`,
      ),
  ],
  [
    'jwt_key',
    (field) =>
      words(
        field('action'),
        'JWT key of',
        field('trustDomain'),
        field('keyId'),
        'by',
        field('actor'),
        field('evidence'),
      ),
  ],
  [
    'node',
    (field) =>
      words(
        field('action'),
        field('node'),
        field('method'),
        field('code'),
        field('selectors'),
        field('actor') === 'system' ? '' : `by ${field('actor')}`,
      ),
  ],
  [
    'node_alias_change',
    (field) => words(field('action'), field('alias'), field('after'), 'by', field('actor')),
  ],
  ['grant_change', (field) => words(field('action'), 'grant', field('grant'), 'by', field('actor'))],
  [
    'lifecycle',
    (field) =>
      words(
        field('action'),
        field('version'),
        field('backupMadeAt') === '' ? '' : `from the backup of ${field('backupMadeAt')}`,
      ),
  ],
  [
    'retention',
    (field) =>
      words(
        field('action'),
        field('class'),
        `of ${field('entries')} entries from ${field('first')} to ${field('last')}`,
        field('olderThan') === '' ? '' : `older than ${field('olderThan')}`,
        field('by') === '' ? '' : `found by ${field('by')}`,
        'by',
        `${field('actor')}${field('reason') === '' ? '' : ':'}`,
        field('reason'),
      ),
  ],
]);

function words(...all: readonly string[]): string {
  return all.filter((word) => word !== '').join(' ');
}

function times(count: string): string {
  return count === '1' || count === '' ? '' : `(${count} times)`;
}

function textOf(value: unknown): string {
  if (typeof value === 'string') return value;
  if (typeof value === 'number' || typeof value === 'boolean') return `${value}`;
  if (Array.isArray(value)) return value.map(textOf).join(', ');
  if (typeof value !== 'object' || value === null) return '';
  const actor = value as Record<string, unknown>;
  switch (actor['kind']) {
    case 'uid':
      return `uid ${textOf(actor['uid'])}`;
    case 'token':
      return `token ${textOf(actor['tokenId'])}`;
    case 'svid':
      return textOf(actor['spiffeId']);
    case 'oidc':
      return `${textOf(actor['subject'])} of ${textOf(actor['issuer'])}`;
    case undefined:
      // A caller: which process, and of other machines the node says where it is.
      return words(
        actor['uid'] === undefined ? '' : `uid ${textOf(actor['uid'])}`,
        actor['pid'] === undefined ? '' : `pid ${textOf(actor['pid'])}`,
        actor['node'] === undefined ? '' : `on ${textOf(actor['node'])}`,
      );
    default:
      return textOf(actor['kind']);
  }
}
