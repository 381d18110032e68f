/** Schema version 4: keys that sign tokens, and until when the tokens of each are valid. */
export const jwtKeys = `
CREATE TABLE jwt_keys (
  key_id TEXT PRIMARY KEY,
  key_type TEXT NOT NULL CHECK (key_type IN ('ec-p256', 'rsa-2048')),
  public_key BLOB NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('prepared', 'active', 'retiring', 'retired')),
  published_at_ms INTEGER NOT NULL,
  activated_at_ms INTEGER,
  stopped_at_ms INTEGER
) STRICT;
CREATE UNIQUE INDEX one_jwt_key_of_a_state ON jwt_keys (state) WHERE state IN ('prepared', 'active');

-- Derived from the leaves of tokens and written with them: one row for each key, however many tokens there are.
CREATE TABLE jwt_expiries (
  key_id TEXT PRIMARY KEY,
  last_expiry_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
`;
