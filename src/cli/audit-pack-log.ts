import { openCheckpoint } from '../audit/checkpoint.ts';
import { callTypes } from '../audit/columns.ts';
import { decodeBundle } from '../audit/entry-bundle.ts';
import { tileWidth } from '../audit/merkle-tree.ts';
import { parseVerifierKey } from '../audit/note.ts';
import { addCalls, type CallTotals, describeCalls, noCalls, totalledTypes } from '../audit/pack-calls.ts';
import { type PackFiles, type PackManifest, packNames, type PackReport } from '../audit/pack-manifest.ts';
import { readEvent, readRecords } from '../audit/pack-verifier.ts';
import { auditEventTypes } from '../audit/question.ts';
import { takesOf } from '../audit/retention.ts';
import { type ReadTile, verifyLog } from '../audit/verify-log.ts';
import { MeshError } from '../errors.ts';
import { directoryLog } from './audit-source.ts';

/**
 * Proves that a pack has every record of its window: reads them from an export of the log, which is verified on the way and
 * must go on from the pack's checkpoint.
 * @param report of the pack, proven
 * @returns what was proven, in words
 * @throws MeshError `audit_pack_invalid`, and what verifying a log throws
 */
export async function proveComplete(
  files: PackFiles,
  { manifest }: PackReport,
  directory: string,
  keyText: string,
): Promise<string> {
  if (manifest === null) throw new MeshError('internal', 'a pack that is proven has a manifest');
  const key = parseVerifierKey(keyText);
  const log = directoryLog(directory);
  const head = openCheckpoint(await log.checkpoint(), key);
  const packed = openCheckpoint(files.get(packNames.checkpoint) ?? '', key);
  const found = new Map<number, Found>();
  const noting = (read: ReadTile): ReadTile => {
    return async (tile) => {
      const bytes = await read(tile);
      if (tile.level === 'entries' && bytes !== undefined)
        found.set(tile.index, findIn(bytes, tile.index * tileWidth, manifest));
      return bytes;
    };
  };
  const none = (): void => undefined;
  const census = await verifyLog(head, noting(log.read), packed, none, noting(log.readRemains));
  const all = [...found.values()];
  if (census.pruned > 0 && all.some(({ takes }) => takes)) {
    throw incomplete(
      'contents of the window are in this export no longer, as the log has announced: it cannot tell whether the pack has all',
      'use an export that was made before they went',
    );
  }
  const population = compare(
    files,
    packNames.population,
    all.flatMap((one) => one.population),
  );
  compare(
    files,
    packNames.coverage,
    all.flatMap((one) => one.coverage),
  );
  const { calls } = manifest;
  const totals = all.reduce((sums, { calls: some }) => sumOf(sums, some), noCalls());
  if (calls !== null && !areSame(calls, totals)) {
    throw incomplete(`the log has ${describeCalls(totals)}, and the manifest tells others`);
  }
  const counted = calls === null ? '' : `, and ${describeCalls(calls)}`;
  return `the log of ${head.size} entries has exactly these ${population} records in the window${counted}`;
}

type Found = {
  readonly population: (readonly [index: number, leaf: string])[];
  readonly coverage: (readonly [index: number, leaf: string])[];
  readonly calls: CallTotals;
  /** Whether it tells that contents of the window went, which the pack is about. */
  takes: boolean;
};

/** @returns how many records the file has: those that were found, and no others */
function compare(files: PackFiles, name: string, found: Found['population']): number {
  const records = readRecords(files.get(name) ?? '') ?? [];
  const packed = new Map(records.map(({ index, leaf }) => [index, leaf]));
  for (const [index, leaf] of found) {
    if (packed.get(index) !== leaf) throw incomplete(`entry ${index} of the log is missing in ${name}`);
    packed.delete(index);
  }
  for (const index of packed.keys()) throw incomplete(`entry ${index} of ${name} is not in the log`);
  return records.length;
}

/** What of a bundle belongs into the pack. Nothing of it is proven yet. */
function findIn(bytes: Uint8Array, first: number, { window, population, calls, log }: PackManifest): Found {
  const found: Found = { population: [], coverage: [], calls: noCalls(), takes: false };
  for (const [at, entry] of decodeBundle(bytes).entries.entries()) {
    const index = first + at;
    const leaf = Buffer.from(entry).toString('utf8');
    const event = index < log.size ? readEvent(leaf) : undefined;
    if (event === undefined) continue;
    const { type, time } = event;
    const isOfWindow = time >= window.from && time < window.until;
    if (isOfWindow && population.types.includes(type)) found.population.push([index, leaf]);
    if (isOfWindow && totalledTypes.some((known) => known === type)) {
      const { verdict, count } = JSON.parse(leaf) as Readonly<Record<string, unknown>>;
      addCalls(found.calls, { type, verdict, count });
    }
    const about = calls === null ? population.types : [...population.types, ...callTypes];
    if (type === 'retention' && takesOf(leaf, about, new Date(window.from))) found.takes = true;
    if (tellsOfCoverage(type, leaf, time, window)) found.coverage.push([index, leaf]);
  }
  return found;
}

/** The rule by which a pack was collected: a loss of the window may have been told of later. */
function tellsOfCoverage(type: string, leaf: string, time: string, window: PackManifest['window']): boolean {
  if (type === 'retention') return takesOf(leaf, auditEventTypes, new Date(window.from));
  if (type !== 'loss' && type !== 'lifecycle') return false;
  const { from } = JSON.parse(leaf) as { readonly from?: unknown };
  const begin = type === 'loss' && typeof from === 'string' ? from : time;
  return time >= window.from && begin < window.until;
}

function sumOf(a: CallTotals, b: CallTotals): CallTotals {
  const [own, proxies] = [a.byProxies, b.byProxies];
  return {
    allowed: a.allowed + b.allowed,
    denied: a.denied + b.denied,
    byProxies: { allowed: own.allowed + proxies.allowed, denied: own.denied + proxies.denied },
  };
}

/** What a pack of an earlier version does not tell is not compared. */
function areSame(told: NonNullable<PackManifest['calls']>, found: CallTotals): boolean {
  const { byProxies = found.byProxies } = told;
  return (
    told.allowed === found.allowed &&
    told.denied === found.denied &&
    byProxies.allowed === found.byProxies.allowed &&
    byProxies.denied === found.byProxies.denied
  );
}

function incomplete(
  message: string,
  fix = 'keep the pack and the export: together they show what was left out',
): MeshError {
  return new MeshError('audit_pack_invalid', message, { fix });
}
