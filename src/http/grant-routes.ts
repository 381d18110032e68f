import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import { MeshError, quote } from '../errors.ts';
import { type AdminRole, adminRoles } from '../identity/access.ts';
import type { AdminGrant, AdminGrantInput } from '../identity/admin-grant.ts';
import type { Administration } from '../identity/administration.ts';
import { callerOf } from './caller.ts';
import { parseInput } from './input.ts';
import { pageOf, pageQuery } from './page.ts';
import { addRoute } from './route.ts';

/** A grant as JSON. */
export type GrantView = {
  readonly name: string;
  readonly subject:
    | { readonly spiffeId: string }
    | { readonly oidcIssuer: string; readonly oidcSubject: string }
    | { readonly oidcIssuer: string; readonly oidcGroup: string };
  readonly role: AdminRole;
  /** Null: everywhere. */
  readonly namespaces: readonly string[] | null;
  readonly revision: number;
};

/** Who may administer besides those with a token. They may be written as documents too. */
export function addGrantRoutes(
  app: FastifyInstance,
  { administration }: { readonly administration: Administration },
): void {
  const grants = () => administration.current().grants ?? none;
  addRoute(app, 'GET /v1/admin/grants', async (request) => {
    const page = pageOf(grants(), parseInput(pageQuery, request.query, 'query_invalid'));
    return { items: page.items.map(grantView), next: page.next, revision: administration.current().revision };
  });
  addRoute(app, 'POST /v1/admin/grants', async (request, reply) => {
    const input: AdminGrantInput = parseInput(grantBody, request.body, 'body_invalid');
    return reply.code(201).send(grantView(await administration.createGrant(input, callerOf(request).actor)));
  });
  addRoute<{ name: string }>(app, 'GET /v1/admin/grants/:name', async (request) => {
    const { name } = request.params;
    const grant = grants().get(name);
    if (grant !== undefined) return grantView(grant);
    throw new MeshError('grant_not_found', `there is no grant ${quote(name)}`, {
      fix: 'see `countersign admin grant list`',
    });
  });
  addRoute<{ name: string }>(app, 'DELETE /v1/admin/grants/:name', async (request, reply) => {
    await administration.deleteGrant(request.params.name, callerOf(request).actor);
    return reply.code(204).send();
  });
}

function grantView({ name, subject, role, namespaces, revision }: AdminGrant): GrantView {
  return { name, subject: subjectView(subject), role, namespaces, revision };
}

function subjectView(subject: AdminGrant['subject']): GrantView['subject'] {
  switch (subject.kind) {
    case 'spiffe-id':
      return { spiffeId: subject.value };
    case 'oidc-subject':
      return { oidcIssuer: subject.issuer, oidcSubject: subject.value };
    case 'oidc-group':
      return { oidcIssuer: subject.issuer, oidcGroup: subject.value };
    default:
      return subject satisfies never;
  }
}

const none: ReadonlyMap<string, AdminGrant> = new Map();
// Bounds here only keep absurd input short; identity/ decides what a grant may be.
const text = z.string().max(4_096);
/** What a grant, of a token or by name, says of where it holds. */
export const grantFields = {
  role: z.enum(adminRoles),
  namespaces: z.array(text).max(1_024).optional(),
  allNamespaces: z.boolean().optional(),
};
/** The body that makes a grant. */
export const grantBody = z.strictObject({
  name: text,
  subject: z.strictObject({
    spiffeId: text.optional(),
    oidcIssuer: text.optional(),
    oidcSubject: text.optional(),
    oidcGroup: text.optional(),
  }),
  ...grantFields,
});
