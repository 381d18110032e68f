import type { FastifyInstance, FastifyRequest } from 'fastify';
import { MeshError, quote } from '../errors.ts';
import { type Permission, scopeOf } from '../identity/access.ts';
import type { PolicyDocument } from '../identity/mesh.ts';
import { policyNamespace } from '../identity/policy-revision.ts';
import type { PolicyTermsView } from '../identity/policy-terms.ts';
import { callerOf } from './caller.ts';
import { parseInput } from './input.ts';
import { pageOf, pageQuery } from './page.ts';
import { demandNamespace, withinScope } from './permit.ts';
import {
  deleteQuery,
  findRevision,
  parseNumber,
  pastQuery,
  type RevisionArchive,
  type RevisionPorts,
} from './revision-routes.ts';
import { addRoute } from './route.ts';

/** A policy in a list: where it came from, without its text. Of those that are no longer in force the terms are not told. */
export type PolicyView = Omit<PolicyDocument, 'source'> & { readonly terms?: PolicyTermsView | undefined };

/** Policies, one by one; they are written through `POST /v1/apply`. */
export function addPolicyRoutes(
  app: FastifyInstance,
  { administration, revisions }: Pick<RevisionPorts, 'administration' | 'revisions'>,
): void {
  const policiesOf = remember(revisions);
  const termsOf = ({ key, sha256 }: PolicyView): PolicyTermsView | undefined =>
    administration.current().policies.get(key)?.sha256 === sha256
      ? administration.policyTerms(key)
      : undefined;
  addRoute(app, 'GET /v1/policies', async (request) => {
    const { revision, policies: now } = administration.current();
    const { policyRevision, ...query } = parseInput(policiesQuery, request.query, 'query_invalid');
    const policies = policyRevision === undefined ? now : await policiesOf(parseNumber(policyRevision));
    const scope = scopeOf(callerOf(request).grants, 'policies:read');
    const within = withinScope<PolicyView>(policies, scope, ({ key }) => policyNamespace(key));
    const page = pageOf(within, query);
    return { items: page.items.map((one) => policyView(one, termsOf(one))), next: page.next, revision };
  });
  addRoute<ByKey>(app, 'GET /v1/policies/:namespace/:name', async (request) => {
    demand(request, 'policies:read');
    const key = keyOf(request.params);
    const { policyRevision } = parseInput(pastQuery, request.query, 'query_invalid');
    const policy =
      policyRevision === undefined
        ? administration.current().policies.get(key)
        : await policyOf(revisions, parseNumber(policyRevision), key);
    if (policy === undefined) {
      throw new MeshError('policy_not_found', `no policy has the name ${quote(key)}`, {
        fix: 'countersign policy list shows all names',
      });
    }
    return { ...policyView(policy, termsOf(policy)), source: policy.source };
  });
  addRoute<ByKey>(app, 'DELETE /v1/policies/:namespace/:name', async (request, reply) => {
    demand(request, 'policies:write');
    const { message } = parseInput(deleteQuery, request.query, 'query_invalid');
    await administration.deletePolicy(keyOf(request.params), callerOf(request).actor, message);
    return reply.code(204).send();
  });
}

/** A revision never changes, so its list is read once for all its pages. */
function remember({ page, policiesOf }: RevisionArchive): RevisionArchive['policiesOf'] {
  const known = new Map<number, ReadonlyMap<string, PolicyView>>();
  return async (number) => {
    await findRevision({ page }, number);
    const found = known.get(number) ?? (await policiesOf(number));
    known.delete(number);
    known.set(number, found);
    for (const oldest of known.keys()) if (known.size > maxRemembered) known.delete(oldest);
    return found;
  };
}

async function policyOf(
  revisions: RevisionArchive,
  number: number,
  key: string,
): Promise<PolicyDocument | undefined> {
  await findRevision(revisions, number);
  return (await revisions.policyOf(number, key)) ?? undefined;
}

type ByKey = { namespace: string; name: string };

// The caller names the namespace, so to be refused says nothing of what is in it.
function demand(request: FastifyRequest<{ Params: ByKey }>, permission: Permission): void {
  const { namespace } = request.params;
  demandNamespace(callerOf(request), permission, namespace, `the policy ${quote(keyOf(request.params))}`);
}

// A decoded `%2f` may stand in a parameter; such a key exists nowhere, so it is simply not found.
function keyOf(params: ByKey): string {
  return `${params.namespace}/${params.name}`;
}

function policyView(
  { key, file, line, sha256, revision }: PolicyView,
  terms: PolicyTermsView | undefined,
): PolicyView {
  return { key, file, line, sha256, revision, ...(terms === undefined ? {} : { terms }) };
}

const maxRemembered = 4;
/** The query of `GET /v1/policies`. */
export const policiesQuery = pageQuery.extend(pastQuery.shape);
