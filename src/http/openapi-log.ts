import { z } from 'zod';
import {
  type ConsistencyProofView,
  consistencyQuery,
  type EntryProofView,
  proofQuery,
  tileQuery,
} from './log-routes.ts';
import { count, json, type RouteDocs, sha256, text } from './openapi-route.ts';
import { shredBody, type ShredView } from './shred-routes.ts';
import type { Travelled } from './travelled.ts';
import type { WitnessReport } from './witness-report.ts';

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

const moment = z.iso.datetime().nullable();
const witnessReportSchema: z.ZodType<Travelled<WitnessReport>> = z.object({
  cosigned: z
    .object({
      size: count.nullable(),
      behindSince: moment,
      witnesses: z.array(
        z.object({
          name: z.string(),
          keyName: z.string(),
          url: z.string().nullable(),
          state: z.enum(['unasked', 'ok', 'failing', 'disputes']),
          size: count.nullable(),
          cosignedAt: moment,
          failure: z.string(),
        }),
      ),
    })
    .nullable(),
  witness: z
    .object({
      verifierKey: z.string(),
      logs: z.array(
        z.object({
          origin: z.string(),
          size: count.nullable(),
          cosignedAt: moment,
          fork: z.object({ seenAt: z.iso.datetime(), held: z.string(), other: z.string() }).nullable(),
        }),
      ),
    })
    .nullable(),
});

const shredSchema: z.ZodType<Travelled<ShredView>> = z.object({
  entries: count,
  values: count,
  next: count.nullable(),
  erased: z.boolean(),
  oldCopies: z.array(z.string()),
});

/** The audit log as others verify it, and what of it is forgotten. */
export const logDocs = {
  schemas: {
    EntryProof: entryProofSchema,
    ConsistencyProof: consistencyProofSchema,
    WitnessReport: witnessReportSchema,
    Shredding: shredBody,
    Shredded: shredSchema,
  },
  routes: {
    'POST /v1/audit/shred': {
      summary:
        'forgets personal values for good; entries and proofs stay. Bounded: where `next` is not null, ask again with it as `from`',
      body: shredBody,
      answers: { 200: json(shredSchema) },
      codes: ['audit_shred_invalid', 'revision_conflict'],
    },
    'GET /v1/audit/log/checkpoint': {
      summary: 'the latest checkpoint of the audit log, a signed note (C2SP tlog-checkpoint)',
      answers: { 200: text('text/plain') },
      codes: ['audit_tile_not_found', 'rate_limited'],
    },
    'GET /v1/audit/log/witnessed': {
      summary: 'the latest checkpoint that a quorum of witnesses has cosigned (C2SP tlog-cosignature)',
      answers: { 200: text('text/plain') },
      codes: ['audit_quorum_missing', 'rate_limited'],
    },
    'GET /v1/audit/witnesses': {
      summary: 'who cosigns the audit log, and the logs of others that this server is a witness of',
      answers: { 200: json(witnessReportSchema) },
      codes: [],
    },
    'GET /v1/audit/log/key': {
      summary: 'the key that verifies checkpoints, as a line of text (C2SP signed-note)',
      answers: { 200: text('text/plain') },
      codes: ['audit_tile_not_found', 'rate_limited'],
    },
    'GET /v1/audit/log/tile/*': {
      summary:
        'a tile of hashes or a bundle of entries, by its path (C2SP tlog-tiles); entries need audit:decisions too',
      query: tileQuery,
      answers: { 200: text('application/octet-stream') },
      codes: ['audit_tile_not_found', 'audit_entries_pruned', 'audit_log_damaged', 'rate_limited'],
    },
    'GET /v1/audit/proof/:index': {
      summary:
        'the proof that an entry is in the log; with `format=tlog-proof` as a file (C2SP tlog-proof), with `witnessed=true` under what witnesses have cosigned',
      query: proofQuery,
      answers: { 200: { ...json(entryProofSchema), ...text('text/plain') } },
      codes: ['audit_entry_not_found', 'audit_quorum_missing', 'audit_log_damaged', 'rate_limited'],
    },
    'GET /v1/audit/consistency': {
      summary: 'the proof that the log begins with its first `from` entries, as an older checkpoint had them',
      query: consistencyQuery,
      answers: { 200: json(consistencyProofSchema) },
      codes: ['audit_entry_not_found', 'audit_log_shorter', 'audit_log_damaged', 'rate_limited'],
    },
  },
} as const satisfies RouteDocs;
