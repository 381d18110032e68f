import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { z } from 'zod';
import { parseMoment } from '../audit/moment.ts';
import { MeshError, quote } from '../errors.ts';
import { scopeOf } from '../identity/access.ts';
import { type ReplayPorts, replayPolicies } from '../identity/policy-replay.ts';
import type { CallsMeant, PolicyReplay } from '../identity/replay-answer.ts';
import { SpiffeId } from '../spiffe/id.ts';
import type { NoteRead } from './audit-routes.ts';
import { callerOf } from './caller.ts';
import { applyBody } from './entry-routes.ts';
import { parseInput } from './input.ts';
import { demandNamespace } from './permit.ts';
import { addRoute } from './route.ts';

/** What replaying calls needs of the house. */
export type ReplayRoutePorts = {
  /**
   * Begins, for one at a time; `close` when it is done.
   * @param isLeft whether whoever asked has gone away
   * @throws MeshError `policy_replay_busy`
   */
  readonly openReplay: (isLeft: () => boolean) => { readonly ports: ReplayPorts; readonly close: () => void };
};

/** Recorded calls under other policies. */
export function addReplayRoutes(app: FastifyInstance, ports: ReplayRoutePorts, noteRead: NoteRead): void {
  addRoute(app, 'POST /v1/policy-replays', async (request, reply) => {
    const body = parseInput(replayBody, request.body, 'body_invalid');
    const { files = [], without = [], revision = null, limit = defaultLimit, ...asked } = body;
    demandReader(request);
    const isNothing = files.length + without.length === 0;
    if (isNothing === (revision === null)) {
      throw new MeshError(
        'body_invalid',
        'the body names either a revision, or files and policies to delete',
        {
          fix: 'give revision, or files, or without',
        },
      );
    }
    const what = revision === null ? (isNothing ? '' : 'policies that were sent') : `revision ${revision}`;
    return inTurn(ports, request, reply, async (open) => {
      const meant = readMeant(asked, request, open.now());
      await noteRead(request, `replay of ${what}${describeMeant(asked)}`);
      const choice = { files, without, revision };
      return (await replayPolicies(choice, meant, limit, open)) satisfies PolicyReplay | undefined;
    });
  });
}

/** Who calls whom, and all policies, are for those who may read both of the whole mesh. */
export function demandReader(request: FastifyRequest): void {
  const caller = callerOf(request);
  for (const permission of ['policies:read', 'entries:read'] as const) {
    demandNamespace(caller, permission, undefined, 'judging recorded calls');
  }
}

/** Does work that may take long, until whoever asked goes away. */
export async function inTurn<T>(
  { openReplay }: ReplayRoutePorts,
  request: FastifyRequest,
  reply: FastifyReply,
  work: (ports: ReplayPorts) => Promise<T>,
): Promise<T | FastifyReply> {
  const { ports, close } = openReplay(() => request.raw.socket.destroyed || reply.raw.destroyed);
  try {
    const answer = await work(ports);
    // Nobody is there to be answered.
    return answer === undefined ? reply.hijack() : answer;
  } finally {
    close();
  }
}

/** @throws MeshError `body_invalid`, `spiffe_id_*`, `audit_query_invalid` */
export function readMeant(asked: z.output<typeof meantBody>, request: FastifyRequest, now: Date): CallsMeant {
  const { grants } = callerOf(request);
  const since = readMoment('since', asked.since, now);
  // A mistyped year must not look like a time in which nobody called.
  if (since !== null && since > now) {
    throw new MeshError('audit_query_invalid', 'since: is in the future', {
      fix: 'name a time before now: 7d, or 2026-01-31T12:00:00Z',
    });
  }
  return {
    since,
    until: readMoment('until', asked.until, now),
    destination: asked.destination === undefined ? null : SpiffeId.parseWorkload(asked.destination).text,
    namespace: asked.namespace ?? null,
    mayReadPersonal: scopeOf(grants, 'audit:personal') !== undefined,
  };
}

/** As asked, for the record. */
export function describeMeant(asked: z.output<typeof meantBody>): string {
  return Object.entries(asked)
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => ` ${name}=${value}`)
    .join('');
}

function readMoment(field: string, text: string | undefined, now: Date): Date | null {
  if (text === undefined) return null;
  const moment = parseMoment(text, now);
  if (moment !== undefined) return moment;
  throw new MeshError('body_invalid', `${field}: ${quote(text)} is no time`, {
    fix: 'write 10m, 2h, 7d or 2026-01-31T12:00:00Z',
  });
}

/** Which calls are meant. */
export const meantBody = z.strictObject({
  since: z.string().max(64).optional(),
  until: z.string().max(64).optional(),
  destination: z.string().max(2_048).optional(),
  namespace: z
    .string()
    .regex(/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/, 'must be the name of a namespace')
    .optional(),
});
/** The body of `POST /v1/policy-replays`. */
export const replayBody = meantBody.extend({
  files: applyBody.shape.files.optional(),
  without: z.array(z.string().max(512)).max(1_000).optional(),
  revision: z.number().int().min(1).optional(),
  limit: z.number().int().min(1).max(1_000).optional(),
});
const defaultLimit = 100;
