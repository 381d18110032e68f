import { Command } from 'commander';
import { addFolded } from '../audit/coverage.ts';
import { type CountGroup, mergeCounts, sortCounts } from '../audit/count.ts';
import { repeated } from './arguments.ts';
import { type AnswerBasis, describeBasis } from './audit-coverage.ts';
import { auditFilters, type FilterOptions } from './audit-filter-options.ts';
import type { AdminClient } from './client.ts';
import { formatCsv, offerCsv } from './csv.ts';
import { globalOptions } from './global-options.ts';
import { examples } from './help.ts';
import { parseRows } from './paging.ts';
import { clientOf, print, type Session } from './session.ts';
import { count, formatTable } from './text.ts';

type CountOptions = FilterOptions & { readonly by?: readonly string[]; readonly limit?: number };
type CountItem = Omit<CountGroup, 'values' | 'first' | 'last'> & {
  readonly values: Readonly<Record<string, string | null>>;
  readonly first: string;
  readonly last: string;
};
/** Counts as the API answers them, or several answers added up. */
export type CountsAnswer = AnswerBasis & {
  readonly by: readonly string[];
  readonly items: readonly CountItem[];
  readonly complete: boolean;
  readonly beyond: { readonly count: number; readonly records: number };
  readonly next: string | null;
};

/** `countersign audit count`. */
export function auditCountCommand(session: Session): Command {
  const command = auditFilters(new Command('count'))
    .description('count records by fields; calls that were counted together count as many as they are')
    .option('--by <fields>', 'names of fields, separated by commas; may be repeated', repeated)
    .option('--limit <groups>', 'the most groups to print, the greatest first', parseRows)
    .addHelpText('after', examples(...countExamples))
    .action(async ({ limit, ...options }: CountOptions, own: Command) => {
      const answer = await readCounts(clientOf(session, own), options);
      const items = answer.items.slice(0, limit);
      print(session, own, { ...answer, items }, () => {
        session.say(describeBasis(answer));
        if (answer.beyond.records > 0)
          session.say(
            `warning: ${count(answer.beyond.records, 'record', 'records')} are in no group: there are too many\n`,
          );
        if (items.length < answer.items.length)
          session.say(`${answer.items.length - items.length} more groups: raise --limit\n`);
        const rows = items.map((item) => rowOf(answer.by, item));
        const headings = [...answer.by, 'count', 'records', 'first', 'last'];
        return globalOptions(own).output === 'csv'
          ? formatCsv(headings, rows)
          : formatTable(
              headings.map((name) => name.toUpperCase()),
              rows,
            );
      });
    });
  return offerCsv(command);
}

/** Asks until all is counted: the server counts as long as it does for one answer, and says where to go on. */
export async function readCounts(
  client: AdminClient,
  query: Readonly<Record<string, string | readonly string[] | undefined>>,
): Promise<CountsAnswer> {
  let all: CountsAnswer | undefined;
  let cursor: string | undefined;
  for (;;) {
    const page: CountsAnswer = await client.get('/v1/audit/count', { ...query, cursor });
    all = all === undefined ? page : add(all, page);
    if (page.next === null)
      return { ...all, complete: all.beyond.records + all.coverage.folded.records === 0 };
    cursor = page.next;
  }
}

function add(all: CountsAnswer, page: CountsAnswer): CountsAnswer {
  const { by } = page;
  const groups = mergeCounts([all.items, page.items].map((items) => items.map((item) => groupOf(by, item))));
  const items = sortCounts(groups).map(({ values, first, last, ...rest }) => ({
    ...rest,
    values: Object.fromEntries(by.map((name, at) => [name, values[at] ?? null])),
    first: first.toISOString(),
    last: last.toISOString(),
  }));
  const beyond = {
    count: all.beyond.count + page.beyond.count,
    records: all.beyond.records + page.beyond.records,
  };
  const folded = addFolded(all.coverage.folded, page.coverage.folded);
  return { ...page, items, beyond, coverage: { ...page.coverage, folded } };
}

function groupOf(by: readonly string[], { values, first, last, ...rest }: CountItem): CountGroup {
  return {
    ...rest,
    values: by.map((name) => values[name] ?? null),
    first: new Date(first),
    last: new Date(last),
  };
}

function rowOf(
  by: readonly string[],
  { values, count: all, records, first, last }: CountItem,
): readonly string[] {
  return [...by.map((name) => values[name] ?? ''), `${all}`, `${records}`, first, last];
}

export const countExamples = [
  'audit count --by source,destination,verdict --since 7d',
  'audit count --by day --type decision --verdict deny -o csv',
  "audit count --by actor.subject,action --where 'actor.kind=oidc'",
];
