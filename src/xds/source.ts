import type { ErrorCode } from '../errors.ts';
import type { WatchCredentials, WorkloadCredentials } from '../identity/credentials.ts';
import type { Attestation } from '../identity/evidence.ts';
import type { Node } from '../wire/core.ts';
import type { FindResource, Resource, SentResponse } from './resource.ts';
import { isBannedName, offeredNames, secretOf, secretTypeUrl, type SecretFormat } from './secret.ts';
import { shareOffers } from './shared-offers.ts';

/** What a caller may have of one kind of resource now. */
export type Offer = {
  readonly find: FindResource;
  /** Why a name is not found. */
  readonly reasonFor: (name: string) => RefusalReason;
  /** The name under which one of these was given that is banned now: its stream has to end. */
  readonly bannedOf: (given: readonly Resource[]) => string | undefined;
  /** How long a resource that expires lives from now on, in whole seconds from 1; asked for at each response. */
  readonly ttlSeconds?: () => number;
  /** Told what becomes of these resources on this stream, in the place of the observer of all streams. */
  readonly told?: DeliveryObserver;
};

/** Told what becomes of the resources of one kind on one stream; must not throw and must not wait. */
export type DeliveryObserver = {
  readonly pushed: (response: SentResponse) => void;
  readonly acknowledged: (resources: readonly Resource[]) => void;
  /** `message` is the client's own text. */
  readonly rejected: (response: SentResponse, message: string) => void;
  /** The client has left a response without an answer; told again and again. */
  readonly unanswered: () => void;
};

export type RefusalReason = {
  readonly code: Extract<ErrorCode, 'identity_none' | 'identity_banned'>;
  readonly message: string;
};

/** Whoever follows the resources of one kind; must not throw. Nothing is told after `failed` or `ended`. */
export type Follower = {
  /** The full state, which stands until the next. */
  readonly offered: (offer: Offer) => void;
  /** With the MeshError that the stream ends with. */
  readonly failed: (error: unknown) => void;
  readonly ended: () => void;
  /** What was offered lives on for as long again; see {@link StreamEvent}. */
  readonly beat: (hasLapsed: boolean) => void;
};

/**
 * Follows the resources of one kind for one caller. What there is already is offered before this returns.
 * @returns ends it: nothing is told after that
 */
export type FollowOffers = (attestation: Attestation, follower: Follower) => () => void;

/** What credentials are to those who ask for resources. */
export type OfferOf = (credentials: WorkloadCredentials) => Offer;

/** Where the resources of one kind come from. */
export type ResourceSource = {
  readonly typeUrl: string;
  /** Takes from the node of a stream what matters for its resources, and keeps nothing else of it: a node may be large. */
  readonly forNode: (node: Node | undefined) => FollowOffers;
};

/**
 * The certificates and bundles of a caller, as Envoy's secrets. What the node says of itself chooses their format alone.
 * @param onChange as of {@link shareOffers}
 */
export function createSecretSource(
  watch: WatchCredentials,
  onChange?: (listener: () => void) => void,
): ResourceSource {
  const followIn = (format: SecretFormat): FollowOffers =>
    shareOffers(watch, (credentials) => offerOf(credentials, format), onChange);
  const [validator, plain] = [followIn({ plainTrustedCa: false }), followIn({ plainTrustedCa: true })];
  const proven = followIn({ plainTrustedCa: true, issuanceProof: true });
  return {
    typeUrl: secretTypeUrl,
    forNode: (node) => {
      if (!hasWish(node, 'disable_spiffe_cert_validation')) return validator;
      return hasWish(node, 'issuance_proof') ? proven : plain;
    },
  };
}

function offerOf(credentials: WorkloadCredentials, format: SecretFormat): Offer {
  return {
    find: remember(credentials, format),
    reasonFor: (name) =>
      isBannedName(credentials, name)
        ? { code: 'identity_banned', message: 'the identity is banned' }
        : { code: 'identity_none', message: 'no entry gives the caller this name' },
    bannedOf: (given) => {
      if (credentials.banned.length === 0) return undefined;
      const banned = new Set(credentials.banned.map(({ text }) => text));
      const isBanned = ({ content }: Resource): boolean =>
        content?.kind === 'svid' && banned.has(content.spiffeId);
      return given.find(isBanned)?.name;
    },
  };
}

/** Makes each secret once for one state of the credentials, however often the reducer asks. */
function remember(credentials: WorkloadCredentials, format: SecretFormat): FindResource {
  const made = new Map<string, Resource>();
  const names = offeredNames(credentials);
  return (name) => {
    // Whatever a client invents, and however often, costs next to nothing.
    if (!names.has(name)) return undefined;
    const known = made.get(name) ?? secretOf(credentials, name, format);
    // Only what there is: a client may go on inventing names.
    if (known !== undefined) made.set(name, known);
    return known;
  };
}

function hasWish(node: Node | undefined, name: string): boolean {
  const wish: unknown = node?.metadata?.[name];
  return wish === true || wish === 'true';
}
