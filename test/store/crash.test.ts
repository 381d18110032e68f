import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { type Checkpoint, openCheckpoint } from '../../src/audit/checkpoint.ts';
import { verifyLog } from '../../src/audit/verify-log.ts';
import { logKey } from '../audit/log-files.ts';
import { checkedLog } from './log-check.ts';
import { newDirectory, openTestStore } from './directories.ts';

const committer = fileURLToPath(new URL('./committer.ts', import.meta.url));

test('after SIGKILL every acknowledged event is there, the log has no gap, and is the one that was signed', async () => {
  const dataDir = newDirectory();
  const heads: Checkpoint[] = [];
  const acknowledged = new Map<number, string>();
  const lastRun = 4;
  for (let run = 0; run <= lastRun; run++) {
    const child = spawn(process.execPath, [committer, dataDir, String(run)], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const { lines, ended } = await readLines(child);
    while (lines.length < 20) await sleep(5);
    await sleep(run * 60);
    child.kill('SIGKILL');
    await ended;
    const before = acknowledged.size;
    for (const line of lines) {
      const [, index, decisionId] = /^ack (\d+) (\S+)$/.exec(line) ?? [];
      if (index !== undefined && decisionId !== undefined) acknowledged.set(Number(index), decisionId);
    }
    expect(acknowledged.size).toBeGreaterThan(before);

    const store = await openTestStore(dataDir);
    const rows = await checkedLog(store);
    for (const [index, decisionId] of acknowledged) {
      expect(JSON.parse(rows[index]?.leaf ?? '{}').decisionId).toBe(decisionId);
    }
    // The process that was killed signed it; nobody has since.
    const head = openCheckpoint((await store.auditCheckpoint()) ?? '', logKey);
    expect(head.size).toBe(rows.length);
    heads.push(head);
    if (run === lastRun) {
      for (const since of heads) {
        await verifyLog(head, async (tile) => (await store.auditTile(tile)) ?? undefined, since);
      }
    }
    await store.close();
  }
}, 120_000);

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
  expect(lines.at(-2)).toMatch(/SQLITE_(FULL|IOERR)/);
  expect(lines.at(-1)).toBe('store_unavailable');

  const store = await openTestStore(dataDir);
  const rows = await checkedLog(store);
  for (const line of acknowledged) {
    const [, index, decisionId] = line.split(' ');
    expect(JSON.parse(rows[Number(index)]?.leaf ?? '{}').decisionId).toBe(decisionId);
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
