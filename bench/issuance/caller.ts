import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

/** The program that calls, and what it is written in: its own cost is part of every figure on two cores. */
export type Caller = { readonly command: readonly string[]; readonly language: 'Go' | 'JavaScript' };

/**
 * The caller in Go, built once for each state of its sources, as most callers of a CA are; the one in JavaScript, which
 * takes four times as much of the two cores, where there is no Go, or with `BENCH_CALLER=js`.
 */
export async function findCaller(): Promise<Caller> {
  const path = (name: string): string => fileURLToPath(new URL(name, import.meta.url));
  if (process.env['BENCH_CALLER'] !== 'js') {
    try {
      return {
        command: [await build(path('caller'), path('../../.tool/go'), path('../../tool/go'))],
        language: 'Go',
      };
    } catch (error) {
      console.error(`no Go: ${error instanceof Error ? error.message.split('\n')[0] : 'unknown'}`);
    }
  }
  return { command: [process.execPath, path('client.ts')], language: 'JavaScript' };
}

async function build(sources: string, into: string, goTool: string): Promise<string> {
  const hash = createHash('sha256').update(process.arch);
  for (const file of readdirSync(sources).sort())
    hash.update(file).update(readFileSync(`${sources}/${file}`));
  const binary = `${into}/caller-${hash.digest('hex').slice(0, 16)}`;
  if (existsSync(binary)) return binary;
  mkdirSync(into, { recursive: true });
  const making = `${binary}.${process.pid}`;
  await promisify(execFile)('bash', [goTool, 'build', '-buildvcs=false', '-o', making, '.'], {
    cwd: sources,
  });
  renameSync(making, binary);
  return binary;
}
