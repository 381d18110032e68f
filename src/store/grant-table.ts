import { MeshError, quote } from '../errors.ts';
import { type Grant, parseGrant } from '../identity/access.ts';
import type { AdminGrant, GrantSubject } from '../identity/admin-grant.ts';
import type { Database } from './database.ts';

/** Stores what a step of the mesh changes of grants, inside the caller's transaction. */
export function storeGrants(
  db: Database,
  change: {
    readonly putGrants?: readonly AdminGrant[] | undefined;
    readonly deleteGrants?: readonly string[] | undefined;
  },
): void {
  const deleteGrant = db.prepare('DELETE FROM admin_grants WHERE name = ?');
  for (const name of change.deleteGrants ?? []) deleteGrant.run(name);
  const putGrant = db.prepare(
    `INSERT OR REPLACE INTO admin_grants
       (name, subject_kind, subject_issuer, subject_value, role, namespaces, revision)
     VALUES (?, ?, ?, ?, ?, ?, ?)`,
  );
  for (const { name, subject, role, namespaces, revision } of change.putGrants ?? []) {
    const issuer = subject.kind === 'spiffe-id' ? '' : subject.issuer;
    putGrant.run(name, subject.kind, issuer, subject.value, role, JSON.stringify(namespaces), revision);
  }
}

/** All grants, by name. @throws MeshError `store_corrupt` */
export function readGrants(db: Database): readonly AdminGrant[] {
  return db.prepare<[], GrantRow>('SELECT * FROM admin_grants ORDER BY name').all().map(grantOf);
}

/** Grants as the text of a column. */
export function grantsText(grants: readonly Grant[]): string {
  return JSON.stringify(grants.map(({ role, namespaces }) => ({ role, namespaces })));
}

/**
 * The grants of a column, proven.
 * @throws MeshError `store_corrupt`: whoever holds a grant that cannot be read must not be taken for somebody else
 */
export function grantsOf(text: string, owner: string): readonly Grant[] {
  try {
    return (JSON.parse(text) as StoredGrant[]).map(proven);
  } catch (cause) {
    throw corrupt(`the stored grants of ${quote(owner)}`, cause);
  }
}

type StoredGrant = { readonly role: string; readonly namespaces: readonly string[] | null };

type GrantRow = {
  name: string;
  subject_kind: GrantSubject['kind'];
  subject_issuer: string;
  subject_value: string;
  role: string;
  namespaces: string;
  revision: number;
};

function grantOf(row: GrantRow): AdminGrant {
  const { name, subject_kind: kind, subject_issuer: issuer, subject_value: value, role, revision } = row;
  try {
    const namespaces = JSON.parse(row.namespaces) as StoredGrant['namespaces'];
    const subject: GrantSubject = kind === 'spiffe-id' ? { kind, value } : { kind, issuer, value };
    return { ...proven({ role, namespaces }), name, subject, revision };
  } catch (cause) {
    throw corrupt(`the stored grant ${quote(name)}`, cause);
  }
}

function proven({ role, namespaces }: StoredGrant): Grant {
  return parseGrant(namespaces === null ? { role, allNamespaces: true } : { role, namespaces });
}

function corrupt(what: string, cause: unknown): MeshError {
  return new MeshError('store_corrupt', `${what} cannot be read`, {
    fix: 'restore the data directory from a backup',
    cause,
  });
}
