import { answerTable, findings, numbered } from './answer.ts';
import { identity, moment, namespace, optional, paging, required, wholeNumber, window } from './parameter.ts';
import { defineQuestion } from './question.ts';
import type { ReplayEdge } from '../replay-answer.ts';

/** Which calls of the past the policies of a revision would have denied, or allowed. */
export const replay = defineQuestion({
  name: 'replay',
  line: 'which calls that were made the policies of another revision would deny or allow, against those in force',
  parameters: {
    revision: required('the number of a policy revision that is kept', wholeNumber(1, 999_999_999_999_999)),
    since: optional('calls from this time on; 7d when it is left out', moment, null),
    until: window.until,
    destination: optional('SPIFFE ID of the called service; all when it is left out', identity, null),
    namespace: optional('calls to services of this namespace', namespace, null),
    limit: paging.limit,
  },
  needs: ['audit:decisions', 'policies:read', 'entries:read'],
  find: async (asked, asking) => {
    const since = asked.since ?? new Date(asking.now().getTime() - weekMs);
    const { revision, until, destination } = asked;
    const mayReadPersonal = asking.may('audit:personal');
    const meant = { since, until, destination, namespace: asked.namespace, mayReadPersonal };
    const answer = await asking.replayRevision(revision, meant, asked.limit);
    const { totals, candidate, edges, moreEdges, missing } = answer;
    const { calls, newlyDenied, newlyAllowed, unknown } = totals;
    const changed = candidate.changes.filter(({ action }) => action !== 'unchanged').length;
    return findings({
      says: [
        `policy revision ${revision} differs from the policies in force in ${numbered(changed, 'policy', 'policies')}`,
        `of ${numbered(calls, 'recorded call')} since ${since.toISOString()} it would newly deny ${newlyDenied} and newly allow ${newlyAllowed}; of ${unknown} it cannot be told`,
        ...(candidate.refused === null ? [] : [`it could not be applied: ${candidate.refused.message}`]),
      ],
      missing,
      tables: [answerTable('edges', columns, edges.map(rowOf), { details, more: moreEdges > 0 })],
    });
  },
});

function rowOf(edge: ReplayEdge) {
  const { class: becomes, source, destination, method, path, port, calls, first, last, index } = edge;
  return {
    ...{
      index,
      becomes: becomes.replace('_', ' '),
      calls,
      source,
      destination,
      method,
      path: path ?? '',
      port,
    },
    first: first.toISOString(),
    last: last.toISOString(),
    rule: edge.after?.rule ?? '',
    place: edge.after?.place ?? '',
    nearest: edge.nearest === null ? '' : `${edge.nearest.rule} at ${edge.nearest.place}`,
    ruleNow: edge.before?.rule ?? '',
    dependsOn: edge.dependsOn,
  };
}

const weekMs = 604_800_000;
const columns = [
  'index',
  'becomes',
  'calls',
  'source',
  'destination',
  'method',
  'path',
  'rule',
  'nearest',
  'last',
];
const details = ['port', 'first', 'place', 'ruleNow', 'dependsOn'];
