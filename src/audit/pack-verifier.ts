import type { PackCheck, PackFiles, PackManifest, PackRecord, PackReport } from './pack-manifest.ts';
import {
  fromBase64,
  hashLeaf,
  isBeginning,
  isSame,
  openPackCheckpoint,
  type PackKey,
  readPackKey,
  readSize,
  rootOfPath,
  sha256,
  toBytes,
  toHex,
} from './pack-primitives.ts';
import { readPackManifest } from './pack-reading.ts';

// The page of a pack has these functions as their own text: see pack-primitives.ts.

/** A checkpoint that was opened. */
type Head = { readonly origin: string; readonly size: number; readonly root: Uint8Array };

/**
 * Verifies a pack with nothing but its files and the key of the log. Nothing of a pack is trusted; every check is made that
 * can be made, so that the report names all that is wrong.
 * @param files as text, by their names
 * @param trustedKey the verifier key that the auditor has from elsewhere; empty to use the one of the pack
 */
export async function verifyPack(files: PackFiles, trustedKey: string): Promise<PackReport> {
  const checks: PackCheck[] = [];
  const add = (name: string, problem: string, words: string): void => {
    checks.push({ name, ok: problem === '', words: problem === '' ? words : problem });
  };
  const manifest = readPackManifest(files.get('manifest.json') ?? '');
  const empty = { checks, manifest: manifest ?? null, sample: [], coverage: [] };
  if (manifest === undefined) {
    add('manifest', 'manifest.json is missing, or is not that of a pack of this version', '');
    return { verdict: 'wrong', ...empty };
  }
  const count = Object.keys(manifest.files).length;
  add('files', await problemOfFiles(files, manifest), `${count} files are as the manifest lists them`);
  const key = await readPackKey((trustedKey === '' ? manifest.key : trustedKey).trim());
  if (key === undefined) {
    add('key', 'this is no verifier key: it has the form name+keyId+base64', '');
    return { verdict: 'wrong', ...empty };
  }
  const head = await openPackCheckpoint(files.get('checkpoint') ?? '', key);
  const since = await problemOfSince(files, manifest, key, head);
  if ('problem' in head) {
    add('checkpoint', head.problem, '');
    return { verdict: 'wrong', ...empty };
  }
  add(
    'checkpoint',
    problemOfHead(manifest, head),
    `${head.size} entries, signed by ${key.name}+${key.keyId}`,
  );
  if (manifest.since !== null)
    add('older checkpoint', since, `the first ${manifest.since.size} entries are unchanged since then`);
  const population = readRecords(files.get('population.jsonl') ?? '');
  const { records, byType } = manifest.population;
  const types = Object.entries(byType).map(([type, n]) => `${n} ${type}`);
  add(
    'population',
    await problemOfPopulation(population, manifest),
    `${records} records, each as its hash says: ${types.join(', ') || 'none'}`,
  );
  const drawn = await drawTickets(population ?? [], manifest.sample.seed, manifest.sample.size);
  add(
    'sample',
    drawn.map(({ index }) => index).join() === manifest.sample.indexes.join()
      ? ''
      : 'the sample is not what this seed draws from this population',
    `${drawn.length} records, drawn anew with the seed ${manifest.sample.seed}`,
  );
  add(
    'proofs',
    await problemOfProofs(files, drawn, head),
    `${drawn.length} sampled records are in the log under this checkpoint`,
  );
  const coverage = readRecords(files.get('coverage.jsonl') ?? '');
  const { losses, lost, starts, stops } = manifest.coverage;
  add(
    'coverage',
    await problemOfCoverage(coverage, population ?? [], manifest),
    `${lost} records lost in ${losses} losses, ${starts} starts, ${stops} stops`,
  );
  const isRight = checks.every(({ ok }) => ok);
  const verdict = isRight ? (trustedKey === '' ? 'unkeyed' : 'proven') : 'wrong';
  return { verdict, checks, manifest, sample: drawn, coverage: coverage ?? [] };
}

/** The records of a file of lines, in the order of the log; undefined when a line is none, or they are out of order. */
export function readRecords(text: string): readonly PackRecord[] | undefined {
  if (text === '') return [];
  if (!text.endsWith('\n')) return undefined;
  const records: PackRecord[] = [];
  let before = -1;
  for (const line of text.slice(0, -1).split('\n')) {
    const match = /^\{"index":([0-9]{1,16}),"leafHash":"([0-9a-f]{64})","event":(\{[^]*\})\}$/.exec(line);
    const index = readSize(match?.[1] ?? '');
    if (match === null || index === undefined || index <= before) return undefined;
    before = index;
    records.push({ index, leafHash: match[2] ?? '', leaf: match[3] ?? '' });
  }
  return records;
}

/** The fields of an event that a pack looks at; undefined when it is not JSON. */
export function readEvent(
  leaf: string,
):
  | { readonly type: string; readonly time: string; readonly action: string; readonly count: number }
  | undefined {
  try {
    const event: unknown = JSON.parse(leaf);
    const members = (typeof event === 'object' && event !== null ? event : {}) as Record<string, unknown>;
    const member = (name: string): unknown => (Object.hasOwn(members, name) ? members[name] : '');
    const text = (name: string): string => {
      const value = member(name);
      return typeof value === 'string' ? value : '';
    };
    const lost = member('count');
    const number = typeof lost === 'number' && Number.isSafeInteger(lost) ? lost : 0;
    return { type: text('type'), time: text('time'), action: text('action'), count: number };
  } catch {
    return undefined;
  }
}

/** Some work for each, many at a time: one hash after the other would wait more than it works. */
export async function forEach<T, U>(all: readonly T[], work: (one: T) => Promise<U>): Promise<U[]> {
  const done: U[] = [];
  for (let at = 0; at < all.length; at += 1_000)
    done.push(...(await Promise.all(all.slice(at, at + 1_000).map(work))));
  return done;
}

/** Those with the lowest tickets, SHA-256 of `<seed>:<index>`, the lowest first. */
export async function drawTickets(
  records: readonly PackRecord[],
  seed: string,
  size: number,
): Promise<readonly PackRecord[]> {
  const tickets = await forEach(records, async (record) => {
    return { ticket: toHex(await sha256(toBytes(`${seed}:${record.index}`))), record };
  });
  tickets.sort((a, b) => (a.ticket < b.ticket ? -1 : 1));
  return tickets.slice(0, size).map(({ record }) => record);
}

/** Every listed file is there and as listed, and none is there that is not listed. */
export async function problemOfFiles(files: PackFiles, manifest: PackManifest): Promise<string> {
  const listed = new Map(Object.entries(manifest.files));
  for (const name of ['checkpoint', 'population.jsonl', 'coverage.jsonl'])
    if (!listed.has(name)) return `the manifest does not list ${name}`;
  for (const [name, digest] of listed) {
    const text = files.get(name);
    if (text === undefined) return `the file ${name} is missing`;
    if (toHex(await sha256(toBytes(text))) !== digest)
      return `the file ${name} is not what the manifest lists`;
  }
  for (const name of files.keys())
    if (!listed.has(name) && name !== 'manifest.json' && name !== 'verify.html')
      return `the file ${name} is not listed in the manifest`;
  return '';
}

/** What the manifest says of the log is what the checkpoint says. */
export function problemOfHead(manifest: PackManifest, head: Head): string {
  const root = fromBase64(manifest.log.root);
  return manifest.origin === head.origin &&
    manifest.log.size === head.size &&
    root !== undefined &&
    isSame(root, head.root)
    ? ''
    : 'the manifest tells another log than the checkpoint';
}

/** The log goes on from the older checkpoint. */
export async function problemOfSince(
  files: PackFiles,
  manifest: PackManifest,
  key: PackKey,
  head: Head | { readonly problem: string },
): Promise<string> {
  if (manifest.since === null || 'problem' in head) return '';
  const older = await openPackCheckpoint(files.get('since.checkpoint') ?? '', key);
  if ('problem' in older) return `of the older checkpoint: ${older.problem}`;
  if (older.size !== manifest.since.size) return 'the older checkpoint is not the one of the manifest';
  const text = files.get('since.proof') ?? '';
  const path = text === '' ? [] : text.replace(/\n$/, '').split('\n').map(fromBase64);
  const hashes = path.filter((hash) => hash?.length === 32) as readonly Uint8Array[];
  return hashes.length === path.length && (await isBeginning(older, head, hashes))
    ? ''
    : 'the log does not begin with the entries of the older checkpoint: history was rewritten';
}

/** Every record is of the window, of a type that was asked for, under the checkpoint, and what its hash was made of. */
export async function problemOfPopulation(
  records: readonly PackRecord[] | undefined,
  { window, log, population }: PackManifest,
): Promise<string> {
  if (records === undefined) return 'population.jsonl has a line that is no record, or is out of order';
  const byType = new Map<string, number>();
  const wrong = await problemOfRecords(records, log.size);
  if (wrong !== '') return wrong;
  for (const record of records) {
    const event = readEvent(record.leaf);
    if (event === undefined) return `entry ${record.index} is not JSON`;
    if (!population.types.includes(event.type))
      return `entry ${record.index} is of a type that was not asked for`;
    if (event.time < window.from || event.time >= window.until)
      return `entry ${record.index} is not of the window`;
    byType.set(event.type, (byType.get(event.type) ?? 0) + 1);
  }
  const told = new Map(Object.entries(population.byType));
  const agrees =
    records.length === population.records &&
    told.size === byType.size &&
    [...byType].every(([type, count]) => told.get(type) === count);
  return agrees ? '' : `there are ${records.length} records, and the manifest tells other numbers`;
}

/** Each record is what its hash was made of, and has a place under the checkpoint. */
export async function problemOfRecords(records: readonly PackRecord[], size: number): Promise<string> {
  const hashes = await forEach(records, async ({ leaf }) => toHex(await hashLeaf(toBytes(leaf))));
  for (const [at, { index, leafHash }] of records.entries()) {
    if (index >= size) return `entry ${index} is not under the checkpoint`;
    if (hashes[at] !== leafHash) return `entry ${index} is not what its hash was made of`;
  }
  return '';
}

/** Each that was drawn has a proof of its own, c2sp.org/tlog-proof, under the checkpoint of the pack. */
export async function problemOfProofs(
  files: PackFiles,
  drawn: readonly PackRecord[],
  head: Head,
): Promise<string> {
  const names = new Set(drawn.map(({ index }) => `proofs/${index}.tlog-proof`));
  for (const name of files.keys())
    if (name.startsWith('proofs/') && !names.has(name)) return `${name} is of a record that was not drawn`;
  for (const { index, leafHash, leaf } of drawn) {
    const name = `proofs/${index}.tlog-proof`;
    const text = files.get(name);
    if (text === undefined) return `${name} is missing`;
    const end = text.indexOf('\n\n');
    const [first, extra = '', place, ...path] = text.slice(0, Math.max(0, end)).split('\n');
    const held = fromBase64(extra.replace(/^extra /, ''));
    if (first !== 'c2sp.org/tlog-proof@v1' || place !== `index ${index}` || held === undefined)
      return `${name} is not the proof of entry ${index}`;
    if (text.slice(end + 2) !== files.get('checkpoint')) return `${name} is under another checkpoint`;
    const hashes = path.map(fromBase64).filter((hash) => hash?.length === 32) as readonly Uint8Array[];
    const hash = await hashLeaf(held);
    const root = await rootOfPath(index, head.size, hash, hashes);
    if (hashes.length !== path.length || hashes.length > 63 || root === undefined || !isSame(root, head.root))
      return `${name} does not lead to the root: entry ${index} is not in the log`;
    if (toHex(hash) !== leafHash || !isSame(held, toBytes(leaf)))
      return `${name} proves another record than the population has as entry ${index}`;
  }
  return '';
}

/** The records that tell of losses, starts and stops are whole, and those of the population are among them. */
export async function problemOfCoverage(
  records: readonly PackRecord[] | undefined,
  population: readonly PackRecord[],
  { log, coverage }: PackManifest,
): Promise<string> {
  if (records === undefined) return 'coverage.jsonl has a line that is no record, or is out of order';
  const found = { losses: 0, lost: 0, starts: 0, stops: 0 };
  const known = new Map<number, string>();
  const wrong = await problemOfRecords(records, log.size);
  if (wrong !== '') return wrong;
  for (const record of records) {
    const event = readEvent(record.leaf);
    if (event === undefined) return `entry ${record.index} is not JSON`;
    known.set(record.index, record.leafHash);
    if (event.type === 'loss') {
      found.losses++;
      found.lost += event.count;
    } else if (event.type === 'lifecycle' && event.action === 'started') found.starts++;
    else if (event.type === 'lifecycle' && event.action === 'stopped') found.stops++;
    // What else tells of gaps: a restore, and contents that are kept no longer.
    else if (event.type !== 'lifecycle' && event.type !== 'retention')
      return `entry ${record.index} of coverage.jsonl tells of no loss, start or stop`;
  }
  for (const { index, leafHash, leaf } of population) {
    const type = readEvent(leaf)?.type;
    if ((type === 'loss' || type === 'lifecycle') && known.get(index) !== leafHash)
      return `entry ${index} tells of the coverage, and is missing in coverage.jsonl`;
  }
  return found.losses === coverage.losses &&
    found.lost === coverage.lost &&
    found.starts === coverage.starts &&
    found.stops === coverage.stops
    ? ''
    : 'the manifest tells another coverage than the records';
}
