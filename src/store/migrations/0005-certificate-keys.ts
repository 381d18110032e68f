/** Schema version 5: certificates found by their public key, so that a ban of the key finds all of them. */
export const certificateKeys = `
ALTER TABLE certificates ADD COLUMN spki_sha256 TEXT NOT NULL DEFAULT '';
-- The log has known it all along. A leaf is a BLOB, which SQLite would take for its own binary JSON.
UPDATE certificates SET spki_sha256 = coalesce(
  (SELECT json_extract(CAST(leaf AS TEXT), '$.spkiSha256') FROM audit_leaves
   WHERE audit_leaves.serial = certificates.serial AND type = 'issuance'), '');
CREATE INDEX certificates_by_key ON certificates (spki_sha256, not_after_ms) WHERE spki_sha256 <> '';
`;
