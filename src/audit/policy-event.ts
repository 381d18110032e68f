import type { Actor } from './event.ts';

/** A policy that was written or deleted. */
export type PolicyChangeEvent = {
  readonly type: 'policy_change';
  readonly time: Date;
  readonly action: 'created' | 'updated' | 'deleted';
  /** `namespace/name`. */
  readonly policy: string;
  readonly revision: number;
  readonly actor: Actor;
  /** SHA-256 of the document's bytes, lower-case hex; empty when there is none. */
  readonly beforeSha256: string;
  readonly afterSha256: string;
  /** The new document, or empty when it was deleted or takes more than 40,960 bytes of JSON. */
  readonly document: string;
  /** In how many {@link PolicyTextEvent}s right before this event a longer document is; absent for all others. */
  readonly documentParts?: number;
  /** Of a break-glass grant: its reason, ticket and end. Absent for all others. */
  readonly breakGlass?: string;
};

/** A part of a policy document that is too long for its {@link PolicyChangeEvent}, in one transaction with it. */
export type PolicyTextEvent = {
  readonly type: 'policy_text';
  readonly time: Date;
  /** `namespace/name`. */
  readonly policy: string;
  readonly revision: number;
  /** SHA-256 of the bytes of all parts together, lower-case hex. */
  readonly sha256: string;
  /** From 1 to `parts`. */
  readonly part: number;
  readonly parts: number;
  readonly text: string;
};

/**
 * A set of policies that was put in force, in one transaction with the {@link PolicyChangeEvent}s that led to it; or revisions
 * that are kept no longer.
 */
export type PolicyRevisionEvent = {
  readonly type: 'policy_revision';
  readonly time: Date;
  /**
   * `edited`: documents were written or deleted. `activated`: an earlier set was put in force again. `adopted`: the
   * policies that were there before revisions were kept. `renumbered`: the same policies under a higher number.
   */
  readonly action: 'edited' | 'activated' | 'adopted' | 'renumbered' | 'dropped';
  /** Of the revision; of those dropped, the last. */
  readonly number: number;
  /** Of those dropped, the first; else the same. */
  readonly first: number;
  /** SHA-256 of the set, lower-case hex; empty for those dropped, as is the signature. */
  readonly id: string;
  /** The revision before it, and the one whose policies it brought back; 0 for none. */
  readonly parent: number;
  readonly restores: number;
  /** Of the mesh. */
  readonly revision: number;
  readonly actor: Actor;
  readonly message: string;
  /** Ed25519, base64. */
  readonly signature: string;
};
