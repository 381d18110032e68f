import type { FastifyInstance } from 'fastify';
import { isDecisionId } from '../audit/columns.ts';
import { type LoggedDecision, readLoggedDecision } from '../audit/logged-decision.ts';
import type { AuditRow } from '../audit/query.ts';
import { MeshError, quote } from '../errors.ts';
import { scopeOf } from '../identity/access.ts';
import type { DecisionStory } from '../identity/decision-story.ts';
import type { NoteRead } from './audit-routes.ts';
import { callerOf } from './caller.ts';
import { demandNamespace } from './permit.ts';
import { addRoute } from './route.ts';

/** What questions about a decision in the log need of the house. */
export type DecisionPorts = {
  /** Records of decisions with an ID, in the order of the log, and whether there are more. */
  readonly findDecisions: (
    id: string,
    limit: number,
  ) => Promise<{ readonly rows: readonly AuditRow[]; readonly more: boolean }>;
  readonly tellDecision: (record: LoggedDecision) => Promise<DecisionStory>;
};

/** A decision in the log, explained. */
export type ExplainedDecision = { readonly record: LoggedDecision } & DecisionStory;

/** All records of an ID: the first is the first in the log. */
export type ExplainedDecisions = {
  readonly decisionId: string;
  readonly items: readonly ExplainedDecision[];
  /** Whether there are more records than are shown. */
  readonly more: boolean;
};

/** Explains decisions by the ID that a denied caller was told. */
export function addDecisionRoutes(
  app: FastifyInstance,
  { findDecisions, tellDecision }: DecisionPorts,
  noteRead: NoteRead,
): void {
  addRoute<{ id: string }>(app, 'GET /v1/authz/decisions/:id', async (request) => {
    const { id } = request.params;
    const caller = callerOf(request);
    // Of whose namespace it is nobody knows before it is read: it is for those who may read all of them.
    for (const permission of ['policies:read', 'authz:explain', 'bans:read'] as const) {
      demandNamespace(caller, permission, undefined, 'a decision in the log');
    }
    if (!isDecisionId(id)) {
      throw new MeshError('decision_id_invalid', `${quote(id)} is no ID of a decision`, {
        fix: 'give the value of the header x-countersign-decision, as the caller was told it',
      });
    }
    await noteRead(request, `decision=${id}`);
    const { rows, more } = await findDecisions(id, maxRecords);
    if (rows.length === 0) throw notFound(id);
    const mayReadPersonal = scopeOf(caller.grants, 'audit:personal') !== undefined;
    const items: ExplainedDecision[] = [];
    for (const row of rows) {
      // INVARIANT: what whoever asks may not read has no part in the answer either.
      const record = readLoggedDecision(mayReadPersonal ? row : { ...row, personal: {}, shredded: [] });
      items.push({ record, ...(await tellDecision(record)) });
    }
    return { decisionId: id, items, more } satisfies ExplainedDecisions;
  });
}

function notFound(id: string): MeshError {
  return new MeshError('decision_not_found', `no decision ${quote(id)} is in the log`, {
    fix: 'wait a few seconds if it was made just now; allowed calls are counted together: countersign audit list --type allowed_calls has their numbers',
  });
}

const maxRecords = 4;
