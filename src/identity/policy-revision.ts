import { createHash } from 'node:crypto';
import { canonicalJson } from '../audit/canonical-json.ts';
import type { Actor } from '../audit/event.ts';
import type { PolicyRevisionEvent } from '../audit/policy-event.ts';
import { type PolicyMode, policyModes } from '../authz/policy-mode.ts';
import { MeshError } from '../errors.ts';
import type { TrustDomain } from '../spiffe/id.ts';
import type { PolicyDocument } from './mesh.ts';

/**
 * Which policies are in force, signed: what an agent is told. Of two revisions the one with the higher number is the later
 * one, whatever they hold; the same policies have the same id, whenever they were in force.
 */
export type PolicyRevision = {
  /** From 1, one more than the one before it, unless an operator moved it ahead. */
  readonly number: number;
  /** See {@link policySetId}. */
  readonly id: string;
  /** The one that was in force before; null for the first. */
  readonly parent: { readonly number: number; readonly id: string } | null;
  readonly time: Date;
  /** See {@link recordDigest}: so that the signature is for those as well. */
  readonly recordSha256: string;
  /** Ed25519, SubjectPublicKeyInfo as DER, in base64. */
  readonly publicKey: string;
  /** Ed25519 over {@link revisionStatement}, in base64. */
  readonly signature: string;
};

/** Who made a revision, and why. */
export type RevisionReason = {
  readonly author: Actor;
  /** See {@link parseRevisionMessage}. */
  readonly message: string;
  /** The revision whose policies it brought back; null for an edit. */
  readonly restores: number | null;
};

/** A revision as it is kept. */
export type PolicyRevisionRecord = PolicyRevision & RevisionReason;

/** What changed from the revision before, in one namespace. */
export type NamespaceChanges = {
  readonly namespace: string;
  readonly created: number;
  readonly updated: number;
  readonly deleted: number;
};

/** Signs revisions, with a key that is for nothing else. A port: the key may be kept elsewhere. */
export type PolicySigner = {
  readonly publicKey: string;
  /** @param bytes a statement. @returns the signature, Ed25519, 64 bytes */
  readonly sign: (bytes: Uint8Array) => Uint8Array | Promise<Uint8Array>;
};

/**
 * The name of a set of policies: SHA-256, lower-case hex, of the canonical JSON (RFC 8785) of
 * `{"documents": {"<namespace/name>": "<SHA-256 of its text, hex>", ...}, "type": "countersign/policy-set", "v": 1}`.
 * Where a text stood, its file and line, is no part of it. How the policies are read is: in Istio mode there is
 * `"mode": "istio"` as well, so that whoever signs a set signs what it means.
 */
export function policySetId(
  policies: ReadonlyMap<string, Pick<PolicyDocument, 'sha256'>>,
  mode: PolicyMode = 'strict',
): string {
  const known = idsOf[mode];
  let id = known.get(policies);
  if (id === undefined) {
    // As `canonicalJson` would write it, in a quarter of the time: everybody waits while ten thousand are named.
    const documents = [...policies.keys()]
      .sort()
      .map((key) => `${JSON.stringify(key.toWellFormed())}:"${policies.get(key)?.sha256 ?? ''}"`);
    const read = mode === 'strict' ? '' : `"mode":"${mode}",`;
    id = sha256Of(`{"documents":{${documents.join(',')}},${read}"type":"countersign/policy-set","v":1}`);
    known.set(policies, id);
  }
  return id;
}

/** How the policies of a mesh are read, as their revision says; strictly where there never was one. */
export function policyModeOf({
  policies,
  policyRevision,
}: {
  readonly policies: ReadonlyMap<string, PolicyDocument>;
  readonly policyRevision?: PolicyRevision | undefined;
}): PolicyMode {
  return (policyRevision && policySetMode(policies, policyRevision.id)) ?? 'strict';
}

/** In which mode a set of policies has this name; undefined when it has it in none: it is another set. */
export function policySetMode(
  policies: ReadonlyMap<string, Pick<PolicyDocument, 'sha256'>>,
  id: string,
): PolicyMode | undefined {
  return policyModes.find((mode) => policySetId(policies, mode) === id);
}

/** SHA-256, lower-case hex, of the canonical JSON of `{"author", "message", "restores", "v": 1}`. */
export function recordDigest({ author, message, restores }: RevisionReason): string {
  return sha256Of(canonicalJson({ author, message, restores, v: 1 }));
}

/**
 * What is signed: a line that is in no other statement of ours, then canonical JSON.
 * INVARIANT: everything that tells one revision from another is in it.
 */
export function revisionStatement(
  trustDomain: TrustDomain,
  { number, id, parent, time, recordSha256 }: Omit<PolicyRevision, 'signature' | 'publicKey'>,
): Uint8Array {
  const statement = {
    id,
    number,
    parent: parent === null ? null : { id: parent.id, number: parent.number },
    recordSha256,
    time: time.toISOString(),
    trustDomain: trustDomain.name,
  };
  return Buffer.from(`countersign policy revision v1\n${canonicalJson(statement)}`, 'utf8');
}

/** The revision that follows, signed. */
export async function signRevision(
  signer: PolicySigner,
  trustDomain: TrustDomain,
  next: Omit<PolicyRevision, 'recordSha256' | 'publicKey' | 'signature'>,
  { author, message, restores }: RevisionReason,
): Promise<PolicyRevisionRecord> {
  // Nothing else than what is signed: what signs may be asked to wait.
  const { number, id, time } = next;
  const parent = next.parent === null ? null : { number: next.parent.number, id: next.parent.id };
  const recordSha256 = recordDigest({ author, message, restores });
  const signed = { number, id, parent, time, recordSha256 };
  const signature = await signer.sign(revisionStatement(trustDomain, signed));
  return {
    ...signed,
    publicKey: signer.publicKey,
    signature: Buffer.from(signature).toString('base64'),
    author,
    message,
    restores,
  };
}

/** What changed between two sets of policies, by namespace, in the order of their names. */
export function changesByNamespace(
  before: ReadonlyMap<string, unknown>,
  put: readonly { readonly key: string }[],
  deleted: readonly string[],
): readonly NamespaceChanges[] {
  const counts = new Map<string, { created: number; updated: number; deleted: number }>();
  const of = (key: string) => {
    const namespace = policyNamespace(key);
    const found = counts.get(namespace) ?? { created: 0, updated: 0, deleted: 0 };
    counts.set(namespace, found);
    return found;
  };
  for (const { key } of put) of(key)[before.has(key) ? 'updated' : 'created'] += 1;
  for (const key of deleted) of(key).deleted += 1;
  return [...counts.keys()].sort().map((namespace) => ({ namespace, ...of(namespace + '/') }));
}

/** The namespace of a policy, from its key. */
export function policyNamespace(key: string): string {
  return key.slice(0, key.indexOf('/'));
}

/** Which policies are in force, in short; null while there was no revision of them. */
export function policyInForce({
  policyRevision,
}: {
  readonly policyRevision?: PolicyRevision | undefined;
}): PolicyInForce | null {
  if (policyRevision === undefined) return null;
  const { number, id } = policyRevision;
  return { number, id };
}

/** A revision by its number, and what it names. */
export type PolicyInForce = Pick<PolicyRevision, 'number' | 'id'>;

/** A revision without its reason, which agents are not told. */
export function withoutReason(record: PolicyRevisionRecord): PolicyRevision {
  const { author: _author, message: _message, restores: _restores, ...revision } = record;
  return revision;
}

/** The event of a revision. */
export function revisionEvent(
  action: Exclude<PolicyRevisionEvent['action'], 'dropped'>,
  record: PolicyRevisionRecord,
  meshRevision: number,
): PolicyRevisionEvent {
  const { number, id, parent, restores, author, message, time, signature } = record;
  return {
    type: 'policy_revision',
    time,
    action,
    number,
    first: number,
    id,
    parent: parent?.number ?? 0,
    restores: restores ?? 0,
    revision: meshRevision,
    actor: author,
    message,
    signature,
  };
}

/**
 * A message as its author wrote it: at most 1,024 characters of one line. What hides or reorders text is refused: it is
 * read by people who look for the revision to go back to.
 * @throws MeshError `policy_message_invalid`
 */
export function parseRevisionMessage(text: string): string {
  const message = text.trim();
  if (!message.isWellFormed() || unreadable.test(message)) {
    throw new MeshError('policy_message_invalid', 'the message has control characters', {
      fix: 'write one line of plain text',
    });
  }
  if (Array.from(message).length > maxMessageCharacters) {
    throw new MeshError(
      'policy_message_invalid',
      `the message is longer than ${maxMessageCharacters} characters`,
      { fix: 'shorten it, and put the rest where it links to' },
    );
  }
  return message;
}

/** The most characters of a message. */
export const maxMessageCharacters = 1_024;
const unreadable = /[\p{Cc}\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/u;
type Ids = WeakMap<ReadonlyMap<string, Pick<PolicyDocument, 'sha256'>>, string>;
const idsOf: Readonly<Record<PolicyMode, Ids>> = { strict: new WeakMap(), istio: new WeakMap() };

function sha256Of(text: string): string {
  return createHash('sha256').update(text, 'utf8').digest('hex');
}
