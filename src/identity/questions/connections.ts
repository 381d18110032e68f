import { type AnswerRow, answerTable, findings, numbered } from './answer.ts';
import { paging, window } from './parameter.ts';
import { connectionTypes, countAll, type Counted, type LogQuestion, windowOf } from './ports.ts';
import { type Asking, defineQuestion } from './question.ts';
import { choosesService, rowsOfCounts, services, serviceWords } from './services.ts';

/** How connections were secured, as the proxies of the called services report it. */
export const connections = defineQuestion({
  name: 'connections',
  line: 'connections in plaintext, of foreign trust domains and failed in TLS, and how much is mutual TLS',
  parameters: { ...services, ...window, limit: paging.limit },
  needs: ['audit:decisions'],
  find: async (asked, asking) => {
    const isChosen = choosesService(asked, asking.current());
    const { counts, isWhole } = await countConnections(asking, {
      ...(asked.destination === null ? {} : { destination: asked.destination }),
      ...windowOf(asked),
    });
    const rows = rowsOfCounts(counts, isChosen).map(({ of, count, ...row }) => ({
      ...row,
      kind: of['outcome'] ?? '',
      reason: of['failure'] ?? '',
      connections: count,
    }));
    const total = (kind: string): number =>
      rows.reduce((sum, row) => sum + (row.kind === kind ? row.connections : 0), 0);
    const [mutual, plain, foreign] = [total('mtls'), total('plaintext'), total('foreign')];
    const failed = total('tls_failed');
    const open = mutual + foreign + plain;
    const others: readonly AnswerRow[] = rows.filter(({ kind }) => kind !== 'mtls');
    return findings({
      says:
        rows.length === 0
          ? [
              `no proxy reported a connection ${serviceWords(asked)}: nothing is known of how they are secured`,
            ]
          : [
              `${shareOf(mutual + foreign, open)} of ${numbered(open, 'connection')} ${serviceWords(asked)} used mutual TLS`,
              `${plain} in plaintext, ${foreign} of foreign trust domains, ${failed} failed in TLS`,
            ],
      missing: [
        ...(isWhole ? [] : ['some connections: there are too many combinations to count all']),
        'services whose proxy sends no access log: nobody reports them',
      ],
      tables: [
        answerTable(
          'services',
          ['index', 'destination', 'mtls', 'plaintext', 'foreign', 'failed', 'share'],
          shares(rows),
        ),
        answerTable('exceptions', columns, others.slice(0, asked.limit), {
          more: others.length > asked.limit,
        }),
      ],
    });
  },
});

/** Connections as they were reported. */
async function countConnections(asking: Asking, question: LogQuestion): Promise<Counted> {
  if (connectionTypes.length === 0) return { counts: [], isWhole: true };
  const by = ['source', 'destination', 'outcome', 'failure'];
  return countAll(asking, by, { ...question, types: connectionTypes });
}

type Reported = {
  readonly index: number;
  readonly kind: string;
  readonly destination: string;
  readonly connections: number;
};

/** For each service how much of what was connected was mutual TLS. */
function shares(rows: readonly Reported[]): readonly AnswerRow[] {
  return [...Map.groupBy(rows, ({ destination }) => destination)]
    .map(([destination, own]) => {
      const sum = (kind: string): number =>
        own.reduce((all, row) => all + (row.kind === kind ? row.connections : 0), 0);
      const [mtls, plaintext, foreign, failed] = [
        sum('mtls'),
        sum('plaintext'),
        sum('foreign'),
        sum('tls_failed'),
      ];
      const share = shareOf(mtls + foreign, mtls + foreign + plaintext);
      const index = Math.max(...own.map((row) => row.index));
      return { index, destination, mtls, plaintext, foreign, failed, share };
    })
    .sort((a, b) => b.plaintext - a.plaintext || (a.destination < b.destination ? -1 : 1))
    .slice(0, maxServices);
}

/** Rounded down: what is not all is never 100. */
function shareOf(part: number, whole: number): string {
  return whole === 0 ? 'unknown' : `${(Math.floor((part / whole) * 10_000) / 100).toFixed(2)} %`;
}

const columns = [
  'index',
  'kind',
  'source',
  'destination',
  'reason',
  'connections',
  'first',
  'last',
  'firstIndex',
];
const maxServices = 1_000;
