// How many mechanical changes of the policy engine its tests notice: every operator and branch of the files below is
// changed by StrykerJS's instrumenter, one at a time, and the tests that come by are run. Name files to look at some:
// `npm run bench -- mutation match rule-index`; `--sample 500` tries so many of all, drawn with a fixed seed. Ctrl-C reports
// what was tried until then. What nobody could notice is in mutation/survivors.json, with the reason.
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { createHash } from 'node:crypto';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { createInterface } from 'node:readline';
import { makeSandbox, type Mutant } from './mutation/sandbox.ts';
import { printReport } from './report.ts';

/** What decides a call, or makes the call that is decided. Not the naive evaluator: it is what the others are held to. */
const evaluator = [
  ...[
    'answers',
    'attachment',
    'cidr',
    'decide',
    'facts',
    'filing',
    'glass',
    'header-alias',
    'header-line',
    'host',
  ],
  ...['match', 'nearest', 'normalized-path', 'path', 'path-template', 'prefix-tree', 'request', 'rule-index'],
  ...['snapshot', 'string-match', 'istio-match', 'istio-mode', 'istio-rules', 'istio-snapshot'],
];
const leastScore = 0.95;
/** A change that neither fails nor ends for so long is taken for noticed: a test would run into its own limit. */
const stuckMs = 60_000;

const root = join(import.meta.dirname, '..');
const own = join(import.meta.dirname, 'mutation');
const sandbox = join(root, '.tool', 'mutation');

const { positionals: named, values } = parseArgs({
  allowPositionals: true,
  options: { sample: { type: 'string' } },
});
const unknown = named.filter((name) => !existsSync(join(root, 'src', 'authz', `${name}.ts`)));
if (unknown.length > 0) {
  console.error(`src/authz has no ${unknown.map((name) => `${name}.ts`).join(', ')}`);
  process.exit(64);
}

if (!existsSync(join(own, 'node_modules'))) {
  const quiet = ['--no-audit', '--no-fund', '--ignore-scripts', '--loglevel=error'];
  execFileSync('npm', ['ci', ...quiet, '--prefix', own], { stdio: 'inherit' });
}
const files = (named.length > 0 ? named : evaluator).map((name) => `src/authz/${name}.ts`);
const all = await makeSandbox(root, sandbox, files);
const sample = Number(values.sample ?? all.length);
// The same ones each time, whatever else there is.
const mutants = all.toSorted((a, b) => (rankOf(a) < rankOf(b) ? -1 : 1)).slice(0, sample);

type Outcome = {
  readonly id: string;
  readonly by: string | null;
  readonly isCovered: boolean;
  /** It is in what a module does when it is loaded: a switch thrown later changes nothing. */
  readonly isAtLoad: boolean;
};
const outcomes = new Map<string, Outcome | 'stuck'>();
const lanes = Math.max(1, availableParallelism());
const shares = Array.from({ length: lanes }, (_, lane) =>
  mutants.filter((_one, i) => i % lanes === lane).map(({ id }) => id),
);
let isOver = false;
const children = new Set<ChildProcess>();
process.once('SIGINT', () => {
  isOver = true;
  for (const child of children) child.kill('SIGKILL');
});
await Promise.all(shares.map(tryAll));
await Promise.all(shares.map(tryFromTheStart));
report(mutants.filter(({ id }) => outcomes.has(id)));

function rankOf({ file, line, column, kind, replacement }: Mutant): string {
  const text = JSON.stringify([file, line, column, kind, replacement]);
  return createHash('sha256').update(text).digest('hex');
}

/** Goes on in a new process after each that got stuck, or was left in a state that proves nothing. */
async function tryAll(ids: readonly string[]): Promise<void> {
  let left = ids;
  while (left.length > 0 && !isOver) {
    const before = left.length;
    const child = spawn(process.execPath, [join(own, 'runner.ts'), sandbox], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    child.stdin.end(left.join('\n'));
    children.add(child);
    await follow(child);
    children.delete(child);
    left = left.filter((id) => !outcomes.has(id));
    if (left.length === before && !isOver) throw new Error('no change was tried: see above');
  }
}

/** Those that no test noticed because the place had been passed when the first of them ran: one process each. */
async function tryFromTheStart(ids: readonly string[]): Promise<void> {
  for (const id of ids) {
    const outcome = outcomes.get(id);
    if (isOver || outcome === undefined || outcome === 'stuck') continue;
    if (outcome.by !== null || !outcome.isAtLoad) continue;
    const child = spawn(process.execPath, [join(own, 'runner.ts'), sandbox, id], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    children.add(child);
    await follow(child);
    children.delete(child);
  }
}

async function follow(child: ChildProcess): Promise<void> {
  let current: string | undefined;
  const giveUp = (): void => {
    if (current !== undefined && !isOver) outcomes.set(current, 'stuck');
    child.kill('SIGKILL');
  };
  // Without a change all tests are run once, before the first is tried.
  let watch = setTimeout(giveUp, 10 * stuckMs);
  const ended = once(child, 'exit');
  for await (const line of createInterface({ input: child.stdout! })) {
    const said = JSON.parse(line) as Partial<Outcome> & { readonly begins?: true; readonly tests?: number };
    clearTimeout(watch);
    watch = setTimeout(giveUp, stuckMs);
    if (said.id === undefined) continue;
    current = said.id;
    if (said.begins === true) continue;
    outcomes.set(said.id, {
      id: said.id,
      by: said.by ?? null,
      isCovered: said.isCovered === true,
      isAtLoad: said.isAtLoad === true,
    });
    current = undefined;
    if (outcomes.size % 100 === 0) console.error(`${outcomes.size} of ${mutants.length}`);
  }
  await ended;
  clearTimeout(watch);
}

type Survivor = { readonly file: string; readonly text: string; readonly to: string; readonly why: string };

function report(tried: readonly Mutant[]): void {
  const listed = JSON.parse(readFileSync(join(own, 'survivors.json'), 'utf8')) as readonly Survivor[];
  const survivors = tried.filter(({ id }) => {
    const outcome = outcomes.get(id);
    return outcome !== 'stuck' && outcome?.by === null;
  });
  // By the text of the line: its number moves with every edit above it.
  const isListed = ({ file, text, replacement }: Mutant): boolean =>
    listed.some((one) => one.file === file && one.text === text && one.to === replacement);
  const unlisted = survivors.filter((one) => !isListed(one));
  for (const { id, file, line, column, kind, replacement, text } of unlisted) {
    const outcome = outcomes.get(id);
    const covered =
      outcome === undefined || outcome === 'stuck' || outcome.isCovered ? '' : ' (no test comes by)';
    console.log(
      `${file}:${line}:${column}  ${kind}${covered}\n    ${text}\n    to ${replacement.replace(/\s+/g, ' ')}`,
    );
  }
  const noticed = tried.length - survivors.length;
  const stuck = [...outcomes.values()].filter((one) => one === 'stuck').length;
  const score = noticed / tried.length;
  printReport(
    'mutation',
    [
      { name: 'files', value: files.length, unit: '' },
      { name: 'mutants', value: all.length, unit: '' },
      { name: 'tried', value: tried.length, unit: '' },
      { name: 'noticed', value: noticed, unit: '' },
      { name: 'of these, did not end', value: stuck, unit: '' },
      { name: 'survived, with a reason', value: survivors.length - unlisted.length, unit: '' },
      { name: 'survived, without', value: unlisted.length, unit: '' },
      { name: `score (at least ${leastScore * 100})`, value: score * 100, unit: '%' },
    ],
    {
      mutants: all.length,
      tried: tried.length,
      noticed,
      stuck,
      survived: survivors.length,
      unlisted: unlisted.length,
      score,
    },
  );
  if (score < leastScore) process.exitCode = 1;
}
