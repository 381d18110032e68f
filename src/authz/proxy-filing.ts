import { kubernetesNames, SpiffeId } from '../spiffe/id.ts';
import type { Predicate } from './policy.ts';
import type { TreeWorld } from './proxy-condition.ts';
import type { TreeItem } from './proxy-items.ts';
import type { OpenEntry } from './residue.ts';

/** A way to file items by the text of an input. */
export type TreeWay = 'caller' | 'namespace' | 'path';

/** A text under which an item is filed: itself, or also everything that begins so. */
export type FilingKey = { readonly text: string; readonly isPrefix: boolean };

/**
 * The texts of an input with which an item can match at all; undefined when they cannot be listed.
 * INVARIANT: an item matches no call whose input is none of them.
 */
export function keysOf(item: TreeItem, way: TreeWay, world: TreeWorld): readonly FilingKey[] | undefined {
  const { residue, role } = item;
  const ofPredicate = (one: Predicate): readonly FilingKey[] | undefined => {
    if (one.negated || one.kind !== 'text') return undefined;
    if (way === 'path') return one.attribute === 'request.path' ? pathKeys(one.matches) : undefined;
    return callerKeys(one, way, role === 'allow', world);
  };
  // One side is enough, and in it every entry must be filed.
  const sidesOf = way === 'path' ? [residue.to] : [residue.from, residue.when];
  for (const entries of sidesOf) {
    const found = entries.length === 0 ? undefined : keysOfEntries(entries, ofPredicate);
    if (found !== undefined) return found;
  }
  return undefined;
}

function keysOfEntries(
  entries: readonly OpenEntry[],
  ofPredicate: (predicate: Predicate) => readonly FilingKey[] | undefined,
): readonly FilingKey[] | undefined {
  const keys: FilingKey[] = [];
  for (const entry of entries) {
    const least = entry
      .map(ofPredicate)
      .filter((some) => some !== undefined)
      .sort((a, b) => a.length - b.length)[0];
    if (least === undefined) return undefined;
    keys.push(...least);
  }
  return keys;
}

/** @param isAllow whether what is not known of a caller fails: a service account is known of our own callers only */
function callerKeys(
  { attribute, matches }: Predicate & { readonly kind: 'text' },
  way: 'caller' | 'namespace',
  isAllow: boolean,
  { trustDomain }: TreeWorld,
): readonly FilingKey[] | undefined {
  const own = `spiffe://${trustDomain.name}/ns/`;
  const keys: FilingKey[] = [];
  for (const match of matches) {
    if (match.kind !== 'exact') return undefined;
    const { text } = match;
    if (attribute === 'source.namespace' && way === 'namespace' && isAllow) {
      if (!text.includes('/')) keys.push({ text: `${own}${text}/sa/`, isPrefix: true });
      continue;
    }
    const id =
      attribute === 'source.principal'
        ? readId(`spiffe://${text}`)
        : attribute === 'source.serviceAccount' && isAllow
          ? readId(`${own}${text.replace('/', '/sa/')}`)
          : null;
    if (id === null) return undefined;
    // What is no ID nobody has.
    if (id === undefined) continue;
    if (way === 'caller') {
      keys.push({ text: id.text, isPrefix: false });
      continue;
    }
    const names = id.memberOf(trustDomain) ? kubernetesNames(id) : undefined;
    if (names === undefined) return undefined;
    keys.push({ text: `${own}${names.namespace}/sa/`, isPrefix: true });
  }
  return keys;
}

function readId(text: string): SpiffeId | undefined {
  try {
    return SpiffeId.parseWorkload(text);
  } catch {
    return undefined;
  }
}

/**
 * What of an item is open for paths that begin with the text, of all under which the item is filed the longest: of its
 * values only those that the text begins with can match, and of these a beginning does. Undefined when it cannot match.
 */
export function narrowToPath({ role, residue }: TreeItem, text: string): TreeItem | undefined {
  const to: OpenEntry[] = [];
  for (const entry of residue.to) {
    const left = entry.map((one) => narrowPredicate(one, text));
    if (left.includes(false)) continue;
    const open = left.filter((one) => typeof one !== 'boolean');
    if (open.length === 0) return { role, residue: { ...residue, to: [] } };
    to.push(open);
  }
  return to.length === 0 ? undefined : { role, residue: { ...residue, to } };
}

function narrowPredicate(one: Predicate, text: string): Predicate | boolean {
  if (one.attribute !== 'request.path' || one.negated || one.kind !== 'text') return one;
  if (one.matches.some((match) => match.kind === 'prefix' && text.startsWith(match.text))) return true;
  const matches = one.matches.filter(
    (match) =>
      (match.kind === 'exact' && match.text === text) ||
      (match.kind === 'template' && text.startsWith(match.prefix)),
  );
  return matches.length > 0 && { ...one, matches };
}

function pathKeys(
  matches: (Predicate & { readonly kind: 'text' })['matches'],
): readonly FilingKey[] | undefined {
  const keys: FilingKey[] = [];
  for (const match of matches) {
    if (match.kind === 'suffix' || match.kind === 'present') return undefined;
    const text = match.kind === 'template' ? match.prefix : match.text;
    // The query is no part of what is compared: a value with one matches nothing.
    if (/[?#]/.test(match.text)) continue;
    if (text === '' || text === '/') return undefined;
    keys.push({ text, isPrefix: match.kind !== 'exact' });
  }
  return keys;
}
