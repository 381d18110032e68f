import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { newDirectory, openTestStore } from './directories.ts';
import { killOverAndOver } from './kill-loop.ts';
import { checkedLog } from './log-check.ts';

const committer = fileURLToPath(new URL('./committer.ts', import.meta.url));

test('after SIGKILL all that was acknowledged is there, state and log agree, and the log goes on from what was signed', async () => {
  const seed = Number(process.env['SEED'] ?? Date.now() % 1_000_000);
  const loop = await killOverAndOver(newDirectory(), 6, seed);
  expect(loop.acknowledged, `seed ${seed}`).toBeGreaterThan(20);
  expect(loop.heads, `seed ${seed}`).toBeGreaterThan(6);
}, 180_000);

test('a disk that takes no more makes the store read-only; what was acknowledged stays', async () => {
  const dataDir = newDirectory();
  // Writes past the limit fail as they do on a full disk; the signal would otherwise end the process.
  const script = `trap '' XFSZ; ulimit -f 1500; exec "$0" "$@"`;
  const child = spawn('bash', ['-c', script, process.execPath, committer, dataDir], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const { lines, ended } = await readLines(child);
  await ended;
  const acknowledged = lines.filter((line) => line.startsWith('ack '));
  expect(acknowledged.length).toBeGreaterThan(20);
  // Checkpoints are told beside, and may be told last.
  const end = lines.filter((line) => !/^(ack|token|head|open)\b/.test(line));
  expect(end).toEqual([expect.stringMatching(/SQLITE_(FULL|IOERR)/), 'store_unavailable']);

  const store = await openTestStore(dataDir);
  const rows = await checkedLog(store);
  for (const line of acknowledged) {
    const [, index, name] = line.split(' ');
    const { decisionId, serial } = JSON.parse(rows[Number(index)]?.leaf ?? '{}');
    expect(decisionId ?? serial).toBe(name);
  }
  expect(store.health()).toEqual({ ok: true });
}, 120_000);

async function readLines(child: ChildProcess): Promise<{ lines: string[]; ended: Promise<unknown> }> {
  const lines: string[] = [];
  const ended = once(child, 'close');
  const reader = createInterface({ input: child.stdout! });
  const opened = new Promise<void>((resolve) => {
    reader.on('line', (line) => {
      lines.push(line);
      resolve();
    });
  });
  await Promise.race([opened, ended]);
  expect(lines[0]).toBe('open');
  return { lines, ended };
}
