import type SqliteDatabase from 'better-sqlite3';
import { foundation } from './migrations/0001-foundation.ts';
import { bans } from './migrations/0002-bans.ts';
import { rotation } from './migrations/0003-rotation.ts';
import { jwtKeys } from './migrations/0004-jwt-keys.ts';
import { certificateKeys } from './migrations/0005-certificate-keys.ts';
import { hierarchy } from './migrations/0006-hierarchy.ts';
import { nodes } from './migrations/0007-nodes.ts';
import { nodeAliases } from './migrations/0008-node-aliases.ts';
import { access } from './migrations/0009-access.ts';
import { tokenKeys } from './migrations/0010-token-keys.ts';
import { policyRevisions } from './migrations/0011-policy-revisions.ts';
import { decisionIds } from './migrations/0012-decision-ids.ts';
import { auditTree } from './migrations/0013-audit-tree.ts';
import { auditQuestions } from './migrations/0014-audit-questions.ts';
import { witnesses } from './migrations/0015-witnesses.ts';
import { retention } from './migrations/0016-retention.ts';
import { policyRollout } from './migrations/0018-policy-rollout.ts';

/**
 * Each takes the schema one version further. INVARIANT: one that was released is never changed; what it did wrong the
 * next one mends.
 */
const migrations: readonly string[] = [
  foundation,
  bans,
  rotation,
  jwtKeys,
  certificateKeys,
  hierarchy,
  nodes,
  nodeAliases,
  access,
  tokenKeys,
  policyRevisions,
  decisionIds,
  auditTree,
  auditQuestions,
  witnesses,
  retention,
  // 17 changes nothing.
  '',
  policyRollout,
];

/** The version of the schema this program writes; `PRAGMA user_version` of the file. */
export const schemaVersion = migrations.length;

/**
 * The schema that a database has: the SQL of each object, by its kind and name.
 */
export function describeSchema(db: SqliteDatabase.Database): ReadonlyMap<string, string> {
  const rows = db
    .prepare<[], [kind: string, name: string, sql: string]>(
      "SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT GLOB 'sqlite_*'",
    )
    .raw()
    .all();
  return new Map(rows.map(([kind, name, sql]) => [`${kind} ${name}`, sql]));
}

/** Makes the schema of a version in an empty database. */
export function makeSchema(db: SqliteDatabase.Database, version: number): void {
  for (const migration of migrations.slice(0, version)) db.exec(migration);
}

/** Brings a database forward to {@link schemaVersion}, inside the caller's transaction. There is no way back. */
export function migrate(db: SqliteDatabase.Database): void {
  const version = Number(db.pragma('user_version', { simple: true }));
  for (const migration of migrations.slice(version)) db.exec(migration);
  if (version !== schemaVersion) db.pragma(`user_version = ${schemaVersion}`);
}
