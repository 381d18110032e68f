import { createHash } from 'node:crypto';
import { type ErrorCode, MeshError, quote } from '../errors.ts';
import type { SecretContent } from '../identity/coverage.ts';

/** The most names of one kind that a stream may ask for, and the most bytes of each and of all of them. */
export const maxNames = 256;
export const maxNameBytes = 2_048;
export const maxNamesBytes = 65_536;

/** One named, versioned thing that a stream can be sent. */
export type Resource = {
  readonly name: string;
  /** Follows from the content: equal content has an equal version, in the next process as well. */
  readonly version: string;
  /** Whether it carries a private key. */
  readonly holdsKey: boolean;
  /** Whether a client that hears nothing more of it has to give it up: it is sent with a time to live, and beats follow. */
  readonly expires?: boolean;
  /** The encoded resource. */
  readonly value: Buffer;
  /** What a rotation of the CA has to know of it; absent when it is nothing of ours. */
  readonly content?: SecretContent;
};

/** What the caller may have now, by name. Pure: the same name always finds the same resource. */
export type FindResource = (name: string) => Resource | undefined;

/** Something that happens to the subscription of a stream to one kind of resource. */
export type StreamEvent<Request> =
  | { readonly kind: 'request'; readonly request: Request }
  | { readonly kind: 'resources'; readonly find: FindResource }
  /** The client has left the last response without an answer for too long. */
  | { readonly kind: 'overdue' }
  /**
   * What the client has lives on for as long again. `hasLapsed`: this comes so late that the client may have given it up,
   * and is owed all of it.
   */
  | { readonly kind: 'beat'; readonly hasLapsed: boolean };

/** A response as it was sent. */
export type SentResponse = {
  readonly nonce: string;
  readonly version: string;
  readonly resources: readonly Resource[];
  /** Names of which the client has something, and may not have it any longer. */
  readonly removed: readonly string[];
  /** It says of resources that the client has that they live on, and is no news. */
  readonly isBeat?: boolean;
};

export type StreamEffect =
  | { readonly kind: 'send'; readonly response: SentResponse }
  /** The client has these in use. The nonce is empty when it had them before this stream, and says so. */
  | { readonly kind: 'acknowledged'; readonly nonce: string; readonly resources: readonly Resource[] }
  | { readonly kind: 'rejected'; readonly response: SentResponse; readonly message: string }
  /** Names that the caller asks for and may not have, each told once until it becomes available. */
  | { readonly kind: 'withheld'; readonly names: readonly string[] }
  /** The stream is over; nothing is asked of its state any more. */
  | { readonly kind: 'fail'; readonly code: ErrorCode; readonly message: string };

/**
 * The nonce of a response, by its number. INVARIANT: none is to be guessed, not even by who has read the others: whoever
 * acknowledges a response has read it, so that no more than one is ever waiting to be written.
 */
export type NonceOf = (response: number) => string;

/** One way of speaking xDS about one kind of resource, as a pure reducer. */
export type Protocol<State, Request> = {
  readonly open: (nonceOf: NonceOf) => State;
  readonly next: (state: State, event: StreamEvent<Request>) => readonly [State, readonly StreamEffect[]];
  /** What the client was given under names that it asks for still. */
  readonly given: (state: State) => readonly Resource[];
};

/** The resource of a name. @throws MeshError `internal` when it is found under another name */
export function lookUp(name: string, find: FindResource): Resource | undefined {
  const resource = find(name);
  // INVARIANT: a response holds nothing under another name than was asked for; Envoy would drop it in silence.
  if (resource !== undefined && resource.name !== name) {
    throw new MeshError('internal', `a resource for ${quote(name)} calls itself ${quote(resource.name)}`);
  }
  return resource;
}

/**
 * Whether a secret with a key is still what its name finds, newer or not. `default` may have come to mean another
 * identity.
 */
export function isGivenStill({ name, holdsKey, content }: Resource, find: FindResource | undefined): boolean {
  if (!holdsKey) return true;
  const now = find?.(name)?.content;
  return now?.kind === 'svid' && content?.kind === 'svid' && now.spiffeId === content.spiffeId;
}

/** What is wrong with a list of names that a client sent, or asks for by now; undefined when nothing is. */
export function excessOf(names: readonly string[]): string | undefined {
  if (names.length > maxNames) return `a stream may ask for at most ${maxNames} names`;
  const bytes = names.map((name) => Buffer.byteLength(name));
  if (bytes.some((size) => size > maxNameBytes)) return `a name may have at most ${maxNameBytes} bytes`;
  const all = bytes.reduce((sum, size) => sum + size, 0);
  return all > maxNamesBytes ? `the names of a stream may have at most ${maxNamesBytes} bytes` : undefined;
}

/** The version of a response: that of its resources, in whatever order they were asked for. */
export function versionOf(resources: readonly Resource[]): string {
  const [first] = resources;
  if (first === undefined) return digestOf(resources);
  const known = versions.get(first);
  const isSame = ({ name, version }: Resource, at: number): boolean =>
    name === known?.of[at]?.name && version === known.of[at].version;
  if (known?.of.length === resources.length && resources.every(isSame)) return known.version;
  const version = digestOf(resources);
  // INVARIANT: names and versions, not the resources: one of them may hold a key, and be older than the first.
  versions.set(first, { of: resources.map(({ name, version }) => ({ name, version })), version });
  return version;
}

// Thousands of streams ask for the same secrets in the same order.
const versions = new WeakMap<
  Resource,
  { readonly of: readonly Pick<Resource, 'name' | 'version'>[]; readonly version: string }
>();

function digestOf(resources: readonly Resource[]): string {
  const hash = createHash('sha256');
  for (const line of resources.map(({ name, version }) => JSON.stringify([name, version])).sort()) {
    hash.update(line).update('\n');
  }
  return hash.digest('hex').slice(0, 32);
}
