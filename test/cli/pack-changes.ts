import { expect } from 'vitest';
import { leafHash } from '../../src/audit/leaf.ts';
import type { PackFiles, PackManifest } from '../../src/audit/pack-manifest.ts';
import { makeLogFiles, someEntries } from '../audit/log-files.ts';

export type Change = (files: Map<string, string>, plan: { manifest: PackManifest }) => void;

/** Changes of a pack by somebody who then writes the digests of the manifest anew, and what is found of each. */
export const changes: readonly (readonly [string, Change, RegExp])[] = [
  [
    'a field of a record',
    (files) => edit(files, 'population.jsonl', /"admin"/, '"guest"'),
    /population: entry \d+ is not what its hash/,
  ],
  ['a record and its hash', rehash, /proofs: .* proves another record/],
  [
    'a record left out',
    (files) => edit(files, 'population.jsonl', /^.*\n/, ''),
    /population: there are 36 records, and the manifest tells/,
  ],
  [
    'a record left out, and the numbers',
    (files, { manifest }) => leaveOut(files, manifest, manifest.sample.indexes[0]!),
    /sample: the sample is not what this seed draws/,
  ],
  [
    'two records in the other order',
    (files) => edit(files, 'population.jsonl', /^(.*\n)(.*\n)/, '$2$1'),
    /population\.jsonl has a line that is no record, or is out of order/,
  ],
  ['a record twice', (files) => edit(files, 'population.jsonl', /^(.*\n)/, '$1$1'), /out of order/],
  [
    'a line that is none',
    (files) => edit(files, 'population.jsonl', /^/, '{}\n'),
    /a line that is no record/,
  ],
  ['no last line break', (files) => edit(files, 'population.jsonl', /\n$/, ''), /a line that is no record/],
  [
    'a record beyond the log',
    (files) => edit(files, 'population.jsonl', /\{"index":\d+(.*\n)$/, '{"index":99999$1'),
    /entry 99999 is not under the checkpoint/,
  ],
  [
    'a byte order mark',
    (files) => edit(files, 'population.jsonl', /^/, '\ufeff'),
    /a line that is no record/,
  ],
  [
    'the window',
    (_, plan) => patch(plan, { window: { ...plan.manifest.window, until: '2026-01-31T00:00:00.000Z' } }),
    /is not of the window/,
  ],
  [
    'the types',
    (_, plan) => patch(plan, { population: { ...plan.manifest.population, types: ['ban'] } }),
    /of a type that was not asked for/,
  ],
  [
    'the numbers',
    (_, plan) => patch(plan, { population: { ...plan.manifest.population, records: 30 } }),
    /the manifest tells other numbers/,
  ],
  [
    'the seed',
    (_, plan) => patch(plan, { sample: { ...plan.manifest.sample, seed: 'q2' } }),
    /not what this seed draws/,
  ],
  [
    'a sample that is smaller',
    (_, plan) =>
      patch(plan, { sample: { ...plan.manifest.sample, indexes: plan.manifest.sample.indexes.slice(1) } }),
    /not what this seed draws/,
  ],
  [
    'a proof away',
    (files, { manifest }) => void files.delete(proofOf(manifest, 0)),
    /proofs\/\d+\.tlog-proof is missing/,
  ],
  [
    'a proof too many',
    (files, { manifest }) => void files.set('proofs/0.tlog-proof', files.get(proofOf(manifest, 0))!),
    /is of a record that was not drawn/,
  ],
  [
    'two proofs',
    (files, { manifest }) => swap(files, proofOf(manifest, 0), proofOf(manifest, 1)),
    /is not the proof of entry/,
  ],
  [
    'a hash of a path',
    (files, { manifest }) => editPath(files, proofOf(manifest, 0)),
    /does not lead to the root/,
  ],
  [
    'a longer path',
    (files, { manifest }) => edit(files, proofOf(manifest, 0), /(index \d+\n)(.*\n)/, '$1$2$2'),
    /does not lead to the root/,
  ],
  [
    'the checkpoint of a proof',
    (files, { manifest }) =>
      edit(files, proofOf(manifest, 0), /\n\n[^]*$/, `\n\n${makeLogFiles(someEntries(9)).note}`),
    /under another checkpoint/,
  ],
  [
    'the checkpoint',
    (files) => void files.set('checkpoint', makeLogFiles(someEntries(900)).note),
    /checkpoint: the manifest tells another log/,
  ],
  [
    'the size that is signed',
    (files) => edit(files, 'checkpoint', /\n3\d\d\n/, '\n999\n'),
    /checkpoint: its signature is wrong/,
  ],
  [
    'the signature away',
    (files) => edit(files, 'checkpoint', /— .*\n$/, ''),
    /checkpoint: it is no signed note/,
  ],
  [
    'the size of the log',
    (_, plan) => patch(plan, { log: { ...plan.manifest.log, size: 9 } }),
    /tells another log than the checkpoint/,
  ],
  [
    'the older checkpoint',
    (files) => void files.set('since.checkpoint', makeLogFiles(someEntries(17)).note),
    /older checkpoint: the/,
  ],
  ['the path from the older one', (files) => void files.set('since.proof', ''), /history was rewritten/],
  [
    'a loss',
    (files) => edit(files, 'coverage.jsonl', /.*"loss".*\n/, ''),
    /coverage: entry \d+ tells of the coverage, and is missing/,
  ],
  [
    'the number of losses',
    (_, plan) => patch(plan, { coverage: { ...plan.manifest.coverage, lost: 0 } }),
    /coverage: the manifest tells another coverage/,
  ],
  [
    'a file that is not listed',
    (files) => void files.set('notes.txt', ''),
    /files: the file notes\.txt is not listed/,
  ],
  ['the manifest', (_, plan) => patch(plan, { format: 'countersign-audit-pack/2' as never }), /manifest: /],
  [
    'a seed of another kind',
    (_, plan) => patch(plan, { sample: { ...plan.manifest.sample, seed: '' } }),
    /manifest: /,
  ],
];

function edit(files: Map<string, string>, name: string, what: RegExp, by: string): void {
  const before = files.get(name)!;
  const after = before.replace(what, by);
  expect(after).not.toBe(before);
  files.set(name, after);
}

function patch(plan: { manifest: PackManifest }, change: Partial<PackManifest>): void {
  plan.manifest = { ...plan.manifest, ...change };
}

function proofOf({ sample }: PackManifest, at: number): string {
  return `proofs/${sample.indexes[at]}.tlog-proof`;
}

function swap(files: Map<string, string>, a: string, b: string): void {
  const [one, other] = [files.get(a)!, files.get(b)!];
  files.set(a, other).set(b, one);
}

function editPath(files: Map<string, string>, name: string): void {
  edit(files, name, /(index \d+\n).{43}=/, `$1${Buffer.alloc(32, 7).toString('base64')}`);
}

export function lines(files: PackFiles): readonly string[] {
  return files.get('population.jsonl')!.split('\n').slice(0, -1);
}

export function indexOf(line: string): number {
  return Number(/^\{"index":(\d+)/.exec(line)![1]);
}

/** A sampled record is another, and its hash fits. */
function rehash(files: Map<string, string>, { manifest }: { manifest: PackManifest }): void {
  const changed = lines(files).map((line) => {
    if (indexOf(line) !== manifest.sample.indexes[0]) return line;
    const leaf = /"event":(.*)\}$/.exec(line)![1]!.replace('"type":', '"tampered":1,"type":');
    const digest = Buffer.from(leafHash(Buffer.from(leaf))).toString('hex');
    return `{"index":${indexOf(line)},"leafHash":"${digest}","event":${leaf}}`;
  });
  files.set('population.jsonl', changed.map((line) => `${line}\n`).join(''));
}

/** A record is gone, and the numbers of the manifest say so. */
export function leaveOut(files: Map<string, string>, manifest: PackManifest, index: number): void {
  const left = lines(files).filter((line) => indexOf(line) !== index);
  const gone = lines(files).find((line) => indexOf(line) === index)!;
  files.set('population.jsonl', left.map((line) => `${line}\n`).join(''));
  const type = /"type":"(\w+)"/.exec(gone)![1]!;
  const { byType } = manifest.population;
  Object.assign(manifest.population, {
    records: left.length,
    byType: Object.fromEntries(
      Object.entries(byType)
        .map(([name, count]) => [name, name === type ? count - 1 : count] as const)
        .filter(([, count]) => count > 0),
    ),
  });
}
