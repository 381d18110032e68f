import { actionOf } from './change-action.ts';
import type { AuditEvent, CanonicalJson } from '../audit/event.ts';
import { MeshError, type Place, quote } from '../errors.ts';
import { SpiffeId, type TrustDomain } from '../spiffe/id.ts';
import type { YamlDocument } from '../yaml.ts';
import type { YamlMapping } from '../yaml-node.ts';
import { type Grant, type GrantWish, parseGrant } from './access.ts';
import { entryApiVersion } from './entry-document.ts';
import { reservedPath } from './entry-parse.ts';

/** Whom a grant names. What stands here is compared character by character with what was proven. */
export type GrantSubject =
  | { readonly kind: 'spiffe-id'; readonly value: string }
  | {
      readonly kind: 'oidc-subject' | 'oidc-group';
      /** The `iss` of the ID token: a subject is one of its issuer, and nobody to another. */
      readonly issuer: string;
      readonly value: string;
    };

/** A named grant to a workload, a person or a group. Immutable. */
export type AdminGrant = Grant & {
  /** 1 to 128 of a-z 0-9 . - _, the first a letter or digit; the key. */
  readonly name: string;
  readonly subject: GrantSubject;
  /** The mesh revision that last changed it. */
  readonly revision: number;
};

/** A grant as its author writes it. */
export type AdminGrantInput = GrantWish & {
  readonly name: string;
  /** `spiffeId`; or `oidcIssuer` and one of `oidcSubject` and `oidcGroup`. */
  readonly subject: {
    readonly spiffeId?: string | undefined;
    readonly oidcIssuer?: string | undefined;
    readonly oidcSubject?: string | undefined;
    readonly oidcGroup?: string | undefined;
  };
};

/** What a document must say of itself to be a grant. */
export const grantKind = 'AdminGrant';
/** The most grants of a mesh. */
export const maxGrants = 1_000;

/**
 * Checks what an author wrote.
 * @throws MeshError `grant_invalid`, `spiffe_id_*`
 */
export function parseAdminGrant(
  input: AdminGrantInput,
  trustDomain: TrustDomain,
  revision: number,
): AdminGrant {
  if (!grantName.test(input.name)) {
    refuse(
      `${quote(input.name)} is no name of a grant`,
      'use 1 to 128 of a-z 0-9 . - _ and begin with a letter or digit',
    );
  }
  return {
    ...parseGrant(input),
    name: input.name,
    subject: parseSubject(input.subject, trustDomain),
    revision,
  };
}

/**
 * Reads a grant from a document.
 * @throws MeshError `document_field_*`, `document_kind_unknown`, `grant_invalid`, `spiffe_id_*`, each with its place
 */
export function readGrantDocument(
  document: YamlDocument,
  trustDomain: TrustDomain,
  revision: number,
): AdminGrant {
  const root = document.root.mapping(['apiVersion', 'kind', 'metadata', 'spec']);
  if (document.apiVersion !== entryApiVersion) {
    throw root
      .required('apiVersion')
      .error('document_kind_unknown', `is not ${entryApiVersion}`, `write apiVersion: ${entryApiVersion}`);
  }
  const metadata = root.required('metadata').mapping(['name']);
  const spec = root.required('spec').mapping(['subject', 'role', 'namespaces', 'allNamespaces']);
  const subject = spec.required('subject');
  const fields = subject.mapping(['spiffeId', 'oidcIssuer', 'oidcSubject', 'oidcGroup']);
  const text = (mapping: YamlMapping, name: string) => mapping.optional(name)?.string();
  const input: AdminGrantInput = {
    name: metadata.required('name').string(),
    subject: {
      spiffeId: text(fields, 'spiffeId'),
      oidcIssuer: text(fields, 'oidcIssuer'),
      oidcSubject: text(fields, 'oidcSubject'),
      oidcGroup: text(fields, 'oidcGroup'),
    },
    role: spec.required('role').string(),
    namespaces: spec
      .optional('namespaces')
      ?.sequence()
      .map((item) => item.string()),
    allNamespaces: spec.optional('allNamespaces')?.boolean(),
  };
  return placed(subject.place, () => parseAdminGrant(input, trustDomain, revision));
}

/** Whether two grants differ only in the revision that wrote them. */
export function sameGrant(a: AdminGrant, b: AdminGrant): boolean {
  return JSON.stringify(grantJson(a)) === JSON.stringify(grantJson(b));
}

/** A subject in one line, for people and the log. */
export function formatSubject(subject: GrantSubject): string {
  if (subject.kind === 'spiffe-id') return subject.value;
  const what = subject.kind === 'oidc-group' ? 'group' : 'subject';
  return `${what} ${quote(subject.value)} of ${subject.issuer}`;
}

/** The event of a grant that was put, or deleted, in the step to `revision`. */
export function grantEvent(
  before: AdminGrant | undefined,
  after: AdminGrant | undefined,
  rest: Pick<Extract<AuditEvent, { type: 'grant_change' }>, 'time' | 'revision' | 'actor'>,
): AuditEvent {
  return {
    type: 'grant_change',
    ...rest,
    action: actionOf(before, after),
    grant: (after ?? before)?.name ?? '',
    before: before === undefined ? null : grantJson(before),
    after: after === undefined ? null : grantJson(after),
  };
}

/** The grants of one mesh, found by whom they name. */
export type GrantList = {
  readonly forSpiffeId: (id: SpiffeId) => readonly AdminGrant[];
  /** @param groups as the claim has them; what no grant names is passed over */
  readonly forOidc: (issuer: string, subject: string, groups: readonly string[]) => readonly AdminGrant[];
};

/** Indexes the grants of a mesh; once for each revision that changes them. */
export function indexGrants(grants: ReadonlyMap<string, AdminGrant>): GrantList {
  const known = indexed.get(grants);
  if (known !== undefined) return known;
  const bySubject = new Map<string, AdminGrant[]>();
  for (const grant of grants.values()) {
    const key = subjectKey(grant.subject);
    const filed = bySubject.get(key);
    if (filed === undefined) bySubject.set(key, [grant]);
    else filed.push(grant);
  }
  const find = (subject: GrantSubject): readonly AdminGrant[] => bySubject.get(subjectKey(subject)) ?? [];
  const list: GrantList = {
    forSpiffeId: ({ text }) => find({ kind: 'spiffe-id', value: text }),
    forOidc: (issuer, subject, groups) => [
      ...find({ kind: 'oidc-subject', issuer, value: subject }),
      ...[...new Set(groups)].flatMap((value) => find({ kind: 'oidc-group', issuer, value })),
    ],
  };
  indexed.set(grants, list);
  return list;
}

function parseSubject(
  { spiffeId, oidcIssuer, oidcSubject, oidcGroup }: AdminGrantInput['subject'],
  trustDomain: TrustDomain,
): GrantSubject {
  const named = [spiffeId, oidcSubject, oidcGroup].filter((value) => value !== undefined);
  if (named.length !== 1 || (spiffeId === undefined) !== (oidcIssuer !== undefined)) {
    refuse(
      'the subject is not one of the three there are',
      'give spiffeId, or oidcIssuer with oidcSubject, or oidcIssuer with oidcGroup',
    );
  }
  if (spiffeId !== undefined)
    return { kind: 'spiffe-id', value: parseAdministrator(spiffeId, trustDomain).text };
  return {
    kind: oidcGroup === undefined ? 'oidc-subject' : 'oidc-group',
    issuer: parseOidcIssuer(oidcIssuer ?? ''),
    value: parseSubjectValue(oidcSubject ?? oidcGroup ?? ''),
  };
}

/**
 * Reads the SPIFFE ID of an administrator: a workload of our own trust domain, and none that is kept for Countersign itself.
 * @throws MeshError `grant_invalid`, `spiffe_id_*`
 */
export function parseAdministrator(text: string, trustDomain: TrustDomain): SpiffeId {
  const id = SpiffeId.parseWorkload(text);
  if (!id.memberOf(trustDomain)) {
    throw new MeshError(
      'spiffe_id_foreign_trust_domain',
      `SPIFFE ID ${quote(text)} is not of the trust domain ${quote(trustDomain.name)}`,
      { fix: `write it as ${trustDomain.id}/...` },
    );
  }
  // Nodes and our own doors hold such certificates, and no node is an administrator.
  if (id.path.startsWith(reservedPath)) {
    refuse(`${quote(text)} is kept for Countersign itself`, `choose a path outside ${reservedPath}`);
  }
  return id;
}

function parseOidcIssuer(text: string): string {
  if (text.length > maxIssuerLength || !/^https:\/\/[!-~]+$/.test(text) || /[?#]/.test(text)) {
    refuse(`${quote(text)} is no issuer`, 'write its https URL as the iss of its tokens has it');
  }
  return text;
}

function parseSubjectValue(text: string): string {
  if (text === '' || text.length > maxSubjectLength || unprintable.test(text) || !text.isWellFormed()) {
    refuse(
      `${quote(text)} is no subject and no group`,
      `use 1 to ${maxSubjectLength} printable characters, as the token has them`,
    );
  }
  return text;
}

// Fields in a fixed order: one text for one grant.
function grantJson({ subject, role, namespaces }: AdminGrant): CanonicalJson {
  const issuer = subject.kind === 'spiffe-id' ? '' : subject.issuer;
  return { subject: { kind: subject.kind, issuer, value: subject.value }, role, namespaces };
}

// JSON keeps apart what a separator would run together.
function subjectKey(subject: GrantSubject): string {
  return JSON.stringify([subject.kind, subject.kind === 'spiffe-id' ? '' : subject.issuer, subject.value]);
}

function placed<T>(place: Place, parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    if (!(error instanceof MeshError) || error.place !== undefined) throw error;
    throw new MeshError(error.code, error.message, {
      place,
      ...(error.fix === undefined ? {} : { fix: error.fix }),
    });
  }
}

function refuse(message: string, fix: string): never {
  throw new MeshError('grant_invalid', message, { fix });
}

const indexed = new WeakMap<ReadonlyMap<string, AdminGrant>, GrantList>();
const grantName = /^[a-z0-9][a-z0-9._-]{0,127}$/;
const maxIssuerLength = 2_048;
/** The most characters of a `sub`, and of a group's name. @see OpenID Connect Core section 2 */
export const maxSubjectLength = 255;
/** What must not stand in a name that people read. */
export const unprintable = /[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/;
