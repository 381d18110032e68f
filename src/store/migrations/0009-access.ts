/** Schema version 9: grants to administer, of tokens and by name. */
export const access = `
-- JSON list of {role, namespaces}; identity/access.ts says what they mean. A token keeps what it could do when each role
-- included the ones before it: an operator wrote policies too. The column role is their names, for people.
ALTER TABLE admin_tokens ADD COLUMN grants TEXT NOT NULL DEFAULT '[]';
UPDATE admin_tokens SET grants = CASE role
  WHEN 'viewer' THEN '[{"role":"viewer","namespaces":null}]'
  WHEN 'operator' THEN '[{"role":"operator","namespaces":null},{"role":"policy-author","namespaces":null}]'
  WHEN 'admin' THEN '[{"role":"admin","namespaces":null}]'
  ELSE '[]' END;

CREATE TABLE admin_grants (
  name TEXT PRIMARY KEY,
  subject_kind TEXT NOT NULL CHECK (subject_kind IN ('spiffe-id', 'oidc-subject', 'oidc-group')),
  -- Empty for a SPIFFE ID.
  subject_issuer TEXT NOT NULL,
  subject_value TEXT NOT NULL,
  role TEXT NOT NULL,
  -- JSON list of text, or null for everywhere.
  namespaces TEXT NOT NULL,
  revision INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
`;
