import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import type { JwtSvid, ValidatedJwt } from '../identity/jwt-svid.ts';
import { writeJwtBundle } from '../spiffe/bundle-document.ts';
import { callerOf } from './caller.ts';
import { parseInput } from './input.ts';
import type { JwtPort } from './jwt-report.ts';
import { addRoute } from './route.ts';

/** What the routes of tokens need of the house. */
export type JwtPorts = { readonly jwt: JwtPort };

/** A new token as JSON; times are RFC 3339. */
export type JwtView = {
  /** A bearer secret. */
  readonly token: string;
  readonly spiffeId: string;
  readonly audiences: readonly string[];
  readonly keyId: string;
  readonly issuedAt: string;
  readonly expiresAt: string;
  readonly entryId: string;
};

/** What a token says that has been proven. */
export type ValidatedJwtView = {
  readonly spiffeId: string;
  readonly audiences: readonly string[];
  readonly keyId: string;
  readonly expiresAt: string;
  readonly claims: ValidatedJwt['claims'];
};

/** Tokens: minted for entries, validated, and the keys to do so elsewhere. */
export function addJwtRoutes(app: FastifyInstance, { jwt }: JwtPorts): void {
  addRoute(app, 'GET /v1/jwt/bundle', async (_request, reply) =>
    reply.type('application/json; charset=utf-8').send(writeJwtBundle(jwt.bundle())),
  );
  addRoute(app, 'POST /v1/jwt/mint', async (request, reply) => {
    const { audience, ttlSeconds, ...subject } = parseInput(mintBody, request.body, 'body_invalid');
    const order = {
      entry: subject as { entryId: string } | { spiffeId: string },
      audiences: audience,
      ...(ttlSeconds === undefined ? {} : { ttlSeconds }),
    };
    return reply.code(201).send(jwtView(await jwt.mint(order, callerOf(request).actor)));
  });
  addRoute(app, 'POST /v1/jwt/validate', async (request) => {
    const { token, audience } = parseInput(validateBody, request.body, 'body_invalid');
    return validatedView(await jwt.validate(token, audience));
  });
}

function jwtView({ id, token, audiences, keyId, issuedAt, expiresAt, entryId }: JwtSvid): JwtView {
  const times = { issuedAt: issuedAt.toISOString(), expiresAt: expiresAt.toISOString() };
  return { token, spiffeId: id.text, audiences, keyId, ...times, entryId };
}

function validatedView({ id, audiences, keyId, expiresAt, claims }: ValidatedJwt): ValidatedJwtView {
  return { spiffeId: id.text, audiences, keyId, expiresAt: expiresAt.toISOString(), claims };
}

// Bounds here only keep absurd input short; ca/ and spiffe/ decide what a token may be.
const text = z.string().max(4_096);
/** The body of `POST /v1/jwt/mint`. */
export const mintBody = z
  .strictObject({
    entryId: text.optional(),
    spiffeId: text.optional(),
    audience: z.array(text).max(64),
    ttlSeconds: z.number().int().min(1).max(86_400).optional(),
  })
  .refine(({ entryId, spiffeId }) => (entryId === undefined) !== (spiffeId === undefined), {
    message: 'name the entryId or the spiffeId, and not both',
  });
/** The body of `POST /v1/jwt/validate`. */
export const validateBody = z.strictObject({ token: z.string().max(65_536), audience: text });
