import { Command, Option } from 'commander';
import { formatCursor } from '../audit/cursor.ts';
import { systemClock } from '../clock.ts';
import { MeshError } from '../errors.ts';
import { type AnswerBasis, describeBasis } from './audit-coverage.ts';
import { auditFilters, type FilterOptions } from './audit-filter-options.ts';
import { type AuditItem, summarise } from './audit-summary.ts';
import type { AdminClient } from './client.ts';
import { formatCsv, offerCsv } from './csv.ts';
import { type GlobalOptions, globalOptions } from './global-options.ts';
import { examples } from './help.ts';
import { parseRows } from './paging.ts';
import { clientOf, print, type Session } from './session.ts';
import { formatTable, printable, printableJson } from './text.ts';

type ListOptions = FilterOptions & {
  readonly order: 'newest' | 'oldest';
  readonly limit: number;
  readonly cursor?: string;
  readonly follow?: true;
};
type AuditAnswer = AnswerBasis & {
  readonly items: readonly AuditItem[];
  readonly next: string | null;
  readonly size: number;
};

/** `countersign audit list`. */
export function auditListCommand(session: Session): Command {
  const command = auditFilters(new Command('list'))
    .description('list records, the newest first; all given filters must hold')
    .addOption(
      new Option('--order <order>', 'which end to begin at').choices(['newest', 'oldest']).default('newest'),
    )
    .option('--limit <rows>', 'the most rows to print', parseRows, 100)
    .option('--cursor <cursor>', 'go on where an earlier page ended')
    .addOption(
      new Option('--follow', 'print the latest records, then new ones as they come').conflicts([
        'cursor',
        'until',
      ]),
    )
    .addHelpText('after', examples(...listExamples))
    .action(async ({ follow, ...options }: ListOptions, own: Command) => {
      const client = clientOf(session, own);
      if (follow === true) return followLog(session, own, client, options);
      const answer = await readRecords(client, options);
      const { items, next } = answer;
      print(session, own, answer, () => {
        session.say(describeBasis(answer));
        if (items.length === 0) session.say('no record matches\n');
        session.say(next === null ? '' : `more: --cursor ${next}\n`);
        return globalOptions(own).output === 'csv'
          ? formatCsv(csvHeadings, items.map(csvRow))
          : formatTable(['INDEX', 'TIME', 'TYPE', 'WHAT'], items.map(summarise));
      });
    });
  return offerCsv(command);
}

/** Reads pages until there are rows enough. A page may be empty: the server has searched as long as it does for one. */
async function readRecords(
  client: AdminClient,
  { limit, cursor, ...filters }: Omit<ListOptions, 'follow'>,
): Promise<AuditAnswer> {
  const items: AuditItem[] = [];
  let next: string | undefined = cursor;
  let size: number | undefined;
  for (;;) {
    const rows = Math.min(limit - items.length, pageRows);
    const page: AuditAnswer = await client.get('/v1/audit', { ...filters, limit: `${rows}`, cursor: next });
    items.push(...page.items);
    // What came after the first page was not searched for the newest.
    size = filters.order === 'newest' ? (size ?? page.size) : page.size;
    if (page.next === null || items.length >= limit) return { ...page, size, items };
    ({ next } = page);
  }
}

/** Prints the latest records and then what comes, by its place in the log, whoever answers. Ends by a signal. */
async function followLog(
  session: Session,
  command: Command,
  client: AdminClient,
  { order: _order, since, ...options }: Omit<ListOptions, 'follow'>,
): Promise<void> {
  const stop = session.catchSignals();
  const { output } = globalOptions(command);
  if (output === 'csv') session.write(formatCsv(csvHeadings, []));
  const show = (items: readonly AuditItem[]): void => {
    for (const item of items) session.write(formatRecord(item, output));
  };
  const first = await readRecords(client, {
    ...options,
    ...(since === undefined ? {} : { since }),
    order: 'newest',
  });
  show(first.items.toReversed());
  // The search began at the end of the log: what comes next has a higher place.
  let { size } = first;
  let next: string | null = null;
  let isLost = false;
  while (!stop.aborted) {
    if (next === null) await systemClock.sleep(pollMs, stop);
    if (stop.aborted) return;
    // A cursor after the last place, or the whole of a log that was empty.
    const cursor = next ?? (size === 0 ? undefined : afterPlace(size - 1));
    try {
      const page: AuditAnswer = await client.get('/v1/audit', {
        ...options,
        order: 'oldest',
        limit: `${pageRows}`,
        cursor,
      });
      if (page.size < size)
        session.say('warning: the log is shorter than it was: an older state was restored\n');
      show(page.items);
      ({ size, next } = page);
      if (isLost) session.say('the server answers again\n');
      isLost = false;
    } catch (error) {
      if (!mayPass(error)) throw error;
      if (!isLost) session.say(`waiting: ${printable(error.message)}\n`);
      isLost = true;
      await systemClock.sleep(pollMs, stop);
    }
  }
}

function afterPlace(index: number): string {
  return formatCursor({ order: 'oldest', index, since: null, until: null });
}

function mayPass(error: unknown): error is MeshError {
  return error instanceof MeshError && (error.kind === 'unavailable' || error.code === 'rate_limited');
}

function formatRecord(item: AuditItem, output: GlobalOptions['output']): string {
  if (output === 'json') return `${printableJson(item, 0)}\n`;
  if (output === 'csv') return formatCsv(csvRow(item), []);
  const [index = '', time = '', type = '', what = ''] = summarise(item);
  const line = `${index.padStart(8)}  ${time.padEnd(24)}  ${type.padEnd(15)}  ${what}`;
  return `${printable(line).replaceAll('\t', ' ')}\n`;
}

function csvRow(item: AuditItem): readonly string[] {
  return [...summarise(item), item.leafHash, JSON.stringify(item.event)];
}

export const listExamples = [
  'audit list --since 10m --type decision --verdict deny',
  'audit list --type issuance --source spiffe://mesh.internal/ns/shop/sa/web -o json',
  "audit list --where 'actor.subject~ann' --since 90d -o csv",
  'audit list --follow --type refusal,loss',
];
const csvHeadings = ['index', 'time', 'type', 'what', 'leafHash', 'event'];
const pageRows = 1_000;
const pollMs = 1_000;
