import { z } from 'zod';
import { banKinds } from '../identity/ban.ts';
import type { BanView } from './ban-routes.ts';
import { banBody } from './ban-routes.ts';
import { auditQuery } from './audit-routes.ts';
import {
  actorSchema,
  count,
  json,
  pageSchema,
  revisedPageSchema,
  revision,
  type RouteDocs,
  sha256,
  spiffeIdCodes,
  time,
} from './openapi-route.ts';
import { pageQuery } from './page.ts';

const banSchema: z.ZodType<BanView> = z.object({
  kind: z.enum(banKinds),
  value: z.string(),
  reason: z.string(),
  until: time.nullable(),
  inForce: z.boolean(),
  createdAt: time,
  actor: actorSchema,
  revision,
  certificatesValidUntil: time.nullable(),
});
const banPageSchema = revisedPageSchema(banSchema);
// What an event holds is docs/audit.md's affair: the log is kept for longer than any version of this.
const auditRecordSchema = z.object({
  index: count,
  leafHash: sha256,
  personal: z.record(z.string(), z.string()),
  shredded: z.array(z.string()).optional(),
  event: z.looseObject({ type: z.string(), time }),
});
const auditPageSchema = pageSchema(auditRecordSchema).extend({ size: count });

/** Bans, and the log. */
export const banDocs = {
  schemas: {
    Actor: actorSchema,
    Ban: banSchema,
    BanPage: banPageSchema,
    NewBan: banBody,
    AuditRecord: auditRecordSchema,
    AuditPage: auditPageSchema,
  },
  routes: {
    'GET /v1/bans': {
      summary: 'a page of bans, those that have run out included',
      query: pageQuery,
      answers: { 200: json(banPageSchema) },
      codes: [],
    },
    'POST /v1/bans': {
      summary: 'bans an identity, a certificate or a key',
      body: banBody,
      answers: { 201: json(banSchema) },
      codes: ['ban_invalid', 'ban_exists', 'revision_conflict', ...spiffeIdCodes],
    },
    'DELETE /v1/bans/:kind/:value': {
      summary: 'lifts a ban, and says what it was',
      answers: { 200: json(banSchema) },
      codes: ['ban_invalid', 'ban_not_found', 'revision_conflict', ...spiffeIdCodes],
    },
    'GET /v1/audit': {
      summary: 'a page of the audit log; the reading is itself recorded',
      query: auditQuery,
      answers: { 200: json(auditPageSchema) },
      codes: ['audit_query_invalid', 'audit_cursor_invalid', 'rate_limited', ...spiffeIdCodes],
    },
  },
} as const satisfies RouteDocs;
