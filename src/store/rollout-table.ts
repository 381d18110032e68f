import type { Actor } from '../audit/event.ts';
import type { NewRollout, PolicyDocument } from '../identity/mesh.ts';
import type { Rollout } from '../identity/rollout.ts';
import type { Database } from './database.ts';

/** What a step of the mesh changes of the rollout. */
type RolloutChange = { readonly policyRevision?: unknown; readonly rollout?: NewRollout | undefined };

/**
 * Stores a step of a rollout, inside the caller's transaction.
 * INVARIANT: with another policy revision in force none is left.
 */
export function storeRollout(db: Database, { policyRevision, rollout: next }: RolloutChange): void {
  if (policyRevision === undefined && next === undefined) return;
  db.prepare('DELETE FROM policy_rollout').run();
  db.prepare('DELETE FROM policy_candidates').run();
  if (next === undefined) return;
  const { state, changes } = next.rollout;
  const { author, message, cause, startedAt, startedBy } = next.reason;
  const row: RolloutRow = {
    id: state.id,
    base: state.base,
    step: state.step,
    stage: state.stage,
    percent: state.percent,
    max_new_denials: state.maxNewDenials,
    candidate: state.candidate,
    time_ms: state.time.getTime(),
    record_sha256: state.recordSha256,
    public_key: state.publicKey,
    signature: state.signature,
    author: JSON.stringify(author),
    message,
    cause,
    started_ms: startedAt.getTime(),
    started_by: JSON.stringify(startedBy),
  };
  db.prepare(
    `INSERT INTO policy_rollout VALUES (1, @id, @base, @step, @stage, @percent, @max_new_denials, @candidate, @time_ms,
       @record_sha256, @public_key, @signature, @author, @message, @cause, @started_ms, @started_by)`,
  ).run(row);
  const put = db.prepare('INSERT INTO policy_candidates VALUES (?, ?, ?, ?, ?, ?)');
  for (const { key, source, sha256, file, line, revision } of changes.put) {
    put.run(key, source, sha256, file, line, revision);
  }
  for (const key of changes.deleted) put.run(key, null, '', '', 0, 0);
}

/** The rollout beside the revision in force; null when there never was one. */
export function readRollout(db: Database): NewRollout | null {
  const row = db.prepare<[], RolloutRow>('SELECT * FROM policy_rollout').get();
  if (row === undefined) return null;
  const candidates = db
    .prepare<[], Omit<PolicyDocument, 'source'> & { source: string | null }>(
      `SELECT key, source, sha256, file, line, mesh_revision AS revision FROM policy_candidates ORDER BY key`,
    )
    .all();
  return {
    rollout: {
      state: {
        id: row.id,
        base: row.base,
        step: row.step,
        stage: row.stage,
        percent: row.percent,
        maxNewDenials: row.max_new_denials,
        candidate: row.candidate,
        time: new Date(row.time_ms),
        recordSha256: row.record_sha256,
        publicKey: row.public_key,
        signature: row.signature,
      },
      changes: {
        put: candidates.flatMap(({ source, ...one }) => (source === null ? [] : { ...one, source })),
        deleted: candidates.flatMap(({ key, source }) => (source === null ? key : [])),
      },
    },
    reason: {
      author: JSON.parse(row.author) as Actor,
      message: row.message,
      cause: row.cause,
      startedAt: new Date(row.started_ms),
      startedBy: JSON.parse(row.started_by) as Actor,
    },
  };
}

type RolloutRow = {
  id: string;
  base: number;
  step: number;
  stage: Rollout['stage'];
  percent: number;
  max_new_denials: number;
  candidate: string;
  time_ms: number;
  record_sha256: string;
  public_key: string;
  signature: string;
  author: string;
  message: string;
  cause: string;
  started_ms: number;
  started_by: string;
};
