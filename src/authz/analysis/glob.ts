import type { HostMatch, Predicate, StringMatch, TextMatch } from '../policy.ts';

/**
 * One value of a predicate as the texts that it matches: character codes, and what stands for several characters. It is
 * only as fine as it must be to tell texts apart; whether a text matches is said by the engine's own test.
 */
export type Glob = readonly number[];

/** Any one character; any number of them; the same without slashes. */
export const anyOne = -1;
export const anyMany = -2;
export const segmentOne = -3;
export const segmentMany = -4;

/** The same for globs that match the same. */
export function keyOfGlob(glob: Glob): string {
  const key = keys.get(glob) ?? glob.join();
  keys.set(glob, key);
  return key;
}

const keys = new WeakMap<Glob, string>();

/** What of a text every match of a glob begins with, and whether it is all of it. */
export type Lead = { readonly text: string; readonly isWhole: boolean };

/** The literal beginning of a glob. */
export function leadOf(glob: Glob): Lead {
  const end = glob.findIndex((piece) => piece < 0);
  const codes = end === -1 ? glob : glob.slice(0, end);
  let text = '';
  for (const code of codes) text += String.fromCharCode(code);
  return { text, isWhole: end === -1 };
}

/** A value that is compared with the whole text of its attribute. */
export function globOfText(match: TextMatch): Glob {
  if (match.kind === 'present') return [anyOne, anyMany];
  if (match.kind === 'exact') return codesOf(match.text);
  if (match.kind === 'prefix') return [...codesOf(match.text), anyMany];
  if (match.kind === 'suffix') return [anyMany, ...codesOf(match.text)];
  const pieces: number[] = [];
  for (const [i, segment] of match.text.split('/').entries()) {
    if (i > 0) pieces.push(slash);
    if (segment === '{*}') pieces.push(segmentOne, segmentMany);
    else if (segment === '{**}') pieces.push(anyMany);
    else pieces.push(...codesOf(segment));
  }
  return pieces;
}

/** The names of a value of `hosts`. */
export function globOfHost({ name }: HostMatch): Glob {
  return globOfText(name);
}

/**
 * A predicate on the caller as texts of a whole SPIFFE ID without `spiffe://`, so that all that is said of the caller is
 * about one text.
 * @param own the name of the mesh's trust domain
 */
export function globsOfCaller(predicate: Predicate, own: string): readonly Glob[] {
  if (predicate.kind !== 'text') return [];
  const matches = predicate.matches as readonly StringMatch[];
  const [front, middle] = [codesOf(`${own}/ns/`), codesOf('/sa/')];
  const segment = [segmentOne, segmentMany];
  const anyNamespace: Glob = [...front, ...segment, ...middle, ...segment];
  const { attribute } = predicate;
  if (attribute === 'source.trustDomain') return matches.map((match) => [...within(match), slash, anyMany]);
  if (attribute === 'source.principal') return matches.map(globOfText);
  const named = matches.map((match) => {
    if (attribute === 'source.namespace') return [...front, ...within(match), ...middle, ...segment];
    return match.kind === 'present' ? anyNamespace : [...front, ...codesOf(match.text.replace('/', '/sa/'))];
  });
  // Who has no namespace at all is a class of its own.
  return [...named, anyNamespace];
}

/** A value that is compared with one segment. */
function within(match: StringMatch): Glob {
  if (match.kind === 'present') return [segmentOne, segmentMany];
  const codes = codesOf(match.text);
  if (match.kind === 'prefix') return [...codes, segmentMany];
  return match.kind === 'suffix' ? [segmentMany, ...codes] : codes;
}

/** A text that is matched exactly. */
export function codesOf(text: string): number[] {
  return Array.from({ length: text.length }, (_, i) => text.charCodeAt(i));
}

const slash = 0x2f;
