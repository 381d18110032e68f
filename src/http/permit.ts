import { MeshError, quote } from '../errors.ts';
import { covers, type Permission, type Scope, scopeOf } from '../identity/access.ts';
import type { BanTarget } from '../identity/ban.ts';
import type { RegistrationEntry } from '../identity/entry.ts';
import type { Edit, Permit } from '../identity/permit.ts';
import { kubernetesNames, SpiffeId, type TrustDomain } from '../spiffe/id.ts';
import type { AdminCaller } from './authenticate.ts';

/** Whether a SPIFFE ID is that of an administrator: whoever has its certificate has their grants. */
export type IsAdministrator = (id: SpiffeId) => boolean;

/** The namespace of an identity: that of an ID of the form `/ns/<namespace>/sa/<service account>`, else none. */
export function namespaceOf(id: SpiffeId): string | undefined {
  return kubernetesNames(id)?.namespace;
}

/** The namespace that a ban is about: none for a serial, a key, or an identity of another trust domain. */
export function namespaceOfBan({ kind, value }: BanTarget, trustDomain: TrustDomain): string | undefined {
  if (kind !== 'spiffe-id') return undefined;
  const id = SpiffeId.parse(value);
  return id.memberOf(trustDomain) ? namespaceOf(id) : undefined;
}

/**
 * Refuses what a caller's grants do not cover.
 * @param namespace undefined for what belongs to none
 * @param what it is about, for people
 * @throws MeshError `forbidden`
 */
export function demandNamespace(
  caller: AdminCaller,
  permission: Permission,
  namespace: string | undefined,
  what: string,
): void {
  if (!covers(scopeOf(caller.grants, permission), namespace)) throw lacking(permission, namespace, what);
}

/**
 * The part of keyed values that a scope covers. Of the same values and the same scope it is the same map, in which pages
 * can be turned without sorting it again.
 */
export function withinScope<T>(
  values: ReadonlyMap<string, T>,
  scope: Scope | undefined,
  namespaceOfValue: (value: T) => string | undefined,
): ReadonlyMap<string, T> {
  if (scope === 'everywhere') return values;
  const key = scope === undefined ? '' : [...scope].sort().join(',');
  const known = narrowed.get(values) ?? new Map<string, ReadonlyMap<string, unknown>>();
  narrowed.set(values, known);
  const found = known.get(key) as ReadonlyMap<string, T> | undefined;
  if (found !== undefined) return found;
  const within = new Map([...values].filter(([, value]) => covers(scope, namespaceOfValue(value))));
  // Of a few scopes only: each is as large as what it was taken from.
  if (known.size < maxNarrowed) known.set(key, within);
  return within;
}

/** What a caller may edit. */
export function permitOf(caller: AdminCaller, isAdministrator: IsAdministrator): Permit {
  const { grants } = caller;
  const entries = scopeOf(grants, 'entries:write');
  return {
    sees: ({ spiffeId }) => covers(entries, namespaceOf(spiffeId)),
    demand: (edit, place) => {
      const refusal = refuseEdit(caller, edit, isAdministrator);
      if (refusal === undefined) return;
      throw place === undefined
        ? refusal
        : new MeshError(refusal.code, refusal.message, { place, ...fixOf(refusal) });
    },
  };
}

function refuseEdit(
  caller: AdminCaller,
  edit: Edit,
  isAdministrator: IsAdministrator,
): MeshError | undefined {
  const lacks = (permission: Permission, namespace: string | undefined): boolean =>
    !covers(scopeOf(caller.grants, permission), namespace);
  switch (edit.kind) {
    case 'entry': {
      for (const entry of [edit.before, edit.after]) {
        if (entry === undefined) continue;
        const namespace = namespaceOf(entry.spiffeId);
        const what = `the entry ${quote(entry.id)}`;
        if (lacks('entries:write', namespace)) return lacking('entries:write', namespace, what);
        // INVARIANT: whoever decides which process is an administrator is one.
        if (isAdministrator(entry.spiffeId) && lacks('grants:write', undefined)) {
          return lacking('grants:write', undefined, `${what}, whose SPIFFE ID is an administrator's,`);
        }
        // Whoever is taken for this server is shown the tokens of administrators.
        if (entry === edit.after && entry.dnsNames.includes(ownName) && lacks('grants:write', undefined)) {
          return lacking('grants:write', undefined, `the DNS name ${quote(ownName)} of ${what}`);
        }
        const name = foreignName(entry, scopeOf(caller.grants, 'entries:write'), namespace);
        if (entry === edit.after && name !== undefined) {
          return lacking('entries:write', undefined, `the DNS name ${quote(name)} of ${what}`);
        }
      }
      return undefined;
    }
    case 'policy':
      return lacks('policies:write', edit.namespace)
        ? lacking('policies:write', edit.namespace, `the policy ${quote(`${edit.namespace}/${edit.name}`)}`)
        : undefined;
    case 'node-alias': {
      const what = `the node alias ${quote(edit.name)}`;
      if (lacks('nodes:write', undefined)) return lacking('nodes:write', undefined, what);
      // It says on which nodes an administrator may be.
      const owned = edit.entries.find(({ spiffeId }) => isAdministrator(spiffeId));
      return owned !== undefined && lacks('grants:write', undefined)
        ? lacking('grants:write', undefined, `${what}, which ${quote(owned.id)} of an administrator names,`)
        : undefined;
    }
    case 'grant':
      return lacks('grants:write', undefined)
        ? lacking('grants:write', undefined, `the grant ${quote(edit.name)}`)
        : undefined;
    default:
      return edit satisfies never;
  }
}

/**
 * A DNS name that whoever is confined may not give: a certificate for it would be believed to be of somewhere else. Of a
 * namespace are `<name>.<namespace>` and what Kubernetes makes of it.
 */
function foreignName(
  { dnsNames }: RegistrationEntry,
  scope: Scope | undefined,
  namespace: string | undefined,
): string | undefined {
  if (scope === 'everywhere') return undefined;
  return dnsNames.find((name) => {
    const [, second, third, ...more] = name.split('.');
    const isLocal =
      third === undefined || (third === 'svc' && ['', 'cluster.local'].includes(more.join('.')));
    return second !== namespace || !isLocal;
  });
}

function lacking(permission: Permission, namespace: string | undefined, what: string): MeshError {
  const where = namespace === undefined ? 'for the whole mesh' : `in the namespace ${quote(namespace)}`;
  return new MeshError('forbidden', `${what} needs the permission ${permission} ${where}`, {
    fix: 'ask an admin for a grant, or somebody who has one',
  });
}

function fixOf({ fix }: MeshError): { readonly fix?: string } {
  return fix === undefined ? {} : { fix };
}

/** What the admin API is called in its own certificate. */
export const ownName = 'localhost';
const narrowed = new WeakMap<ReadonlyMap<string, unknown>, Map<string, ReadonlyMap<string, unknown>>>();
const maxNarrowed = 16;
