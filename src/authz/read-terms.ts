import { parseMoment } from '../audit/moment.ts';
import { quote } from '../errors.ts';
import type { YamlMapping, YamlNode } from '../yaml-node.ts';
import type { PolicyDocument } from './document.ts';
import type { PolicyTerms, Predicate } from './policy.ts';

/** The fields of `spec` that Istio does not have. A cluster's own API server knows none of them. */
export const termFields = [
  ...['notBefore', 'expiresAt', 'owner', 'ticket', 'tests', 'breakGlass', 'liftable'],
] as const;

/**
 * Reads who answers for a policy, and between which moments it matches.
 * @throws MeshError `policy_invalid`, `document_field_type`
 */
export function readTerms(
  spec: YamlMapping,
  { action, dryRun }: Pick<PolicyDocument, 'action' | 'dryRun'>,
): PolicyTerms {
  const [from, until] = [spec.optional('notBefore'), spec.optional('expiresAt')];
  const notBefore = from === undefined ? null : readTime(from);
  const expiresAt = until === undefined ? null : readTime(until);
  if (until !== undefined && notBefore !== null && expiresAt !== null && notBefore >= expiresAt) {
    throw until.error('policy_invalid', 'is not after notBefore', 'let it end after it begins');
  }
  const bounds = [
    ...(from === undefined || notBefore === null ? [] : [boundBy(from, 'notBefore', notBefore)]),
    ...(until === undefined || expiresAt === null ? [] : [boundBy(until, 'expiresAt', expiresAt)]),
  ];
  return {
    notBefore,
    expiresAt,
    owner: readLine(spec.optional('owner')),
    ticket: readLine(spec.optional('ticket')),
    ...readGlass(spec, action === 'ALLOW' && !dryRun, action === 'DENY' && !dryRun),
    bounds,
  };
}

/** Whoever breaks the glass says why, under which ticket, and until when. */
function readGlass(
  spec: YamlMapping,
  mayBreak: boolean,
  mayBeLifted: boolean,
): Pick<PolicyTerms, 'breakGlass' | 'liftable'> {
  const [glass, lift] = [spec.optional('breakGlass'), spec.optional('liftable')];
  const reason = glass?.mapping(['reason']).required('reason');
  if (glass !== undefined) {
    if (!mayBreak)
      throw glass.error('policy_invalid', 'goes with an enforced ALLOW policy only', 'remove it');
    for (const field of ['ticket', 'expiresAt']) {
      if (spec.optional(field) !== undefined) continue;
      throw glass.error('policy_invalid', `stands without ${field}`, `add ${field} beside it`);
    }
  }
  if (lift !== undefined && !mayBeLifted) {
    throw lift.error('policy_invalid', 'goes with an enforced DENY policy only', 'remove it');
  }
  return { breakGlass: readLine(reason), liftable: lift?.boolean() ?? false };
}

/**
 * A moment as RFC 3339 writes it, to the second or finer and with its zone, in capitals: `2026-01-31T12:00:00Z`.
 * @throws MeshError `policy_invalid`, `document_field_type`
 */
export function readTime(node: YamlNode): Date {
  const text = node.string();
  const time = rfc3339.test(text) ? parseMoment(text, new Date(0)) : undefined;
  if (time !== undefined) return time;
  throw node.error(
    'policy_invalid',
    `is ${quote(text)}, which is no moment`,
    'write it as RFC 3339 does, with a zone: 2026-01-31T12:00:00Z',
  );
}

const rfc3339 =
  /^[0-9]{4}-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3])(?::[0-5][0-9]){2}(?:\.[0-9]{1,9})?(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])$/;

/** What each rule of the policy wants of the time, beside what its author wrote in it. */
function boundBy(node: YamlNode, bound: 'notBefore' | 'expiresAt', time: Date): Predicate {
  return {
    kind: 'time',
    matches: [{ bound, atMs: time.getTime() }],
    attribute: 'time',
    names: [],
    field: bound,
    negated: false,
    values: [node.string()],
    place: node.place,
    length: node.length,
  };
}

/**
 * One line for people.
 * @throws MeshError `policy_invalid` for more than 256 characters, and for characters that do not print
 */
export function readLine(node: YamlNode | undefined): string | null {
  if (node === undefined) return null;
  const text = node.string();
  // Control, format and surrogate characters, and the separators of lines and paragraphs.
  const isPlain = text.trim() === text && text !== '' && !/[\p{C}\u2028\u2029]/u.test(text);
  if (isPlain && text.length <= maxLineLength) return text;
  throw node.error(
    'policy_invalid',
    `is ${quote(text)}, which is not one line of at most ${maxLineLength} printable characters`,
    'write one short line without outer spaces',
  );
}

const maxLineLength = 256;
