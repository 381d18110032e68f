import { isDecisionId } from '../../audit/columns.ts';
import { type LoggedDecision, readLoggedDecision } from '../../audit/logged-decision.ts';
import { MeshError, quote } from '../../errors.ts';
import type { DecisionStory } from '../decision-story.ts';
import { type AnswerRow, answerTable, findings } from './answer.ts';
import { refuse, required } from './parameter.ts';
import { defineQuestion } from './question.ts';

/** One decision: the rule, the revision, what was known, and what the same call would get now. */
export const decision = defineQuestion({
  name: 'decision',
  line: 'one decision by its ID: what decided, by which policies, why nothing else matched, and what it would be now',
  parameters: {
    id: required('the ID that a denied caller was told', (text, name) =>
      isDecisionId(text)
        ? text
        : refuse(
            name,
            `${quote(text)} is no ID of a decision`,
            'give the header x-countersign-decision; a call that its proxy denied by itself has none: see countersign authz explain',
          ),
    ),
  },
  needs: ['audit:decisions', 'policies:read', 'authz:explain', 'bans:read'],
  find: async ({ id }, { findDecisions, tellDecision, may }) => {
    const { rows, more } = await findDecisions(id, maxRecords);
    if (rows.length === 0) {
      throw new MeshError('decision_not_found', `no decision ${quote(id)} is in the log`, {
        fix: 'wait a few seconds if it was made just now; allowed calls are counted together: countersign audit count --by source,destination has their numbers',
      });
    }
    const told: { readonly record: LoggedDecision; readonly story: DecisionStory }[] = [];
    for (const row of rows) {
      // INVARIANT: what whoever asks may not read has no part in the answer either.
      const record = readLoggedDecision(may('audit:personal') ? row : { ...row, personal: {} });
      told.push({ record, story: await tellDecision(record) });
    }
    const [first] = told;
    const notHeld = new Set(told.flatMap(({ story }) => story.notHeld));
    return findings({
      says: first === undefined ? [] : [inWords(first.record)],
      missing: notHeld.size === 0 ? [] : [`of the call: ${[...notHeld].join(', ')}`],
      tables: [
        answerTable(
          'records',
          recordColumns,
          told.map(({ record }) => recordRow(record)),
          {
            details: ['leafHash', 'sourceSerial', 'sourceAddress', 'host', 'port', 'breakGlass'],
            more,
          },
        ),
        answerTable(
          'story',
          ['index', 'what', 'told'],
          told.flatMap(({ record, story }) => storyRows(record, story)),
        ),
      ],
    });
  },
});

function inWords({ verdict, source, destination, reason }: LoggedDecision): string {
  const who = source === '' ? 'a caller without a certificate' : source;
  return `${who} was ${verdict === 'allow' ? 'allowed' : 'denied'} to call ${destination}: ${reason}`;
}

function recordRow(record: LoggedDecision): AnswerRow {
  const { proxy, decisionId, protocol, rollout: _rollout, ...rest } = record;
  return {
    ...rest,
    decision: decisionId,
    protocol,
    proxy: `uid ${proxy.uid} pid ${proxy.pid}${proxy.node === '' ? '' : ` on ${proxy.node}`}`,
  };
}

function storyRows(
  { index, why }: LoggedDecision,
  { past, now, change }: DecisionStory,
): readonly AnswerRow[] {
  const rows: [string, string][] = [['why', why]];
  const then = past.policyRevision;
  if (then !== null) rows.push(['policy revision then', `${then.number} of ${then.time.toISOString()}`]);
  if (past.why !== '') rows.push(['of then', past.why]);
  if (past.rule !== null) {
    const { kind, rule, at, used } = past.rule;
    const place = at === null ? '' : ` at ${at.place}`;
    rows.push([
      kind === 'nearest' ? 'nearest rule' : 'rule',
      `${rule}${place}${used === '' ? '' : `: ${used}`}`,
    ]);
  }
  if (now !== null) {
    rows.push(['now', `${now.verdict}${now.reason === null ? '' : ` (${now.reason})`}: ${now.why}`]);
  }
  if (change.why !== '') rows.push(['changed', change.why]);
  return rows.map(([what, told]) => ({ index, what, told }));
}

const recordColumns = [
  'index',
  'time',
  'decision',
  'verdict',
  'reason',
  'rule',
  'source',
  'destination',
  'protocol',
  'method',
  'path',
  'revision',
  'proxy',
];
const maxRecords = 4;
