/** Schema version 7: attested nodes, join tokens, what nodes have shipped, and which nodes may serve an entry. */
export const nodes = `
-- selectors and serials are JSON lists of text; identity/node.ts says what they mean.
CREATE TABLE nodes (
  name TEXT PRIMARY KEY,
  method TEXT NOT NULL CHECK (method IN ('join_token', 'x509pop')),
  selectors TEXT NOT NULL,
  attested_at_ms INTEGER NOT NULL,
  renewed_at_ms INTEGER NOT NULL,
  not_after_ms INTEGER NOT NULL,
  serials TEXT NOT NULL,
  evicted_at_ms INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE join_tokens (
  id TEXT PRIMARY KEY,
  node TEXT NOT NULL,
  secret_sha256 TEXT NOT NULL UNIQUE,
  created_at_ms INTEGER NOT NULL,
  expires_at_ms INTEGER NOT NULL,
  used_at_ms INTEGER
) STRICT, WITHOUT ROWID;

-- The last batch of events that each node has shipped; an agent that starts anew has another epoch.
CREATE TABLE node_shipments (
  node TEXT PRIMARY KEY,
  epoch TEXT NOT NULL,
  sequence INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- JSON list of text; empty for an entry that no attested node may serve.
ALTER TABLE entries ADD COLUMN nodes TEXT NOT NULL DEFAULT '[]';
`;
