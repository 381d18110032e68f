import type { AuditCoverage, Downtime, LossGroup, ProxiesCovered, PrunedGroup } from '../audit/coverage.ts';
import type { LogHead } from '../audit/query.ts';
import { count, printable } from './text.ts';

type Text<T> = { readonly [K in keyof T]: T[K] extends Date ? string : T[K] };

/** What every answer says of itself, as JSON has it. */
export type AnswerBasis = {
  readonly head: LogHead;
  readonly coverage: Omit<
    AuditCoverage,
    'since' | 'until' | 'begins' | 'ends' | 'losses' | 'downtimes' | 'pruned'
  > & {
    readonly begins: string | null;
    readonly ends: string | null;
    readonly losses: readonly Text<LossGroup>[];
    readonly downtimes: readonly Text<Downtime>[];
    readonly pruned: readonly Text<PrunedGroup>[];
  };
};

/** Lines about what an answer is proven under, and what it cannot know. For standard error, beside a table. */
export function describeBasis({ head, coverage }: AnswerBasis): string {
  const lines = [
    head.root === ''
      ? `proven by   nothing: nobody signs this log of ${count(head.size, 'entry', 'entries')}`
      : `proven by   the checkpoint of ${count(head.size, 'entry', 'entries')}, root ${head.root}`,
    `covers      ${coverage.begins ?? 'nothing'} to ${coverage.ends ?? 'nothing'}`,
    ...coverage.losses.map(
      ({ what, cause, count: lost, from, to }) =>
        `lost        ${lost} ${what} from ${from} to ${to}: ${cause}`,
    ),
    ...(coverage.moreLosses ? ['lost        and more than was counted here'] : []),
    ...coverage.pruned.map(
      ({ class: kind, entries, from, to }) =>
        `gone        ${count(entries, 'entry', 'entries')} of the class ${kind} from ${from} to ${to}: contents are kept no longer`,
    ),
    ...coverage.downtimes.map(
      ({ from, to, clean }) =>
        `not running ${from} to ${to}${clean ? '' : ', and it was not stopped in order'}`,
    ),
    ...(coverage.moreDowntimes ? ['not running and at more times than are told here'] : []),
    ...(coverage.folded.records === 0
      ? []
      : [
          `folded      ${count(coverage.folded.records, 'record', 'records')}: there were too many kinds of calls to tell all apart`,
        ]),
    ...describeProxies(coverage.proxies),
    ...(coverage.notSearched.length === 0
      ? []
      : [`not asked   ${coverage.notSearched.join(', ')}: they need audit:decisions`]),
  ];
  return lines.map((line) => `${printable(line)}\n`).join('');
}

/** Servers of before proxies decided say nothing of them. */
function describeProxies(proxies: ProxiesCovered | null | undefined): readonly string[] {
  if (proxies === null || proxies === undefined || proxies.counted === 0) return [];
  const { counted, missing } = proxies;
  const told = counted - missing;
  // Rounded down: what is not all is never 100.
  const share = (Math.floor((told / counted) * 10_000) / 100).toFixed(2);
  return [
    `in proxies  the proxies' own counters say ${counted} calls, their access logs told of ${missing === 0 ? 'all' : told} of them (${share} %)`,
  ];
}
