/** A value in a row of an answer. */
export type Cell = string | number | boolean | null | readonly string[];

/**
 * A row of an answer. `index` is the entry of the log that it was read from, the last one of several; null where it was
 * not read from the log.
 */
export type AnswerRow = { readonly index: number | null } & Readonly<Record<string, Cell>>;

/** Rows of one kind. */
export type AnswerTable = {
  readonly name: string;
  /** What each row has, in the order in which people are shown it. */
  readonly columns: readonly string[];
  /** What each row has besides, for programs. */
  readonly details: readonly string[];
  readonly items: readonly AnswerRow[];
  /** Whether there are rows that are not among these. */
  readonly more: boolean;
};

/** What a question found. */
export type Findings = {
  /** The answer in sentences: lower case, no full stop. */
  readonly says: readonly string[];
  /** What the answer does not have, and why; sentences likewise. */
  readonly missing: readonly string[];
  readonly tables: readonly AnswerTable[];
  /** Where the first table goes on, or null. */
  readonly next: string | null;
};

/** Findings of which most parts are empty. */
export function findings(parts: Partial<Findings>): Findings {
  return { says: [], missing: [], tables: [], next: null, ...parts };
}

/** A table. @param more whether rows were left out */
export function answerTable(
  name: string,
  columns: readonly string[],
  items: readonly AnswerRow[],
  { details = [], more = false }: { readonly details?: readonly string[]; readonly more?: boolean } = {},
): AnswerTable {
  return { name, columns, details, items, more };
}

/** A number with its noun: `1 certificate`, `2 certificates`. */
export function numbered(number: number, one: string, many = `${one}s`): string {
  return `${number} ${number === 1 ? one : many}`;
}
