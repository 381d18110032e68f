import { openCheckpoint } from '../audit/checkpoint.ts';
import { callTypes } from '../audit/columns.ts';
import type { NoteKey } from '../audit/note.ts';
import { buildPack, drawSample, type PackContents, walkProofs } from '../audit/pack.ts';
import type { PackFiles, PackManifest, PackRecord } from '../audit/pack-manifest.ts';
import { verifyPack } from '../audit/pack-verifier.ts';
import { addCalls, noCalls, totalledTypes } from '../audit/pack-calls.ts';
import { auditEventTypes } from '../audit/question.ts';
import { fetchHashes } from '../audit/tile-hashes.ts';
import { takesOf } from '../audit/retention.ts';
import { MeshError } from '../errors.ts';
import { readAuditRows } from './audit-rows.ts';
import { serverLog } from './audit-source.ts';
import type { AdminClient } from './client.ts';

/** What a pack is asked to hold. */
export type PackQuestion = {
  readonly key: NoteKey;
  readonly keyText: string;
  readonly from: Date;
  readonly until: Date;
  readonly now: Date;
  /** Empty: all but calls, and those too with `calls`. */
  readonly types: readonly string[];
  /** Whether calls are listed; else they are counted. */
  readonly calls: boolean;
  readonly since: string | null;
  readonly seed: string;
  readonly sampleSize: number;
};

/**
 * Collects a pack from a server, and verifies it before it is given out.
 * @throws MeshError `audit_pack_invalid`, `audit_pack_too_large`, `audit_log_shorter`, `audit_log_invalid`,
 *   `audit_signature_invalid`, and what asking the server throws
 */
export async function collectPack(client: AdminClient, question: PackQuestion): Promise<PackFiles> {
  const { key, since: sinceNote, from, until } = question;
  const log = serverLog(client);
  // INVARIANT: first, so that the pack is about so many entries and no others, whatever is recorded meanwhile.
  const note = await log.checkpoint();
  const checkpoint = openCheckpoint(note, key);
  const since = sinceNote === null ? null : { note: sinceNote, checkpoint: openCheckpoint(sinceNote, key) };
  if (since !== null && since.checkpoint.size > checkpoint.size) {
    throw new MeshError(
      'audit_log_shorter',
      `the log has ${checkpoint.size} entries, and had ${since.checkpoint.size}`,
      { fix: 'the server was set back to an older state: keep both checkpoints' },
    );
  }
  const types = typesOf(question);
  const { population, calls: counted } = await readPopulation(client, question, types, checkpoint.size);
  const coverage = await readCoverage(client, from, until, checkpoint.size);
  // Of what is gone nobody can tell how much of it was of the window.
  const calls = coverage.some(({ leaf }) => takesOf(leaf, [...callTypes], from)) ? null : counted;
  const sample = drawSample(population, question.seed, question.sampleSize);
  const contents: PackContents = {
    key: question.keyText,
    madeAt: question.now,
    from,
    until,
    checkpoint,
    note,
    since,
    types,
    population,
    calls,
    coverage,
    sample,
    seed: question.seed,
    sampleSize: question.sampleSize,
  };
  const hashes = await fetchHashes(log.read, checkpoint.size, (read) => walkProofs(contents, read));
  const files = buildPack(contents, hashes);
  await demandProven(files, question.keyText);
  return files;
}

/** @throws MeshError `audit_pack_invalid` naming all that is wrong */
export async function demandProven(files: PackFiles, key: string) {
  const report = await verifyPack(files, key);
  if (report.verdict === 'proven') return report;
  const wrong = report.checks.filter(({ ok }) => !ok).map(({ name, words }) => `${name}: ${words}`);
  throw new MeshError('audit_pack_invalid', wrong.join('; '), {
    fix: 'keep the pack as it is for whoever made it',
  });
}

function typesOf({ types, calls }: PackQuestion): readonly string[] {
  if (types.length > 0) return types;
  return auditEventTypes.filter((type) => calls || !callTypes.has(type));
}

async function readPopulation(
  client: AdminClient,
  { from, until, types: asked, calls }: PackQuestion,
  types: readonly string[],
  size: number,
): Promise<{ readonly population: readonly PackRecord[]; readonly calls: PackManifest['calls'] }> {
  const window = windowOf(from, until);
  const population: PackRecord[] = [];
  let bytes = 0;
  for await (const rows of readAuditRows(client, { ...window, type: types })) {
    for (const { index, leafHash, leaf } of rows) {
      if (index >= size) continue;
      bytes += leaf.length;
      if (population.length === maxRecords || bytes > maxBytes) throw tooLarge();
      population.push({ index, leafHash, leaf });
    }
  }
  if (asked.length > 0 || calls) return { population, calls: null };
  return { population, calls: await countCalls(client, window, size) };
}

/** Null for those who may not read them. */
async function countCalls(
  client: AdminClient,
  window: { readonly since: string; readonly until: string },
  size: number,
): Promise<PackManifest['calls']> {
  const totals = noCalls();
  try {
    for await (const rows of readAuditRows(client, { ...window, type: totalledTypes })) {
      for (const { index, event } of rows) {
        if (index >= size) continue;
        const { type, verdict, count } = event;
        addCalls(totals, { type, verdict, count });
      }
    }
  } catch (error) {
    if (error instanceof MeshError && error.code === 'forbidden') return null;
    throw error;
  }
  return totals;
}

/** Losses, starts and stops of the window, and what was told later of losses and of contents that are kept no longer. */
async function readCoverage(
  client: AdminClient,
  from: Date,
  until: Date,
  size: number,
): Promise<readonly PackRecord[]> {
  const found: PackRecord[] = [];
  const query = { since: from.toISOString(), type: ['loss', 'lifecycle', 'retention'] };
  for await (const rows of readAuditRows(client, query)) {
    for (const { index, leafHash, leaf, event } of rows) {
      const begin = event['type'] === 'loss' ? event['from'] : event['time'];
      const isOfWindow = typeof begin === 'string' && begin < until.toISOString();
      const isKept = event['type'] === 'retention' ? takesOf(leaf, auditEventTypes, from) : isOfWindow;
      if (index < size && isKept) found.push({ index, leafHash, leaf });
    }
  }
  return found;
}

function windowOf(from: Date, until: Date) {
  return { since: from.toISOString(), until: until.toISOString() };
}

function tooLarge(): MeshError {
  return new MeshError(
    'input_too_large',
    `the window has more than ${maxRecords} records, or ${maxBytes / 1_048_576} MiB of them`,
    { fix: 'ask for a shorter window, or for fewer types with --type; audit export copies the whole log' },
  );
}

const maxRecords = 500_000;
const maxBytes = 268_435_456;
