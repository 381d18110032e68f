import { z } from 'zod';
import { decisionReasons } from '../authz/decision.ts';
import { policyModes } from '../authz/policy-mode.ts';
import { replayClasses } from '../identity/replay-tally.ts';
import { auditDocs } from './openapi-audit.ts';
import { documentCodes, entryCodes } from './openapi-entries.ts';
import { count, json, type RouteDocs, spiffeIdCodes, time } from './openapi-route.ts';
import { meantBody, replayBody } from './replay-routes.ts';

const verdictSchema = z
  .object({
    verdict: z.enum(['allow', 'deny', 'unknown']),
    reason: z.enum(decisionReasons).nullable(),
    rule: z.string(),
    place: z.string(),
  })
  .nullable();
const edgeSchema = z.object({
  class: z.enum(replayClasses),
  source: z.string(),
  destination: z.string(),
  protocol: z.string(),
  method: z.string(),
  path: z.string().nullable(),
  port: count,
  calls: count,
  records: count,
  first: time,
  last: time,
  index: count,
  recorded: z.object({ allowed: count, denied: count }),
  before: verdictSchema,
  after: verdictSchema,
  nearest: z.object({ rule: z.string(), place: z.string(), missed: z.string() }).nullable(),
  dependsOn: z.array(z.string()),
});
const candidateSchema = z.object({
  changes: z.array(
    z.object({
      kind: z.enum(['entry', 'policy', 'node-alias', 'grant']),
      key: z.string(),
      action: z.enum(['created', 'updated', 'unchanged', 'deleted']),
    }),
  ),
  refused: z.object({ code: z.string(), message: z.string(), place: z.string() }).nullable(),
  warnings: z.array(z.string()),
});
const replaySchema = z.object({
  candidate: candidateSchema,
  mode: z.enum(policyModes),
  since: time.nullable(),
  until: time,
  totals: z.object({
    calls: count,
    newlyDenied: count,
    newlyAllowed: count,
    unchanged: count,
    unknown: count,
    notHeld: count,
    seen: count,
  }),
  edges: z.array(edgeSchema),
  moreEdges: count,
  beyond: count,
  complete: z.boolean(),
  missing: z.array(z.string()),
  coverage: auditDocs.schemas.AuditCoverage,
  head: auditDocs.schemas.AuditHead,
});

const suggestionSchema = z.object({
  since: time.nullable(),
  until: time,
  services: z.array(
    z.object({
      destination: z.string(),
      yaml: z.string(),
      replaces: z.array(z.string()),
      calls: count,
      left: z.array(z.object({ calls: count, why: z.string() })),
      why: z.string(),
    }),
  ),
  complete: z.boolean(),
  missing: z.array(z.string()),
  coverage: auditDocs.schemas.AuditCoverage,
  head: auditDocs.schemas.AuditHead,
});

/** Recorded calls under other policies, and the policies that they need. */
export const replayDocs = {
  schemas: {
    PolicyReplayQuestion: replayBody,
    PolicyReplay: replaySchema,
    PolicySuggestionQuestion: meantBody,
    PolicySuggestion: suggestionSchema,
  },
  routes: {
    'POST /v1/policy-replays': {
      summary: 'what would become of recorded calls under other policies; nothing is changed',
      body: replayBody,
      answers: { 200: json(replaySchema) },
      codes: [
        'policy_replay_busy',
        'audit_query_invalid',
        'policy_not_found',
        'policy_revision_not_found',
        'policy_invalid',
        'policy_unsupported',
        'policy_mode_inexact',
        ...documentCodes,
        'grant_invalid',
        'node_alias_invalid',
        'node_alias_not_found',
        'store_corrupt',
        'rate_limited',
        ...entryCodes,
      ],
    },
    'POST /v1/policy-suggestions': {
      summary: 'policies that allow what was seen to be allowed, and no more; nothing is applied',
      body: meantBody,
      answers: { 200: json(suggestionSchema) },
      codes: [
        'policy_replay_busy',
        'policy_mode_inexact',
        'audit_query_invalid',
        'rate_limited',
        ...spiffeIdCodes,
      ],
    },
  },
} as const satisfies RouteDocs;
