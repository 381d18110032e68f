import type { FastifyInstance, FastifyRequest } from 'fastify';
import { z } from 'zod';
import { callTypes } from '../audit/columns.ts';
import type { CountPage, CountQuery } from '../audit/count.ts';
import { type CountQueryFields, parseCountQuery } from '../audit/count-question.ts';
import { personalFieldNames } from '../audit/asked-fields.ts';
import { type AuditPage, type AuditQuery, maxFieldFilters } from '../audit/query.ts';
import { auditEventTypes, parseAuditQuery } from '../audit/question.ts';
import { collectCounts, collectPage } from '../audit/search.ts';
import type { AuditEventType } from '../audit/event.ts';
import type { Clock } from '../clock.ts';
import { MeshError } from '../errors.ts';
import { type Grant, type Permission, rolesWith, scopeOf } from '../identity/access.ts';
import { formatAuditPage, formatCounts } from './audit-answer.ts';
import { callerOf } from './caller.ts';
import { parseInput } from './input.ts';
import { addRoute } from './route.ts';

/** What questions to the log need of the house. */
export type AuditPorts = {
  readonly queryAudit: (query: AuditQuery) => Promise<AuditPage>;
  readonly countAudit: (query: CountQuery) => Promise<CountPage>;
  readonly clock: Clock;
};

/** Records that the log was read. Reading fails when it cannot be recorded. */
export type NoteRead = (request: FastifyRequest, detail: string) => Promise<void>;

/** Questions to the audit log. */
export function addAuditRoutes(app: FastifyInstance, ports: AuditPorts, noteRead: NoteRead): void {
  addRoute(app, 'GET /v1/audit', async (request, reply) => {
    const asked = listsOf(parseInput(auditQuery, request.query, 'query_invalid'));
    const { grants } = callerOf(request);
    const query = narrow(parseAuditQuery(asked, ports.clock.now()), grants);
    await noteRead(request, describe(asked));
    const page = await collectPage(ports.queryAudit, query, timeLimit(pageMs));
    const mayRead = scopeOf(grants, 'audit:personal') !== undefined;
    const shown = mayRead
      ? page
      : { ...page, rows: page.rows.map((row) => ({ ...row, personal: {}, shredded: [] })) };
    return reply.type(jsonType).send(formatAuditPage(shown, notSearched(grants)));
  });
  addRoute(app, 'GET /v1/audit/count', async (request, reply) => {
    const { by, ...fields } = parseInput(auditCountQuery, request.query, 'query_invalid');
    const asked = { ...listsOf(fields), by: by === undefined ? [] : [by].flat() };
    const { grants } = callerOf(request);
    const query = parseCountQuery(asked, ports.clock.now());
    const filters = narrow(query.filters, grants);
    await noteRead(request, describe(asked));
    const page = await collectCounts(ports.countAudit, { ...query, filters }, timeLimit(countMs));
    return reply.type(jsonType).send(formatCounts(query.by, page, notSearched(grants)));
  });
}

function timeLimit(ms: number): () => boolean {
  const started = performance.now();
  return () => performance.now() - started >= ms;
}

type Repeated = string | readonly string[] | undefined;

function listsOf<T extends { readonly type?: Repeated; readonly where?: Repeated }>({
  type,
  where,
  ...rest
}: T) {
  return {
    ...rest,
    types: type === undefined ? [] : [type].flat(),
    where: where === undefined ? [] : [where].flat(),
  };
}

function notSearched(grants: readonly Grant[]): readonly AuditEventType[] {
  return scopeOf(grants, 'audit:decisions') === undefined ? [...callTypes] : [];
}

type Narrowed = Pick<AuditQuery, 'types' | 'where'>;

/**
 * Who calls whom is not for everybody who may look at the log, and whether a value that may identify a person is in it is
 * the value itself.
 * @throws MeshError `forbidden`
 */
function narrow<Q extends Narrowed>(query: Q, grants: readonly Grant[]): Q {
  if (query.where.some(({ field }) => personalFieldNames.has(field)))
    demand(grants, 'audit:personal', 'to search for a value that may identify a person');
  if (scopeOf(grants, 'audit:decisions') !== undefined) return query;
  if (query.types.some((type) => callTypes.has(type))) {
    throw new MeshError('forbidden', 'decisions need the permission audit:decisions', {
      fix: `ask for other types, or use a grant that gives it: ${rolesWith('audit:decisions').join(', ')}`,
    });
  }
  const others = auditEventTypes.filter((type) => !callTypes.has(type));
  return query.types.length > 0 ? query : { ...query, types: others };
}

function demand(grants: readonly Grant[], permission: Permission, what: string): void {
  if (scopeOf(grants, permission) !== undefined) return;
  throw new MeshError('forbidden', `${what} takes the permission ${permission}`, {
    fix: `use a grant that gives it: ${rolesWith(permission).join(', ')}`,
  });
}

// As asked, so that "10m" asked every second is one question; without limit and cursor, so that turning pages is too. What
// may identify a person is kept out of the log: it could not be forgotten.
function describe(asked: CountQueryFields): string {
  const { types = [], where = [], by = [], since, until, source, destination, verdict, serial, text } = asked;
  const conditions = where.map((condition) => {
    const [field = ''] = condition.split(/[=!~]/, 1);
    return personalFieldNames.has(field) ? `${field}=(a value)` : condition;
  });
  const filters = Object.entries({
    type: types.join(','),
    since,
    until,
    source,
    destination,
    verdict,
    serial,
    where: conditions.join(' where='),
    text,
    by: by.join(','),
  })
    .filter(([, value]) => value !== undefined && value !== '')
    .map(([name, value]) => `${name}=${value}`);
  return filters.length === 0 ? 'everything' : filters.join(' ');
}

const jsonType = 'application/json; charset=utf-8';
// How long one answer may search: then it says where to go on. A step of a search is much shorter, see the store.
const pageMs = 1_000;
const countMs = 3_000;

const text = z.string().max(4_096).optional();
const repeated = z
  .union([z.string().max(4_096), z.array(z.string().max(4_096)).max(maxFieldFilters + 1)])
  .optional();
const filters = {
  type: z.union([z.string().max(1_024), z.array(z.string().max(1_024)).max(32)]).optional(),
  since: text,
  until: text,
  source: text,
  destination: text,
  verdict: text,
  serial: text,
  where: repeated,
  text,
  cursor: text,
};
/** The query of `GET /v1/audit`. */
export const auditQuery = z.strictObject({ ...filters, limit: text, order: text });
/** The query of `GET /v1/audit/count`. */
export const auditCountQuery = z.strictObject({ ...filters, by: repeated });
