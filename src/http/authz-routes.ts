import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import type { CallContext } from '../authz/context.ts';
import type { Explanation } from '../authz/explain.ts';
import { quote } from '../errors.ts';
import { covers, scopeOf } from '../identity/access.ts';
import { SpiffeId, type TrustDomain } from '../spiffe/id.ts';
import { callContextBody, readCallContext } from './call-context.ts';
import { callerOf } from './caller.ts';
import { parseInput } from './input.ts';
import { demandNamespace, namespaceOf } from './permit.ts';
import { addRoute } from './route.ts';

/** A call as an operator describes it. */
export type AuthzQuestion = {
  /** Null for a caller without a certificate. */
  readonly source: SpiffeId | null;
  readonly destination: SpiffeId;
  readonly method: string;
  readonly path: string;
  /** The authority, with or without a port; null when it is not known. */
  readonly host: string | null;
  /** The destination's port; 0 when unknown. */
  readonly port: number;
  readonly context: CallContext;
  /** Judge by the candidate of the rollout that is under way, in place of what is in force. */
  readonly candidate?: boolean;
};

/** What `authz/check` needs of the house. */
export type AuthzPorts = {
  /**
   * Judges a call under the current policy, or the candidate beside it, without recording a decision.
   * @throws MeshError `policy_rollout_none` when there is no candidate
   */
  readonly checkAuthz: (question: AuthzQuestion) => Explanation;
};

/** What the policy would say of a call. */
export function addAuthzRoutes(
  app: FastifyInstance,
  { checkAuthz }: AuthzPorts,
  trustDomain: TrustDomain,
): void {
  const namespaceIn = (id: SpiffeId) => (id.memberOf(trustDomain) ? namespaceOf(id) : undefined);
  addRoute(app, 'POST /v1/authz/check', async (request) => {
    const body = parseInput(checkBody, request.body, 'body_invalid');
    const destination = SpiffeId.parseWorkload(body.destination);
    // What answers are the policies of the destination, and those of the root namespace that bind it.
    const namespace = namespaceIn(destination);
    demandNamespace(callerOf(request), 'authz:explain', namespace, `a call to ${quote(destination.text)}`);
    const source = body.source === null ? null : SpiffeId.parseWorkload(body.source);
    const explanation = checkAuthz({
      source,
      destination,
      method: body.method,
      path: body.path,
      host: body.host ?? null,
      port: body.port ?? 0,
      context: readCallContext(body.context),
      candidate: body.candidate ?? false,
    });
    if (explanation.reason !== 'banned') return explanation;
    // Why somebody is banned is for those who may read that ban.
    const scope = scopeOf(callerOf(request).grants, 'bans:read');
    const mayRead = [source, destination].every((id) => id === null || covers(scope, namespaceIn(id)));
    return mayRead ? explanation : { ...explanation, why: 'the caller or the destination is banned' };
  });
}

/** The body of `POST /v1/authz/check`. */
export const checkBody = z.strictObject({
  source: z.string().max(4_096).nullable(),
  destination: z.string().max(4_096),
  method: z.string().max(128),
  path: z.string().max(65_536),
  host: z.string().max(4_096).optional(),
  port: z.number().int().min(0).max(65_535).optional(),
  context: callContextBody.optional(),
  candidate: z.boolean().optional(),
});
