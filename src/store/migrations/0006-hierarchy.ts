/** Schema version 6: roots whose key is kept elsewhere, and what stands between them and our intermediates. */
export const hierarchy = `
ALTER TABLE authorities ADD COLUMN offline INTEGER NOT NULL DEFAULT 0 CHECK (offline IN (0, 1));

-- Certificates between an intermediate of ours and its root, DER one behind the other, the lower one first.
ALTER TABLE authorities ADD COLUMN upstream BLOB NOT NULL DEFAULT x'';
`;
