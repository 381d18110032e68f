/**
 * The kind of a failure: what a caller can do about it. Doors map kinds to their own vocabulary (gRPC status,
 * HTTP status, exit code); nothing else in the house knows those numbers.
 */
export type ErrorKind =
  | 'invalid' // the input is wrong and stays wrong
  | 'too_large' // the input is over a documented limit
  | 'unauthenticated' // we do not know who asks
  | 'forbidden' // we know who asks, and they may not
  | 'not_found'
  | 'conflict' // somebody else changed it, or it exists
  | 'precondition' // the state of the system does not permit it now
  | 'exhausted' // a quota or queue is full: try later
  | 'unavailable' // a part we need is away: try later
  | 'internal'; // our fault; the message is never shown outside

/**
 * Every code Countersign can answer with, and its kind. Codes are never renamed once released.
 * docs/errors.md says for each what it means and how to fix it (a test keeps the two in step).
 */
export const errorKinds = {
  // spiffe
  spiffe_id_empty: 'invalid',
  spiffe_id_too_long: 'invalid',
  spiffe_id_scheme: 'invalid',
  spiffe_id_trust_domain_missing: 'invalid',
  spiffe_id_trust_domain_char: 'invalid',
  spiffe_id_trust_domain_too_long: 'invalid',
  spiffe_id_path_char: 'invalid',
  spiffe_id_segment_empty: 'invalid',
  spiffe_id_segment_dot: 'invalid',
  spiffe_id_trailing_slash: 'invalid',
  spiffe_id_path_missing: 'invalid',
  spiffe_id_foreign_trust_domain: 'invalid',
  svid_invalid: 'invalid',
  bundle_invalid: 'invalid',
  jwt_invalid: 'invalid',
  jwt_expired: 'invalid',
  jwt_audience_mismatch: 'invalid',
  jwt_audience_invalid: 'invalid',
  jwt_key_unknown: 'invalid',
  // ca
  der_invalid: 'invalid',
  profile_invalid: 'invalid',
  authority_invalid: 'precondition',
  public_key_unsupported: 'invalid',
  csr_invalid: 'invalid',
  csr_proof_invalid: 'invalid',
  issuer_expired: 'precondition',
  lint_failed: 'internal',
  key_envelope_invalid: 'precondition',
  key_passphrase_wrong: 'precondition',
  authority_not_found: 'not_found',
  rotation_unproven: 'precondition',
  rotation_out_of_order: 'precondition',
  jwt_key_missing: 'unavailable',
  authority_waiting: 'precondition',
  authority_exists: 'conflict',
  csr_not_waiting: 'not_found',
  csr_trust_domain: 'invalid',
  csr_key_unexpected: 'invalid',
  chain_malformed: 'invalid',
  chain_key_mismatch: 'invalid',
  chain_not_ca: 'invalid',
  chain_algorithm: 'invalid',
  chain_trust_domain: 'invalid',
  chain_path_length: 'invalid',
  chain_broken: 'invalid',
  chain_root_missing: 'invalid',
  chain_root_known: 'conflict',
  chain_dates: 'invalid',
  chain_constraints: 'invalid',
  public_key_leaked: 'forbidden',
  file_exists: 'conflict',
  // documents (YAML)
  document_too_large: 'too_large',
  document_syntax: 'invalid',
  document_alias: 'invalid',
  document_depth: 'invalid',
  document_duplicate_key: 'invalid',
  document_field_unknown: 'invalid',
  document_field_missing: 'invalid',
  document_field_type: 'invalid',
  document_field_value: 'invalid',
  document_kind_unknown: 'invalid',
  // authz
  policy_unsupported: 'invalid',
  policy_invalid: 'invalid',
  policy_not_found: 'not_found',
  policy_message_invalid: 'invalid',
  policy_test_failed: 'precondition',
  policy_revision_not_found: 'not_found',
  policy_revision_invalid: 'invalid',
  policy_rollout_active: 'conflict',
  policy_rollout_none: 'not_found',
  policy_rollout_invalid: 'invalid',
  policy_rollout_denials: 'precondition',
  policy_number_invalid: 'invalid',
  policy_replayed: 'conflict',
  policy_mode_inexact: 'precondition',
  policy_analysis_too_large: 'too_large',
  policy_replay_busy: 'exhausted',
  decision_id_invalid: 'invalid',
  decision_not_found: 'not_found',
  request_invalid: 'invalid',
  // identity
  entry_invalid: 'invalid',
  entry_exists: 'conflict',
  entry_not_found: 'not_found',
  entry_label_conflict: 'invalid',
  selector_invalid: 'invalid',
  revision_conflict: 'conflict',
  identity_none: 'forbidden',
  identity_banned: 'forbidden',
  ban_invalid: 'invalid',
  ban_exists: 'conflict',
  ban_not_found: 'not_found',
  public_key_in_use: 'conflict',
  grant_invalid: 'invalid',
  grant_exists: 'conflict',
  grant_not_found: 'not_found',
  // node
  node_name_invalid: 'invalid',
  node_alias_invalid: 'invalid',
  node_alias_not_found: 'not_found',
  node_alias_in_use: 'conflict',
  node_attestor_unavailable: 'unavailable',
  node_not_found: 'not_found',
  node_refused: 'unauthenticated',
  node_api_off: 'precondition',
  node_evidence_invalid: 'unauthenticated',
  join_token_not_found: 'not_found',
  view_gap: 'conflict',
  view_invalid: 'invalid',
  view_set_back: 'conflict',
  server_untrusted: 'unauthenticated',
  agent_cache_invalid: 'precondition',
  // attest
  attestation_failed: 'unauthenticated',
  // audit
  audit_event_too_large: 'too_large',
  audit_query_invalid: 'invalid',
  audit_cursor_invalid: 'invalid',
  audit_note_invalid: 'invalid',
  audit_policy_invalid: 'invalid',
  audit_quorum_missing: 'precondition',
  audit_signature_invalid: 'invalid',
  audit_proof_invalid: 'invalid',
  issuance_unproven: 'precondition',
  audit_log_invalid: 'invalid',
  audit_pack_invalid: 'invalid',
  audit_log_shorter: 'conflict',
  audit_log_forked: 'conflict',
  audit_log_damaged: 'unavailable',
  audit_tile_not_found: 'not_found',
  audit_entry_not_found: 'not_found',
  audit_entries_pruned: 'not_found',
  audit_shred_invalid: 'invalid',
  audit_question_unknown: 'not_found',
  audit_certificate_not_found: 'not_found',
  // store
  store_locked: 'precondition',
  store_newer: 'precondition',
  store_corrupt: 'unavailable',
  store_unavailable: 'unavailable',
  store_backup_failed: 'precondition',
  backup_unsealed: 'precondition',
  backup_invalid: 'invalid',
  backup_failed: 'precondition',
  restore_refused: 'precondition',
  file_permissions: 'precondition',
  file_missing: 'not_found',
  // grpc, sds, ext-authz
  message_invalid: 'invalid',
  message_too_large: 'too_large',
  resource_names_exceeded: 'exhausted',
  stream_limit: 'exhausted',
  rate_limited: 'exhausted',
  server_busy: 'exhausted',
  stream_stalled: 'unavailable',
  credentials_pending: 'unavailable',
  socket_path_too_long: 'invalid',
  socket_path_unsafe: 'precondition',
  socket_in_use: 'precondition',
  address_in_use: 'precondition',
  certificate_missing: 'unauthenticated',
  certificate_unusable: 'unauthenticated',
  certificate_untrusted: 'unauthenticated',
  certificate_expired: 'unauthenticated',
  // http
  unauthenticated: 'unauthenticated',
  oidc_unavailable: 'unavailable',
  forbidden: 'forbidden',
  host_not_allowed: 'forbidden',
  origin_not_allowed: 'forbidden',
  route_not_found: 'not_found',
  body_invalid: 'invalid',
  query_invalid: 'invalid',
  method_not_allowed: 'invalid',
  media_type_unsupported: 'invalid',
  body_too_large: 'too_large',
  witness_log_unknown: 'not_found',
  witness_unsigned: 'forbidden',
  witness_inconsistent: 'conflict',
  token_not_found: 'not_found',
  // cli and configuration
  config_invalid: 'invalid',
  usage: 'invalid',
  input_unreadable: 'invalid',
  input_too_large: 'too_large',
  suggestion_impossible: 'precondition',
  server_unreachable: 'unavailable',
  collector_unreachable: 'unavailable',
  collector_refused: 'precondition',
  hook_failed: 'precondition',
  directory_in_use: 'precondition',
  platform_unsupported: 'precondition',
  shutting_down: 'unavailable',
  internal: 'internal',
} as const satisfies Record<string, ErrorKind>;

/** One of the closed set of codes in {@link errorKinds}. */
export type ErrorCode = keyof typeof errorKinds;

/** Where in a document an error lies; line and column are one-based. */
export type Place = { readonly file: string; readonly line: number; readonly column: number };

/**
 * The one error type of the house. `message` starts in lower case, quotes user input, ends without a full stop and
 * names no internals. `place` is the spot in a document, `fix` one imperative sentence that helps.
 */
export class MeshError extends Error {
  override readonly name = 'MeshError';
  readonly code: ErrorCode;
  readonly place: Place | undefined;
  readonly fix: string | undefined;

  constructor(
    code: ErrorCode,
    message: string,
    options: { place?: Place; fix?: string; cause?: unknown } = {},
  ) {
    super(message, options.cause === undefined ? {} : { cause: options.cause });
    this.code = code;
    this.place = options.place;
    this.fix = options.fix;
  }

  /** What a caller can do about it. */
  get kind(): ErrorKind {
    return errorKinds[this.code];
  }
}

/** What a door may show of an error: an unknown one is `internal` and keeps its message to itself. */
export type PublicError = {
  readonly code: ErrorCode;
  readonly message: string;
  readonly place?: Place;
  readonly fix?: string;
};

/** Reduces any thrown value to what may leave the process. */
export function publicError(error: unknown): PublicError {
  if (!(error instanceof MeshError) || error.kind === 'internal') {
    return { code: error instanceof MeshError ? error.code : 'internal', message: 'internal error' };
  }
  return {
    code: error.code,
    message: error.message,
    ...(error.place === undefined ? {} : { place: error.place }),
    ...(error.fix === undefined ? {} : { fix: error.fix }),
  };
}

/** `file:line:column`, the form editors and terminals link. */
export function formatPlace(place: Place): string {
  return `${place.file}:${place.line}:${place.column}`;
}

/**
 * Quotes untrusted text for a message: control and bidirectional characters escaped, at most 200 characters kept.
 */
export function quote(text: string): string {
  const short = text.length > 200 ? `${text.slice(0, 200)}…` : text;
  return JSON.stringify(short).replace(
    /[\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g,
    (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}
