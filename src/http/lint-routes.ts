import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import { lintInSteps, type LintReport } from '../authz/lint.ts';
import type { Policy } from '../authz/policy.ts';
import type { Steps } from '../authz/steps.ts';
import { covers, scopeOf } from '../identity/access.ts';
import type { TrustDomain } from '../spiffe/id.ts';
import { callerOf } from './caller.ts';
import type { EntryPorts } from './entry-routes.ts';
import { parseInput } from './input.ts';
import { addRoute } from './route.ts';

/** What lint needs of the house. */
export type LintPorts = Pick<EntryPorts, 'administration'> & {
  /** The policies in force, parsed, and the namespace whose policies apply to all. */
  readonly policySet: () => { readonly policies: Iterable<Policy>; readonly rootNamespace: string };
  readonly survey: <T>(question: () => Steps<T>) => Promise<T>;
};

/** What was found in the policies in force, as JSON. */
export type LintView = LintReport & { readonly inventory: boolean; readonly policies: number };

/** What is worth a look in the policies in force. */
export function addLintRoutes(app: FastifyInstance, ports: LintPorts, trustDomain: TrustDomain): void {
  addRoute(app, 'GET /v1/policy-lint', async (request) => {
    const { limit = defaultLimit, notes } = parseInput(lintQuery, request.query, 'query_invalid');
    const { grants } = callerOf(request);
    const scope = scopeOf(grants, 'policies:read');
    const { policies: all, rootNamespace } = ports.policySet();
    const policies = [...all].filter(({ namespace }) => covers(scope, namespace));
    // Which identities there are is not for everybody to see, nor are the policies of others that apply to them.
    const seesAll = scope === 'everywhere' && scopeOf(grants, 'entries:read') === 'everywhere';
    const { entries } = ports.administration.current();
    const workloads = seesAll
      ? [...entries.values()].map(({ spiffeId, labels }) => ({ id: spiffeId, labels }))
      : null;
    const report = await ports.survey(() =>
      lintInSteps({ policies, workloads, trustDomain, rootNamespace, notes: notes === 'true', limit }),
    );
    return { ...report, inventory: seesAll, policies: policies.length } satisfies LintView;
  });
}

/** The query of `GET /v1/policy-lint`. */
export const lintQuery = z.strictObject({
  limit: z.coerce.number().int().min(1).max(9_999).optional(),
  notes: z.enum(['true', 'false']).optional(),
});
const defaultLimit = 100;
