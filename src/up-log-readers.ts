import { parseAuditQuery } from './audit/question.ts';
import { collectSample } from './audit/sample.ts';
import { collectCounts, collectPage } from './audit/search.ts';
import { parseCountField } from './audit/where.ts';
import type { Clock } from './clock.ts';
import type { QuestionPorts } from './identity/questions/ports.ts';
import type { Store } from './store/store.ts';

/** What questions and replays read of the log and of earlier policies, until their time is up. */
export function logReaders(
  store: Store,
  clock: Clock,
  isTimeUp: () => boolean,
): Pick<QuestionPorts, 'read' | 'count' | 'sample' | 'archive' | 'isTimeUp' | 'now'> {
  return {
    isTimeUp,
    now: () => clock.now(),
    read: (question) => collectPage(store.queryAudit, parseAuditQuery(question, clock.now()), isTimeUp),
    count: (by, question, cursor) => {
      const {
        limit: _limit,
        order: _order,
        cursor: _cursor,
        ...filters
      } = parseAuditQuery(question, clock.now());
      return collectCounts(store.countAudit, { filters, by: by.map(parseCountField), cursor }, isTimeUp);
    },
    sample: (question) => collectSample(store.sampleAudit, question, isTimeUp),
    archive: {
      revisionAt: store.revisionAt,
      revision: store.policyRevision,
      policiesOf: store.policiesOf,
      policiesIn: store.policiesIn,
    },
  };
}
