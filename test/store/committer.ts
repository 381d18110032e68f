// A process of its own: it commits numbered decisions, eight at a time, and prints each index once it is acknowledged.
// Whoever started it kills it.
import { randomBytes } from 'node:crypto';
import { writeSync } from 'node:fs';
import { systemClock } from '../../src/clock.ts';
import { openStore } from '../../src/store/store.ts';
import { decision } from '../audit/events.ts';
import { logSigner } from '../audit/log-files.ts';

const [dataDir = '', run = '0', limit = '20000'] = process.argv.slice(2);
const store = await openStore({ dataDir, clock: systemClock, randomBytes });
await store.signLog(logSigner.name, logSigner.privateKey);
writeSync(1, 'open\n');

let next = 0;
try {
  await Promise.all(Array.from({ length: 8 }, commitOnAndOn));
} catch {
  const health = store.health();
  writeSync(1, `${health.ok ? 'failed' : health.cause}\n`);
  const later = await store.recordEvents([decision()]).then(
    () => 'wrote',
    (error: { code: string }) => error.code,
  );
  writeSync(1, `${later}\n`);
}
await store.close();

async function commitOnAndOn(): Promise<void> {
  while (next < Number(limit)) {
    const decisionId = `${run}-${next++}`;
    const [index] = await store.recordEvents([decision({ decisionId })]);
    writeSync(1, `ack ${index} ${decisionId}\n`);
  }
}
