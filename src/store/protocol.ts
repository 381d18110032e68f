import type { KeyObject } from 'node:crypto';
import type { AuditColumns, CertificateColumns, TokenColumns } from '../audit/columns.ts';
import type { PersonalValue } from '../audit/canonical.ts';
import type { CallsQuery, CallsStep } from '../audit/calls-question.ts';
import type { CountPage, CountQuery } from '../audit/count.ts';
import type { ConsistencyProof, EntryProof } from '../audit/proof.ts';
import type { PrunedClass } from '../audit/retention.ts';
import type { AuditPage, AuditQuery } from '../audit/query.ts';
import type { Rollup } from '../audit/rollup.ts';
import type { TileName } from '../audit/tile-path.ts';
import type { SampleQuery, SampleStep } from '../audit/sample.ts';
import type { SeenCertificate } from '../audit/unknown-certificates.ts';
import type { Fork, HeldCheckpoint } from '../audit/witness.ts';
import type { JwtSlot } from '../ca/jwt-slot.ts';
import type { StoredAuthority } from '../ca/stored.ts';
import { type ErrorCode, MeshError } from '../errors.ts';
import type { AdminGrant } from '../identity/admin-grant.ts';
import type { AdminToken } from '../identity/admin-token.ts';
import type { BanTarget } from '../identity/ban.ts';
import type { AttestedNode, JoinToken } from '../identity/node.ts';
import type { CoverageChange, CoverageRow, IssuedCertificate } from '../identity/coverage.ts';
import type { NamedCertificates } from '../identity/revoked.ts';
import type { NewPolicyRevision, NewRollout, PolicyDocument } from '../identity/mesh.ts';
import type { PolicyPast } from '../identity/policy-edits.ts';
import type { Migration } from './backup.ts';
import type { PersonalBatch, PersonalFilter, PersonalMatches } from './audit-personal.ts';
import type { DueSpan, PruneQuestion } from './audit-due.ts';
import type { DecisionRows } from './decision-table.ts';
import type { PolicyRevision, PolicyRevisionRecord } from '../identity/policy-revision.ts';
import type { NodeAlias } from '../identity/node-alias.ts';
import type { StoredFork } from './witness-table.ts';

// What travels between the store and its threads. Structured clones: plain data, no classes of ours.

/** What a worker thread is started with. */
export type WorkerStart = {
  readonly role: 'writer' | 'reader' | 'checkpointer';
  readonly dataDir: string;
  readonly nowMs: number;
  /** Of a larger database a start checks the small tables alone. */
  readonly wholeCheckBytes: number;
};

/** What opening the database for writing has answered. `isLeft`: the large tables are to be checked, by a {@link CheckStep}. */
export type WriterOpened = { readonly migration: Migration | null; readonly isLeft: boolean };

/** What a step of the check has found: what is wrong with the first damaged entry, or null. */
export type CheckStep = { readonly isDone: boolean; readonly damage: string | null };

/** An event, encoded, on its way into the log. */
export type LeafRecord = {
  readonly leaf: Uint8Array;
  readonly personal: readonly PersonalValue[];
  readonly columns: AuditColumns;
  readonly certificate: CertificateColumns | null;
  readonly token: TokenColumns | null;
  readonly rollup: Rollup;
};

/** A registration entry as its row. */
export type EntryRow = {
  readonly id: string;
  readonly spiffeId: string;
  readonly selectors: readonly string[];
  readonly ttlSeconds: number;
  readonly dnsNames: readonly string[];
  readonly labels: Readonly<Record<string, string>>;
  readonly hint: string;
  readonly expiresAt: Date | null;
  readonly nodes: readonly string[];
  readonly revision: number;
};

/** A ban as its row; the actor is JSON. */
export type BanRow = {
  readonly kind: string;
  readonly value: string;
  readonly reason: string;
  readonly until: Date | null;
  readonly createdAt: Date;
  readonly actor: string;
  readonly revision: number;
};

/** What goes of the log: see audit-pruned.ts and audit-personal.ts. */
export type RetentionChange =
  /** Its event is the announcement. */
  | {
      readonly kind: 'prune';
      readonly class: PrunedClass;
      readonly first: number;
      readonly entries: number;
    }
  | {
      readonly kind: 'prune_part';
      readonly class: PrunedClass;
      readonly first: number;
      readonly part: number;
    }
  /** `remove`: also gives the room of older ones back. */
  | { readonly kind: 'shred'; readonly ids: readonly number[]; readonly remove: boolean };

/** What the store remembers by name, besides its tables. */
export type MetaKey =
  | 'trust_domain'
  | 'bundle_sequence'
  | 'authority_request'
  | 'jwt_bundle_sequence'
  | 'crl_number'
  | 'policy_key'
  | 'audit_key'
  | 'audit_verifier_key'
  | 'witness_key'
  | 'witness_verifier_key'
  | 'restored';

/** What a write changes besides the log. */
export type StoreChange =
  | { readonly kind: 'none' }
  | {
      readonly kind: 'mesh';
      readonly expectRevision: number;
      readonly revision: number;
      readonly putEntries: readonly EntryRow[];
      readonly deleteEntries: readonly string[];
      readonly putPolicies: readonly PolicyDocument[];
      readonly deletePolicies: readonly string[];
      readonly putBans: readonly BanRow[];
      readonly deleteBans: readonly BanTarget[];
      readonly putAliases: readonly NodeAlias[];
      readonly deleteAliases: readonly string[];
      readonly putGrants?: readonly AdminGrant[];
      readonly deleteGrants?: readonly string[];
      readonly policyRevision?: NewPolicyRevision;
      readonly rollout?: NewRollout;
    }
  | {
      readonly kind: 'authorities';
      readonly authorities: readonly StoredAuthority[];
      readonly bundleSequence: number;
      /** As text; empty when no key waits. */
      readonly request: string;
    }
  | { readonly kind: 'jwt_keys'; readonly slots: readonly JwtSlot[]; readonly bundleSequence: number }
  | ({ readonly kind: 'coverage' } & CoverageChange)
  | { readonly kind: 'policy_revisions_dropped'; readonly through: number }
  | { readonly kind: 'meta'; readonly key: string; readonly value: string }
  | { readonly kind: 'token_created'; readonly token: AdminToken }
  | { readonly kind: 'token_revoked'; readonly id: string }
  | { readonly kind: 'node'; readonly node: AttestedNode }
  | { readonly kind: 'node_forgotten'; readonly name: string }
  | {
      readonly kind: 'join_token_redeemed';
      readonly secretSha256: string;
      readonly keySha256: string;
      readonly nowMs: number;
      readonly node: AttestedNode;
    }
  | { readonly kind: 'join_token_created'; readonly token: JoinToken }
  | { readonly kind: 'join_token_revoked'; readonly id: string }
  | { readonly kind: 'held'; readonly next: HeldCheckpoint; readonly from: number | null }
  | { readonly kind: 'fork'; readonly fork: Fork; readonly seenMs: number }
  | { readonly kind: 'witnessed'; readonly size: number; readonly note: string }
  | {
      readonly kind: 'shipment';
      readonly node: string;
      readonly epoch: string;
      readonly sequence: number;
    }
  | RetentionChange;

/** A change and its events: atomic. With `prove`, each event is proven under the checkpoint of its commit. */
export type WriteRequest = {
  readonly change: StoreChange;
  readonly leaves: readonly LeafRecord[];
  readonly prove?: true;
};

/** That a leaf is in the log of a checkpoint, a signed note: its path, 32 bytes for each hash, the lowest first. */
export type LeafProof = { readonly path: Uint8Array; readonly checkpoint: string };

/** Requests that share one transaction, and the time they do it. */
export type WriteBatch = { readonly requests: readonly WriteRequest[]; readonly nowMs: number };

/**
 * The answer to one request: the index of its first leaf, or why it alone was refused. Proofs are there when they were
 * asked for, in the order of the leaves, and the log is signed.
 */
export type WriteAnswer = WriteKept | { readonly failure: Failure };
export type WriteKept = { readonly firstIndex: number; readonly proofs?: readonly LeafProof[] };

export type StoredMesh = {
  readonly revision: number;
  readonly entries: readonly EntryRow[];
  readonly policies: readonly PolicyDocument[];
  readonly bans: readonly BanRow[];
  readonly aliases: readonly NodeAlias[];
  readonly grants: readonly AdminGrant[];
  readonly policyRevision: PolicyRevision | null;
  readonly rollout: NewRollout | null;
};

/** A revision that is kept, and when it ceased to be in force: null for the one that is. */
export type KeptRevision = { readonly number: number; readonly endedMs: number | null };

/** Questions to the reader and their answers. */
export type Questions = {
  mesh: { ask: null; answer: StoredMesh };
  policyRevision: { ask: number; answer: PolicyRevisionRecord | null };
  policyRevisions: {
    ask: { readonly below: number; readonly limit: number };
    answer: readonly NewPolicyRevision[];
  };
  policyPast: { ask: number; answer: PolicyPast };
  policiesOf: { ask: number; answer: readonly Omit<PolicyDocument, 'source'>[] };
  policyOf: { ask: { readonly number: number; readonly key: string }; answer: PolicyDocument | null };
  policiesIn: {
    ask: { readonly number: number; readonly namespaces: readonly string[] };
    answer: readonly PolicyDocument[];
  };
  revisionAt: { ask: number; answer: number | null };
  keptRevisions: { ask: null; answer: readonly KeptRevision[] };
  authorities: { ask: null; answer: readonly StoredAuthority[] };
  jwtKeys: { ask: null; answer: readonly JwtSlot[] };
  jwtExpiries: { ask: null; answer: ReadonlyMap<string, Date> };
  coverage: { ask: null; answer: readonly CoverageRow[] };
  unexpired: { ask: number; answer: readonly IssuedCertificate[] };
  named: { ask: NamedQuestion; answer: NamedCertificates };
  keyOwners: { ask: number; answer: readonly KeyOwner[] };
  meta: { ask: string; answer: string | null };
  tokens: { ask: null; answer: readonly AdminToken[] };
  token: { ask: string; answer: AdminToken | null };
  nodes: { ask: null; answer: readonly AttestedNode[] };
  joinTokens: { ask: null; answer: readonly JoinToken[] };
  joinToken: { ask: string; answer: JoinToken | null };
  latestExpiry: { ask: { readonly entryId: string; readonly nowMs: number }; answer: number | null };
  latestExpiries: {
    ask: { readonly spiffeIds: readonly string[]; readonly nowMs: number };
    answer: readonly (number | null)[];
  };
  auditPage: { ask: AuditQuery; answer: AuditPage };
  auditCount: { ask: CountQuery; answer: CountPage };
  auditSample: { ask: SampleQuery; answer: SampleStep };
  recordedCalls: { ask: CallsQuery; answer: CallsStep };
  auditSize: { ask: null; answer: number };
  decisions: { ask: { readonly id: string; readonly limit: number }; answer: DecisionRows };
  auditCheckpoint: { ask: null; answer: string | null };
  auditTile: { ask: TileName; answer: Uint8Array | null };
  auditProof: {
    ask: { readonly index: number; readonly isWitnessed: boolean };
    answer: EntryProof | null;
  };
  auditConsistency: { ask: number; answer: ConsistencyProof | null };
  held: { ask: string; answer: HeldCheckpoint | null };
  allHeld: { ask: null; answer: readonly HeldCheckpoint[] };
  forks: { ask: null; answer: readonly StoredFork[] };
  witnessed: { ask: null; answer: string | null };
  growth: {
    ask: { readonly from: number; readonly to: number };
    answer: readonly Uint8Array[] | null;
  };
  auditRemains: { ask: TileName; answer: Uint8Array | null };
  dueSpan: { ask: PruneQuestion; answer: DueSpan | null };
  lastPruned: { ask: null; answer: { readonly first: number; readonly class: PrunedClass } | null };
  oldPersonal: {
    ask: { readonly beforeMs: number; readonly from: number };
    answer: PersonalBatch | null;
  };
  personal: {
    ask: { readonly filter: PersonalFilter; readonly from: number };
    answer: PersonalMatches;
  };
};
/** Which certificates are meant, and at what time. */
export type NamedQuestion = {
  readonly spiffeIds: readonly string[];
  readonly serials: readonly string[];
  /** SHA-256 of SubjectPublicKeyInfos, lower-case hex. */
  readonly keys: readonly string[];
  /** Certificates to be held against their issuances. */
  readonly seen?: readonly SeenCertificate[];
  readonly nowMs: number;
};
/** A public key and the identity that a certificate for it was given to. */
export type KeyOwner = readonly [spkiSha256: string, spiffeId: string];

export type QuestionKind = keyof Questions;
export type Question = {
  [K in QuestionKind]: { readonly kind: K; readonly ask: Questions[K]['ask'] };
}[QuestionKind];

/** Who signs the log: see `Store.signLog`. */
export type LogSigning = {
  readonly name: string;
  readonly key: KeyObject;
  readonly newKeyId: string | null;
};

export type WorkerCall =
  | { readonly call: number; readonly kind: 'write'; readonly batch: WriteBatch }
  | { readonly call: number; readonly kind: 'read'; readonly question: Question }
  | ({ readonly call: number; readonly kind: 'sign' } & LogSigning)
  | { readonly call: number; readonly kind: 'resume' }
  | { readonly call: number; readonly kind: 'fold' }
  | { readonly call: number; readonly kind: 'backfill'; readonly above: number }
  | { readonly call: number; readonly kind: 'check' }
  | { readonly call: number; readonly kind: 'close' };

/** The frames of the WAL, and how many of them are in the database too: when all are, the next write begins it anew. */
export type WalState = { readonly frames: number; readonly backfilled: number };

/** Whether writes are taken again: not while the disk has no room, never after a failure of another kind. */
export type Resumption = 'resumed' | 'not_yet' | 'never';

/** `fatal`: nothing more is written through this handle, unless it is resumed. */
export type WorkerReply =
  | { readonly call: number; readonly kind: 'done'; readonly value: unknown }
  | { readonly call: number; readonly kind: 'failed'; readonly failure: Failure; readonly fatal: boolean };

/** An error as plain data. */
export type Failure = {
  readonly code: ErrorCode;
  readonly message: string;
  readonly fix: string | undefined;
  /** For logs only: the text of what lies beneath. */
  readonly detail: string;
};

/** Reduces a thrown value to plain data; anything but a MeshError is `internal`. */
export function describeFailure(error: unknown): Failure {
  const detail = error instanceof Error ? `${error.message}${causeText(error)}` : String(error);
  if (!(error instanceof MeshError)) {
    return { code: 'internal', message: 'the store failed', fix: undefined, detail };
  }
  return { code: error.code, message: error.message, fix: error.fix, detail };
}

/** The error of a failure described by {@link describeFailure}. */
export function restoreFailure(failure: Failure): MeshError {
  return new MeshError(failure.code, failure.message, {
    ...(failure.fix === undefined ? {} : { fix: failure.fix }),
    cause: new Error(failure.detail),
  });
}

function causeText(error: Error): string {
  return error.cause instanceof Error ? `: ${error.cause.message}` : '';
}
