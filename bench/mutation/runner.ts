// One of the processes that try mutants: `runner.ts <sandbox>`, ids by lines of standard input. Writes a line of JSON for
// each: what noticed it, or that nothing did. With an id as second argument that one alone is tried, from the start on.
import { readFileSync } from 'node:fs';
import { registerHooks } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { Collected } from './vitest.ts';

const [sandbox = '', fromTheStart] = process.argv.slice(2);
const replaced = new Map(
  ['vitest', 'fast-check'].map((name) => [name, pathToFileURL(join(import.meta.dirname, `${name}.ts`)).href]),
);
registerHooks({
  resolve: (specifier, context, next) => next(replaced.get(specifier) ?? specifier, context),
});

/** What the switches of the instrumenter read and write. */
type Switches = {
  activeMutant?: string | undefined;
  currentTestId?: string | undefined;
  hitCount?: number | undefined;
  hitLimit?: number | undefined;
  mutantCoverage?: {
    readonly static: Readonly<Record<string, number>>;
    readonly perTest: Readonly<Record<string, Readonly<Record<string, number>>>>;
  };
};
const switches: Switches = ((globalThis as { __stryker__?: Switches }).__stryker__ ??= {});

// Some tests say what they met, and the lines of this process are for its parent.
console.log = () => undefined;

if (fromTheStart !== undefined) {
  switches.activeMutant = fromTheStart;
  // A module that cannot be loaded is noticed by everybody.
  process.once('uncaughtException', () => tell(fromTheStart, 'the start'));
}

const { collected } = (await import('./vitest.ts')) as { readonly collected: readonly Collected[] };
const tests = JSON.parse(readFileSync(join(import.meta.dirname, 'tests.json'), 'utf8')) as {
  readonly files: readonly string[];
  readonly leftOut: readonly string[];
};
for (const file of tests.files) await import(pathToFileURL(join(sandbox, file)).href);
const chosen = collected.filter(({ name }) => !tests.leftOut.some((text) => name.includes(text)));

async function fails({ run }: Collected): Promise<boolean> {
  try {
    await run();
    return false;
  } catch {
    return true;
  }
}

function tell(id: string, by: string | null): never {
  process.stdout.write(`${JSON.stringify({ id, by, isCovered: true })}\n`);
  process.exit(0);
}

if (fromTheStart !== undefined) {
  for (const one of chosen) if (await fails(one)) tell(fromTheStart, one.name);
  tell(fromTheStart, null);
}

// Once without any change: how long each takes, and which places it comes by.
const tookMs = new Map<string, number>();
for (const one of chosen) {
  switches.currentTestId = one.name;
  const startMs = performance.now();
  if (await fails(one)) throw new Error(`fails without a change: ${one.name}`);
  tookMs.set(one.name, performance.now() - startMs);
}
switches.currentTestId = undefined;
const coverage = switches.mutantCoverage?.perTest ?? {};
// From now on nothing is counted: the counting costs more than the tests.
const byMutant = new Map<string, { readonly test: Collected; readonly hits: number }[]>();
for (const test of chosen.toSorted((a, b) => (tookMs.get(a.name) ?? 0) - (tookMs.get(b.name) ?? 0))) {
  for (const [id, hits] of Object.entries(coverage[test.name] ?? {})) {
    const known = byMutant.get(id) ?? [];
    byMutant.set(id, known);
    known.push({ test, hits });
  }
}
const atLoad = new Set(Object.keys(switches.mutantCoverage?.static ?? {}));
process.stdout.write(`${JSON.stringify({ tests: chosen.length })}\n`);

for (const id of readFileSync(0, 'utf8').split('\n').filter(Boolean)) {
  process.stdout.write(`${JSON.stringify({ id, begins: true })}\n`);
  let by: string | null = null;
  let isSpoilt = false;
  const covering = byMutant.get(id) ?? [];
  for (const { test, hits } of covering) {
    switches.activeMutant = id;
    switches.hitCount = 0;
    // What turns more often than this does not end by itself.
    switches.hitLimit = hits * 100 + 10_000;
    const failed = await fails(test);
    switches.activeMutant = undefined;
    if (!failed) continue;
    by = test.name;
    // A change may have left something behind that fails whatever comes after: then nothing more is proven here.
    isSpoilt = await fails(test);
    break;
  }
  process.stdout.write(
    `${JSON.stringify({ id, by, isCovered: covering.length > 0, isAtLoad: atLoad.has(id), isSpoilt })}\n`,
  );
  if (isSpoilt) process.exit(0);
}
