import { z } from 'zod';
import { banKinds } from '../identity/ban.ts';
import type { BanView } from './ban-routes.ts';
import { banBody } from './ban-routes.ts';
import {
  actorSchema,
  json,
  revisedPageSchema,
  revision,
  type RouteDocs,
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
/** Bans. */
export const banDocs = {
  schemas: {
    Actor: actorSchema,
    Ban: banSchema,
    BanPage: banPageSchema,
    NewBan: banBody,
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
  },
} as const satisfies RouteDocs;
