import type { FastifyInstance, FastifyRequest } from 'fastify';
import { z } from 'zod';
import type { AdminEvent } from '../audit/event.ts';
import type { Clock } from '../clock.ts';
import { formatNamespaces, type Grant, parseGrant, roleText } from '../identity/access.ts';
import type { AdminToken } from '../identity/admin-token.ts';
import type { FindToken } from './authenticate.ts';
import {
  defaultTokenSeconds,
  maxTokenSeconds,
  minTokenSeconds,
  mintToken,
  type RandomBytes,
} from './bearer-token.ts';
import { callerOf } from './caller.ts';
import { grantFields } from './grant-routes.ts';
import { parseInput } from './input.ts';
import { pageOf, pageQuery } from './page.ts';
import { addRoute } from './route.ts';

/** What tokens need of the house. */
export type TokenPorts = {
  readonly findToken: FindToken;
  readonly listTokens: () => Promise<readonly AdminToken[]>;
  /** Stores a token and its event in one transaction. */
  readonly createToken: (token: AdminToken, event: AdminEvent) => Promise<void>;
  /**
   * Forgets a token and records the event in one transaction.
   * @throws MeshError `token_not_found`; then nothing is recorded
   */
  readonly revokeToken: (id: string, event: AdminEvent) => Promise<void>;
  readonly clock: Clock;
  readonly randomBytes: RandomBytes;
};

/** A token in a list: never its secret, nor the hash of it. */
export type TokenView = Omit<AdminToken, 'secretSha256'> & {
  /** The roles of its grants, with a plus between them. */
  readonly role: string;
};

/** Bearer tokens for the TLS door. */
export function addTokenRoutes(
  app: FastifyInstance,
  ports: TokenPorts,
  sourceAddress: (request: FastifyRequest) => string,
): void {
  const eventOf = (request: FastifyRequest, action: AdminEvent['action'], detail: string): AdminEvent => ({
    type: 'admin',
    time: ports.clock.now(),
    action,
    actor: callerOf(request).actor,
    method: request.method,
    route: request.routeOptions.url ?? '',
    code: '',
    detail,
    sourceAddress: { personal: sourceAddress(request) },
  });

  addRoute(app, 'GET /v1/tokens', async (request) => {
    const query = parseInput(pageQuery, request.query, 'query_invalid');
    const tokens = await ports.listTokens();
    return pageOf(new Map(tokens.map((token) => [token.id, tokenView(token)])), query);
  });
  addRoute(app, 'POST /v1/tokens', async (request, reply) => {
    const { label, lifeSeconds, ...wanted } = parseInput(tokenBody, request.body, 'body_invalid');
    const grant: Grant = parseGrant(wanted);
    const wish = { grants: [grant], label: label ?? '', lifeSeconds: lifeSeconds ?? defaultTokenSeconds };
    const { stored, text } = mintToken(wish, ports.clock.now(), ports.randomBytes);
    const until = stored.expiresAt.toISOString();
    const detail = `token ${stored.id}, role ${grant.role} ${formatNamespaces(grant)}, until ${until}`;
    await ports.createToken(stored, eventOf(request, 'token_created', detail));
    return reply.code(201).send({ ...tokenView(stored), token: text });
  });
  addRoute<{ id: string }>(app, 'DELETE /v1/tokens/:id', async (request, reply) => {
    const { id } = request.params;
    await ports.revokeToken(id, eventOf(request, 'token_revoked', `token ${id}`));
    return reply.code(204).send();
  });
}

function tokenView({ id, grants, label, createdAt, expiresAt }: AdminToken): TokenView {
  return { id, role: roleText(grants), grants, label, createdAt, expiresAt };
}

/** The body that makes a token. */
export const tokenBody = z.strictObject({
  ...grantFields,
  label: z
    .string()
    .max(128)
    .regex(
      /^[^\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]*$/,
      'printable characters',
    )
    .optional(),
  lifeSeconds: z.number().int().min(minTokenSeconds).max(maxTokenSeconds).optional(),
});
