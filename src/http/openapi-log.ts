import { z } from 'zod';
import {
  type ConsistencyProofView,
  consistencyQuery,
  type EntryProofView,
  proofQuery,
} from './log-routes.ts';
import { count, json, type RouteDocs, sha256, text } from './openapi-route.ts';
import type { Travelled } from './travelled.ts';

const entryProofSchema: z.ZodType<Travelled<EntryProofView>> = z.object({
  index: count,
  size: count,
  leafHash: sha256,
  hashes: z.array(sha256),
  checkpoint: z.string(),
});
const consistencyProofSchema: z.ZodType<Travelled<ConsistencyProofView>> = z.object({
  from: count,
  fromRoot: sha256,
  size: count,
  hashes: z.array(sha256),
  checkpoint: z.string(),
});

/** The audit log as others verify it. */
export const logDocs = {
  schemas: { EntryProof: entryProofSchema, ConsistencyProof: consistencyProofSchema },
  routes: {
    'GET /v1/audit/log/checkpoint': {
      summary: 'the latest checkpoint of the audit log, a signed note (C2SP tlog-checkpoint)',
      answers: { 200: text('text/plain') },
      codes: ['audit_tile_not_found', 'rate_limited'],
    },
    'GET /v1/audit/log/key': {
      summary: 'the key that verifies checkpoints, as a line of text (C2SP signed-note)',
      answers: { 200: text('text/plain') },
      codes: ['audit_tile_not_found', 'rate_limited'],
    },
    'GET /v1/audit/log/tile/*': {
      summary:
        'a tile of hashes or a bundle of entries, by its path (C2SP tlog-tiles); entries need audit:decisions too',
      answers: { 200: text('application/octet-stream') },
      codes: ['audit_tile_not_found', 'audit_log_damaged', 'rate_limited'],
    },
    'GET /v1/audit/proof/:index': {
      summary: 'the proof that an entry is in the log; with `format=tlog-proof` as a file (C2SP tlog-proof)',
      query: proofQuery,
      answers: { 200: { ...json(entryProofSchema), ...text('text/plain') } },
      codes: ['audit_entry_not_found', 'audit_log_damaged', 'rate_limited'],
    },
    'GET /v1/audit/consistency': {
      summary: 'the proof that the log begins with its first `from` entries, as an older checkpoint had them',
      query: consistencyQuery,
      answers: { 200: json(consistencyProofSchema) },
      codes: ['audit_entry_not_found', 'audit_log_shorter', 'audit_log_damaged', 'rate_limited'],
    },
  },
} as const satisfies RouteDocs;
