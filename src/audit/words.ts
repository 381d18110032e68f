/**
 * A text as words: lower case, split at everything but letters and digits of ASCII and characters from U+00A0 on, one space
 * between two. It is what the word index of the log is made of.
 */
export function wordsOf(text: string): string {
  return text.toWellFormed().toLowerCase().replace(separators, ' ').trim();
}

/** Whether words stand one after the other in a text. Both as {@link wordsOf}. */
export function holdsWords(words: string, asked: string): boolean {
  return ` ${words} `.includes(` ${asked} `);
}

/**
 * The texts of a parsed leaf as words, those of each text apart: without its type, and without personal values, which a
 * leaf does not hold.
 */
export function leafWords(event: unknown): readonly string[] {
  const found: string[] = [];
  collect(event, found);
  return found;
}

function collect(value: unknown, found: string[]): void {
  if (typeof value === 'string') {
    const words = wordsOf(value);
    if (words !== '') found.push(words);
    return;
  }
  if (typeof value !== 'object' || value === null) return;
  for (const [name, inner] of Object.entries(value)) {
    if (name !== 'type' && name !== 'commitment') collect(inner, found);
  }
}

// What one text ends with in the index, so that no two texts make a phrase: no word, for it is a separator here.
export const textsBarrier = ' \u0080 ';

const separators = /[^a-z0-9\u00a0-\u{10ffff}]+/gu;
