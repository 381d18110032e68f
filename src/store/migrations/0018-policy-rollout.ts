/** Schema version 18: a candidate beside the policies in force. */
export const policyRollout = `
-- The last rollout beside the revision in force, under way or ended. author and started_by are JSON.
CREATE TABLE policy_rollout (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  id TEXT NOT NULL,
  base INTEGER NOT NULL,
  step INTEGER NOT NULL CHECK (step > 0),
  stage TEXT NOT NULL CHECK (stage IN ('shadow', 'canary', 'ended')),
  percent INTEGER NOT NULL CHECK (percent BETWEEN 0 AND 100),
  max_new_denials INTEGER NOT NULL CHECK (max_new_denials >= 0),
  candidate TEXT NOT NULL,
  time_ms INTEGER NOT NULL,
  record_sha256 TEXT NOT NULL,
  public_key TEXT NOT NULL,
  signature TEXT NOT NULL,
  author TEXT NOT NULL,
  message TEXT NOT NULL,
  cause TEXT NOT NULL,
  started_ms INTEGER NOT NULL,
  started_by TEXT NOT NULL
) STRICT;
CREATE TRIGGER policy_rollout_beside BEFORE INSERT ON policy_rollout
WHEN NEW.base IS NOT (SELECT max(number) FROM policy_revisions)
BEGIN SELECT RAISE(ABORT, 'a rollout stands beside the policy revision in force'); END;

-- What the candidate changes. source is null for a policy that it lacks.
CREATE TABLE policy_candidates (
  key TEXT PRIMARY KEY,
  source TEXT,
  sha256 TEXT NOT NULL,
  file TEXT NOT NULL,
  line INTEGER NOT NULL,
  mesh_revision INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
`;
