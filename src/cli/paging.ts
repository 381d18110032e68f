import { type Command, InvalidArgumentError } from 'commander';
import type { Page } from '../http/page.ts';
import type { AdminClient, Query } from './client.ts';

/** The option of every list command. */
export type PageOptions = { readonly limit?: number };

/** Adds `--limit`, the most rows a list command prints. */
export function pageOptions(command: Command): Command {
  return command.option('--limit <rows>', 'the most rows to print (all when left out)', parseRows);
}

/** Reads pages until the list ends or the limit is reached. */
export async function listAll<T>(
  client: AdminClient,
  path: string,
  { limit = Number.POSITIVE_INFINITY }: PageOptions,
  query: Query = {},
): Promise<Page<T>> {
  const items: T[] = [];
  let cursor: string | undefined;
  do {
    const rows = Math.min(limit - items.length, pageRows);
    const page: Page<T> = await client.get(path, { ...query, limit: `${rows}`, cursor });
    items.push(...page.items);
    cursor = page.next ?? undefined;
  } while (cursor !== undefined && items.length < limit);
  return { items, next: cursor ?? null };
}

/** Parses a number of rows, at least 1. */
export function parseRows(text: string): number {
  if (!/^[1-9][0-9]{0,8}$/.test(text)) throw new InvalidArgumentError('It is not a whole number above 0.');
  return Number(text);
}

const pageRows = 1_000;
