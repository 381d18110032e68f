import type { Place } from '../errors.ts';
import { type Attribute, isHttpOnly } from './document.ts';
import type { LintWorld } from './lint-world.ts';
import { type Policy, type Predicate, type Rule, sides } from './policy.ts';

/** A place of a policy's text, and the value there that is meant when it is one of several. */
export type Spot = { readonly place: Place; readonly length: number; readonly value?: string };

/** One thing that Istio and strict mode do differently. */
export type Difference = {
  /** Stable. */
  readonly code: string;
  /** As docs/policy.md has it, in Markdown; a test keeps the two in step. */
  readonly about: string;
  readonly istio: string;
  readonly strict: string;
  /**
   * Where a policy says something that the two may read differently. `inventory`: what no policy says is found by comparing
   * with the workloads. `reader`: strict mode refuses it when it reads the document.
   */
  readonly find: 'inventory' | 'reader' | ((policy: Policy, world: LintWorld) => readonly Spot[]);
};

/**
 * All that Istio mode and strict mode do differently: the table of docs/policy.md, what lint says of a policy, and what tests
 * hold both to.
 */
export const differences: readonly Difference[] = [
  {
    code: 'istio_no_policy',
    about: 'no policy applies',
    istio: 'allow',
    strict: 'deny',
    find: 'inventory',
  },
  {
    code: 'istio_only_deny',
    about: 'only DENY policies apply, none matches',
    istio: 'allow',
    strict: 'deny',
    find: (policy, world) =>
      policy.action === 'DENY' && !world.hasAllowBeside(policy) ? [whole(policy)] : [],
  },
  {
    code: 'istio_no_certificate',
    about: 'caller without a certificate',
    istio: 'matches rules without `from`, and `notPrincipals`',
    strict: 'always denied',
    find: (policy) =>
      policy.action === 'ALLOW' ? policy.rules.filter((rule) => !demandsCaller(rule)).map(ofRule) : [],
  },
  {
    code: 'istio_not_of_missing',
    about: 'a field reads what the call is known to lack',
    istio: 'positive is false, `not` is true',
    strict: 'the same, but a `not` of ALLOW does not match',
    find: (policy) =>
      policy.action === 'ALLOW'
        ? where(policy, ({ attribute, negated }) => negated && mayLack(attribute))
        : [],
  },
  {
    code: 'istio_untold',
    about: 'a field reads what the proxy does not tell',
    istio: 'positive is false, `not` is true',
    strict: 'ALLOW does not match, all others do',
    find: (policy) => where(policy, ({ attribute }) => mayBeUntold(attribute)),
  },
  {
    code: 'istio_header_lines',
    about: 'a header in several lines',
    istio: 'one that matches is enough',
    strict: 'for ALLOW all must match',
    find: (policy) =>
      policy.action === 'ALLOW' ? where(policy, ({ attribute }) => attribute === 'request.headers') : [],
  },
  {
    code: 'istio_header_empty',
    about: 'a header that is there and empty, and `*`',
    istio: 'matches',
    strict: 'cannot be told: ALLOW does not match, all others do',
    find: (policy) =>
      where(policy, ({ attribute, values }) => attribute === 'request.headers' && values.includes('*')),
  },
  {
    code: 'istio_header_bytes',
    about: 'a header with characters outside ASCII',
    istio: 'compared',
    strict: 'cannot be told: ALLOW does not match, all others do',
    find: (policy) => where(policy, ({ attribute }) => attribute === 'request.headers'),
  },
  {
    code: 'istio_header_alias',
    about: '`x_role` or `x.role` beside `x-role`',
    istio: 'another header',
    strict: 'cannot be told: ALLOW does not match, all others do',
    find: (policy) => where(policy, ({ attribute }) => attribute === 'request.headers'),
  },
  {
    code: 'istio_service_account',
    about: '`serviceAccounts` and a foreign trust domain',
    istio: 'matches',
    strict: 'does not',
    find: (policy) => where(policy, ({ attribute }) => attribute === 'source.serviceAccount'),
  },
  {
    code: 'istio_several_providers',
    about: 'several CUSTOM providers on one workload',
    istio: 'deny',
    strict: 'the first is named',
    find: (policy, world) =>
      policy.action === 'CUSTOM' && world.providersBeside(policy).size > 1 ? [whole(policy)] : [],
  },
  {
    code: 'istio_custom',
    about: 'a CUSTOM rule that matches',
    istio: 'its provider is asked',
    strict: 'deny; `authz eval` takes it to say yes',
    find: (policy) => (policy.action === 'CUSTOM' ? [whole(policy)] : []),
  },
  {
    code: 'istio_two_names',
    about: 'a certificate with two names',
    istio: 'any of them counts',
    strict: 'denied',
    find: (policy) => where(policy, ({ attribute }) => callerAttributes.has(attribute)),
  },
  {
    code: 'istio_mapped_address',
    about: 'an IPv4 address in IPv6 form',
    istio: 'another address',
    strict: 'the IPv4 address',
    find: (policy) => where(policy, ({ kind }) => kind === 'address'),
  },
  {
    code: 'istio_tcp',
    about: 'HTTP fields on a TCP connection',
    istio: 'ALLOW rule dropped, DENY loses the field',
    strict: 'ALLOW does not match, DENY does if the rest of it does',
    find: (policy) => where(policy, ({ attribute }) => isHttpOnly(attribute)),
  },
  {
    code: 'istio_namespace_suffix',
    about: '`namespaces: ["*a"]` and `.../ns/evil/sa/a`',
    istio: 'matches',
    strict: 'does not: the namespace is `evil`',
    find: (policy) =>
      where(
        policy,
        ({ attribute, values }) =>
          attribute === 'source.namespace' && values.some((value) => value.includes('*')),
      ),
  },
  {
    code: 'istio_namespace_foreign',
    about: "`namespaces: [shop]` and a foreign trust domain's `ns/shop`",
    istio: 'matches',
    strict: 'does not',
    find: (policy) => where(policy, ({ attribute }) => attribute === 'source.namespace'),
  },
  {
    code: 'istio_cluster_local',
    about: '`cluster.local` in `principals`',
    istio: 'stands for the local trust domain',
    strict: 'an ordinary trust domain',
    find: (policy) =>
      where(
        policy,
        ({ attribute, values }) =>
          attribute === 'source.principal' && values.some((value) => value.startsWith('cluster.local/')),
      ),
  },
  {
    code: 'istio_host_port',
    about: '`hosts: [a.b]` and `a.b:8080` or `a.b.`',
    istio: 'does not match',
    strict: 'matches',
    find: (policy) =>
      where(policy, (one) => one.kind === 'host' && one.matches.some(({ port }) => port === null)),
  },
  {
    code: 'istio_host_without_port',
    about: '`hosts: ["a.b:80"]` and `a.b` without a port',
    istio: 'does not match',
    strict: 'cannot be told: ALLOW does not match, DENY does',
    find: (policy) =>
      where(policy, (one) => one.kind === 'host' && one.matches.some(({ port }) => port !== null)),
  },
  {
    code: 'istio_refused',
    about: '`*` inside a value',
    istio: 'an ordinary character',
    strict: 'refused',
    find: 'reader',
  },
  {
    code: 'istio_path_repaired',
    about: 'paths with `//`, `/../`, `;`, `\\`, `%2F`, `%25` and the like',
    istio: 'repaired as configured',
    strict: 'call denied',
    find: (policy) => where(policy, ({ attribute }) => attribute === 'request.path'),
  },
  {
    code: 'istio_several_registrations',
    about: 'one identity, several registrations with different labels',
    istio: 'not applicable',
    strict: 'ALLOW must select all of them, DENY any',
    find: (policy, world) => (world.inventory?.isSplit(policy) ? [whole(policy)] : []),
  },
];

/** Attributes that say who calls. */
export const callerAttributes: ReadonlySet<Attribute> = new Set<Attribute>([
  'source.principal',
  'source.namespace',
  'source.serviceAccount',
  'source.trustDomain',
]);

/** The whole policy, as the line it begins on. */
export function whole({ place }: Policy): Spot {
  return { place, length: 1 };
}

/** A whole rule. */
export function ofRule({ place }: Rule): Spot {
  return { place, length: 1 };
}

/** The predicates of a policy that fit. */
export function where(policy: Policy, fits: (predicate: Predicate) => boolean): readonly Predicate[] {
  return policy.rules.flatMap((rule) => predicatesOf(rule).filter(fits));
}

/** The predicates of a policy with a value that fits, and the first such value of each. */
export function whereValue(
  policy: Policy,
  isAbout: (predicate: Predicate) => boolean,
  fits: (value: string) => boolean,
): readonly Spot[] {
  return where(policy, isAbout).flatMap(({ place, length, values }) => {
    const value = values.find(fits);
    return value === undefined ? [] : [{ place, length, value }];
  });
}

/** All predicates of a rule. */
export function predicatesOf(rule: Rule): readonly Predicate[] {
  return sides.flatMap((side) => rule[side].flatMap(({ predicates }) => predicates));
}

/** Whether a rule matches nobody without a certificate, in Istio's reading too. */
export function demandsCaller({ from, when }: Rule): boolean {
  const says = ({ predicates }: Rule['from'][number]): boolean =>
    predicates.some(({ attribute, negated }) => !negated && callerAttributes.has(attribute));
  return when.some(says) || (from.length > 0 && from.every(says));
}

function mayLack(attribute: Attribute): boolean {
  return (
    attribute === 'request.headers' ||
    attribute === 'connection.sni' ||
    attribute === 'filter.metadata' ||
    attribute.startsWith('request.auth.')
  );
}

function mayBeUntold(attribute: Attribute): boolean {
  return mayLack(attribute) || attribute.endsWith('.ip');
}
