import type { AuditCoverage } from '../../audit/coverage.ts';
import type { LogHead } from '../../audit/query.ts';
import type { Findings } from './answer.ts';
import { windowOf } from './ports.ts';
import type { Asking, Question } from './question.ts';

/** The answer to a question, and what it rests on. */
export type Answer = Findings & {
  readonly question: string;
  /** As it was asked; what was left out is not here. */
  readonly asked: Readonly<Record<string, string>>;
  readonly coverage: AuditCoverage;
  /** Every row that has an index is proven under it. */
  readonly head: LogHead;
};

/**
 * Reads what a question is asked with.
 * @returns what answers it. Head and coverage are read last: a log only grows, so they hold for all that was read before
 * @throws MeshError `audit_query_invalid`, `audit_cursor_invalid`, also from the answer, with what else the question throws
 */
export function readQuestion(
  question: Question,
  fields: ReadonlyMap<string, string>,
  now: Date,
): (asking: Asking) => Promise<Answer> {
  const find = question.parse(fields, now);
  return async (asking) => {
    const { since, until, ...found } = await find(asking);
    const { coverage, head } = await asking.read({
      types: aboutCalls(question) ? ['lifecycle', 'proxy_verdicts'] : ['lifecycle'],
      limit: 1,
      ...windowOf({ since, until }),
    });
    return { question: question.name, asked: Object.fromEntries(fields), ...found, coverage, head };
  };
}

/** What proxies counted is told with answers about calls, to those who may see calls. */
function aboutCalls({ needs }: Question): boolean {
  return needs.includes('audit:decisions');
}
