// A process of its own: it commits numbered events, eight requests at a time, and prints each index once it is acknowledged,
// and each checkpoint that it sees. Two requests of ten change state besides. Whoever started it kills it.
import { createHash, randomBytes } from 'node:crypto';
import { writeSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { openCheckpoint } from '../../src/audit/checkpoint.ts';
import { systemClock } from '../../src/clock.ts';
import { openStore } from '../../src/store/store.ts';
import { decision, issuance } from '../audit/events.ts';
import { logKey, logSigner } from '../audit/log-files.ts';
import { tokenCreated, tokenOf } from './kill-loop-events.ts';

const [dataDir = '', run = '0', limit = '20000'] = process.argv.slice(2);
const store = await openStore({ dataDir, clock: systemClock, randomBytes });
await store.signLog(logSigner.name, logSigner.privateKey);
writeSync(1, 'open\n');

let next = 0;
let ended = false;
const heads = tellHeads();
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
ended = true;
await heads;
await store.close();

async function commitOnAndOn(): Promise<void> {
  while (next < Number(limit)) {
    const number = next++;
    const name = `${run}-${number}`;
    if (number % 10 === 8) {
      const id = createHash('sha256').update(name).digest('hex').slice(0, 16);
      await store.createToken(tokenOf(id), [tokenCreated(id)]);
      writeSync(1, `token ${id}\n`);
      continue;
    }
    const serial = createHash('sha256').update(name).digest('hex').slice(0, 32);
    const event =
      number % 10 === 9
        ? issuance({ serial, notAfter: tokenOf('').expiresAt })
        : decision({ decisionId: name });
    const [index] = await store.recordEvents([event]);
    writeSync(1, `ack ${index} ${event.type === 'issuance' ? serial : name}\n`);
  }
}

async function tellHeads(): Promise<void> {
  let told = 0;
  while (!ended) {
    const note = await store.auditCheckpoint().catch(() => null);
    const head = note === null ? undefined : openCheckpoint(note, logKey);
    if (head !== undefined && head.size !== told) {
      writeSync(1, `head ${head.size} ${Buffer.from(head.root).toString('hex')}\n`);
      told = head.size;
    }
    await sleep(2);
  }
}
