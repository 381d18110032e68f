/** Schema version 10: which key a join token was used with, so that an answer that was lost can be asked for again. */
export const tokenKeys = `
-- SHA-256 of the SPKI in lower-case hex; empty for a token that was not used, or was used before this was kept.
ALTER TABLE join_tokens ADD COLUMN used_by TEXT NOT NULL DEFAULT '';
`;
