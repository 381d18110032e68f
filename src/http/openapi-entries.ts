import { z } from 'zod';
import { decisionReasons } from '../authz/decision.ts';
import { reaches } from '../authz/reach.ts';
import { policyActions } from '../authz/document.ts';
import type { Explanation } from '../authz/explain.ts';
import { policyModes } from '../authz/policy-mode.ts';
import type { ErrorCode } from '../errors.ts';
import type { ApplyResult } from '../identity/administration.ts';
import type { TestReport } from '../identity/policy-tests.ts';
import { checkBody } from './authz-routes.ts';
import { lintQuery, type LintView } from './lint-routes.ts';
import { canReachBody, whoCanBody } from './reach-routes.ts';
import { applyBody, entryBody, entryPatch, type EntryView, testBody } from './entry-routes.ts';
import {
  json,
  revisedPageSchema,
  revision,
  type RouteDocs,
  sha256,
  spiffeIdCodes,
  time,
} from './openapi-route.ts';
import { pageQuery } from './page.ts';
import { policiesQuery, type PolicyView } from './policy-routes.ts';
import { deleteQuery, pastQuery } from './revision-routes.ts';

const entrySchema: z.ZodType<EntryView> = z.object({
  id: z.string(),
  spiffeId: z.string(),
  selectors: z.array(z.string()),
  ttlSeconds: z.number().int(),
  dnsNames: z.array(z.string()),
  labels: z.record(z.string(), z.string()),
  hint: z.string(),
  expiresAt: time.nullable(),
  nodes: z.array(z.string()),
  revision,
});
const entryPageSchema = revisedPageSchema(entrySchema);
const deletedEntrySchema = z.object({ entry: entrySchema, certificatesValidUntil: time.nullable() });
const applyResultSchema: z.ZodType<ApplyResult> = z.object({
  revision,
  changes: z.array(
    z.object({
      kind: z.enum(['entry', 'policy', 'node-alias', 'grant']),
      key: z.string(),
      action: z.enum(['created', 'updated', 'unchanged']),
    }),
  ),
  warnings: z.array(z.string()),
});
const testReportSchema: z.ZodType<TestReport> = z.object({
  outcomes: z.array(
    z.object({
      policy: z.string(),
      test: z.string(),
      place: z.string(),
      passed: z.boolean(),
      want: z.string(),
      got: z.enum(['allow', 'deny']),
      reason: z.enum(decisionReasons),
      rule: z.string(),
      why: z.string(),
      destination: z.string(),
    }),
  ),
  coverage: z.array(
    z.object({
      rule: z.string(),
      place: z.string(),
      matched: z.number().int(),
      notMatched: z.number().int(),
    }),
  ),
});
const termsSchema = z.object({
  notBefore: time.nullable(),
  expiresAt: time.nullable(),
  owner: z.string().nullable(),
  ticket: z.string().nullable(),
  breakGlass: z.string().nullable(),
  liftable: z.boolean(),
});
const policyFields = {
  key: z.string(),
  file: z.string(),
  line: z.number().int().min(1),
  sha256,
  revision,
  terms: termsSchema.optional(),
};
const policySchema: z.ZodType<PolicyView> = z.object(policyFields);
const policyPageSchema = revisedPageSchema(policySchema);
const policyWithSourceSchema = z.object({ ...policyFields, source: z.string() });
/** A line of a policy. */
export const excerptSchema = z.object({
  place: z.string(),
  line: z.number().int().min(1),
  column: z.number().int().min(1),
  length: z.number().int().min(1),
  text: z.string(),
});
const ruleSchema = z.object({
  rule: z.string(),
  place: z.string(),
  matched: z.boolean(),
  entries: z.array(
    z.object({
      entry: z.string(),
      predicates: z.array(
        z.object({
          field: z.string(),
          values: z.array(z.string()),
          place: z.string(),
          outcome: z.enum(['matched', 'missed', 'inapplicable']),
          used: z.string(),
        }),
      ),
    }),
  ),
});
const total = z.number().int().min(0);
const lintSchema: z.ZodType<LintView> = z.object({
  findings: z.array(
    z.object({
      code: z.string(),
      severity: z.enum(['error', 'warning', 'note']),
      policy: z.string(),
      why: z.string(),
      fix: z.string(),
      place: z.string(),
      at: excerptSchema.nullable(),
    }),
  ),
  errors: total,
  warnings: total,
  notes: total,
  omitted: total,
  inventory: z.boolean(),
  policies: total,
});
const shadowSchema = z.enum(['allowed', 'denied']).nullable();
const changeSchema = z.object({
  kind: z.enum(['add', 'remove', 'drop', 'exempt']),
  rule: z.string(),
  field: z.string(),
  values: z.array(z.string()).nullable(),
  at: excerptSchema,
});
/** What `authz check` says. */
export const explanationSchema: z.ZodType<Explanation> = z.object({
  verdict: z.enum(['allow', 'deny']),
  reason: z.enum(decisionReasons),
  rule: z.string(),
  why: z.string(),
  revision,
  mode: z.enum(policyModes),
  custom: z.string().nullable(),
  audited: z.string(),
  breakGlass: z.string(),
  shadow: z.object({ allow: shadowSchema, deny: shadowSchema }).nullable(),
  request: z.object({
    source: z.string().nullable(),
    destination: z.string(),
    protocol: z.enum(['http', 'tcp']),
    method: z.string(),
    host: z.string(),
    hostPort: z.number().int().nullable(),
    path: z.string(),
    port: z.number().int(),
  }),
  policies: z.array(
    z.object({
      policy: z.string(),
      action: z.enum(policyActions),
      dryRun: z.boolean(),
      place: z.string(),
      rules: z.array(ruleSchema),
    }),
  ),
  policiesOmitted: z.number().int().min(0),
  decidedAt: excerptSchema.nullable(),
  nearest: z
    .object({
      rule: z.string(),
      missed: z.string(),
      matched: z.number().int(),
      total: z.number().int(),
      used: z.string(),
      at: excerptSchema,
    })
    .nullable(),
  remedy: z
    .object({
      exemptions: z.array(changeSchema),
      edits: z.array(changeSchema).nullable(),
      policy: z.string().nullable(),
    })
    .nullable(),
});

/** Rules and what must still hold. */
export const openRules = z.array(
  z.object({
    rule: z.string(),
    place: z.string(),
    from: z.array(z.array(z.string())),
    to: z.array(z.array(z.string())),
    when: z.array(z.array(z.string())),
    glass: z.enum(['grant', 'liftable']).optional(),
  }),
);
const reachFields = {
  reach: z.enum(reaches),
  allow: openRules,
  unless: openRules,
  allowOmitted: z.number().int(),
  unlessOmitted: z.number().int(),
};
const rowFields = { ...reachFields, banned: z.boolean() };
const whoCanSchema = revisedPageSchema(z.object({ caller: z.string(), ...rowFields })).extend({
  destination: z.string(),
  anybody: z.object(reachFields),
});
const canReachSchema = revisedPageSchema(z.object({ destination: z.string(), ...rowFields })).extend({
  source: z.string(),
});

/** Codes that an entry in the input may be refused with. */
export const entryCodes = [
  'entry_invalid',
  'entry_label_conflict',
  'selector_invalid',
  'node_alias_not_found',
  'revision_conflict',
  ...spiffeIdCodes,
] as const satisfies readonly ErrorCode[];

/** Codes that documents in the input may be refused with. */
export const documentCodes = [
  'document_too_large',
  'document_syntax',
  'document_alias',
  'document_depth',
  'document_duplicate_key',
  'document_field_unknown',
  'document_field_missing',
  'document_field_type',
  'document_field_value',
  'document_kind_unknown',
  'node_alias_invalid',
] as const satisfies readonly ErrorCode[];

/** Entries, policies, and what they come to. */
export const entryDocs = {
  schemas: {
    Entry: entrySchema,
    EntryPage: entryPageSchema,
    NewEntry: entryBody,
    EntryChange: entryPatch,
    DeletedEntry: deletedEntrySchema,
    Files: applyBody,
    Applied: applyResultSchema,
    PolicyTesting: testBody,
    PolicyTested: testReportSchema,
    Policy: policySchema,
    PolicyPage: policyPageSchema,
    PolicyWithSource: policyWithSourceSchema,
    Call: checkBody,
    WhoCanQuestion: whoCanBody,
    CanReachQuestion: canReachBody,
    WhoCan: whoCanSchema,
    CanReach: canReachSchema,
    Excerpt: excerptSchema,
    PolicyLint: lintSchema,
    Explanation: explanationSchema,
  },
  routes: {
    'GET /v1/entries': {
      summary: 'a page of entries',
      query: pageQuery,
      answers: { 200: json(entryPageSchema) },
      codes: [],
    },
    'POST /v1/entries': {
      summary: 'creates an entry',
      body: entryBody,
      answers: { 201: json(entrySchema) },
      codes: ['entry_exists', ...entryCodes],
    },
    'GET /v1/entries/:id': {
      summary: 'one entry',
      answers: { 200: json(entrySchema) },
      codes: ['entry_not_found'],
    },
    'PATCH /v1/entries/:id': {
      summary: 'replaces the given fields of an entry',
      body: entryPatch,
      answers: { 200: json(entrySchema) },
      codes: ['entry_not_found', ...entryCodes],
    },
    'DELETE /v1/entries/:id': {
      summary: 'deletes an entry, and says until when certificates issued under it stay valid',
      answers: { 200: json(deletedEntrySchema) },
      codes: ['entry_not_found', 'revision_conflict'],
    },
    'POST /v1/apply': {
      summary: 'creates or updates what is in files, all or nothing',
      body: applyBody,
      answers: { 200: json(applyResultSchema) },
      codes: [
        ...documentCodes,
        'policy_unsupported',
        'policy_invalid',
        'policy_message_invalid',
        'policy_test_failed',
        'policy_rollout_active',
        'entry_exists',
        'grant_invalid',
        ...entryCodes,
      ],
    },
    'POST /v1/policies/test': {
      summary: 'runs the tests of the policies in files as if they were applied, and changes nothing',
      body: testBody,
      answers: { 200: json(testReportSchema) },
      codes: [
        ...documentCodes,
        'policy_unsupported',
        'policy_invalid',
        'policy_test_failed',
        'entry_exists',
        'grant_invalid',
        ...entryCodes,
      ],
    },
    'GET /v1/policies': {
      summary: 'a page of policies, without their text; those in force, or those of a revision',
      query: policiesQuery,
      answers: { 200: json(policyPageSchema) },
      codes: ['policy_revision_not_found'],
    },
    'GET /v1/policy-lint': {
      summary:
        'what is worth a look in the policies in force; with notes also what Istio would read otherwise',
      query: lintQuery,
      answers: { 200: json(lintSchema) },
      codes: [],
    },
    'GET /v1/policies/:namespace/:name': {
      summary: 'one policy with its text, as it is in force or was in a revision',
      query: pastQuery,
      answers: { 200: json(policyWithSourceSchema) },
      codes: ['policy_not_found', 'policy_revision_not_found'],
    },
    'DELETE /v1/policies/:namespace/:name': {
      summary: 'deletes a policy',
      query: deleteQuery,
      answers: { 204: null },
      codes: [
        'policy_not_found',
        'policy_message_invalid',
        'policy_test_failed',
        'policy_rollout_active',
        'revision_conflict',
      ],
    },
    'POST /v1/authz/who-can': {
      summary:
        'who may make a call, of the registered identities and of anybody; what is left out may be anything',
      body: whoCanBody,
      answers: { 200: json(whoCanSchema) },
      codes: ['query_invalid', 'policy_mode_inexact', ...spiffeIdCodes],
    },
    'POST /v1/authz/can-reach': {
      summary: 'where a caller may call, of the registered identities',
      body: canReachBody,
      answers: { 200: json(canReachSchema) },
      codes: ['query_invalid', 'policy_mode_inexact', ...spiffeIdCodes],
    },
    'POST /v1/authz/check': {
      summary: 'what the policy would say of a call, and why; nothing is recorded',
      body: checkBody,
      answers: { 200: json(explanationSchema) },
      codes: [...spiffeIdCodes, 'policy_rollout_none'],
    },
  },
} as const satisfies RouteDocs;
