import type { FastifyInstance, FastifyRequest } from 'fastify';
import { z } from 'zod';
import { callTypes } from '../audit/columns.ts';
import type { AuditPage, AuditQuery, AuditRow } from '../audit/query.ts';
import { auditEventTypes, type AuditQueryFields, parseAuditQuery } from '../audit/question.ts';
import type { Clock } from '../clock.ts';
import { MeshError } from '../errors.ts';
import { type Grant, rolesWith, scopeOf } from '../identity/access.ts';
import { callerOf } from './caller.ts';
import { parseInput } from './input.ts';
import { addRoute } from './route.ts';

/** What questions to the log need of the house. */
export type AuditPorts = {
  readonly queryAudit: (query: AuditQuery) => Promise<AuditPage>;
  readonly clock: Clock;
};

/** Records that the log was read. Reading fails when it cannot be recorded. */
export type NoteRead = (request: FastifyRequest, detail: string) => Promise<void>;

/** Questions to the audit log. */
export function addAuditRoutes(app: FastifyInstance, ports: AuditPorts, noteRead: NoteRead): void {
  addRoute(app, 'GET /v1/audit', async (request, reply) => {
    const fields = parseInput(auditQuery, request.query, 'query_invalid');
    const { type, ...rest } = fields;
    const asked: AuditQueryFields = { ...rest, types: type === undefined ? [] : [type].flat() };
    const { grants } = callerOf(request);
    const query = narrow(parseAuditQuery(asked, ports.clock.now()), grants);
    await noteRead(request, describe(asked));
    const page = await ports.queryAudit(query);
    const mayRead = scopeOf(grants, 'audit:personal') !== undefined;
    const shown = mayRead
      ? page
      : { ...page, rows: page.rows.map((row) => ({ ...row, personal: {}, shredded: [] })) };
    return reply.type('application/json; charset=utf-8').send(formatAuditPage(shown));
  });
}

/**
 * A page as JSON. The text of each `event` is the leaf, byte for byte: what `leafHash` was computed over stands in the
 * answer itself.
 */
export function formatAuditPage(page: AuditPage): string {
  const items = page.rows.map(formatRow).join(',');
  return `{"items":[${items}],"next":${JSON.stringify(page.next)},"size":${page.size}}`;
}

function formatRow({ index, leafHash, leaf, personal, shredded }: AuditRow): string {
  const gone = shredded.length === 0 ? '' : `"shredded":${JSON.stringify(shredded)},`;
  return `{"index":${index},"leafHash":"${leafHash}","personal":${JSON.stringify(personal)},${gone}"event":${leaf}}`;
}

/** Who calls whom is not for everybody who may look at the log. @throws MeshError `forbidden` */
function narrow(query: AuditQuery, grants: readonly Grant[]): AuditQuery {
  if (scopeOf(grants, 'audit:decisions') !== undefined) return query;
  if (query.types.some((type) => callTypes.has(type))) {
    throw new MeshError('forbidden', 'decisions need the permission audit:decisions', {
      fix: `ask for other types, or use a grant that gives it: ${rolesWith('audit:decisions').join(', ')}`,
    });
  }
  const others = auditEventTypes.filter((type) => !callTypes.has(type));
  return query.types.length > 0 ? query : { ...query, types: others };
}

// As asked, so that "10m" asked every second is one question; without limit and cursor, so that turning pages is too.
function describe(fields: AuditQueryFields): string {
  const { types = [], since, until, source, destination, verdict, serial } = fields;
  const filters = Object.entries({
    type: types.join(','),
    since,
    until,
    source,
    destination,
    verdict,
    serial,
  })
    .filter(([, value]) => value !== undefined && value !== '')
    .map(([name, value]) => `${name}=${value}`);
  return filters.length === 0 ? 'everything' : filters.join(' ');
}

const text = z.string().max(4_096).optional();
/** The query of `GET /v1/audit`. */
export const auditQuery = z.strictObject({
  type: z.union([z.string().max(1_024), z.array(z.string().max(1_024)).max(32)]).optional(),
  since: text,
  until: text,
  source: text,
  destination: text,
  verdict: text,
  serial: text,
  limit: text,
  order: text,
  cursor: text,
});
