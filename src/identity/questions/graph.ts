import { answerTable, findings, numbered } from './answer.ts';
import { namespace, optional, window } from './parameter.ts';
import { connectionTypes, countAll, judgedTypes, type NamedCount, windowOf } from './ports.ts';
import { defineQuestion } from './question.ts';
import { namespacesOf } from './services.ts';

/** Who calls whom: allowed, denied and in plaintext. Beside the fifteen. */
export const graph = defineQuestion({
  name: 'graph',
  line: 'who calls whom: calls allowed and denied, connections in plaintext, and when last',
  parameters: {
    ...window,
    namespace: optional('calls from or to a namespace; every one when it is left out', namespace, null),
  },
  needs: ['audit:decisions'],
  find: async (asked, asking) => {
    const { counts, isWhole } = await countAll(asking, ['source', 'destination', 'outcome'], {
      types: [...judgedTypes, ...connectionTypes],
      ...windowOf(asked),
    });
    const namespaceOf = namespacesOf(asking.current());
    const edges = edgesOf(counts).map((edge) => ({
      ...edge,
      sourceNamespace: namespaceOf(edge.source),
      destinationNamespace: namespaceOf(edge.destination),
    }));
    const chosen = edges.filter(
      ({ sourceNamespace, destinationNamespace }) =>
        asked.namespace === null || [sourceNamespace, destinationNamespace].includes(asked.namespace),
    );
    const shown = chosen.slice(0, maxEdges);
    const names = new Set(chosen.flatMap((edge) => [edge.source, edge.destination]));
    names.delete('');
    return findings({
      says: [`${numbered(chosen.length, 'edge')} between ${numbered(names.size, 'identity', 'identities')}`],
      missing: isWhole ? [] : ['some calls: there are too many combinations to count all'],
      tables: [
        answerTable('edges', columns, shown, {
          details: ['sourceNamespace', 'destinationNamespace'],
          more: chosen.length > shown.length,
        }),
      ],
    });
  },
});

type Edge = {
  readonly index: number;
  readonly source: string;
  readonly destination: string;
  readonly allowed: number;
  readonly denied: number;
  readonly plaintext: number;
  readonly last: string;
};

function edgesOf(counts: readonly NamedCount[]): readonly Edge[] {
  const edges = new Map<string, Edge>();
  for (const { of, count, last, lastIndex } of counts) {
    const field = fieldOf(of['outcome'] ?? '');
    const destination = of['destination'] ?? '';
    if (field === undefined || destination === '') continue;
    const source = of['source'] ?? '';
    const key = JSON.stringify([source, destination]);
    const edge = edges.get(key) ?? {
      index: 0,
      source,
      destination,
      allowed: 0,
      denied: 0,
      plaintext: 0,
      last: '',
    };
    const time = last.toISOString();
    edges.set(key, {
      ...edge,
      [field]: edge[field] + count,
      index: Math.max(edge.index, lastIndex),
      last: time > edge.last ? time : edge.last,
    });
  }
  return [...edges.values()].sort(
    (a, b) => b.allowed + b.denied + b.plaintext - (a.allowed + a.denied + a.plaintext),
  );
}

function fieldOf(outcome: string): 'allowed' | 'denied' | 'plaintext' | undefined {
  if (outcome === 'allow') return 'allowed';
  if (outcome === 'deny') return 'denied';
  return outcome === 'plaintext' ? 'plaintext' : undefined;
}

const columns = ['index', 'source', 'destination', 'allowed', 'denied', 'plaintext', 'last'];
const maxEdges = 5_000;
