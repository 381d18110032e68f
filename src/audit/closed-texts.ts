import { errorKinds } from '../errors.ts';

/** What stands for a word that this version does not know, as a later one may say it. */
export const otherWord = 'other';

/** Whether a text can name a rule as decisions do: `namespace/name rule[n]`. */
export function isRuleName(text: string): boolean {
  return text.length <= maxRuleName && ruleName.test(text);
}

/**
 * Why something was lost, as whoever lost it says: causes separated by commas. One of our causes and codes stays as it is, and so
 * do several causes; all else is {@link otherWord}. INVARIANT: there are few of them, for counts are kept by each.
 */
export function lossCause(text: string): string {
  const parts = new Set(text.split(',', maxCauses));
  const [only = ''] = parts;
  if (parts.size === 1) return lossCauses.has(only) || Object.hasOwn(errorKinds, only) ? only : otherWord;
  return [...new Set([...parts].map((part) => (lossCauses.has(part) ? part : otherWord)))].sort().join(',');
}

const lossCauses: ReadonlySet<string> = new Set([
  'queue_full',
  'closed',
  'repeated',
  'undecodable',
  'stream_broken',
  'reporter_unknown',
]);
const maxCauses = 32;
const ruleName = /^[a-z0-9][a-z0-9-]{0,62}\/[a-z0-9][a-z0-9.-]{0,252} rule\[(?:0|[1-9][0-9]{0,5})\]$/;
const maxRuleName = 340;
