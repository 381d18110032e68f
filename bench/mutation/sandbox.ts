import { cpSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** One change of one place, as the instrumenter made it. */
export type Mutant = {
  readonly id: string;
  /** `src/authz/match.ts`. */
  readonly file: string;
  /** From 1. */
  readonly line: number;
  readonly column: number;
  /** `EqualityOperator`. */
  readonly kind: string;
  readonly replacement: string;
  /** The line of the source that it is in, trimmed. */
  readonly text: string;
};

/** The parts of StrykerJS's instrumenter that are used. */
type Instrument = (
  files: readonly { readonly name: string; readonly content: string; readonly mutate: boolean }[],
  options: object,
) => Promise<{
  readonly files: readonly { readonly name: string; readonly content: string }[];
  readonly mutants: readonly {
    readonly id: string;
    readonly fileName: string;
    readonly mutatorName: string;
    readonly replacement: string;
    readonly status?: string;
    readonly location: { readonly start: { readonly line: number; readonly column: number } };
  }[];
}>;

/**
 * Copies sources and tests, and writes every mutant into the copy, each behind a switch: StrykerJS's own form, one copy for
 * all of them. Texts are left as they are: what they say is held by tests of what people read.
 */
export async function makeSandbox(
  root: string,
  directory: string,
  files: readonly string[],
): Promise<readonly Mutant[]> {
  rmSync(directory, { recursive: true, force: true });
  mkdirSync(directory, { recursive: true });
  for (const part of ['src', 'test', 'bench', 'package.json']) {
    const filter = (path: string): boolean => !path.includes('node_modules');
    cpSync(join(root, part), join(directory, part), { recursive: true, filter });
  }
  symlinkSync(join(root, 'node_modules'), join(directory, 'node_modules'));
  const sources = files.map((name) => ({
    name,
    content: readFileSync(join(root, name), 'utf8'),
    mutate: true,
  }));
  const instrumenter = await loadInstrumenter();
  const made = await instrumenter.instrument(sources, {
    plugins: null,
    ignorers: [],
    excludedMutations: ['StringLiteral'],
  });
  for (const { name, content } of made.files) writeFileSync(join(directory, name), content);
  const lines = new Map(sources.map(({ name, content }) => [name, content.split('\n')]));
  const wanted = made.mutants.filter(({ status }) => status !== 'Ignored');
  return wanted.map(({ id, fileName, mutatorName, replacement, location: { start } }) => ({
    id,
    file: fileName,
    line: start.line + 1,
    column: start.column + 1,
    kind: mutatorName,
    replacement,
    text: (lines.get(fileName)?.[start.line] ?? '').trim(),
  }));
}

async function loadInstrumenter(): Promise<{ readonly instrument: Instrument }> {
  // Installed beside this file, when a run needs it.
  const place = join(import.meta.dirname, 'node_modules', '@stryker-mutator', 'instrumenter', 'dist', 'src');
  const { Instrumenter } = (await import(join(place, 'index.js'))) as {
    Instrumenter: new (...parts: readonly unknown[]) => { readonly instrument: Instrument };
  };
  const [parsers, transformers, printers] = (await Promise.all(
    ['parsers', 'transformers', 'printers'].map((name) => import(join(place, name, 'index.js'))),
  )) as [{ createParser: unknown }, { transform: unknown }, { print: unknown }];
  const log = () => undefined;
  const logger = new Proxy({}, { get: () => log });
  return new Instrumenter(logger, parsers.createParser, printers.print, transformers.transform);
}
