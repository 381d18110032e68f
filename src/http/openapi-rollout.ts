import { z } from 'zod';
import { documentCodes } from './openapi-entries.ts';
import { actorSchema, count, json, type RouteDocs, sha256, time } from './openapi-route.ts';
import {
  abortQuery,
  canaryBody,
  enforceBody,
  type EnforcedView,
  type RolloutReport,
  type RolloutView,
  stageBody,
  type StagedView,
} from './rollout-routes.ts';

const inForceSchema = z.object({ number: z.number().int().min(1), id: sha256 });
const changesSchema = z.array(
  z.object({ key: z.string(), action: z.enum(['created', 'updated', 'deleted']) }),
);
const rolloutSchema: z.ZodType<RolloutView> = z.object({
  id: z.string().regex(/^[0-9a-f]{32}$/),
  base: z.number().int().min(1),
  step: z.number().int().min(1),
  stage: z.enum(['shadow', 'canary', 'ended']),
  percent: z.number().int().min(0).max(100),
  maxNewDenials: count,
  candidate: sha256,
  time,
  startedAt: time,
  startedBy: actorSchema,
  author: actorSchema,
  message: z.string(),
  cause: z.string(),
  changes: changesSchema,
});
const reportSchema: z.ZodType<RolloutReport> = z.object({
  active: inForceSchema.nullable(),
  rollout: rolloutSchema.nullable(),
  judged: count,
  newlyDenied: count,
  newlyAllowed: count,
  denied: count,
  fallenBack: count,
  edges: z.array(
    z.object({
      change: z.enum(['newly_denied', 'newly_allowed']),
      source: z.string(),
      destination: z.string(),
      protocol: z.string(),
      method: z.string(),
      pathPattern: z.string(),
      reason: z.string(),
      rule: z.string(),
      rulePlace: z.string(),
      candidateReason: z.string(),
      candidateRule: z.string(),
      candidatePlace: z.string(),
      calls: count,
      decided: count,
      first: time,
      last: time,
    }),
  ),
  nodes: z.array(
    z.object({
      name: z.string(),
      state: z.enum(['in_step', 'behind', 'away', 'not_taking_part']),
    }),
  ),
});
const stagedSchema: z.ZodType<StagedView> = z.object({
  rollout: rolloutSchema.nullable(),
  changes: changesSchema,
  warnings: z.array(z.string()),
});
const enforcedSchema: z.ZodType<EnforcedView> = z.object({
  active: inForceSchema,
  warnings: z.array(z.string()),
});

/** The way of a candidate into force. */
export const rolloutDocs = {
  schemas: {
    PolicyRolloutReport: reportSchema,
    PolicyRollout: rolloutSchema,
    StageRollout: stageBody,
    StagedRollout: stagedSchema,
    CanaryRollout: canaryBody,
    EnforceRollout: enforceBody,
    EnforcedRollout: enforcedSchema,
  },
  routes: {
    'GET /v1/policy-rollout': {
      summary:
        'the rollout beside the policies in force, what each node has of it, and the calls it would change',
      answers: { 200: json(reportSchema) },
      codes: [],
    },
    'POST /v1/policy-rollout': {
      summary: 'puts a candidate beside the policies in force, to be judged by and to decide nothing',
      body: stageBody,
      answers: { 200: json(stagedSchema) },
      codes: [
        ...documentCodes,
        'policy_unsupported',
        'policy_invalid',
        'policy_message_invalid',
        'policy_test_failed',
        'revision_conflict',
        'policy_rollout_active',
        'policy_rollout_invalid',
        'policy_revision_not_found',
      ],
    },
    'POST /v1/policy-rollout/canary': {
      summary: 'lets the candidate decide for a share of the workloads',
      body: canaryBody,
      answers: { 200: json(rolloutSchema) },
      codes: ['policy_rollout_none', 'policy_rollout_invalid', 'policy_message_invalid', 'revision_conflict'],
    },
    'POST /v1/policy-rollout/enforce': {
      summary: 'puts the candidate in force; refused after newly denied calls that nobody has accepted',
      body: enforceBody,
      answers: { 200: json(enforcedSchema) },
      codes: [
        'policy_rollout_none',
        'policy_rollout_denials',
        'policy_test_failed',
        'policy_message_invalid',
        'policy_invalid',
        'document_too_large',
        'revision_conflict',
      ],
    },
    'DELETE /v1/policy-rollout': {
      summary: 'ends the rollout; what is in force stays',
      query: abortQuery,
      answers: { 200: json(rolloutSchema) },
      codes: ['policy_rollout_none', 'policy_message_invalid', 'revision_conflict'],
    },
  },
} as const satisfies RouteDocs;
