import { z } from 'zod';
import { grantBody, type GrantView } from './grant-routes.ts';
import {
  json,
  pageSchema,
  revisedPageSchema,
  revision,
  type RouteDocs,
  spiffeIdCodes,
  time,
} from './openapi-route.ts';
import { pageQuery } from './page.ts';
import { tokenBody, type TokenView } from './token-routes.ts';
import type { Travelled } from './travelled.ts';

const namespaces = z.array(z.string()).nullable();
const tokenFields = {
  id: z.string(),
  role: z.string(),
  grants: z.array(z.object({ role: tokenBody.shape.role, namespaces })),
  label: z.string(),
  createdAt: time,
  expiresAt: time,
};
const tokenSchema: z.ZodType<Travelled<TokenView>> = z.object(tokenFields);
const tokenPageSchema = pageSchema(tokenSchema);
const newTokenSchema = z.object({ ...tokenFields, token: z.string() });

const grantSchema: z.ZodType<Travelled<GrantView>> = z.object({
  name: z.string(),
  subject: z.union([
    z.object({ spiffeId: z.string() }),
    z.object({ oidcIssuer: z.string(), oidcSubject: z.string() }),
    z.object({ oidcIssuer: z.string(), oidcGroup: z.string() }),
  ]),
  role: tokenBody.shape.role,
  namespaces,
  revision,
});
const grantPageSchema = revisedPageSchema(grantSchema);

/** Who may use the API. */
export const accessDocs = {
  schemas: {
    Token: tokenSchema,
    TokenPage: tokenPageSchema,
    TokenWish: tokenBody,
    NewToken: newTokenSchema,
    Grant: grantSchema,
    GrantPage: grantPageSchema,
    GrantWish: grantBody,
  },
  routes: {
    'GET /v1/admin/grants': {
      summary: 'a page of grants',
      query: pageQuery,
      answers: { 200: json(grantPageSchema) },
      codes: [],
    },
    'POST /v1/admin/grants': {
      summary: 'grants a role to a SPIFFE ID, an OIDC subject or an OIDC group',
      body: grantBody,
      answers: { 201: json(grantSchema) },
      codes: ['grant_invalid', 'grant_exists', 'document_too_large', 'revision_conflict', ...spiffeIdCodes],
    },
    'GET /v1/admin/grants/:name': {
      summary: 'one grant',
      answers: { 200: json(grantSchema) },
      codes: ['grant_not_found'],
    },
    'DELETE /v1/admin/grants/:name': {
      summary: 'takes a grant away; the next request under it is refused',
      answers: { 204: null },
      codes: ['grant_not_found', 'revision_conflict'],
    },
    'GET /v1/tokens': {
      summary: 'a page of tokens, without their secrets',
      query: pageQuery,
      answers: { 200: json(tokenPageSchema) },
      codes: [],
    },
    'POST /v1/tokens': {
      summary: 'makes a bearer token; no other answer ever holds it',
      body: tokenBody,
      answers: { 201: json(newTokenSchema) },
      codes: ['grant_invalid'],
    },
    'DELETE /v1/tokens/:id': {
      summary: 'revokes a token',
      answers: { 204: null },
      codes: ['token_not_found'],
    },
  },
} as const satisfies RouteDocs;
