/** Schema version 14: what questions to the log are answered from. All of it is derived from the leaves. */
export const auditQuestions = `
-- Fields of events that are not about calls: one equality is one walk in the order of the log. field: a number, see
-- factFields; value: the first 200 UTF-16 code units.
CREATE TABLE audit_facts (
  field INTEGER NOT NULL,
  value TEXT NOT NULL,
  idx INTEGER NOT NULL,
  PRIMARY KEY (field, value, idx)
) STRICT, WITHOUT ROWID;

-- Words of the same events. rowid is idx.
CREATE VIRTUAL TABLE audit_words USING fts5 (
  words, content = '', contentless_delete = 1, tokenize = 'ascii'
);

-- What is counted together, in all of the log. Empty: there is none.
CREATE TABLE audit_rollup_keys (
  id INTEGER PRIMARY KEY,
  type TEXT NOT NULL,
  outcome TEXT NOT NULL,
  source TEXT NOT NULL,
  destination TEXT NOT NULL,
  reason TEXT NOT NULL,
  rule TEXT NOT NULL,
  protocol TEXT NOT NULL,
  UNIQUE (type, outcome, source, destination, reason, rule, protocol)
) STRICT;

-- Counts by spans of time. level 0: an hour, 1: a day, 2: all of the log; start: in hours since 1970, 0 at level 2.
CREATE TABLE audit_rollup (
  level INTEGER NOT NULL CHECK (level BETWEEN 0 AND 2),
  start INTEGER NOT NULL,
  key INTEGER NOT NULL REFERENCES audit_rollup_keys (id),
  count INTEGER NOT NULL,
  records INTEGER NOT NULL,
  first_idx INTEGER NOT NULL,
  last_idx INTEGER NOT NULL,
  first_ms INTEGER NOT NULL,
  last_ms INTEGER NOT NULL,
  PRIMARY KEY (level, start, key)
) STRICT, WITHOUT ROWID;

-- How many leaves the tables above know, counted from the first.
CREATE TABLE audit_derived (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  size INTEGER NOT NULL
) STRICT;
INSERT INTO audit_derived (id, size) VALUES (1, 0);

-- Nobody asks for all that was allowed along an index: those are most of the log.
DROP INDEX audit_by_verdict;
CREATE INDEX audit_denials ON audit_leaves (verdict) WHERE verdict = 'deny';
`;
