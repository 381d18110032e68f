import { z } from 'zod';
import { policyModes } from '../authz/policy-mode.ts';
import { count, json, keyId, revision, type RouteDocs, sha256, text, time } from './openapi-route.ts';
import { conditionCodes } from './condition.ts';
import type { ProxyReport, SourceReport, StatusReport, WorkloadOutlook } from './status-report.ts';
import { bundleQuery, openMetricsType } from './system-routes.ts';
import type { Travelled } from './travelled.ts';

const conditionSchema = z.object({
  code: z.enum(conditionCodes),
  level: z.enum(['cause', 'warning']),
  text: z.string(),
  fix: z.string(),
});
const readinessSchema = z.object({
  ready: z.boolean(),
  causes: z.array(z.string()),
  warnings: z.array(z.string()),
  conditions: z.array(conditionSchema),
});
const healthSchema = z.object({ status: z.literal('ok') });
/** Of one workload in a status. */
export const workloadSchema: z.ZodType<Travelled<WorkloadOutlook>> = z.object({
  spiffeId: z.string(),
  entryId: z.string(),
  serial: z.string(),
  expiresAt: time.nullable(),
  renewsAt: time.nullable(),
  darkAt: time,
  darkBy: z.enum(['certificate', 'policy', 'entry']),
  darkInSeconds: z.number().min(0),
  failure: z.string(),
});
/** Of one source of selectors in a status. */
export const sourceSchema: z.ZodType<Travelled<SourceReport>> = z.object({
  name: z.string(),
  place: z.string(),
  state: z.enum(['unused', 'ok', 'failing']),
  calls: count,
  failures: count,
  lastSuccessAt: time.nullable(),
  lastFailureAt: time.nullable(),
  lastFailure: z.string(),
});
/** Of one proxy that decides by itself in a status. */
export const proxySchema: z.ZodType<Travelled<ProxyReport>> = z.object({
  nodeId: z.string(),
  pid: count,
  uid: count,
  name: z.string(),
  state: z.enum(['current', 'behind', 'rejected', 'unserved']),
  desired: z.string(),
  acknowledged: z.string(),
  policyRevision: count.nullable(),
  behindSince: time.nullable(),
  rejection: z.string(),
  lacks: z.string(),
  leaves: z.object({ allow: count, deny: count, ask: count }).nullable(),
});
/** Of `GET /v1/status`. */
export const statusSchema: z.ZodType<Travelled<StatusReport>> = readinessSchema.extend({
  version: z.string(),
  serves: z.enum(['machine', 'nodes']),
  trustDomain: z.string(),
  now: time,
  startedAt: time,
  dataDir: z.string(),
  workloadSocket: z.string(),
  adminSocket: z.string(),
  adminUrl: z.string().nullable(),
  nodeAddress: z.string().nullable(),
  trustEndpoint: z
    .object({
      url: z.string(),
      profile: z.enum(['https_spiffe', 'https_web']),
      spiffeId: z.string().nullable(),
    })
    .nullable(),
  custody: z.string(),
  attestation: z.string(),
  revision,
  entries: count,
  policies: count,
  policyRevision: z.object({ number: count, id: sha256 }).nullable(),
  policyRollout: z
    .object({
      id: z.string(),
      base: count,
      stage: z.enum(['shadow', 'canary']),
      percent: count,
      since: time,
      judged: count,
      newlyDenied: count,
      newlyAllowed: count,
    })
    .nullable(),
  policyMode: z.enum(policyModes),
  breakGlass: z.array(z.string()),
  auditSize: count,
  streams: count,
  authorities: z.array(z.object({ kind: z.enum(['root', 'intermediate']), keyId, notAfter: time })),
  workloads: z.array(workloadSchema),
  workloadsInAll: count,
  sources: z.array(sourceSchema),
  nodes: z.object({
    attested: count,
    connected: count,
    laggard: z.object({ name: z.string(), behindSince: time, connected: z.boolean() }).nullable(),
  }),
  proxies: z.array(proxySchema),
  proxiesInAll: count,
});
const documentSchema = z.looseObject({
  openapi: z.string(),
  info: z.looseObject({ title: z.string(), version: z.string() }),
  paths: z.record(z.string(), z.unknown()),
});
/** A JWK set with the members that SPIFFE adds. */
export const bundleSchema = z.looseObject({ keys: z.array(z.looseObject({ kty: z.string() })) });

/** Health, status, metrics, the trust bundle and the document itself. */
export const systemDocs = {
  schemas: {
    Health: healthSchema,
    Condition: conditionSchema,
    Readiness: readinessSchema,
    Workload: workloadSchema,
    Source: sourceSchema,
    Proxy: proxySchema,
    Status: statusSchema,
    OpenApiDocument: documentSchema,
    KeySet: bundleSchema,
  },
  routes: {
    'GET /healthz': {
      summary: 'whether the process lives; nothing else is looked at',
      answers: { 200: json(healthSchema) },
      codes: [],
    },
    'GET /readyz': {
      summary: 'whether the server can do its work, and what is missing when it cannot',
      answers: { 200: json(readinessSchema), 503: json(readinessSchema) },
      codes: [],
    },
    'GET /metrics': {
      summary: 'what is counted and measured, as OpenMetrics text',
      answers: { 200: text(openMetricsType) },
      codes: [],
    },
    'GET /v1/openapi.json': {
      summary: 'this document',
      answers: { 200: json(documentSchema) },
      codes: [],
    },
    'GET /v1/status': {
      summary: 'what is served, from where, and how the keys are kept',
      answers: { 200: json(statusSchema) },
      codes: [],
    },
    'GET /v1/trust-bundle': {
      summary: 'the CA certificates of the trust domain; with `format=spiffe` its SPIFFE bundle',
      query: bundleQuery,
      answers: { 200: { ...text('application/x-pem-file'), ...json(bundleSchema) } },
      codes: [],
    },
  },
} as const satisfies RouteDocs;
