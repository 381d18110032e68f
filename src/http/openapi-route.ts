import { z } from 'zod';
import type { Actor } from '../audit/event.ts';
import type { ErrorCode } from '../errors.ts';
import type { RouteName } from './roles.ts';

/** What is told of a route to those who call it. `openapi.ts` makes the OpenAPI document of these. */
export type RouteDoc = {
  /** One line: lower case, no full stop. */
  readonly summary: string;
  readonly query?: z.ZodObject;
  /** Of a JSON body. */
  readonly body?: z.ZodType;
  /** What success looks like, by status. */
  readonly answers: Readonly<Record<number, RouteAnswer>>;
  /** Codes of refusals, besides those that every route of its kind may answer with. */
  readonly codes: readonly ErrorCode[];
};

/** An answer by its media types, each with its schema; `null` has no body. */
export type RouteAnswer = Readonly<Record<string, z.ZodType>> | null;

/**
 * The doc of some routes and the schemas that they name. Every body and every answer of JSON is one of `schemas`, under
 * whose name it stands in the document.
 */
export type RouteDocs = {
  readonly schemas: Readonly<Record<string, z.ZodType>>;
  readonly routes: Partial<Readonly<Record<RouteName, RouteDoc>>>;
};

/** An answer of JSON. Open: a client has to bear fields that it does not know. */
export function json(schema: z.ZodType): RouteAnswer {
  return { 'application/json': schema };
}

/** Answers of several kinds of text. */
export function text(...mediaTypes: readonly string[]): RouteAnswer {
  return Object.fromEntries(mediaTypes.map((mediaType) => [mediaType, z.string()]));
}

/** One page of a list. */
export function pageSchema<T extends z.ZodType>(item: T) {
  return z.object({ items: z.array(item), next: z.string().nullable() });
}

/** One page of what is under a revision of the mesh. */
export function revisedPageSchema<T extends z.ZodType>(item: T) {
  return pageSchema(item).extend({ revision });
}

export const time = z.iso.datetime();
/** Of the mesh. */
export const revision = z.number().int().min(0);
export const count = z.number().int().min(0);
/** Lower-case hex SHA-256. */
export const sha256 = z.string().regex(/^[0-9a-f]{64}$/);
/** Subject key identifier, lower-case hex. */
export const keyId = z.string().regex(/^[0-9a-f]{40}$/);

/** Who changed something. */
export const actorSchema: z.ZodType<Actor> = z.union([
  z.object({ kind: z.enum(['system', 'anonymous']) }),
  z.object({ kind: z.literal('uid'), uid: z.number().int().min(0), role: z.string() }),
  z.object({ kind: z.literal('token'), tokenId: z.string(), role: z.string() }),
  z.object({ kind: z.literal('svid'), spiffeId: z.string(), serial: z.string(), role: z.string() }),
  z.object({ kind: z.literal('oidc'), issuer: z.string(), subject: z.string(), role: z.string() }),
]);

/** Of every error: RFC 9457. */
export const problemSchema = z.object({
  type: z.literal('about:blank'),
  title: z.string(),
  status: z.number().int().min(400).max(599),
  code: z.string(),
  detail: z.string(),
  place: z
    .object({ file: z.string(), line: z.number().int().min(1), column: z.number().int().min(1) })
    .optional(),
  fix: z.string().optional(),
  errorId: z.string().optional(),
});

/** Codes that a SPIFFE ID in the input may be refused with. */
export const spiffeIdCodes = [
  'spiffe_id_empty',
  'spiffe_id_too_long',
  'spiffe_id_scheme',
  'spiffe_id_trust_domain_missing',
  'spiffe_id_trust_domain_char',
  'spiffe_id_trust_domain_too_long',
  'spiffe_id_path_char',
  'spiffe_id_segment_empty',
  'spiffe_id_segment_dot',
  'spiffe_id_trailing_slash',
  'spiffe_id_path_missing',
  'spiffe_id_foreign_trust_domain',
] as const satisfies readonly ErrorCode[];
