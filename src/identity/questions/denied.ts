import { answerTable, findings, numbered } from './answer.ts';
import { paging, window } from './parameter.ts';
import { countAll, judgedTypes, windowOf } from './ports.ts';
import { defineQuestion } from './question.ts';
import { choosesService, rowsOfCounts, services, serviceWords } from './services.ts';

/** Who tried to call what they may not: by caller, service and reason, with the first and the last attempt. */
export const denied = defineQuestion({
  name: 'denied',
  line: 'denied calls of some services by caller, with when each was first and last seen',
  parameters: { ...services, ...window, limit: paging.limit },
  needs: ['audit:decisions'],
  find: async (asked, asking) => {
    const isChosen = choosesService(asked, asking.current());
    const { counts, isWhole } = await countAll(asking, ['source', 'destination', 'reason'], {
      types: judgedTypes,
      verdict: 'deny',
      ...(asked.destination === null ? {} : { destination: asked.destination }),
      ...windowOf(asked),
    });
    const rows = rowsOfCounts(counts, isChosen).map(({ of, count, ...row }) => ({
      ...row,
      reason: of['reason'] ?? '',
      denials: count,
    }));
    const callers = new Set(rows.map(({ source }) => source));
    const denials = rows.reduce((sum, row) => sum + row.denials, 0);
    return findings({
      says: [
        `${numbered(denials, 'denied call')} of ${numbered(callers.size, 'caller')} ${serviceWords(asked)}`,
      ],
      missing: [
        ...(isWhole ? [] : ['some denials: there are too many combinations to count all']),
        ...(callers.has('') ? ['who the callers without a certificate are'] : []),
      ],
      tables: [
        answerTable('denied', columns, rows.slice(0, asked.limit), { more: rows.length > asked.limit }),
      ],
    });
  },
});

const columns = ['index', 'source', 'destination', 'reason', 'denials', 'first', 'last', 'firstIndex'];
