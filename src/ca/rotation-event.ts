import type { Evidence, Laggard, Slot, SlotKind } from './slot.ts';

/** What can happen to the keys of a CA. */
export type RotationEvent =
  /** Somebody asks for new keys: an intermediate, or a root with its intermediate. */
  | {
      readonly kind: 'rotate';
      readonly scope: SlotKind;
      /** Ask for a root that is kept elsewhere, also where one is kept here now. */
      readonly offline?: boolean;
    }
  /** The keys of a `make` effect exist and are sealed on disk. */
  | { readonly kind: 'made'; readonly keys: readonly MadeKey[] }
  /** The key of a `request` effect exists and is sealed, and its certificate request is made. */
  | { readonly kind: 'requested'; readonly keyId: string }
  /**
   * A certificate has come for the key that waits, with its root: both proven. The root is one we know or a new one; who
   * made it is elsewhere.
   */
  | { readonly kind: 'imported'; readonly root: MadeKey; readonly signer: MadeKey }
  /** Somebody asks to sign under the prepared root. */
  | { readonly kind: 'activate'; readonly evidence: Evidence; readonly force: boolean }
  /** Somebody asks to take retiring roots out of the bundle. */
  | { readonly kind: 'retire'; readonly evidence: Evidence; readonly force: boolean }
  | { readonly kind: 'taint'; readonly keyId: string }
  /** Time has passed, or certificates have: does what is due. */
  | { readonly kind: 'tick'; readonly evidence: Evidence };

/** A key that was made, before it has a slot. */
export type MadeKey = Pick<Slot, 'kind' | 'keyId' | 'rootKeyId' | 'notBefore' | 'notAfter' | 'offline'>;

export type RotationEffect =
  /** Make an intermediate under a root, or (null) a root and an intermediate under it; then say `made`. */
  | { readonly kind: 'make'; readonly rootKeyId: string | null }
  /** Make the key of an intermediate and a request for its certificate; then say `requested`. */
  | { readonly kind: 'request' }
  /** The bundle has changed: give it to every proxy. */
  | { readonly kind: 'publish'; readonly sequence: number }
  /** From now on this intermediate signs. */
  | { readonly kind: 'sign_with'; readonly keyId: string }
  /** Replace every certificate these issuers signed, spread over time. */
  | { readonly kind: 'reissue'; readonly issuerKeyIds: readonly string[] }
  /** Delete these private keys. */
  | { readonly kind: 'forget'; readonly keyIds: readonly string[] }
  | {
      readonly kind: 'record';
      readonly action: RecordedAction;
      readonly keyId: string;
      readonly forced: boolean;
      /** Empty, or what the step was permitted on. */
      readonly evidence: string;
    }
  /** The step was not taken: the only effect then, and the state is the same. */
  | { readonly kind: 'refuse'; readonly refusal: RotationRefusal };

export type RecordedAction =
  'requested' | 'created' | 'prepared' | 'activated' | 'retired' | 'tainted' | 'forced';

export type RotationRefusal =
  | { readonly code: 'rotation_unproven'; readonly why: string; readonly laggards: readonly Laggard[] }
  | { readonly code: 'rotation_out_of_order'; readonly why: string; readonly fix: string }
  | { readonly code: 'authority_not_found'; readonly why: string }
  | { readonly code: 'csr_not_waiting'; readonly why: string };
