/** Schema version 12: decisions are found by their IDs, and policy revisions by the mesh revision they came with. */
export const decisionIds = `
-- Where decisions stand in the log. IDs are random: in one order of all of them each new one would touch a page of its own.
-- So they are kept by spans of 8,192 leaves: who writes stays within a few pages, who asks looks once in each span.
-- IDs are claims of those who decide, and need not be unique.
CREATE TABLE decision_ids (
  span INTEGER NOT NULL,
  id TEXT NOT NULL,
  idx INTEGER NOT NULL,
  PRIMARY KEY (span, id, idx)
) STRICT, WITHOUT ROWID;

INSERT INTO decision_ids
SELECT idx >> 13, json_extract(CAST(leaf AS TEXT), '$.decisionId') AS id, idx
FROM audit_leaves INDEXED BY audit_by_type
WHERE type = 'decision' AND length(id) BETWEEN 1 AND 64 AND id NOT GLOB '*[^A-Za-z0-9._-]*';

-- The mesh revision that a policy revision came with. Stays when the revision is dropped: then it is known which it was.
CREATE TABLE policy_revision_starts (
  mesh_revision INTEGER PRIMARY KEY,
  number INTEGER NOT NULL
) STRICT;

INSERT OR REPLACE INTO policy_revision_starts
SELECT json_extract(CAST(leaf AS TEXT), '$.revision'), json_extract(CAST(leaf AS TEXT), '$.number')
FROM audit_leaves INDEXED BY audit_by_type
WHERE type = 'policy_revision' AND json_extract(CAST(leaf AS TEXT), '$.action') <> 'dropped';
`;
