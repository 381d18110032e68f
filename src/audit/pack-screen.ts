import type { PackFiles, PackReport } from './pack-manifest.ts';
import { verifyPack } from './pack-verifier.ts';

// The page of a pack has these functions as their own text: see pack-primitives.ts.

/** As much of an element of a page as the page of a pack uses. */
export type PageElement = {
  textContent: string | null;
  value: string;
  className: string;
  hidden: boolean;
  readonly files: ArrayLike<PageFile> | null;
  readonly append: (...children: readonly PageElement[]) => void;
  readonly addEventListener: (kind: string, listener: () => void) => void;
};

/** A file that was chosen. */
export type PageFile = {
  readonly name: string;
  readonly webkitRelativePath: string;
  readonly arrayBuffer: () => Promise<ArrayBuffer>;
};

/** As much of a document as the page uses. */
export type Page = {
  readonly getElementById: (id: string) => PageElement | null;
  readonly createElement: (name: string) => PageElement;
};

/**
 * Brings the page of a pack to life. What a pack holds is shown as text, whatever it is: nothing here makes elements of it.
 */
export async function startPage(page: Page): Promise<void> {
  let files = readEmbedded(elementOf(page, 'pack').textContent ?? '');
  let turns = 0;
  const verify = async (): Promise<void> => {
    const turn = ++turns;
    show(page, 'verifying', '');
    if (!(await canVerify()))
      return show(page, 'NOT VERIFIED: this browser lacks Ed25519. Use one of 2025 or later.', 'bad');
    if (files.size === 0) return show(page, 'NO PACK: choose the directory of one.', 'open');
    try {
      const report = await verifyPack(files, elementOf(page, 'key').value.trim());
      // Whoever has asked again meanwhile waits for another answer.
      if (turn === turns) showReport(page, report);
    } catch (error) {
      if (turn === turns) show(page, `NOT VERIFIED: ${String(error)}`, 'bad');
    }
  };
  elementOf(page, 'verify').addEventListener('click', () => void verify());
  elementOf(page, 'directory').addEventListener('change', () => {
    const chosen = Array.from(elementOf(page, 'directory').files ?? []);
    void readChosen(chosen).then((read) => {
      files = read;
      return verify();
    });
  });
  await verify();
}

/** The element with this ID, which the page has. */
export function elementOf(page: Page, id: string): PageElement {
  const found = page.getElementById(id);
  if (found === null) throw new Error(`the page has no ${id}`);
  return found;
}

/** Whether the browser can do what verifying takes. */
export async function canVerify(): Promise<boolean> {
  try {
    // The base point of the curve, which is a key like any other.
    const key = new Uint8Array(32).fill(0x66);
    key[0] = 0x58;
    await crypto.subtle.importKey('raw', key, 'Ed25519', false, ['verify']);
    return true;
  } catch {
    return false;
  }
}

/** The files that the page itself has, as JSON. */
export function readEmbedded(text: string): PackFiles {
  const value: unknown = text.trim() === '' ? {} : JSON.parse(text);
  const files = new Map<string, string>();
  for (const [name, content] of Object.entries(value ?? {}))
    if (typeof content === 'string') files.set(name, content);
  return files;
}

/** The files of a directory that was chosen, by their names below it. */
export async function readChosen(chosen: readonly PageFile[]): Promise<PackFiles> {
  const files = new Map<string, string>();
  for (const file of chosen) {
    const path = file.webkitRelativePath === '' ? file.name : file.webkitRelativePath.replace(/^[^/]*\//, '');
    // A byte order mark would be one byte too few for the hash.
    files.set(path, new TextDecoder('utf-8', { ignoreBOM: true }).decode(await file.arrayBuffer()));
  }
  return files;
}

/** Shows the verdict alone. */
export function show(page: Page, words: string, kind: string): void {
  elementOf(page, 'verdict').textContent = words;
  elementOf(page, 'verdict').className = kind;
  for (const id of ['checks', 'facts', 'sample', 'coverage']) elementOf(page, id).textContent = '';
}

/** Shows what was found. */
export function showReport(page: Page, { verdict, checks, manifest, sample, coverage }: PackReport): void {
  const failed = checks.filter(({ ok }) => !ok).length;
  if (verdict === 'proven')
    show(page, `PROVEN: all ${checks.length} checks passed, under the key that you gave.`, 'good');
  else if (verdict === 'unkeyed')
    show(
      page,
      `NOT PROVEN YET: all ${checks.length} checks passed, but only under the key that the pack itself names. Paste the key that you have from elsewhere.`,
      'open',
    );
  else show(page, `WRONG: ${failed} of ${checks.length} checks failed.`, 'bad');
  addRows(
    page,
    'checks',
    checks.map(({ name, ok, words }) => [ok ? '√ passed' : '× FAILED', name, words]),
  );
  if (manifest === null) return;
  const { origin, key, window, log, population, calls, sample: drawn, since, madeAt } = manifest;
  const byProxies = calls?.byProxies;
  const more =
    byProxies === undefined
      ? ''
      : `; by proxies themselves, as they tell: ${byProxies.allowed} allowed, ${byProxies.denied} denied`;
  const counted =
    calls === null
      ? 'listed, or not in this pack'
      : `${calls.allowed} allowed, ${calls.denied} denied${more}`;
  addRows(page, 'facts', [
    ['log', origin],
    ['key that the pack names', key],
    ['window', `from ${window.from}, before ${window.until}`],
    ['entries under the checkpoint', String(log.size)],
    ['older checkpoint', since === null ? 'none was given' : `${since.size} entries`],
    ['population', `${population.records} records of: ${population.types.join(', ')}`],
    ['sample', `${drawn.indexes.length} with the seed ${drawn.seed}: ${drawn.algorithm}`],
    ['stated, not proven: calls', counted],
    ['stated, not proven: made at', madeAt],
  ]);
  const rows = (records: PackReport['sample']) => records.map(({ index, leaf }) => [String(index), leaf]);
  addRows(page, 'sample', rows(sample));
  addRows(page, 'coverage', rows(coverage.slice(0, 1_000)));
}

/** Adds rows of text to the body of a table. */
export function addRows(page: Page, id: string, rows: readonly (readonly string[])[]): void {
  for (const cells of rows) {
    const row = page.createElement('tr');
    for (const text of cells) {
      const cell = page.createElement('td');
      cell.textContent = text;
      row.append(cell);
    }
    elementOf(page, id).append(row);
  }
}
