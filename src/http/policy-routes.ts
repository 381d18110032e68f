import type { FastifyInstance } from 'fastify';
import { MeshError, quote } from '../errors.ts';
import type { PolicyDocument } from '../identity/mesh.ts';
import { callerOf } from './caller.ts';
import type { EntryPorts } from './entry-routes.ts';
import { parseInput } from './input.ts';
import { pageOf, pageQuery } from './page.ts';
import { addRoute } from './route.ts';

/** A policy in a list: where it came from, without its text. */
export type PolicyView = Omit<PolicyDocument, 'source'>;

/** Policies, one by one; they are written through `POST /v1/apply`. */
export function addPolicyRoutes(app: FastifyInstance, { administration }: EntryPorts): void {
  addRoute(app, 'GET /v1/policies', async (request) => {
    const { policies, revision } = administration.current();
    const page = pageOf(policies, parseInput(pageQuery, request.query, 'query_invalid'));
    return { items: page.items.map(policyView), next: page.next, revision };
  });
  addRoute<ByKey>(app, 'GET /v1/policies/:namespace/:name', async (request) => {
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
    await administration.deletePolicy(keyOf(request.params), callerOf(request).actor);
    return reply.code(204).send();
  });
}

type ByKey = { namespace: string; name: string };

// A decoded `%2f` may stand in a parameter; such a key exists nowhere, so it is simply not found.
function keyOf(params: ByKey): string {
  return `${params.namespace}/${params.name}`;
}

function policyView({ key, file, line, sha256, revision }: PolicyDocument): PolicyView {
  return { key, file, line, sha256, revision };
}
