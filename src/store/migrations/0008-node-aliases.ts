/** Schema version 8: aliases of nodes, and selectors of nodes in the form that aliases ask for. */
export const nodeAliases = `
-- SQLite cannot change a CHECK: the table is made again. Methods are read again by identity/node.ts, which knows them all.
CREATE TABLE nodes_8 (
  name TEXT PRIMARY KEY,
  method TEXT NOT NULL,
  selectors TEXT NOT NULL,
  attested_at_ms INTEGER NOT NULL,
  renewed_at_ms INTEGER NOT NULL,
  not_after_ms INTEGER NOT NULL,
  serials TEXT NOT NULL,
  evicted_at_ms INTEGER
) STRICT, WITHOUT ROWID;

-- What was kept of a subject is for people; its common name is known once the node attests again.
INSERT INTO nodes_8 SELECT name, method, (
    SELECT json_group_array(text) FROM (
      SELECT CASE
        WHEN value LIKE 'node:x509pop:certificate:%' THEN substr(value, 6)
        WHEN value LIKE 'node:x509pop:ca:%' THEN 'x509pop:ca:fingerprint:' || substr(value, 17)
        WHEN value LIKE 'node:join\\_token:%' ESCAPE '\\' THEN 'join_token:id:' || substr(value, 17)
      END AS text FROM json_each(nodes.selectors)
      UNION ALL SELECT 'join_token:' || nodes.name WHERE nodes.method = 'join_token'
      ORDER BY 1
    ) WHERE text IS NOT NULL
  ), attested_at_ms, renewed_at_ms, not_after_ms, serials, evicted_at_ms
  FROM nodes;
DROP TABLE nodes;
ALTER TABLE nodes_8 RENAME TO nodes;

-- selectors is a JSON list of text; identity/node-selector.ts says what they mean.
CREATE TABLE node_aliases (
  name TEXT PRIMARY KEY,
  selectors TEXT NOT NULL,
  revision INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
`;
