import { z } from 'zod';
import { jwtKeyTypes } from '../ca/jwt-slot.ts';
import type { ErrorCode } from '../errors.ts';
import { crlQuery, forceBody, importBody, type KeyReport, rotateBody, taintBody } from './ca-routes.ts';
import { type JwtView, mintBody, validateBody, type ValidatedJwtView } from './jwt-routes.ts';
import { count, json, keyId, type RouteDocs, sha256, spiffeIdCodes, text, time } from './openapi-route.ts';
import { bundleSchema } from './openapi-system.ts';
import type { Travelled } from './travelled.ts';

const slotStates = ['prepared', 'active', 'retiring', 'retired'] as const;
/** Of `GET /v1/ca`, and of each step of a rotation. */
export const keyReportSchema: z.ZodType<Travelled<KeyReport>> = z.object({
  bundleSequence: count,
  authorities: z.array(
    z.object({
      kind: z.enum(['root', 'intermediate']),
      keyId,
      rootKeyId: keyId,
      state: z.enum(slotStates),
      offline: z.boolean(),
      tainted: z.boolean(),
      publishedIn: count,
      notBefore: time,
      notAfter: time,
      upstream: count,
      certificateSha256: sha256,
    }),
  ),
  waiting: z.object({ keyId }).nullable(),
  warnings: z.array(z.string()),
  coverage: z.object({ sequence: count, confirmed: count, holders: count }),
  next: z.object({ step: z.enum(['activate', 'retire']), safe: z.boolean() }).nullable(),
  laggards: z.array(
    z.object({
      spiffeId: z.string(),
      node: z.string(),
      lastSeen: time.nullable(),
      why: z.string(),
      until: time,
    }),
  ),
  moreLaggards: count,
  doubt: z.string().nullable(),
  jwtBundleSequence: count,
  jwtKeys: z.array(
    z.object({
      keyId,
      keyType: z.enum(jwtKeyTypes),
      state: z.enum(slotStates),
      publishedAt: time,
      activatedAt: time.nullable(),
      stoppedAt: time.nullable(),
      lastTokenExpiresAt: time.nullable(),
    }),
  ),
  jwtNext: z.array(
    z.object({
      step: z.enum(['prepare', 'activate', 'retire']),
      keyId: keyId.nullable(),
      safeFrom: time,
      byItselfAt: time,
    }),
  ),
});
const requestSchema = z.object({ keyId, pem: z.string() });
const jwtSchema: z.ZodType<JwtView> = z.object({
  token: z.string(),
  spiffeId: z.string(),
  audiences: z.array(z.string()),
  keyId,
  issuedAt: time,
  expiresAt: time,
  entryId: z.string(),
});
const validatedSchema: z.ZodType<ValidatedJwtView> = z.object({
  spiffeId: z.string(),
  audiences: z.array(z.string()),
  keyId,
  expiresAt: time,
  claims: z.record(z.string(), z.unknown()),
});

const stepCodes = [
  'rotation_unproven',
  'rotation_out_of_order',
  'authority_not_found',
  'authority_waiting',
  'authority_invalid',
  'issuer_expired',
] as const satisfies readonly ErrorCode[];
const chainCodes = [
  'csr_not_waiting',
  'der_invalid',
  'chain_malformed',
  'chain_key_mismatch',
  'chain_not_ca',
  'chain_algorithm',
  'chain_trust_domain',
  'chain_path_length',
  'chain_broken',
  'chain_root_missing',
  'chain_root_known',
  'chain_dates',
  'chain_constraints',
  'public_key_leaked',
] as const satisfies readonly ErrorCode[];

/** The CA, its rotation, and tokens. */
export const keyDocs = {
  schemas: {
    Keys: keyReportSchema,
    CertificateRequest: requestSchema,
    Rotate: rotateBody,
    ImportChain: importBody,
    Step: forceBody,
    Taint: taintBody,
    Mint: mintBody,
    JwtSvid: jwtSchema,
    Validate: validateBody,
    ValidatedJwt: validatedSchema,
  },
  routes: {
    'GET /v1/ca': {
      summary: 'the keys of the CA, who has confirmed the bundle, and who is in the way',
      answers: { 200: json(keyReportSchema) },
      codes: [],
    },
    'GET /v1/ca/crl': {
      summary: 'the revocation lists of the CAs that sign leaves',
      query: crlQuery,
      answers: { 200: text('application/x-pem-file', 'application/pkix-crl') },
      codes: ['authority_not_found'],
    },
    'GET /v1/ca/csr': {
      summary: 'the certificate request that waits for its certificate',
      answers: { 200: json(requestSchema) },
      codes: ['csr_not_waiting'],
    },
    'POST /v1/ca/import': {
      summary: 'takes the certificate that a request has waited for, with its chain',
      body: importBody,
      answers: { 200: json(keyReportSchema) },
      codes: [...chainCodes, ...stepCodes],
    },
    'POST /v1/ca/rotate': {
      summary: 'makes new keys',
      body: rotateBody,
      answers: { 200: json(keyReportSchema) },
      codes: stepCodes,
    },
    'POST /v1/ca/activate': {
      summary: 'signs under the prepared root from now on',
      body: forceBody,
      answers: { 200: json(keyReportSchema) },
      codes: stepCodes,
    },
    'POST /v1/ca/retire': {
      summary: 'takes old roots out of the bundle',
      body: forceBody,
      answers: { 200: json(keyReportSchema) },
      codes: stepCodes,
    },
    'POST /v1/ca/taint': {
      summary: 'replaces a key that is believed stolen',
      body: taintBody,
      answers: { 200: json(keyReportSchema) },
      codes: stepCodes,
    },
    'GET /v1/jwt/bundle': {
      summary: 'the public keys that verify tokens',
      answers: { 200: json(bundleSchema) },
      codes: [],
    },
    'POST /v1/jwt/mint': {
      summary: 'mints a token for an entry; no other answer ever holds it',
      body: mintBody,
      answers: { 201: json(jwtSchema) },
      codes: [
        'entry_not_found',
        'identity_none',
        'identity_banned',
        'jwt_audience_invalid',
        'jwt_key_missing',
        'profile_invalid',
        'rate_limited',
        'revision_conflict',
        ...spiffeIdCodes,
      ],
    },
    'POST /v1/jwt/validate': {
      summary: 'what a token says, once it is proven for an audience',
      body: validateBody,
      answers: { 200: json(validatedSchema) },
      codes: [
        'jwt_invalid',
        'jwt_expired',
        'jwt_audience_mismatch',
        'jwt_audience_invalid',
        'jwt_key_unknown',
        'identity_banned',
        ...spiffeIdCodes,
      ],
    },
  },
} as const satisfies RouteDocs;
