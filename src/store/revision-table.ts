import type { Actor } from '../audit/event.ts';
import { MeshError } from '../errors.ts';
import type { NewPolicyRevision, PolicyDocument } from '../identity/mesh.ts';
import type { PolicyPast } from '../identity/policy-edits.ts';
import {
  type PolicyRevision,
  type PolicyRevisionRecord,
  withoutReason,
} from '../identity/policy-revision.ts';
import type { Database } from './database.ts';
import type { KeptRevision } from './protocol.ts';

/** What a step of the mesh changes of policies. */
type PolicyChange = {
  readonly revision: number;
  readonly putPolicies: readonly PolicyDocument[];
  readonly deletePolicies: readonly string[];
  readonly policyRevision?: NewPolicyRevision | undefined;
};

/**
 * Stores a revision of policies and what it changed, inside the caller's transaction.
 * INVARIANT: there is no other way for a policy to change.
 */
export function storePolicies(db: Database, change: PolicyChange): void {
  const { putPolicies, deletePolicies, policyRevision } = change;
  if (policyRevision === undefined) {
    if (putPolicies.length + deletePolicies.length === 0) return;
    throw new MeshError('internal', 'policies change without a revision of theirs');
  }
  const { record, changes } = policyRevision;
  insertRevision(db, record);
  db.prepare('INSERT INTO policy_revision_starts (mesh_revision, number) VALUES (?, ?)').run(
    change.revision,
    record.number,
  );
  const insertChanges = db.prepare('INSERT INTO policy_revision_changes VALUES (?, ?, ?, ?, ?)');
  for (const { namespace, created, updated, deleted } of changes) {
    insertChanges.run(record.number, namespace, created, updated, deleted);
  }
  const end = db.prepare('UPDATE policy_versions SET until = ? WHERE key = ? AND until IS NULL');
  for (const key of deletePolicies) end.run(record.number, key);
  const putText = db.prepare('INSERT OR IGNORE INTO policy_texts (sha256, source) VALUES (?, ?)');
  const begin = db.prepare(
    `INSERT INTO policy_versions (key, since, until, sha256, file, line, mesh_revision)
     VALUES (?, ?, NULL, ?, ?, ?, ?)`,
  );
  for (const { key, source, sha256, file, line, revision } of putPolicies) {
    end.run(record.number, key);
    putText.run(sha256, source);
    begin.run(key, record.number, sha256, file, line, revision);
  }
}

/** The policies in force, in the order of their keys. */
export function readPolicies(db: Database): readonly PolicyDocument[] {
  return db.prepare<[], PolicyDocument>(`SELECT ${documentColumns} WHERE until IS NULL ORDER BY key`).all();
}

/** The revision in force; null when there never was one. */
export function readActiveRevision(db: Database): PolicyRevision | null {
  const row = db
    .prepare<[], RevisionRow>('SELECT * FROM policy_revisions ORDER BY number DESC LIMIT 1')
    .get();
  return row === undefined ? null : withoutReason(recordOf(row));
}

/** One revision with its reason. */
export function readRevision(db: Database, number: number): PolicyRevisionRecord | null {
  const row = db
    .prepare<[number], RevisionRow>('SELECT * FROM policy_revisions WHERE number = ?')
    .get(number);
  return row === undefined ? null : recordOf(row);
}

/** Revisions below a number, the latest first, with what each changed by namespace. */
export function readRevisions(
  db: Database,
  { below, limit }: { readonly below: number; readonly limit: number },
): readonly NewPolicyRevision[] {
  const changesOf = db.prepare<[number], NewPolicyRevision['changes'][number]>(
    'SELECT namespace, created, updated, deleted FROM policy_revision_changes WHERE number = ? ORDER BY namespace',
  );
  return db
    .prepare<[number, number], RevisionRow>(
      'SELECT * FROM policy_revisions WHERE number < ? ORDER BY number DESC LIMIT ?',
    )
    .all(below, limit)
    .map((row) => ({ record: recordOf(row), changes: changesOf.all(row.number) }));
}

/** What leads back from what is in force to a revision. */
export function readPast(db: Database, number: number): PolicyPast {
  return {
    documents: db
      .prepare<[number, number], PolicyDocument>(
        `SELECT ${documentColumns} WHERE since <= ? AND until > ? ORDER BY key`,
      )
      .all(number, number),
    newer: db
      .prepare<[number], string>('SELECT key FROM policy_versions WHERE since > ? AND until IS NULL')
      .pluck()
      .all(number),
  };
}

/** The policies of a revision without their texts, in the order of their keys. */
export function readPoliciesOf(db: Database, number: number): readonly Omit<PolicyDocument, 'source'>[] {
  return db
    .prepare<[number, number], Omit<PolicyDocument, 'source'>>(
      `SELECT key, file, line, sha256, mesh_revision AS revision FROM policy_versions
       WHERE since <= ? AND (until IS NULL OR until > ?) ORDER BY key`,
    )
    .all(number, number);
}

/** One policy of a revision. */
export function readPolicyOf(db: Database, number: number, key: string): PolicyDocument | null {
  const found = db
    .prepare<[string, number, number], PolicyDocument>(
      `SELECT ${documentColumns} WHERE key = ? AND since <= ? AND (until IS NULL OR until > ?)`,
    )
    .get(key, number, number);
  return found ?? null;
}

/** Which revision was in force at a revision of the mesh, kept or not; null when none was yet. */
export function readRevisionAt(db: Database, meshRevision: number): number | null {
  const found = db
    .prepare<[number], number>(
      'SELECT number FROM policy_revision_starts WHERE mesh_revision <= ? ORDER BY mesh_revision DESC LIMIT 1',
    )
    .pluck()
    .get(meshRevision);
  return found ?? null;
}

/** The policies that a revision had in some namespaces, in the order of their keys. */
export function readPoliciesIn(
  db: Database,
  { number, namespaces }: { readonly number: number; readonly namespaces: readonly string[] },
): readonly PolicyDocument[] {
  // After `/` comes `0`: the keys of a namespace are a range of the primary key.
  const read = db.prepare<[string, string, number, number], PolicyDocument>(
    `SELECT ${documentColumns} WHERE key >= ? AND key < ? AND since <= ? AND (until IS NULL OR until > ?)
     ORDER BY key`,
  );
  return [...new Set(namespaces)].sort().flatMap((name) => read.all(`${name}/`, `${name}0`, number, number));
}

/** Which revisions are kept, and when those that are not in force ceased to be. */
export function readKeptRevisions(db: Database): readonly KeptRevision[] {
  return db
    .prepare<[], KeptRevision>(
      `SELECT number, lead(time_ms) OVER (ORDER BY number) AS endedMs FROM policy_revisions ORDER BY number`,
    )
    .all();
}

/**
 * Drops the revisions up to a number with the texts that no other one has, inside the caller's transaction.
 * @throws MeshError `internal` when that would take the one in force
 */
export function dropRevisions(db: Database, through: number): void {
  const first = db
    .prepare<[number], number>('SELECT min(number) FROM policy_revisions WHERE number > ?')
    .pluck()
    .get(through);
  if (typeof first !== 'number') throw new MeshError('internal', 'the policy revision in force would go');
  db.prepare('DELETE FROM policy_revision_changes WHERE number <= ?').run(through);
  db.prepare('DELETE FROM policy_revisions WHERE number <= ?').run(through);
  const gone = db
    .prepare<[number], string>('SELECT DISTINCT sha256 FROM policy_versions WHERE until <= ?')
    .pluck()
    .all(first);
  db.prepare('DELETE FROM policy_versions WHERE until <= ?').run(first);
  const dropText = db.prepare(
    'DELETE FROM policy_texts WHERE sha256 = ? AND NOT EXISTS (SELECT 1 FROM policy_versions v WHERE v.sha256 = policy_texts.sha256)',
  );
  for (const sha256 of gone) dropText.run(sha256);
}

type RevisionRow = {
  number: number;
  id: string;
  parent: number;
  parent_id: string;
  restores: number;
  time_ms: number;
  author: string;
  message: string;
  record_sha256: string;
  public_key: string;
  signature: string;
};

function insertRevision(db: Database, record: PolicyRevisionRecord): void {
  const row: RevisionRow = {
    number: record.number,
    id: record.id,
    parent: record.parent?.number ?? 0,
    parent_id: record.parent?.id ?? '',
    restores: record.restores ?? 0,
    time_ms: record.time.getTime(),
    author: JSON.stringify(record.author),
    message: record.message,
    record_sha256: record.recordSha256,
    public_key: record.publicKey,
    signature: record.signature,
  };
  db.prepare(
    `INSERT INTO policy_revisions
       (number, id, parent, parent_id, restores, time_ms, author, message, record_sha256, public_key, signature)
     VALUES
       (@number, @id, @parent, @parent_id, @restores, @time_ms, @author, @message, @record_sha256, @public_key,
        @signature)`,
  ).run(row);
}

function recordOf(row: RevisionRow): PolicyRevisionRecord {
  return {
    number: row.number,
    id: row.id,
    parent: row.parent === 0 ? null : { number: row.parent, id: row.parent_id },
    time: new Date(row.time_ms),
    recordSha256: row.record_sha256,
    publicKey: row.public_key,
    signature: row.signature,
    author: JSON.parse(row.author) as Actor,
    message: row.message,
    restores: row.restores === 0 ? null : row.restores,
  };
}

const documentColumns = `key, source, file, line, policy_versions.sha256 AS sha256, mesh_revision AS revision
  FROM policy_versions JOIN policy_texts ON policy_texts.sha256 = policy_versions.sha256`;
