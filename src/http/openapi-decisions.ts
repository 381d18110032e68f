import { z } from 'zod';
import type { LoggedDecision } from '../audit/logged-decision.ts';
import { decisionReasons } from '../authz/decision.ts';
import { policyModes } from '../authz/policy-mode.ts';
import type { ExplainedDecisions } from './decision-routes.ts';
import { excerptSchema, explanationSchema, openRules } from './openapi-entries.ts';
import { actorSchema, count, json, revision, type RouteDocs, sha256 } from './openapi-route.ts';

/** Dates are the texts that JSON makes of them. */
type AsJson<T> = T extends Date
  ? string
  : T extends readonly (infer E)[]
    ? readonly AsJson<E>[]
    : T extends object
      ? { readonly [K in keyof T]: AsJson<T[K]> }
      : T;

const verdict = z.enum(['allow', 'deny']);
const number = z.number().int().min(1);
const recordSchema: z.ZodType<LoggedDecision> = z.object({
  index: count,
  leafHash: sha256,
  decisionId: z.string(),
  time: z.string(),
  verdict,
  reason: z.string(),
  rule: z.string(),
  why: z.string(),
  revision,
  source: z.string(),
  destination: z.string(),
  protocol: z.string(),
  method: z.string(),
  host: z.string(),
  path: z.string().nullable(),
  port: count,
  sourceSerial: z.string(),
  sourceAddress: z.string().nullable(),
  proxy: z.object({ node: z.string(), pid: count, uid: count }),
  breakGlass: z.string(),
  rollout: z.string().optional(),
});
const revisionSchema = z.object({
  number,
  id: sha256,
  time: z.iso.datetime(),
  author: actorSchema,
  message: z.string(),
  restores: number.nullable(),
});
const nowSchema = z.object({
  verdict: z.enum(['allow', 'deny', 'unknown']),
  reason: z.enum(decisionReasons).nullable(),
  rule: z.string(),
  why: z.string(),
  revision,
  mode: z.enum(policyModes),
  dependsOn: z.array(z.string()),
  allow: openRules,
  unless: openRules,
  allowOmitted: count,
  unlessOmitted: count,
  explanation: explanationSchema.nullable(),
});
const decisionSchema = z.object({
  record: recordSchema,
  past: z.object({
    policyRevision: revisionSchema.nullable(),
    mode: z.enum(policyModes).nullable(),
    why: z.string(),
    rule: z
      .object({
        kind: z.enum(['decided', 'nearest']),
        rule: z.string(),
        at: excerptSchema.nullable(),
        used: z.string(),
      })
      .nullable(),
  }),
  now: nowSchema.nullable(),
  change: z.object({
    isSame: z.boolean().nullable(),
    by: revisionSchema.nullable(),
    why: z.string(),
  }),
  notHeld: z.array(z.string()),
});
const decisionsSchema: z.ZodType<AsJson<ExplainedDecisions>> = z.object({
  decisionId: z.string(),
  items: z.array(decisionSchema),
  more: z.boolean(),
});

/** Decisions in the log. */
export const decisionDocs = {
  schemas: { ExplainedDecisions: decisionsSchema },
  routes: {
    'GET /v1/authz/decisions/:id': {
      summary: 'the records of a decision by its ID, what decided then, and what the same call would get now',
      answers: { 200: json(decisionsSchema) },
      codes: ['decision_id_invalid', 'decision_not_found', 'rate_limited'],
    },
  },
} as const satisfies RouteDocs;
