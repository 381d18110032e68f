import { z } from 'zod';
import { auditEventTypes } from '../audit/question.ts';
import { auditCountQuery, auditQuery } from './audit-routes.ts';
import { count, json, pageSchema, type RouteDocs, sha256, spiffeIdCodes, time } from './openapi-route.ts';

// What an event holds is docs/audit.md's affair: the log is kept for longer than any version of this.
const auditRecordSchema = z.object({
  index: count,
  leafHash: sha256,
  personal: z.record(z.string(), z.string()),
  shredded: z.array(z.string()).optional(),
  event: z.looseObject({ type: z.string(), time }),
});
const headSchema = z.object({ size: count, root: z.string(), checkpoint: z.string() });
const coverageSchema = z.object({
  since: time.nullable(),
  until: time.nullable(),
  begins: time.nullable(),
  ends: time.nullable(),
  losses: z.array(
    z.object({
      what: z.string(),
      cause: z.string(),
      count,
      records: count,
      from: time,
      to: time,
      firstIndex: count,
      lastIndex: count,
    }),
  ),
  moreLosses: z.boolean(),
  downtimes: z.array(z.object({ from: time, to: time, clean: z.boolean(), index: count })),
  moreDowntimes: z.boolean(),
  folded: z.object({ count, records: count }),
  pruned: z.array(
    z.object({
      class: z.enum(['calls', 'records']),
      entries: count,
      firstIndex: count,
      lastIndex: count,
      from: time,
      to: time,
    }),
  ),
  proxies: z.object({ counted: count, missing: count }).nullable(),
  notSearched: z.array(z.enum(auditEventTypes)),
});
const searchedSchema = z.object({ first: count, last: count }).nullable();
const answered = { head: headSchema, coverage: coverageSchema, searched: searchedSchema };
const auditPageSchema = pageSchema(auditRecordSchema).extend({ size: count, ...answered });
const auditCountSchema = z.object({
  values: z.record(z.string(), z.string().nullable()),
  count,
  records: count,
  firstIndex: count,
  lastIndex: count,
  first: time,
  last: time,
});
const auditCountsSchema = pageSchema(auditCountSchema).extend({
  by: z.array(z.string()),
  complete: z.boolean(),
  beyond: z.object({ count, records: count }),
  ...answered,
});
const codes = ['audit_query_invalid', 'audit_cursor_invalid', 'rate_limited', ...spiffeIdCodes] as const;

/** Questions to the log. */
export const auditDocs = {
  schemas: {
    AuditRecord: auditRecordSchema,
    AuditPage: auditPageSchema,
    AuditHead: headSchema,
    AuditCoverage: coverageSchema,
    AuditCount: auditCountSchema,
    AuditCounts: auditCountsSchema,
  },
  routes: {
    'GET /v1/audit': {
      summary: 'a page of the audit log; the reading is itself recorded',
      query: auditQuery,
      answers: { 200: json(auditPageSchema) },
      codes,
    },
    'GET /v1/audit/count': {
      summary: 'counts of records of the audit log; the reading is itself recorded',
      query: auditCountQuery,
      answers: { 200: json(auditCountsSchema) },
      codes,
    },
  },
} as const satisfies RouteDocs;
