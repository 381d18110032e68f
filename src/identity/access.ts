import { MeshError, quote } from '../errors.ts';

/**
 * Everything the admin API can be asked to do, and how far it reaches: `namespaced`, each thing of it belongs to a
 * namespace, or to none; `mesh`, it concerns the whole mesh, so that a grant for some namespaces does not give it;
 * `shared`, what it shows is made to be known by everybody.
 */
const reaches = {
  /** The description of this API. */
  'api:read': 'shared',
  'trust:read': 'shared',
  'jwt:validate': 'shared',
  'status:read': 'mesh',
  'metrics:read': 'mesh',
  'ca:read': 'mesh',
  'ca:write': 'mesh',
  'jwt:mint': 'mesh',
  'entries:read': 'namespaced',
  'entries:write': 'namespaced',
  'policies:read': 'namespaced',
  'policies:write': 'namespaced',
  /** Moving the number of the policies ahead, which cannot be undone. */
  'policies:renumber': 'mesh',
  'authz:explain': 'namespaced',
  /** Sending documents; what each of them is says what else it takes. */
  'documents:apply': 'namespaced',
  'bans:read': 'namespaced',
  'bans:write': 'namespaced',
  'nodes:read': 'mesh',
  'nodes:write': 'mesh',
  'join-tokens:read': 'mesh',
  'join-tokens:write': 'mesh',
  'audit:read': 'mesh',
  /** Who calls whom. */
  'audit:decisions': 'mesh',
  /** The values that leaves only commit to. */
  'audit:personal': 'mesh',
  /** Forgetting them for good. */
  'audit:shred': 'mesh',
  'tokens:read': 'mesh',
  'tokens:write': 'mesh',
  'grants:read': 'mesh',
  'grants:write': 'mesh',
} as const satisfies Record<string, 'shared' | 'mesh' | 'namespaced'>;

export type Permission = keyof typeof reaches;

/** Every permission, in the order in which people are shown them. */
export const permissions = Object.keys(reaches) as readonly Permission[];

/** What somebody may be over the admin API, the least first. None of them includes another but by what stands below. */
export const adminRoles = ['viewer', 'auditor', 'policy-author', 'operator', 'admin'] as const;
export type AdminRole = (typeof adminRoles)[number];

const viewing: readonly Permission[] = [
  'api:read',
  'trust:read',
  'jwt:validate',
  'status:read',
  'metrics:read',
  'ca:read',
  'entries:read',
  'policies:read',
  'authz:explain',
  'bans:read',
  'nodes:read',
  'audit:read',
];

/** INVARIANT: what leads to being somebody else (tokens, grants, join tokens, minting, CA keys) is admin's alone. */
export const rolePermissions: Readonly<Record<AdminRole, ReadonlySet<Permission>>> = {
  viewer: new Set(viewing),
  auditor: new Set([
    ...viewing,
    'audit:decisions',
    'audit:personal',
    'join-tokens:read',
    'tokens:read',
    'grants:read',
  ]),
  'policy-author': new Set([
    'api:read',
    'trust:read',
    'entries:read',
    'policies:read',
    'policies:write',
    'authz:explain',
    'documents:apply',
  ]),
  operator: new Set([
    ...viewing,
    'entries:write',
    'bans:write',
    'nodes:write',
    'documents:apply',
    'audit:decisions',
  ]),
  admin: new Set(permissions),
};

/** A role, and where it holds. */
export type Grant = {
  readonly role: AdminRole;
  /** Null: everywhere, the root namespace included. Else 1 to 64 names, sorted, without duplicates. */
  readonly namespaces: readonly string[] | null;
};

/** Where a permission holds: in the whole mesh, or in these namespaces. */
export type Scope = 'everywhere' | ReadonlySet<string>;

/** Where the grants together give a permission; undefined when nowhere. */
export function scopeOf(grants: readonly Grant[], permission: Permission): Scope | undefined {
  const found = new Set<string>();
  let isGiven = false;
  for (const { role, namespaces } of grants) {
    if (!rolePermissions[role].has(permission)) continue;
    if (namespaces === null || reaches[permission] === 'shared') return 'everywhere';
    if (reaches[permission] === 'mesh') continue;
    isGiven = true;
    for (const namespace of namespaces) found.add(namespace);
  }
  return isGiven ? found : undefined;
}

/** Whether a scope covers something; `namespace` is undefined for what belongs to none. */
export function covers(scope: Scope | undefined, namespace: string | undefined): boolean {
  if (scope === undefined || scope === 'everywhere') return scope === 'everywhere';
  return namespace !== undefined && scope.has(namespace);
}

/** The roles that give a permission, the least first. */
export function rolesWith(permission: Permission): readonly AdminRole[] {
  return adminRoles.filter((role) => rolePermissions[role].has(permission));
}

/** Roles in one word, for the record: `operator+policy-author`; `none` for nobody. */
export function roleText(grants: readonly Grant[]): string {
  const roles = new Set(grants.map(({ role }) => role));
  return adminRoles.filter((role) => roles.has(role)).join('+') || 'none';
}

/** A grant as somebody writes it. */
export type GrantWish = {
  readonly role: string;
  readonly namespaces?: readonly string[] | undefined;
  readonly allNamespaces?: boolean | undefined;
};

/**
 * Checks what somebody wrote. A policy-author is confined, or expressly not: policies of the root namespace bind everybody,
 * and nobody shall be given them by leaving a word out. Roles whose work has no namespaces cannot be confined.
 * @throws MeshError `grant_invalid`
 */
export function parseGrant({ role: text, namespaces, allNamespaces = false }: GrantWish): Grant {
  const role = adminRoles.find((known) => known === text);
  if (role === undefined) refuse(`${quote(text)} is no role`, `use ${adminRoles.join(', ')}`);
  if (namespaces === undefined) {
    if (role === 'policy-author' && !allNamespaces) {
      refuse(
        'a policy-author needs namespaces',
        'name them, or say that it is for all, the root namespace included',
      );
    }
    return { role, namespaces: null };
  }
  if (allNamespaces) refuse('the grant names namespaces and all of them', 'give one of the two');
  if (!confinable.has(role)) {
    refuse(
      `the role ${role} cannot be confined to namespaces`,
      `leave them out, or use ${[...confinable].join(', ')}`,
    );
  }
  if (namespaces.length === 0 || namespaces.length > maxGrantNamespaces) {
    refuse(`a grant has 1 to ${maxGrantNamespaces} namespaces`, 'leave them out for the whole mesh');
  }
  for (const namespace of namespaces) {
    if (!namespaceName.test(namespace)) {
      refuse(`${quote(namespace)} is no namespace`, 'use 1 to 63 of a-z 0-9 -, as Kubernetes does');
    }
  }
  return { role, namespaces: [...new Set(namespaces)].sort() };
}

/** `everywhere`, or the namespaces of a grant, separated by commas. */
export function formatNamespaces({ namespaces }: Grant): string {
  return namespaces === null ? 'everywhere' : namespaces.join(',');
}

function refuse(message: string, fix: string): never {
  throw new MeshError('grant_invalid', message, { fix });
}

/** The most namespaces of one grant. */
export const maxGrantNamespaces = 64;
const confinable: ReadonlySet<AdminRole> = new Set(['viewer', 'policy-author', 'operator']);
const namespaceName = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;
