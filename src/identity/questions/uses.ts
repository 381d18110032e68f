import { type AnswerTable, answerTable } from './answer.ts';
import { fieldsOf, numberOf, readEvent, textOf } from './event-fields.ts';
import { judgedTypes, type LogQuestion, type LogReader, readAll } from './ports.ts';

/** Calls of somebody, by the proxy that judged them. */
export type Uses = { readonly table: AnswerTable; readonly missing: readonly string[] };

/** Where a certificate or an identity was shown as a caller: each proxy, its verdicts, the first and the last time. */
export async function usesOf(
  ports: LogReader,
  of: Pick<LogQuestion, 'serial' | 'source' | 'since' | 'until' | 'verdict'>,
): Promise<Uses> {
  const { rows, more } = await readAll(ports, { ...of, types: judgedTypes, order: 'newest' }, maxRecords);
  const uses = new Map<string, Use>();
  for (const row of rows) {
    const { index, time, event } = readEvent(row);
    const caller = fieldsOf(event, 'caller');
    const key = { proxy: textOf(event, 'destination'), node: textOf(caller, 'node') };
    const isCounted = event['type'] === 'allowed_calls' || event['type'] === 'proxy_verdicts';
    const isAllowed = event['type'] === 'allowed_calls' || event['verdict'] === 'allow';
    const calls = isCounted ? numberOf(event, 'count') : 1;
    const first = isCounted ? textOf(event, 'from') : time;
    const name = JSON.stringify(key);
    const before = uses.get(name) ?? { ...key, allowed: 0, denied: 0, first, last: time, index };
    uses.set(name, {
      ...before,
      allowed: before.allowed + (isAllowed ? calls : 0),
      denied: before.denied + (isAllowed ? 0 : calls),
      first: first < before.first ? first : before.first,
      last: time > before.last ? time : before.last,
      index: Math.max(before.index, index),
    });
  }
  const items = [...uses.values()].sort((a, b) => (a.last < b.last ? 1 : -1));
  return {
    table: answerTable('uses', ['index', 'proxy', 'node', 'allowed', 'denied', 'first', 'last'], items, {
      more,
    }),
    missing: more ? [`uses before the latest ${maxRecords} records of them`] : [],
  };
}

type Use = {
  readonly index: number;
  readonly proxy: string;
  readonly node: string;
  readonly allowed: number;
  readonly denied: number;
  readonly first: string;
  readonly last: string;
};

const maxRecords = 2_000;
