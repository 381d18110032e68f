import { z } from 'zod';
import { hygieneCodes } from '../authz/analysis/hygiene.ts';
import { decisionReasons } from '../authz/decision.ts';
import { policyActions } from '../authz/document.ts';
import { count, json, type RouteDocs, time } from './openapi-route.ts';
import { comparisonBody, type ComparisonView, proofBody, type ProofView } from './proof-routes.ts';

const entries = z.array(z.array(z.string()));
const ruleSchema = z.object({
  rule: z.string(),
  place: z.string(),
  action: z.enum(policyActions),
  from: entries,
  to: entries,
  when: entries,
});
const witnessSchema = z.object({
  protocol: z.enum(['http', 'tcp']),
  source: z.string(),
  destination: z.string(),
  method: z.string(),
  path: z.string(),
  authority: z.string(),
  port: z.number().int().min(0).max(65_535),
  headers: z.array(z.tuple([z.string(), z.string()])),
  sourceIp: z.string().nullable(),
  destinationIp: z.string().nullable(),
  sni: z.string().nullable(),
  claims: z.record(z.string(), z.unknown()).nullable().exactOptional(),
  metadata: z.record(z.string(), z.record(z.string(), z.unknown())).exactOptional(),
  at: time,
});
const decisionSchema = z.object({
  verdict: z.enum(['allow', 'deny']),
  reason: z.enum(decisionReasons),
  rule: z.string(),
  why: z.string(),
});
const unprovenSchema = z.array(z.object({ about: z.string(), why: z.string() }));
const number = z.number().int().min(1).nullable();
const classSchema = z.object({
  allows: ruleSchema,
  denies: ruleSchema.nullable(),
  destinations: z.array(z.string()),
  destinationsOmitted: count,
  examples: z.array(
    z.object({
      kinds: z.array(
        z.object({
          field: z.enum(['principals', 'methods', 'paths', 'hosts', 'ports', 'addresses', 'times']),
          values: z.array(z.string()),
          omitted: count,
        }),
      ),
      witness: witnessSchema,
      before: decisionSchema,
      after: decisionSchema,
    }),
  ),
});
const comparisonSchema: z.ZodType<ComparisonView> = z.object({
  from: number,
  to: number,
  newlyAllowed: z.array(classSchema),
  newlyDenied: z.array(classSchema),
  unproven: unprovenSchema,
  destinations: count,
  madeUp: count,
});
const proofSchema: z.ZodType<ProofView> = z.object({
  revision: number,
  invariants: z.array(
    z.object({
      name: z.string(),
      place: z.string(),
      demand: z.enum(['never', 'always']),
      result: z.enum(['proven', 'violated', 'unproven']),
      violations: z.array(
        z.object({ rule: ruleSchema.nullable(), witness: witnessSchema, decision: decisionSchema }),
      ),
      why: z.string(),
      destinations: count,
      registered: count.nullable(),
    }),
  ),
  findings: z.array(
    z.object({
      code: z.enum(hygieneCodes),
      policy: z.string(),
      rule: ruleSchema.nullable(),
      place: z.string(),
      by: z.array(z.string()),
      witness: witnessSchema.nullable(),
      decision: decisionSchema.nullable(),
    }),
  ),
  unproven: unprovenSchema,
  policies: count,
  destinations: count,
  madeUp: z.array(z.string()),
});

const codes = [
  ...['policy_revision_not_found', 'policy_mode_inexact', 'policy_analysis_too_large', 'server_busy'],
  ...['policy_invalid', 'policy_unsupported', 'document_syntax', 'document_too_large', 'document_alias'],
  ...['document_depth', 'document_duplicate_key', 'document_field_type', 'document_field_missing'],
  ...['document_field_unknown', 'document_field_value', 'document_kind_unknown'],
] as const;

/** Proofs and comparisons of policies. */
export const proofDocs = {
  schemas: {
    ProofQuestion: proofBody,
    PolicyProof: proofSchema,
    ComparisonQuestion: comparisonBody,
    PolicyComparison: comparisonSchema,
  },
  routes: {
    'POST /v1/policy-proofs': {
      summary:
        'proves invariants of the policies in force, of a revision or of a candidate, and what is wrong with their rules; changes nothing',
      body: proofBody,
      answers: { 200: json(proofSchema) },
      codes,
    },
    'POST /v1/policy-comparisons': {
      summary:
        'what two sets of policies decide differently, each kind of call with an example; changes nothing',
      body: comparisonBody,
      answers: { 200: json(comparisonSchema) },
      codes,
    },
  },
} as const satisfies RouteDocs;
