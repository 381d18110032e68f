import { z } from 'zod';
import { permissions } from '../identity/access.ts';
import { auditDocs } from './openapi-audit.ts';
import { json, type RouteDocs, spiffeIdCodes } from './openapi-route.ts';
import { questionQuery } from './question-routes.ts';

const cell = z.union([z.string(), z.number(), z.boolean(), z.null(), z.array(z.string())]);
const tableSchema = z.object({
  name: z.string(),
  columns: z.array(z.string()),
  details: z.array(z.string()),
  items: z.array(z.record(z.string(), cell)),
  more: z.boolean(),
});
const answerSchema = z.object({
  question: z.string(),
  asked: z.record(z.string(), z.string()),
  says: z.array(z.string()),
  missing: z.array(z.string()),
  tables: z.array(tableSchema),
  next: z.string().nullable(),
  coverage: auditDocs.schemas.AuditCoverage,
  head: auditDocs.schemas.AuditHead,
});
const listSchema = z.object({
  items: z.array(
    z.object({
      name: z.string(),
      line: z.string(),
      parameters: z.array(z.object({ name: z.string(), line: z.string(), isRequired: z.boolean() })),
      needs: z.array(z.enum(permissions as [string, ...string[]])),
    }),
  ),
  unanswered: z.array(z.object({ name: z.string(), line: z.string(), why: z.string() })),
});

/** The questions of auditors. */
export const questionDocs = {
  schemas: { AuditAnswer: answerSchema, AuditQuestions: listSchema },
  routes: {
    'GET /v1/audit/questions': {
      summary: 'the questions of auditors, and the parameters of each',
      answers: { 200: json(listSchema) },
      codes: ['rate_limited'],
    },
    'GET /v1/audit/questions/:name': {
      summary: 'the answer to a question, with its coverage and the head of the log that it is proven under',
      query: questionQuery,
      answers: { 200: json(answerSchema) },
      codes: [
        'audit_question_unknown',
        'audit_query_invalid',
        'audit_cursor_invalid',
        'audit_certificate_not_found',
        'decision_not_found',
        'ban_not_found',
        'policy_revision_not_found',
        'policy_invalid',
        'policy_mode_inexact',
        'policy_replay_busy',
        'store_corrupt',
        'rate_limited',
        ...spiffeIdCodes,
      ],
    },
  },
} as const satisfies RouteDocs;
