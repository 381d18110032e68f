import { MeshError } from '../errors.ts';
import type { Permission } from '../identity/access.ts';

/**
 * What a route takes. `public` answers anybody, and therefore says nothing but whether the process lives, and where what
 * the documentation describes is.
 */
export type RouteAccess = Permission | 'public';

// Each has an entry in an `openapi-*.ts`, or `openapi.ts` does not compile.
// INVARIANT: a route that is not in this table cannot be added, so a forgotten line stops the start (and the compiler)
// instead of opening a door.
const routes = {
  'GET /healthz': 'public',
  'GET /readyz': 'public',
  'GET /metrics': 'metrics:read',
  'GET /v1/openapi.json': 'api:read',
  'GET /v1/status': 'status:read',
  'GET /v1/trust-bundle': 'trust:read',
  'GET /v1/ca': 'ca:read',
  'GET /v1/ca/crl': 'trust:read',
  'GET /v1/ca/csr': 'ca:read',
  'POST /v1/ca/import': 'ca:write',
  'POST /v1/ca/rotate': 'ca:write',
  'POST /v1/ca/activate': 'ca:write',
  'POST /v1/ca/retire': 'ca:write',
  'POST /v1/ca/taint': 'ca:write',
  'GET /v1/jwt/bundle': 'trust:read',
  // Whoever may mint is anybody.
  'POST /v1/jwt/mint': 'jwt:mint',
  'POST /v1/jwt/validate': 'jwt:validate',
  'GET /v1/entries': 'entries:read',
  'POST /v1/entries': 'entries:write',
  'GET /v1/entries/:id': 'entries:read',
  'PATCH /v1/entries/:id': 'entries:write',
  'DELETE /v1/entries/:id': 'entries:write',
  'POST /v1/apply': 'documents:apply',
  'POST /v1/policies/test': 'documents:apply',
  // Both demand policies:read besides.
  'POST /v1/policy-replays': 'audit:decisions',
  'POST /v1/policy-suggestions': 'audit:decisions',
  'GET /v1/policies': 'policies:read',
  'GET /v1/policies/:namespace/:name': 'policies:read',
  'DELETE /v1/policies/:namespace/:name': 'policies:write',
  'GET /v1/policy-lint': 'policies:read',
  // They speak of all policies and identities: the routes demand both for the whole mesh.
  'POST /v1/policy-proofs': 'policies:read',
  'POST /v1/policy-comparisons': 'policies:read',
  'GET /v1/policy-revisions': 'policies:read',
  'GET /v1/policy-revisions/:number': 'policies:read',
  'POST /v1/policy-revisions/:number/activate': 'policies:write',
  'POST /v1/policy-revisions/renumber': 'policies:renumber',
  'GET /v1/policy-rollout': 'policies:read',
  'POST /v1/policy-rollout': 'policies:write',
  'POST /v1/policy-rollout/canary': 'policies:write',
  'POST /v1/policy-rollout/enforce': 'policies:write',
  'DELETE /v1/policy-rollout': 'policies:write',
  'POST /v1/authz/check': 'authz:explain',
  'POST /v1/authz/who-can': 'authz:explain',
  'POST /v1/authz/can-reach': 'authz:explain',
  'GET /v1/authz/decisions/:id': 'audit:decisions',
  'GET /.well-known/authzen-configuration': 'public',
  'POST /access/v1/evaluation': 'authz:explain',
  'POST /access/v1/evaluations': 'authz:explain',
  'POST /access/v1/search/subject': 'authz:explain',
  'POST /access/v1/search/resource': 'authz:explain',
  'POST /access/v1/search/action': 'authz:explain',
  'GET /v1/bans': 'bans:read',
  'POST /v1/bans': 'bans:write',
  'DELETE /v1/bans/:kind/:value': 'bans:write',
  'GET /v1/audit': 'audit:read',
  'GET /v1/audit/count': 'audit:read',
  // Some questions demand more: see `needs` of each.
  'GET /v1/audit/questions': 'audit:read',
  'GET /v1/audit/questions/:name': 'audit:read',
  // Bundles of entries hold all of the log: the route itself demands audit:decisions for them.
  'GET /v1/audit/log/checkpoint': 'audit:read',
  'GET /v1/audit/log/key': 'audit:read',
  'GET /v1/audit/log/witnessed': 'audit:read',
  'GET /v1/audit/witnesses': 'audit:read',
  'GET /v1/audit/log/tile/*': 'audit:read',
  'GET /v1/audit/proof/:index': 'audit:read',
  'GET /v1/audit/consistency': 'audit:read',
  // What goes does not come back.
  'POST /v1/audit/shred': 'audit:shred',
  'GET /v1/nodes': 'nodes:read',
  'GET /v1/nodes/:name': 'nodes:read',
  'POST /v1/nodes/:name/evict': 'nodes:write',
  'GET /v1/node-aliases': 'nodes:read',
  'GET /v1/node-aliases/:name': 'nodes:read',
  'DELETE /v1/node-aliases/:name': 'nodes:write',
  // Whoever may make one may run a node, and so be any workload of it.
  'GET /v1/join-tokens': 'join-tokens:read',
  'POST /v1/join-tokens': 'join-tokens:write',
  'DELETE /v1/join-tokens/:id': 'join-tokens:write',
  // Whoever may make one is whoever they like.
  'GET /v1/admin/grants': 'grants:read',
  'POST /v1/admin/grants': 'grants:write',
  'GET /v1/admin/grants/:name': 'grants:read',
  'DELETE /v1/admin/grants/:name': 'grants:write',
  'GET /v1/tokens': 'tokens:read',
  'POST /v1/tokens': 'tokens:write',
  'DELETE /v1/tokens/:id': 'tokens:write',
} as const satisfies Record<string, RouteAccess>;

/** A route as the table names it: `GET /v1/status`. */
export type RouteName = keyof typeof routes;

/** The permission that every route takes. */
export const routeAccess: ReadonlyMap<string, RouteAccess> = new Map(Object.entries(routes));

/**
 * The permission that a route takes.
 * @throws MeshError `internal` when the table has no line for it
 */
export function accessOf(method: string, pattern: string): RouteAccess {
  const access = routeAccess.get(`${method} ${pattern}`);
  if (access === undefined) throw new MeshError('internal', `route ${method} ${pattern} has no permission`);
  return access;
}
