import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { openCheckpoint } from '../../src/audit/checkpoint.ts';
import { formatCursor } from '../../src/audit/cursor.ts';
import { leafHash } from '../../src/audit/leaf.ts';
import type { AuditRow } from '../../src/audit/query.ts';
import { parseAuditQuery } from '../../src/audit/question.ts';
import { verifyLog } from '../../src/audit/verify-log.ts';
import { openStore, type Store } from '../../src/store/store.ts';
import { noon } from '../audit/events.ts';
import { logKey, logSigner } from '../audit/log-files.ts';
import { seeded } from '../harness/seeded.ts';

/** What was seen over all kills. */
export type KillLoop = {
  readonly kills: number;
  readonly entries: number;
  readonly acknowledged: number;
  /** Checkpoints of different sizes that somebody saw. */
  readonly heads: number;
  /** Kills that came before the first acknowledgement, mostly while the log was being opened. */
  readonly early: number;
};

/**
 * Kills a process that commits to one log with eight requests in flight, over and over, and checks after each kill: all that
 * was acknowledged is there and nothing stands in its place; state and log tell the same; the log verifies from the
 * checkpoint of the kill before; and no two checkpoints of one size were ever seen with different roots.
 * @throws AssertionError naming the seed and the kill
 */
export async function killOverAndOver(dataDir: string, kills: number, seed: number): Promise<KillLoop> {
  const random = seeded(seed);
  const roots = new Map<number, string>();
  const indexes = new Map<number, string>();
  const log: LogSoFar = { size: 0, issued: new Set(), tokens: new Set() };
  const acknowledgedTokens = new Set<string>();
  let since = null;
  let early = 0;
  for (let kill = 0; kill < kills; kill++) {
    const where = `seed ${seed}, kill ${kill}`;
    const { lines, ended, child } = startCommitter(dataDir, kill);
    if (random() < 0.8) {
      while (!lines.some(isAcknowledgement) && child.exitCode === null) await sleep(2);
      await sleep(random() * 200);
    } else await sleep(random() * 400);
    child.kill('SIGKILL');
    await ended;
    assert.equal(child.signalCode, 'SIGKILL', where);
    if (!lines.some(isAcknowledgement)) early += 1;
    for (const line of lines) {
      const [word, first = '', second = ''] = line.split(' ');
      if (word === 'ack') {
        assert.ok(!indexes.has(Number(first)), `${where}: index ${first} was acknowledged twice`);
        indexes.set(Number(first), second);
      } else if (word === 'token') acknowledgedTokens.add(first);
      else if (word === 'head') seeHead(Number(first), second, where);
    }

    const store = await openStore({
      dataDir,
      clock: { now: () => noon, sleep: async () => {} },
      randomBytes,
    });
    try {
      await store.signLog(logSigner.name, logSigner.privateKey);
      const head = openCheckpoint((await store.auditCheckpoint()) ?? '', logKey);
      assert.equal(head.size, await store.auditSize(), where);
      seeHead(head.size, Buffer.from(head.root).toString('hex'), where);
      await verifyLog(head, async (tile) => (await store.auditTile(tile)) ?? undefined, since);
      since = head;
      await readOn(store, log, indexes, where);
      const tokens = (await store.listTokens()).map(({ id }) => id);
      assert.deepEqual(new Set(tokens), log.tokens, `${where}: tokens and the log's`);
      for (const id of acknowledgedTokens) assert.ok(log.tokens.has(id), `${where}: token ${id}`);
      const certificates = await store.unexpiredCertificates(noon);
      assert.deepEqual(
        new Set(certificates.map(({ serial }) => serial)),
        log.issued,
        `${where}: certificates and the log's`,
      );
    } finally {
      await store.close();
    }
  }
  return {
    kills,
    entries: log.size,
    acknowledged: indexes.size + acknowledgedTokens.size,
    heads: roots.size,
    early,
  };

  function seeHead(size: number, root: string, where: string): void {
    assert.equal(roots.get(size) ?? root, root, `${where}: two checkpoints of size ${size}`);
    roots.set(size, root);
  }
}

type LogSoFar = { size: number; readonly issued: Set<string>; readonly tokens: Set<string> };

/** Reads what was added since the last time; what was there then is proven to be unchanged. */
async function readOn(
  store: Store,
  log: LogSoFar,
  acknowledged: ReadonlyMap<number, string>,
  where: string,
): Promise<void> {
  const first = log.size;
  let cursor: string | undefined =
    first === 0 ? undefined : formatCursor({ order: 'oldest', index: first - 1, since: null, until: null });
  do {
    const page = await store.queryAudit(parseAuditQuery({ order: 'oldest', limit: 1_000, cursor }, noon));
    for (const row of page.rows) {
      assert.equal(row.index, log.size, `${where}: a gap`);
      assert.equal(Buffer.from(leafHash(Buffer.from(row.leaf))).toString('hex'), row.leafHash, where);
      const name = take(row, log);
      assert.equal(acknowledged.get(row.index) ?? name, name, `${where}: entry ${row.index}`);
      log.size += 1;
    }
    cursor = page.next ?? undefined;
  } while (cursor !== undefined);
  for (const index of acknowledged.keys()) assert.ok(index < log.size, `${where}: entry ${index} is gone`);
}

function take({ leaf, personal }: AuditRow, log: LogSoFar): string {
  const event = JSON.parse(leaf) as { type: string; serial?: string; decisionId?: string; detail?: string };
  if (event.type === 'issuance') log.issued.add(event.serial ?? '');
  if (event.type === 'admin') log.tokens.add(event.detail ?? '');
  if (event.type === 'decision') assert.deepEqual(Object.keys(personal), ['path', 'sourceAddress']);
  return event.serial ?? event.decisionId ?? '';
}

function isAcknowledgement(line: string): boolean {
  return line.startsWith('ack ');
}

function startCommitter(
  dataDir: string,
  run: number,
): { child: ChildProcess; lines: string[]; ended: Promise<unknown> } {
  const committer = fileURLToPath(new URL('./committer.ts', import.meta.url));
  const child = spawn(process.execPath, [committer, dataDir, String(run)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const lines: string[] = [];
  createInterface({ input: child.stdout }).on('line', (line) => lines.push(line));
  return { child, lines, ended: once(child, 'close') };
}
