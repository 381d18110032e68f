import type { FastifyInstance, FastifyRequest } from 'fastify';
import { z } from 'zod';
import type { Actor } from '../audit/event.ts';
import type { Clock } from '../clock.ts';
import type { Administration, DescribedBan } from '../identity/administration.ts';
import { quote } from '../errors.ts';
import { scopeOf } from '../identity/access.ts';
import { type Ban, type BanKind, type BanTarget, isInForce, parseBanTarget } from '../identity/ban.ts';
import type { namedBy, NamedCertificates } from '../identity/revoked.ts';
import { SpiffeId, type TrustDomain } from '../spiffe/id.ts';
import { callerOf } from './caller.ts';
import { parseInput } from './input.ts';
import { pageOf, pageQuery } from './page.ts';
import { demandNamespace, type IsAdministrator, namespaceOfBan, withinScope } from './permit.ts';
import { addRoute } from './route.ts';

/** What bans need of the house. */
export type BanPorts = {
  readonly administration: Administration;
  readonly clock: Clock;
  readonly isAdministrator: IsAdministrator;
  /** The certificates of a serial or key that are valid. */
  readonly namedCertificates: (names: ReturnType<typeof namedBy>, now: Date) => Promise<NamedCertificates>;
};

/** A ban as JSON; times are RFC 3339. */
export type BanView = {
  readonly kind: BanKind;
  readonly value: string;
  readonly reason: string;
  /** Null: until it is lifted. */
  readonly until: string | null;
  /** False once it has run out. */
  readonly inForce: boolean;
  readonly createdAt: string;
  readonly actor: Actor;
  readonly revision: number;
  /** Of a SPIFFE ID: until when a certificate already issued to it stays valid; null when none is. */
  readonly certificatesValidUntil: string | null;
};

/** Bans: made, listed and lifted. */
export function addBanRoutes(
  app: FastifyInstance,
  { administration, clock, isAdministrator, namedCertificates }: BanPorts,
  trustDomain: TrustDomain,
): void {
  const demand = (request: FastifyRequest, target: BanTarget) => {
    const what = `the ban of the ${target.kind} ${quote(target.value)}`;
    const namespace = namespaceOfBan(target, trustDomain);
    demandNamespace(callerOf(request), 'bans:write', namespace, what);
  };
  const ownersOf = async ({ kind, value }: BanTarget): Promise<readonly SpiffeId[]> => {
    if (kind === 'spiffe-id') return [SpiffeId.parse(value)];
    const [serials, keys] = kind === 'serial' ? [[value], []] : [[], [value]];
    const { certificates } = await namedCertificates({ spiffeIds: [], serials, keys }, clock.now());
    return certificates.map(({ spiffeId }) => SpiffeId.parse(spiffeId));
  };
  addRoute(app, 'GET /v1/bans', async (request) => {
    const { revision } = administration.current();
    const scope = scopeOf(callerOf(request).grants, 'bans:read');
    const within = withinScope(administration.bans(), scope, (ban) => namespaceOfBan(ban, trustDomain));
    const page = pageOf(within, parseInput(pageQuery, request.query, 'query_invalid'));
    const described = await administration.describeBans(page.items);
    return { items: described.map((ban) => banView(ban, clock.now())), next: page.next, revision };
  });
  addRoute(app, 'POST /v1/bans', async (request, reply) => {
    const { until, ...body } = parseInput(banBody, request.body, 'body_invalid');
    demand(request, parseBanTarget(body.kind, body.value));
    const banned = await administration.ban({ ...body, until: until ?? null }, callerOf(request).actor);
    return reply.code(201).send(banView(banned, clock.now()));
  });
  addRoute<{ kind: string; value: string }>(app, 'DELETE /v1/bans/:kind/:value', async (request) => {
    const { kind, value } = request.params;
    const target = parseBanTarget(kind, value);
    demand(request, target);
    // Whoever was banned as an administrator is let in again by an administrator.
    const owner = (await ownersOf(target)).find(isAdministrator);
    if (owner !== undefined) {
      const what = `lifting the ban of the administrator ${quote(owner.text)}`;
      demandNamespace(callerOf(request), 'grants:write', undefined, what);
    }
    const ban = await administration.unban(kind, value, callerOf(request).actor);
    const [lifted] = await administration.describeBans([ban]);
    return banView(lifted ?? { ban, certificatesValidUntil: null }, clock.now());
  });
}

function banView({ ban, certificatesValidUntil }: DescribedBan, now: Date): BanView {
  const { kind, value, reason, until, createdAt, actor, revision }: Ban = ban;
  return {
    kind,
    value,
    reason,
    until: until?.toISOString() ?? null,
    inForce: isInForce(ban, now),
    createdAt: createdAt.toISOString(),
    actor,
    revision,
    certificatesValidUntil: certificatesValidUntil?.toISOString() ?? null,
  };
}

// Bounds here only keep absurd input short; identity/ decides what a ban may be.
const text = z.string().max(4_096);
/** The body that makes a ban. */
export const banBody = z.strictObject({
  kind: text,
  value: text,
  reason: text,
  until: text.nullable().optional(),
});
