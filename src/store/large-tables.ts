import { rollupFields } from '../audit/rollup.ts';

/** A B-tree of the database, and the order that it is in. */
export type Tree = {
  readonly table: string;
  /** Null: the table itself. */
  readonly index: string | null;
  /** Each row has another one; null in none of them. */
  readonly key: readonly string[];
  /** Which rows an index has; null for all of them. */
  readonly where: string | null;
};

/**
 * What grows with the log, or with what was issued of late: too much to be read before a server is ready. All other tables
 * are what issuing stands on, and small. The last entries of the log are proven before, as its tree is opened.
 */
export const largeTrees: readonly Tree[] = [
  tree('audit_leaves', null, ['idx']),
  tree('audit_leaves', 'audit_by_type', ['type', 'idx']),
  tree('audit_leaves', 'audit_by_source', ['source', 'idx'], 'source IS NOT NULL'),
  tree('audit_leaves', 'audit_by_destination', ['destination', 'idx'], 'destination IS NOT NULL'),
  tree('audit_leaves', 'audit_by_serial', ['serial', 'idx'], 'serial IS NOT NULL'),
  tree('audit_leaves', 'audit_denials', ['idx'], "verdict = 'deny'"),
  tree(
    'audit_leaves',
    'audit_denials_by_source',
    ['source', 'idx'],
    "verdict = 'deny' AND source IS NOT NULL",
  ),
  tree(
    'audit_leaves',
    'audit_denials_by_destination',
    ['destination', 'idx'],
    "verdict = 'deny' AND destination IS NOT NULL",
  ),
  tree('audit_nodes', null, ['level', 'idx']),
  tree('audit_blocks', null, ['block']),
  tree('audit_pruned', null, ['first', 'class']),
  tree('audit_pruned_tiles', null, ['tile']),
  tree('audit_personal', null, ['id']),
  tree('audit_personal', 'audit_personal_by_entry', ['idx', 'field']),
  tree('decision_ids', null, ['span', 'id', 'idx']),
  tree('audit_facts', null, ['field', 'value', 'idx']),
  tree('audit_rollup', null, ['level', 'start', 'key']),
  tree('audit_rollup_keys', null, ['id']),
  tree('audit_rollup_keys', 'sqlite_autoindex_audit_rollup_keys_1', rollupFields),
  tree('audit_words_data', null, ['id']),
  tree('audit_words_idx', null, ['segid', 'term']),
  tree('audit_words_docsize', null, ['id']),
  tree('certificates', null, ['serial']),
  tree('certificates', 'certificates_by_entry', ['entry_id', 'not_after_ms', 'serial']),
  tree('certificates', 'certificates_by_identity', ['spiffe_id', 'not_after_ms', 'serial']),
  tree('certificates', 'certificates_by_expiry', ['not_after_ms', 'serial']),
  tree('certificates', 'certificates_by_key', ['spki_sha256', 'not_after_ms', 'serial'], "spki_sha256 <> ''"),
];

function tree(
  table: string,
  index: string | null,
  key: readonly string[],
  where: string | null = null,
): Tree {
  return { table, index, key, where };
}
