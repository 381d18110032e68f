import type { EntryView } from '../http/entry-routes.ts';
import type { NodeView } from '../http/node-routes.ts';
import type { Page } from '../http/page.ts';
import type { Travelled } from '../http/travelled.ts';
import type { CheckResult } from './check-report.ts';
import { ends, listed, skipped } from './check-result.ts';

/** Tokens of the admin API that have expired, or will before long. */
export function judgeTokens(
  tokens: readonly { readonly id: string; readonly label: string; readonly expiresAt: string }[],
  now: Date,
): CheckResult {
  const text = 'no token of the admin API is near its end';
  if (tokens.length === 0) return skipped('tokens_last', 'there are no tokens of the admin API');
  const ending = tokens
    .map((token) => ({ ...token, leftMs: Date.parse(token.expiresAt) - now.getTime() }))
    .filter(({ leftMs }) => leftMs < tokenSoonMs)
    .map(({ id, label, leftMs }) => `${label === '' ? id : `${label} (${id})`} ${ends(leftMs)}`);
  const fix =
    'make the next one with countersign token create, and revoke the old one with countersign token revoke';
  return listed('tokens_last', text, ending, fix);
}

/** Entries that have run out, or will; and those that no agent will ever be given. */
export function judgeEntries(
  entries: readonly EntryView[],
  serves: 'machine' | 'nodes',
  now: Date,
): readonly CheckResult[] {
  if (entries.length === 0) {
    return [skipped('entries_last', 'there are no entries yet: countersign entry create makes one')];
  }
  const text = 'no entry is near its end';
  const ending = entries.flatMap(({ id, expiresAt }) => {
    const leftMs = expiresAt === null ? Number.POSITIVE_INFINITY : Date.parse(expiresAt) - now.getTime();
    return leftMs < entrySoonMs ? [`${id} ${ends(leftMs)}`] : [];
  });
  const last = listed(
    'entries_last',
    text,
    ending,
    'set another end with countersign entry update, or delete the entry',
  );
  if (serves === 'machine') return [last];
  const lost = entries.filter(({ nodes }) => nodes.length === 0).map(({ id }) => id);
  const fix = 'say with nodes which machines may serve them: see docs/nodes.md';
  return [last, listed('entries_have_nodes', 'every entry is for some node', lost, fix)];
}

/** Nodes that were let in, and have not come back. */
export function judgeNodes(nodes: readonly Travelled<NodeView>[], now: Date): CheckResult {
  const text = 'every node has renewed its certificate in time';
  const here = nodes.filter(({ state }) => state !== 'evicted' && state !== 'banned');
  if (here.length === 0)
    return skipped('nodes_seen', 'there are no nodes yet: countersign node token create lets one in');
  const late = here.flatMap(({ name, state, renewedAt, notAfter }) => {
    if (state === 'joining') return [];
    const [from, until] = [Date.parse(renewedAt), Date.parse(notAfter)];
    if (state === 'expired') return [`${name} renewed last at ${renewedAt}, and its certificate has ended`];
    // It renews at half of the life.
    const isLate = now.getTime() - from > (until - from) * lateShare;
    return isLate ? [`${name} renewed last at ${renewedAt}`] : [];
  });
  const fix = 'look at the agent there (countersign check on that machine), or evict the node';
  return listed('nodes_seen', text, late, fix);
}

/** All pages of a list, {@link mostItems} items at most. */
export async function readAll<T>(
  read: (query: { readonly limit: string; readonly cursor: string | undefined }) => Promise<Page<T>>,
): Promise<readonly T[]> {
  const items: T[] = [];
  let cursor: string | undefined;
  do {
    const page = await read({ limit: '1000', cursor });
    items.push(...page.items);
    cursor = page.next ?? undefined;
  } while (cursor !== undefined && items.length < mostItems);
  return items;
}

const mostItems = 20_000;
const tokenSoonMs = 7 * 86_400_000;
const entrySoonMs = 86_400_000;
const lateShare = 0.75;
