import type { PolicyReplay, ReplayEdge } from '../identity/replay-answer.ts';
import type { Travelled } from '../http/travelled.ts';
import { formatBasis } from './answer-text.ts';
import { count, formatTable, printable } from './text.ts';

/** A replay as it comes from the API. */
export type ToldReplay = Travelled<PolicyReplay>;
type ToldEdge = Travelled<ReplayEdge>;

/** A replay for a terminal: what changes, how many calls fare how, which, and what the answer rests on. */
export function formatReplay(replay: ToldReplay): string {
  const { candidate, edges, moreEdges, beyond } = replay;
  const refused = candidate.refused;
  const parts = [
    describeCandidate(replay),
    ...(refused === null
      ? []
      : [`it would not be applied: ${refused.place === '' ? '' : `${refused.place}: `}${refused.message}\n`]),
    describeTotals(replay),
    ...(['newly_denied', 'newly_allowed', 'unknown'] as const).map((kind) =>
      formatEdges(
        kind,
        edges.filter((edge) => edge.class === kind),
      ),
    ),
    ...(moreEdges > 0 ? [`there are ${moreEdges} more edges: use --limit, or -o json\n`] : []),
    ...(beyond > 0 ? [`and ${count(beyond, 'call', 'calls')} of more edges than are kept apart\n`] : []),
  ];
  const text = parts
    .filter((part) => part !== '')
    .map((part) =>
      part
        .split('\n')
        .map((line) => printable(line))
        .join('\n'),
    );
  return `${text.join('\n')}\n${replayBasis(replay)}`;
}

/** What a replay rests on, and what it does not have. */
export function replayBasis(replay: ToldReplay): string {
  return formatBasis(replay);
}

/** The columns of {@link replayRow}. */
export const replayColumns: readonly string[] = [
  ...['class', 'calls', 'source', 'destination', 'protocol', 'method', 'path', 'port'],
  ...['verdict', 'reason', 'rule', 'place', 'nearest', 'nearestPlace', 'missed', 'dependsOn'],
  ...['verdictNow', 'ruleNow', 'placeNow', 'recordedAllowed', 'recordedDenied', 'first', 'last', 'index'],
];

/** An edge as cells. */
export function replayRow(edge: ToldEdge): readonly string[] {
  const { before, after, nearest, recorded } = edge;
  return [
    ...[edge.class, `${edge.calls}`, edge.source, edge.destination, edge.protocol, edge.method],
    ...[edge.path ?? '', `${edge.port}`],
    ...[after?.verdict ?? '', after?.reason ?? '', after?.rule ?? '', after?.place ?? ''],
    ...[nearest?.rule ?? '', nearest?.place ?? '', nearest?.missed ?? '', edge.dependsOn.join(' ')],
    ...[before?.verdict ?? '', before?.rule ?? '', before?.place ?? ''],
    ...[`${recorded.allowed}`, `${recorded.denied}`, edge.first, edge.last, `${edge.index}`],
  ];
}

function describeCandidate({ candidate: { changes } }: ToldReplay): string {
  const done = changes.filter(({ action }) => action !== 'unchanged');
  if (done.length === 0) return 'nothing would change: this is what is in force\n';
  const shown = done.slice(0, maxChanges).map(({ kind, key, action }) => `${action} ${kind} ${key}`);
  return `${shown.join(', ')}${done.length > maxChanges ? ` and ${done.length - maxChanges} more` : ''}\n`;
}

function describeTotals({ totals, since, until }: ToldReplay): string {
  const { calls, newlyDenied, newlyAllowed, unchanged, unknown } = totals;
  return [
    `of ${count(calls, 'recorded call', 'recorded calls')} from ${since ?? 'the beginning'} to ${until}`,
    `  newly denied    ${newlyDenied}`,
    `  newly allowed   ${newlyAllowed}`,
    `  cannot be told  ${unknown}`,
    `  unchanged       ${unchanged}`,
    '',
  ].join('\n');
}

function formatEdges(kind: ToldEdge['class'], edges: readonly ToldEdge[]): string {
  if (edges.length === 0) return '';
  const isUnknown = kind === 'unknown';
  const why = isUnknown ? 'DEPENDS ON' : kind === 'newly_denied' ? 'DENIED BY' : 'ALLOWED BY';
  const beside = kind === 'newly_denied' ? 'ALLOWED NOW BY' : isUnknown ? 'NOW' : 'DENIED NOW BY';
  const table = formatTable(
    ['CALLS', 'CALLER', 'SERVICE', 'METHOD', 'PATH', why, beside, 'LAST', 'INDEX'],
    edges.map((edge) => [
      `${edge.calls}`,
      edge.source === '' ? '(no certificate)' : edge.source,
      edge.destination,
      edge.protocol === 'tcp' ? 'tcp' : edge.method,
      edge.path ?? (edge.protocol === 'tcp' ? '' : '(not held)'),
      isUnknown ? describeUnknown(edge) : describeAfter(edge),
      describeBefore(edge),
      edge.last,
      `${edge.index}`,
    ]),
  );
  return `${kind.replace('_', ' ').replace('unknown', 'cannot be told')}\n${table}`;
}

function describeUnknown({ after, dependsOn }: ToldEdge): string {
  if (after === null) return 'the record does not say who called whom';
  return dependsOn.length === 0 ? 'what the record does not hold' : dependsOn.join(', ');
}

function describeAfter({ after, nearest }: ToldEdge): string {
  if (after === null) return '';
  if (after.rule !== '') return `${after.rule} at ${after.place}`;
  if (nearest !== null) return `no rule; nearest ${nearest.rule} at ${nearest.place}: ${nearest.missed}`;
  return reasons.get(after.reason ?? '') ?? after.reason ?? 'what is not known; denied in any case';
}

function describeBefore({ before, recorded }: ToldEdge): string {
  if (before === null) return '';
  if (before.rule !== '') return `${before.rule} at ${before.place}`;
  if (before.verdict === 'unknown')
    return `not told; recorded ${recorded.allowed > 0 ? 'allowed' : 'denied'}`;
  return reasons.get(before.reason ?? '') ?? before.reason ?? before.verdict;
}

const reasons: ReadonlyMap<string, string> = new Map([
  ['no_allow_rule', 'no rule'],
  ['no_policy', 'no policy'],
]);
const maxChanges = 8;
