import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, constants, fstatSync, openSync, readFileSync } from 'node:fs';
import { quote } from '../errors.ts';

/** How those who read the files are told that they changed. */
export type Hook =
  /** A program with its arguments; no shell reads them. */
  | { readonly kind: 'run'; readonly argv: readonly [string, ...string[]] }
  /** A signal to the process whose id a file holds. */
  | { readonly kind: 'signal'; readonly pidFile: string; readonly signal: HookSignal };

export const hookSignals = ['HUP', 'USR1', 'USR2'] as const;
export type HookSignal = (typeof hookSignals)[number];

export type HookOutcome = {
  readonly ok: boolean;
  /** What went wrong, for an operator; empty when nothing did. */
  readonly why: string;
  /** The end of what it wrote to standard output and standard error; at most 2,000 characters. */
  readonly output: string;
  readonly tookMs: number;
};

/**
 * Tells them, once. A program gets no standard input, a process group of its own and `timeoutMs`; then the whole group is
 * killed. It never throws.
 */
export async function runHook(
  hook: Hook,
  timeoutMs: number,
  environment: Readonly<Record<string, string | undefined>>,
): Promise<HookOutcome> {
  const startedAt = performance.now();
  const { why, output } =
    hook.kind === 'signal'
      ? { why: sendSignal(hook.pidFile, hook.signal), output: '' }
      : await runProgram(hook.argv, timeoutMs, environment);
  return { ok: why === '', why, output, tookMs: Math.round(performance.now() - startedAt) };
}

/** Runs hooks so that of equal ones never two run at once: two outputs may well reload the same server. */
export function createTurns(): (hook: Hook, run: () => Promise<HookOutcome>) => Promise<HookOutcome> {
  const last = new Map<string, Promise<unknown>>();
  return async (hook, run) => {
    const key = JSON.stringify(hook);
    const turn = (last.get(key) ?? Promise.resolve()).then(run);
    last.set(key, turn);
    return turn;
  };
}

async function runProgram(
  [program, ...args]: readonly [string, ...string[]],
  timeoutMs: number,
  environment: Readonly<Record<string, string | undefined>>,
): Promise<{ why: string; output: string }> {
  let output = '';
  const collect = (chunk: Buffer): void => {
    output = (output + chunk.toString('utf8')).slice(-maxOutput);
  };
  let child: ChildProcess;
  try {
    child = spawn(program, args, {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: environment,
      cwd: '/',
      detached: true,
    });
  } catch (error) {
    return { why: whyNotStarted(program, error), output };
  }
  child.stdout?.on('data', collect);
  child.stderr?.on('data', collect);
  const why = await new Promise<string>((resolve) => {
    let isLate = false;
    const timer = setTimeout(() => {
      isLate = true;
      killGroup(child);
    }, timeoutMs);
    const done = (text: string): void => {
      clearTimeout(timer);
      resolve(text);
    };
    child.once('error', (error) => done(whyNotStarted(program, error)));
    // Not `close`: a process that the hook left in the background may hold the pipes for ever.
    child.once('exit', (code, signal) => {
      if (isLate) done(`${quote(program)} did not end within ${timeoutMs / 1_000} s and was killed`);
      else if (code === 0) done('');
      else done(`${quote(program)} ended with ${signal ?? `exit code ${code}`}`);
    });
  });
  // What it wrote last is on its way.
  await new Promise((resolve) => setTimeout(resolve, lastWordsMs));
  child.stdout?.destroy();
  child.stderr?.destroy();
  return { why, output: output.trim() };
}

function killGroup({ pid }: ChildProcess): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, 'SIGKILL');
  } catch {
    // It has ended by itself.
  }
}

function whyNotStarted(program: string, error: unknown): string {
  const { code } = error as NodeJS.ErrnoException;
  if (code === 'ENOENT') return `there is no program ${quote(program)}`;
  if (code === 'EACCES') return `${quote(program)} may not be executed`;
  return `${quote(program)} cannot be started (${code ?? 'unknown'})`;
}

function sendSignal(pidFile: string, signal: HookSignal): string {
  let pid: number;
  try {
    pid = readPid(pidFile);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === undefined) return `${quote(pidFile)} ${(error as Error).message}`;
    return `${quote(pidFile)} ${code === 'ENOENT' ? 'does not exist' : `cannot be read (${code})`}`;
  }
  try {
    process.kill(pid, `SIG${signal}`);
    return '';
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const problem =
      code === 'ESRCH' ? 'does not run' : `takes no signal from this user (${code ?? 'unknown'})`;
    return `process ${pid} of ${quote(pidFile)} ${problem}`;
  }
}

/** Whoever writes the file chooses who is signalled: that must be root or this user. */
function readPid(pidFile: string): number {
  const fd = openSync(pidFile, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const stats = fstatSync(fd);
    if (!stats.isFile() || stats.size > 32) throw new Error('holds no process id');
    if ((stats.mode & 0o022) !== 0 || (stats.uid !== 0 && stats.uid !== process.geteuid?.())) {
      throw new Error('can be written by other users');
    }
    const text = readFileSync(fd, 'latin1').trim();
    // Zero and negative ones are groups of processes, and 1 is the mother of all.
    if (!/^[1-9][0-9]{0,9}$/.test(text) || text === '1') throw new Error('holds no process id');
    return Number(text);
  } finally {
    closeSync(fd);
  }
}

const maxOutput = 2_000;
const lastWordsMs = 20;
