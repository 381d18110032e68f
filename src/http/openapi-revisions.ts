import { z } from 'zod';
import { actorSchema, count, json, pageSchema, type RouteDocs, sha256, time } from './openapi-route.ts';
import { pageQuery } from './page.ts';
import {
  activateBody,
  type ActivationView,
  renumberBody,
  type RevisionPage,
  type RevisionView,
} from './revision-routes.ts';

const number = z.number().int().min(1);
const inForceSchema = z.object({ number, id: sha256 });
const revisionSchema: z.ZodType<RevisionView> = z.object({
  number,
  id: sha256,
  parent: inForceSchema.nullable(),
  restores: number.nullable(),
  time,
  active: z.boolean(),
  author: actorSchema.nullable(),
  message: z.string().nullable(),
  changes: z.object({ created: count, updated: count, deleted: count }),
  recordSha256: sha256,
  publicKey: z.string(),
  signature: z.string(),
});
const revisionPageSchema: z.ZodType<RevisionPage> = pageSchema(revisionSchema).extend({
  trustDomain: z.string(),
});
const activationSchema: z.ZodType<ActivationView> = z.object({
  active: inForceSchema,
  restores: number,
  changes: z.array(z.object({ key: z.string(), action: z.enum(['created', 'updated', 'deleted']) })),
  warnings: z.array(z.string()),
});

/** Revisions of policies. */
export const revisionDocs = {
  schemas: {
    PolicyRevision: revisionSchema,
    PolicyRevisionPage: revisionPageSchema,
    PolicyInForce: inForceSchema,
    Activation: activateBody,
    Activated: activationSchema,
    Renumbering: renumberBody,
  },
  routes: {
    'GET /v1/policy-revisions': {
      summary: 'a page of policy revisions, the latest first',
      query: pageQuery,
      answers: { 200: json(revisionPageSchema) },
      codes: [],
    },
    'GET /v1/policy-revisions/:number': {
      summary: 'one policy revision; `active` in place of a number is the one in force',
      answers: { 200: json(revisionSchema) },
      codes: ['policy_revision_not_found'],
    },
    'POST /v1/policy-revisions/:number/activate': {
      summary:
        'puts the policies of a revision in force again, under a number of their own; `previous` in place of a number is the one before',
      body: activateBody,
      answers: { 200: json(activationSchema) },
      codes: [
        'policy_revision_not_found',
        'policy_message_invalid',
        'policy_invalid',
        'policy_unsupported',
        'document_too_large',
        'store_corrupt',
        'revision_conflict',
      ],
    },
    'POST /v1/policy-revisions/renumber': {
      summary: 'puts the same policies in force under a higher number, after a restore from a backup',
      body: renumberBody,
      answers: { 200: json(inForceSchema) },
      codes: ['policy_number_invalid', 'policy_message_invalid', 'revision_conflict'],
    },
  },
} as const satisfies RouteDocs;
