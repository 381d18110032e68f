import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { killOverAndOver } from '../../test/store/kill-loop.ts';
import { printReport } from '../report.ts';

/** Kills a process that commits to a log 200 times, and checks the log after each: see the kill loop for what. */
export async function measureKills(): Promise<void> {
  const dir = mkdtempSync(join(tmpdir(), 'countersign-bench-kills-'));
  const seed = Number(process.env['SEED'] ?? Date.now() % 1_000_000);
  const kills = Number(process.env['KILLS'] ?? 200);
  console.error(`seed ${seed}`);
  try {
    const { entries, acknowledged, heads, early } = await killOverAndOver(join(dir, 'data'), kills, seed);
    printReport(
      'audit kills',
      [
        { name: 'kills', value: kills, unit: '' },
        { name: 'of them before anything was acknowledged', value: early, unit: '' },
        { name: 'entries', value: entries, unit: '' },
        { name: 'acknowledged, all there', value: acknowledged, unit: '' },
        { name: 'checkpoints seen, one root for each size', value: heads, unit: '' },
      ],
      { seed, kills, early, entries, acknowledged, heads },
    );
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}
