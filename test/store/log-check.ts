import { createHash } from 'node:crypto';
import { expect } from 'vitest';
import { parseAuditQuery } from '../../src/audit/question.ts';
import type { AuditRow } from '../../src/audit/query.ts';
import type { Store } from '../../src/store/store.ts';
import { noon } from '../audit/events.ts';

/** Reads the whole log page by page and checks what must hold of any log: no gap, and each hash that of its leaf. */
export async function checkedLog(store: Store): Promise<readonly AuditRow[]> {
  const rows: AuditRow[] = [];
  let cursor: string | undefined;
  do {
    const page = await store.queryAudit(parseAuditQuery({ order: 'oldest', limit: 1_000, cursor }, noon));
    rows.push(...page.rows);
    cursor = page.next ?? undefined;
  } while (cursor !== undefined);
  expect(rows.map(({ index }) => index)).toEqual(rows.map((_, at) => at));
  expect(await store.auditSize()).toBe(rows.length);
  for (const { leaf, leafHash, personal } of rows) {
    expect(createHash('sha256').update('\0').update(leaf).digest('hex')).toBe(leafHash);
    if (leaf.includes('"type":"decision"')) expect(Object.keys(personal)).toEqual(['path', 'sourceAddress']);
  }
  return rows;
}
