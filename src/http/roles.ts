import { MeshError } from '../errors.ts';
import { type AdminRole, adminRoles } from '../identity/admin-token.ts';

/** `public` answers anybody, and therefore says nothing but whether the process lives. */
export type RouteAccess = AdminRole | 'public';

// INVARIANT: a route that is not in this table cannot be added, so a forgotten line stops the start (and the compiler)
// instead of opening a door.
const routes = {
  'GET /healthz': 'public',
  'GET /readyz': 'public',
  'GET /metrics': 'viewer',
  'GET /v1/status': 'viewer',
  'GET /v1/trust-bundle': 'viewer',
  'GET /v1/ca': 'viewer',
  'GET /v1/ca/crl': 'viewer',
  'GET /v1/ca/csr': 'viewer',
  'POST /v1/ca/import': 'admin',
  'POST /v1/ca/rotate': 'admin',
  'POST /v1/ca/activate': 'admin',
  'POST /v1/ca/retire': 'admin',
  'POST /v1/ca/taint': 'admin',
  'GET /v1/jwt/bundle': 'viewer',
  // Whoever may mint is anybody.
  'POST /v1/jwt/mint': 'admin',
  'POST /v1/jwt/validate': 'viewer',
  'GET /v1/entries': 'viewer',
  'POST /v1/entries': 'operator',
  'GET /v1/entries/:id': 'viewer',
  'PATCH /v1/entries/:id': 'operator',
  'DELETE /v1/entries/:id': 'operator',
  'POST /v1/apply': 'operator',
  'GET /v1/policies': 'viewer',
  'GET /v1/policies/:namespace/:name': 'viewer',
  'DELETE /v1/policies/:namespace/:name': 'operator',
  'POST /v1/authz/check': 'viewer',
  'GET /v1/bans': 'viewer',
  'POST /v1/bans': 'operator',
  'DELETE /v1/bans/:kind/:value': 'operator',
  'GET /v1/audit': 'viewer',
  'GET /v1/nodes': 'viewer',
  'GET /v1/nodes/:name': 'viewer',
  'POST /v1/nodes/:name/evict': 'operator',
  // Whoever may make one may run a node, and so be any workload of it.
  'GET /v1/join-tokens': 'admin',
  'POST /v1/join-tokens': 'admin',
  'DELETE /v1/join-tokens/:id': 'admin',
  'GET /v1/tokens': 'admin',
  'POST /v1/tokens': 'admin',
  'DELETE /v1/tokens/:id': 'admin',
} as const satisfies Record<string, RouteAccess>;

/** A route as the table names it: `GET /v1/status`. */
export type RouteName = keyof typeof routes;

/** The least role of every route. */
export const routeAccess: ReadonlyMap<string, RouteAccess> = new Map(Object.entries(routes));

/**
 * The least role of a route.
 * @throws MeshError `internal` when the table has no line for it
 */
export function accessOf(method: string, pattern: string): RouteAccess {
  const access = routeAccess.get(`${method} ${pattern}`);
  if (access === undefined) throw new MeshError('internal', `route ${method} ${pattern} has no role`);
  return access;
}

/** Whether `role` includes `least`: viewer < operator < admin. */
export function includesRole(role: AdminRole, least: AdminRole): boolean {
  return adminRoles.indexOf(role) >= adminRoles.indexOf(least);
}
