import type { FastifyInstance, FastifyRequest } from 'fastify';
import { MeshError, quote } from '../errors.ts';
import { type Permission, scopeOf } from '../identity/access.ts';
import type { PolicyDocument } from '../identity/mesh.ts';
import { callerOf } from './caller.ts';
import type { EntryPorts } from './entry-routes.ts';
import { parseInput } from './input.ts';
import { pageOf, pageQuery } from './page.ts';
import { demandNamespace, withinScope } from './permit.ts';
import { addRoute } from './route.ts';

/** A policy in a list: where it came from, without its text. */
export type PolicyView = Omit<PolicyDocument, 'source'>;

/** Policies, one by one; they are written through `POST /v1/apply`. */
export function addPolicyRoutes(
  app: FastifyInstance,
  { administration }: Pick<EntryPorts, 'administration'>,
): void {
  addRoute(app, 'GET /v1/policies', async (request) => {
    const { policies, revision } = administration.current();
    const scope = scopeOf(callerOf(request).grants, 'policies:read');
    const within = withinScope(policies, scope, ({ key }) => key.slice(0, key.indexOf('/')));
    const page = pageOf(within, parseInput(pageQuery, request.query, 'query_invalid'));
    return { items: page.items.map(policyView), next: page.next, revision };
  });
  addRoute<ByKey>(app, 'GET /v1/policies/:namespace/:name', async (request) => {
    demand(request, 'policies:read');
    const key = keyOf(request.params);
    const policy = administration.current().policies.get(key);
    if (policy === undefined) {
      throw new MeshError('policy_not_found', `no policy has the name ${quote(key)}`, {
        fix: 'countersign policy list shows all names',
      });
    }
    return { ...policyView(policy), source: policy.source };
  });
  addRoute<ByKey>(app, 'DELETE /v1/policies/:namespace/:name', async (request, reply) => {
    demand(request, 'policies:write');
    await administration.deletePolicy(keyOf(request.params), callerOf(request).actor);
    return reply.code(204).send();
  });
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

function policyView({ key, file, line, sha256, revision }: PolicyDocument): PolicyView {
  return { key, file, line, sha256, revision };
}
