import { hash } from 'node:crypto';
import { MeshError, quote } from '../errors.ts';
import type { Checkpoint } from './checkpoint.ts';
import { proveConsistency, proveInclusion } from './merkle-proof.ts';
import type { ReadHashes } from './merkle-tree.ts';
import {
  type PackFiles,
  packFormat,
  type PackManifest,
  packNames,
  type PackRecord,
  sampleAlgorithm,
} from './pack-manifest.ts';
import { readEvent } from './pack-verifier.ts';
import { formatTlogProof } from './tlog-proof.ts';

/** What a pack is made of. */
export type PackContents = {
  /** The verifier key of the log, as text. */
  readonly key: string;
  readonly madeAt: Date;
  readonly from: Date;
  readonly until: Date;
  /** The checkpoint that everything is proven under, and the same as it was signed. */
  readonly checkpoint: Checkpoint;
  readonly note: string;
  /** An older one, to prove that the log goes on from it. */
  readonly since: { readonly checkpoint: Checkpoint; readonly note: string } | null;
  readonly types: readonly string[];
  /** In the order of the log, all of them under the checkpoint. */
  readonly population: readonly PackRecord[];
  readonly calls: PackManifest['calls'];
  /** Losses, starts and stops, in the order of the log. */
  readonly coverage: readonly PackRecord[];
  /** From {@link drawSample}. */
  readonly sample: readonly PackRecord[];
  readonly seed: string;
  readonly sampleSize: number;
};

/**
 * Draws a sample that anybody can draw again: the records whose tickets are the lowest. The ticket of a record is SHA-256 of
 * the text `<seed>:<index>`.
 * @param size the most to draw
 * @returns in the order in which they are drawn
 */
export function drawSample(
  records: readonly PackRecord[],
  seed: string,
  size: number,
): readonly PackRecord[] {
  return records
    .map((record) => ({ ticket: hash('sha256', `${seed}:${record.index}`, 'hex'), record }))
    .sort((a, b) => (a.ticket < b.ticket ? -1 : 1))
    .slice(0, size)
    .map(({ record }) => record);
}

/**
 * Makes the files of a pack, all but its page.
 * @param read the hashes of the log under the checkpoint
 */
export function buildPack(contents: PackContents, read: ReadHashes): PackFiles {
  const { checkpoint, note, since, sample } = contents;
  const files = new Map<string, string>([
    [packNames.checkpoint, note],
    [packNames.population, contents.population.map(formatRecord).join('')],
    [packNames.coverage, contents.coverage.map(formatRecord).join('')],
  ]);
  if (since !== null) {
    const path = proveConsistency(read, since.checkpoint.size, checkpoint.size);
    files.set(packNames.since, since.note);
    files.set(packNames.consistency, path.map((one) => `${toBase64(one)}\n`).join(''));
  }
  for (const { index, leaf } of sample) {
    const path = proveInclusion(read, index, checkpoint.size);
    const proof = formatTlogProof({ index, path, checkpoint: note, extra: Buffer.from(leaf) });
    files.set(`proofs/${index}.tlog-proof`, proof);
  }
  const manifest = describe(contents, files);
  return new Map([[packNames.manifest, `${JSON.stringify(manifest, null, 2)}\n`], ...files]);
}

/** The proofs of a pack, without the rest: to learn which hashes of the log they take. */
export function walkProofs(
  { checkpoint, since, sample }: Pick<PackContents, 'checkpoint' | 'since' | 'sample'>,
  read: ReadHashes,
): void {
  if (since !== null) proveConsistency(read, since.checkpoint.size, checkpoint.size);
  for (const { index } of sample) proveInclusion(read, index, checkpoint.size);
}

/**
 * Checks a seed: what is drawn with it, anybody must be able to type again.
 * @throws MeshError `usage`
 */
export function checkSeed(seed: string): string {
  if (/^[A-Za-z0-9._-]{1,64}$/.test(seed)) return seed;
  throw new MeshError('usage', `${quote(seed)} cannot be a seed`, {
    fix: 'use 1 to 64 letters, digits, dots, underscores and hyphens',
  });
}

function describe(contents: PackContents, files: PackFiles): PackManifest {
  const { checkpoint, since, population, coverage, sample, seed, sampleSize } = contents;
  return {
    format: packFormat,
    origin: checkpoint.origin,
    key: contents.key,
    madeAt: contents.madeAt.toISOString(),
    window: { from: contents.from.toISOString(), until: contents.until.toISOString() },
    log: { size: checkpoint.size, root: toBase64(checkpoint.root) },
    since: since === null ? null : { size: since.checkpoint.size },
    population: { types: contents.types, records: population.length, byType: countTypes(population) },
    calls: contents.calls,
    sample: {
      algorithm: sampleAlgorithm,
      seed,
      size: sampleSize,
      indexes: sample.map(({ index }) => index),
    },
    coverage: countCoverage(coverage),
    files: Object.fromEntries([...files].map(([name, text]) => [name, hash('sha256', text, 'hex')])),
  };
}

function countTypes(records: readonly PackRecord[]): Readonly<Record<string, number>> {
  const counts = new Map<string, number>();
  for (const { leaf } of records) {
    const type = readEvent(leaf)?.type ?? '';
    counts.set(type, (counts.get(type) ?? 0) + 1);
  }
  return Object.fromEntries([...counts].sort(([a], [b]) => (a < b ? -1 : 1)));
}

function countCoverage(records: readonly PackRecord[]): PackManifest['coverage'] {
  const counts = { losses: 0, lost: 0, starts: 0, stops: 0 };
  for (const { leaf } of records) {
    const event = readEvent(leaf);
    if (event?.type === 'loss') {
      counts.losses++;
      counts.lost += event.count;
    } else if (event?.type !== 'lifecycle') continue;
    else if (event.action === 'started') counts.starts++;
    else if (event.action === 'stopped') counts.stops++;
  }
  return counts;
}

/** INVARIANT: the text of the leaf stands in the line byte for byte, so that its hash can be made anew. */
function formatRecord({ index, leafHash, leaf }: PackRecord): string {
  return `{"index":${index},"leafHash":"${leafHash}","event":${leaf}}\n`;
}

function toBase64(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('base64');
}
