import { type AnswerTable, answerTable } from './answer.ts';
import { countAll, type Counted, judgedTypes, type LogQuestion } from './ports.ts';
import type { Asking } from './question.ts';
import { usesOf } from './uses.ts';

/** Calls of somebody that were let pass: the last of all since a time, and all by the proxy that let them. */
export type Accepted = {
  /** Undefined: none is known. */
  readonly last: { readonly last: string; readonly proxy: string } | undefined;
  readonly tables: readonly AnswerTable[];
  readonly missing: readonly string[];
};

/**
 * The last accepted call at each proxy, and what came after a ban. Calls that were counted together, some before and some
 * after it, count as after it.
 * @param kind of the ban
 * @param since RFC 3339, when the ban was made
 */
export async function acceptedSince(
  asking: Asking,
  kind: string,
  value: string,
  since: string,
): Promise<Accepted> {
  if (kind === 'key') {
    const missing = ['calls with the key: calls are recorded with serials and identities'];
    return { last: undefined, tables: [], missing };
  }
  const look = kind === 'serial' ? bySerial : byIdentity;
  const [after, ever] = await Promise.all([
    look(asking, value, 'accepted after the ban', { since: new Date(Date.parse(since) + 1).toISOString() }),
    look(asking, value, 'last accepted', {}),
  ]);
  const [latest] = after.table.items;
  return {
    last: latest && { last: String(latest['last']), proxy: String(latest['proxy']) },
    tables: [after.table, ever.table],
    missing: [...new Set([...after.missing, ...ever.missing])],
  };
}

type Look = { readonly table: AnswerTable; readonly missing: readonly string[] };

/** A certificate lives for a day at most: all that was recorded of it can be read. */
async function bySerial(asking: Asking, serial: string, name: string, span: LogQuestion): Promise<Look> {
  const { table, missing } = await usesOf(asking, { serial, verdict: 'allow', ...span });
  return { table: { ...table, name }, missing };
}

/** An identity may have called for years: its calls are counted. */
async function byIdentity(asking: Asking, source: string, name: string, span: LogQuestion): Promise<Look> {
  const counted: Counted = await countAll(asking, ['destination'], {
    types: judgedTypes,
    source,
    verdict: 'allow',
    ...span,
  });
  const rows = counted.counts
    .map(({ of, count, first, last, lastIndex }) => ({
      index: lastIndex,
      proxy: of['destination'] ?? '',
      allowed: count,
      first: first.toISOString(),
      last: last.toISOString(),
    }))
    .sort((a, b) => (a.last < b.last ? 1 : -1));
  return {
    table: answerTable(name, ['index', 'proxy', 'allowed', 'first', 'last'], rows.slice(0, maxProxies), {
      more: rows.length > maxProxies,
    }),
    missing: counted.isWhole ? [] : ['some accepted calls: there are too many to count all'],
  };
}

const maxProxies = 1_000;
